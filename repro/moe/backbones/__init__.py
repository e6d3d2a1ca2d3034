"""Backbones: how a Hugging Face architecture is converted, counted and tokenized; contract in `base`."""
