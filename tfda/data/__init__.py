"""Domains, the batches made of them, and checks of both."""
