"""Reference implementation of adaptive gating in mixture-of-experts language models (EMNLP 2023).

What other programs may rely on: `convert`, `record_routing`, `flops`, `load` (docs/api.md), and `repro.hf`.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.api import convert, flops, load, record_routing

__all__ = ["__version__", "convert", "flops", "load", "record_routing"]
__version__ = "0.1.0"

# How long GNU OpenMP's idle threads spin before they sleep; read once, when torch is imported. Its own
# 300,000 turns, a millisecond, keep a core from the threads that compute experts side by side.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the API when it is first asked for: the command line starts without torch."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from repro import api

        return getattr(api, name)
