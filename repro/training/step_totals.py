"""What is known of a step, added up over processes in one vector: the only thing a step waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields

import torch
from torch import Tensor

from repro.moe.flops import Work
from repro.moe.routing import RoutingTape
from repro.moe.totals import RoutingTotals
from repro.moe.volume import Volume
from repro.training.placement import Placement

_VOLUME = [entry.name for entry in fields(Volume)]


@dataclass(frozen=True, kw_only=True)
class StepTotals:
    """One optimizer step, over all processes."""

    loss: float
    """Mean over all loss terms of the step."""
    auxiliary_loss: float
    gradient_norm: float
    stop: bool
    """Whether a process was asked to stop."""
    work: Work
    routing: RoutingTotals


@dataclass(kw_only=True)
class OwnTotals:
    """The part of this process in a step, as it grows; losses and counts stay on the device."""

    loss: Tensor
    """Its part of the mean over all loss terms."""
    auxiliary_loss: Tensor
    real: Volume = field(default_factory=Volume)
    padded: Volume = field(default_factory=Volume)
    layers_LC: Tensor | None = None
    """`RoutingTape.totals_LC`, summed."""

    def add(self, tape: RoutingTape, masks: Mapping[str, Tensor], *, idle: bool) -> None:
        """Count a forward pass.

        Args:
            masks: stack -> mask of real tokens, (B, S), on the CPU.
            idle: of a process without a sample: nothing of it counts, but the layers that there are.
        """
        layers_LC = tape.totals_LC()
        if idle:
            layers_LC = torch.zeros_like(layers_LC)
        else:
            self.real += Volume.of({stack: mask.sum(1).tolist() for stack, mask in masks.items()})
            self.padded += Volume.of({stack: [mask.shape[1]] * len(mask) for stack, mask in masks.items()})
        self.layers_LC = layers_LC if self.layers_LC is None else self.layers_LC + layers_LC

    def over_processes(self, placement: Placement, norm: Tensor, *, stop: bool) -> StepTotals:
        """Add up the parts of all processes, and wait for the device.

        Args:
            norm: of all gradients, the same in every process.
            stop: whether this process was asked to stop.
        """
        assert self.layers_LC is not None
        device, processes = self.loss.device, placement.processes
        known = [float(stop), *astuple(self.real), *astuple(self.padded)]
        vector = torch.cat(
            [
                torch.stack([self.loss, self.auxiliary_loss, norm / processes]).double(),
                torch.tensor(known, dtype=torch.float64).to(device, non_blocking=True),
                self.layers_LC.to(device).reshape(-1),
            ]
        )
        loss, auxiliary_loss, norm_, stops, *rest = placement.sum(vector).tolist()
        count = len(_VOLUME)
        real, padded = (
            Volume(**dict(zip(_VOLUME, map(int, rest[start : start + count]), strict=True)))
            for start in (0, count)
        )
        layers, width = self.layers_LC.shape
        numbers = rest[2 * count :]
        rows = [numbers[layer * width : (layer + 1) * width] for layer in range(layers)]
        return StepTotals(
            loss=loss,
            auxiliary_loss=auxiliary_loss,
            gradient_norm=norm_,
            stop=stops > 0,
            work=Work.of_rows(rows, real, padded),
            routing=RoutingTotals.of_rows(rows),
        )
