"""Every adaptive gate at several budgets, beside dense, top-1 and top-2: quality at equal routed FLOPs.

A label ends with the mean number of experts per token that its setting aims at. Gates with a target
or a fixed number of choices get it as such; thresholds are those at which a fresh gate has that mean
on layer-normed random tokens, so where training takes them is a result.

AdaMoE's weights sum to 1, those of the softmax gates do not, so its layers give larger outputs.
`adamoe-raw` is its rule with the weights of the others: a difference to them is one of rules.
"""

TABLE = "gates"
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "dense": ("dense", {}),
    "top-2": ("top-2", {}),
    "top-1": ("top-1", {}),
    "hash": ("hash", {}),
    "adaptive 1.1": ("adaptive", {"gate.threshold": 0.03}),
    "adaptive 1.25": ("adaptive", {"gate.threshold": 0.08}),
    "adaptive 1.5": ("adaptive", {"gate.threshold": 0.19}),
    "adaptive 1.75": ("adaptive", {"gate.threshold": 0.345}),
    "adaptive-k 1.1": ("adaptive_k", {"gate.threshold": 0.0265}),
    "adaptive-k 1.25": ("adaptive_k", {"gate.threshold": 0.059}),
    "adaptive-k 1.5": ("adaptive_k", {"gate.threshold": 0.1}),
    "adaptive-k 1.75": ("adaptive_k", {"gate.threshold": 0.14}),
    "adaptive-budget 1.1": ("adaptive_budget", {"gate.share": 0.1}),
    "adaptive-budget 1.25": ("adaptive_budget", {"gate.share": 0.25}),
    "adaptive-budget 1.5": ("adaptive_budget", {"gate.share": 0.5}),
    "adaptive-budget 1.75": ("adaptive_budget", {"gate.share": 0.75}),
    "ratio 1.1": ("ratio", {"gate.share": 0.1}),
    "ratio 1.25": ("ratio", {"gate.share": 0.25}),
    "ratio 1.5": ("ratio", {"gate.share": 0.5}),
    "ratio 1.75": ("ratio", {"gate.share": 0.75}),
    "adamoe 1.1": ("adamoe", {"gate.k": 3, "gate.nulls": 28}),
    "adamoe 1.25": ("adamoe", {"gate.k": 3, "gate.nulls": 22}),
    "adamoe 1.5": ("adamoe", {"gate.k": 3, "gate.nulls": 16}),
    "adamoe 1.75": ("adamoe", {"gate.k": 3, "gate.nulls": 11}),
    "adamoe-raw 1.1": ("adamoe", {"gate.k": 3, "gate.nulls": 28, "gate.combine": "raw"}),
    "adamoe-raw 1.25": ("adamoe", {"gate.k": 3, "gate.nulls": 22, "gate.combine": "raw"}),
    "adamoe-raw 1.5": ("adamoe", {"gate.k": 3, "gate.nulls": 16, "gate.combine": "raw"}),
    "adamoe-raw 1.75": ("adamoe", {"gate.k": 3, "gate.nulls": 11, "gate.combine": "raw"}),
    "top-p 1.1": ("top_p", {"gate.p": 0.157}),
    "top-p 1.25": ("top_p", {"gate.p": 0.186}),
    "top-p 1.5": ("top_p", {"gate.p": 0.23}),
    "top-p 1.75": ("top_p", {"gate.p": 0.275}),
    "learned-threshold 1.1": ("learned_threshold", {"gate.highest": 5.46}),
    "learned-threshold 1.25": ("learned_threshold", {"gate.highest": 5.13}),
    "learned-threshold 1.5": ("learned_threshold", {"gate.highest": 4.67}),
    "learned-threshold 1.75": ("learned_threshold", {"gate.highest": 4.3}),
    "top-any 1.1": ("top_any", {"gate.threshold": 0.132}),
    "top-any 1.25": ("top_any", {"gate.threshold": 0.126}),
    "top-any 1.5": ("top_any", {"gate.threshold": 0.1175}),
    "top-any 1.75": ("top_any", {"gate.threshold": 0.11}),
    "relu 1.1": ("relu", {"gate.k": 1.1}),
    "relu 1.25": ("relu", {"gate.k": 1.25}),
    "relu 1.5": ("relu", {"gate.k": 1.5}),
    "relu 1.75": ("relu", {"gate.k": 1.75}),
    "zero-compute 1.1": ("zero_compute", {"gate.zeros": 11, "gate.constants": 1}),
    "zero-compute 1.25": ("zero_compute", {"gate.zeros": 8, "gate.constants": 1}),
    "zero-compute 1.5": ("zero_compute", {"gate.zeros": 3, "gate.constants": 1}),
    "zero-compute 1.75": ("zero_compute", {"gate.zeros": 0, "gate.constants": 1}),
    "expert-choice 1.1": ("expert_choice", {"gate.k": 1.1}),
    "expert-choice 1.25": ("expert_choice", {"gate.k": 1.25}),
    "expert-choice 1.5": ("expert_choice", {"gate.k": 1.5}),
    "expert-choice 1.75": ("expert_choice", {"gate.k": 1.75}),
}
