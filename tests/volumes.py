"""Volumes and masks of batches of an encoder."""

import torch

from repro.moe.volume import Volume


def encoded(*lengths: int) -> Volume:
    """The volume of sequences of an encoder."""
    return Volume.of({"encoder": lengths})


def mask_of(*lengths: int) -> dict[str, torch.Tensor]:
    """Masks of a padded batch of an encoder."""
    return {"encoder": (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()}
