"""Command-line tools: `python -m tools.NAME`, or `tfda NAME` when installed."""

import os

# TensorFlow's C++ log, before TensorFlow is imported: its notes about missing
# GPU libraries are no news to who runs a tool. 0 shows them.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
