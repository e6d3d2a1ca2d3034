"""Dense, top-2, top-1 and adaptive gating on every task: Table 3 of the paper."""

TABLE = "table3"
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "dense": ("dense", {}),
    "top-2": ("top-2", {}),
    "top-1": ("top-1", {}),
    "adaptive": ("adaptive", {}),
}
