"""The learning rate over the steps of a run."""

import math

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from repro.config import TrainingConfig


def make_schedule(optimizer: AdamW, settings: TrainingConfig, total_steps: int) -> LambdaLR:
    """Linear warm-up over the first `warmup` of the steps, then linear decay to 0."""
    warmup = math.ceil(settings.warmup * total_steps)

    def scale(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup))

    return LambdaLR(optimizer, scale)
