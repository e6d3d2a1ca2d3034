"""AdamW over the parameters of a model."""

from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from repro.config import TrainingConfig


def make_optimizer(model: nn.Module, settings: TrainingConfig) -> AdamW:
    """Fused AdamW over all parameters. Norms and biases are not decayed, as is usual for these models."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_decayed = not name.endswith((".b1", ".b2")) and parameter.ndim >= 2
        # Plain and distributed tensors cannot be updated by one operation.
        groups.setdefault((not is_decayed, isinstance(parameter, DTensor)), []).append(parameter)
    return AdamW(
        [
            {"params": group, "weight_decay": 0.0 if not_decayed else settings.weight_decay}
            for (not_decayed, _), group in sorted(groups.items(), key=lambda item: item[0])
        ],
        lr=settings.learning_rate,
        fused=True,
    )
