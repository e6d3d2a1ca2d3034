"""What families without MoE blocks share."""

from transformers import PreTrainedConfig


def no_router(config: PreTrainedConfig) -> None:
    """Return None: every network is dense."""
