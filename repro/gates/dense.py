"""No experts: the model is left untouched, so that its time is honest (paper 4.2)."""

from dataclasses import dataclass

ADAPTIVE = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """A dense model has no gate and no options."""


Gate = None
