"""AdamW, its schedule, and the clipping of gradients."""

from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW

from repro.config import TrainingConfig


def make_optimizer(model: nn.Module, settings: TrainingConfig) -> AdamW:
    """Fused AdamW over all parameters. Norms and biases are not decayed, as is usual for these models."""
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        is_bias = name.endswith((".b1", ".b2")) or parameter.ndim < 2
        groups[not is_bias].append(parameter)
    return AdamW(
        [
            {"params": groups[True], "weight_decay": settings.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        fused=True,
    )


def clip_gradients(model: nn.Module, limit: float | None) -> float:
    """Scale all gradients down to a joint norm of `limit`; their norm before.

    Gradients that keep to the limit are left alone: multiplying those of 16 experts by 1 would take
    longer than reading them.
    """
    parameters = list(model.parameters())
    norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if limit is not None and limit / (float(norm) + 1e-6) < 1:
        clip_grads_with_norm_(parameters, limit, norm)
    return float(norm)
