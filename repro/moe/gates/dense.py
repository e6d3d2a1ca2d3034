"""No experts: the model is left untouched, so that its time is honest (paper 4.2).

Source: the baseline "Dense models", a "Transformer with no MoE layers", of "Adaptive Gating in
Mixture-of-Experts based Language Models" (Li et al., 2023, https://arxiv.org/abs/2310.07188), 4.2.
"""

from repro.config import bounded, settings


@settings
class Config:
    """The option of a dense model, which has no gate."""

    ffn_scale: float = bounded(1.0, above=0)
    """Factor of the output of every FFN at the start: of its second matrix and bias. Ours, a control."""


Gate = None
