"""Reference implementation of adaptive gating in mixture-of-experts language models (EMNLP 2023)."""

import os

__version__ = "0.1.0"

# How long GNU OpenMP's idle threads spin before they sleep; read once, when torch is imported. Its own
# 300,000 turns, a millisecond, keep a core from the threads that compute experts side by side.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
