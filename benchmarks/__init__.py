"""Speed and memory: scripts, with their figures beside them."""
