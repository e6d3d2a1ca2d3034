"""No experts: the model is left untouched, so that its time is honest (paper 4.2).

Source: the baseline "Dense models", a "Transformer with no MoE layers", of "Adaptive Gating in
Mixture-of-Experts based Language Models" (Li et al., 2023, https://arxiv.org/abs/2310.07188), 4.2.
"""

from repro.config import settings


@settings
class Config:
    """A dense model has no gate and no options."""


Gate = None
