"""Gates: the rules that decide how many experts, and which, each token is given.

A file `gates/<name>.py` is a gate. It exposes

* `Config`: a frozen dataclass of its options, all with defaults;
* `Gate`: an `nn.Module` built as `Gate(config, d_model, num_experts)` and called as
  `gate(x_TD, mask_T, best_only=False) -> Routing`. With `best_only` every token uses its best
  expert alone (top-1 gating at inference). `Gate` is None for `dense`, which has no MoE layers.
* `ADAPTIVE`: whether tokens of one batch can differ in their number of experts.

And where its rule needs it:

* `ENCODERS_ONLY`: the reason why it cannot stand in a decoder; `moe.convert` then refuses one.
* `Gate.TOKEN_IDS = True`: it is called with `ids_T=`, the token ids, or None where there are none.
* `Gate.macs_per_token`: multiply-adds of the gate itself for a token, experts that are no FFNs
  included; those of a linear router over the experts if it has none.
* `Gate.update_state(routing)`: moves its buffers by what it decided for one training batch. The
  trainer has it called after the backward pass of the batch, once, so that a forward pass repeated
  by gradient checkpointing decides as the first one did. With several processes the state is that of
  the first, from its share of the batch.

A `Router` (`gates/_softmax.py`) anywhere in a gate is fitted to the norm before the layer: `logit_std` holds
behind pretrained norms too.

A gate decides in fp32, never routes padding, breaks ties by the lowest expert index, and returns
its auxiliary loss multiplied by its own coefficient. What experts that are no FFNs give a token is
`Routing.extra_TD`. It keeps nothing between calls that is not a registered buffer; calling it changes
nothing.

The docstring of `Gate` says, under these words:

* Source: the paper (title, authors, year, link), with the section and equation of each formula. A number
  that was not read in the paper itself is marked as second-hand; without a number none was seen.
* Defaults: where the default options come from; "ours" if from no paper.
* Differences: what is otherwise than in the source, and why.

"Adaptive Gating" alone is "Adaptive Gating in Mixture-of-Experts based Language Models" (Li et al., 2023,
https://arxiv.org/abs/2310.07188), the paper that this project replicates.
"""
