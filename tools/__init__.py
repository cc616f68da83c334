"""Command-line tools: `python -m tools.NAME`, or `tfda NAME` when installed."""
