"""Reference implementation of adaptive gating in mixture-of-experts language models (EMNLP 2023)."""

__version__ = "0.1.0"
