"""Adaptive gating in the order of its curriculum, in random order and in two simpler ones: Table 6.

The paper explains the time that the curriculum saves by tokens with two experts holding up those
with one. The `padded` back-end has that bottleneck on one device, `grouped` has not.
"""

TABLE = "table6_detail"
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "cosine": ("adaptive", {"training.curriculum": "cosine"}),
    "random": ("adaptive", {"training.curriculum": "random"}),
    "count": ("adaptive", {"training.curriculum": "count"}),
    "length": ("adaptive", {"training.curriculum": "length"}),
    "cosine padded": ("adaptive", {"training.curriculum": "cosine", "experts.backend": "padded"}),
    "random padded": ("adaptive", {"training.curriculum": "random", "experts.backend": "padded"}),
}
