"""Expert back-ends: ways to compute y_t = sum over the experts e of token t of w_te E_e(x_t).

A file `experts/<name>.py` is a back-end. It exposes

* `available(device) -> str | None`: the reason why it cannot run on a `torch.device`, or None;
* `forward(x_TD, routing, weights) -> y_TD`: the sum above for all tokens, 0 for tokens without
  an expert; differentiable in `x_TD`, `routing.weight_A` and every tensor of `weights`;
* `rows_computed(load, device, dtype) -> int`: expert rows it multiplies for these loads where the
  products are done there in that type, padding slots included.

All back-ends equal `loop` in values and gradients. An expert without tokens gets zero gradients.
"""
