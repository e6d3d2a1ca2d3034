"""Gates: the rules that decide how many experts, and which, each token is given.

A file `gates/<name>.py` is a gate. It exposes

* `Config`: a frozen dataclass of its options, all with defaults;
* `Gate`: an `nn.Module` built as `Gate(config, d_model, num_experts)` and called as
  `gate(x_TD, mask_T, best_only=False) -> Routing`. With `best_only` every token uses its best
  expert alone (top-1 gating at inference). `Gate` is None for `dense`, which has no MoE layers.
* `ADAPTIVE`: whether tokens of one batch can differ in their number of experts.

A gate decides in fp32, never routes padding, breaks ties by the lowest expert index, and returns
its auxiliary loss multiplied by its own coefficient. It keeps nothing between calls that is not a
registered buffer.
"""
