"""Adaptive gating at several thresholds, against top-2: Table 5 of the paper."""

TABLE = "table5_detail"
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "top-2": ("top-2", {}),
    "0.05": ("adaptive", {"gate.threshold": 0.05}),
    "0.1": ("adaptive", {"gate.threshold": 0.1}),
    "0.2": ("adaptive", {"gate.threshold": 0.2}),
    "0.3": ("adaptive", {"gate.threshold": 0.3}),
    "0.4": ("adaptive", {"gate.threshold": 0.4}),
}
VALUES = ("adaptive", "gate.threshold")
