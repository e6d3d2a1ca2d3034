"""The state of a training run, its checkpoints, which survive a kill, and the way back to the last one."""

import logging
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from repro.cost import Stopwatch, Work
from repro.records import RunFolder, truncate_jsonl
from repro.routing import RoutingTotals
from repro.volume import Volume


@dataclass
class TrainingState:
    """Everything a checkpoint holds besides model, optimiser, schedule and random states."""

    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    position: int = 0
    """Optimiser steps done in this epoch."""
    train_seconds: float = 0.0
    stolen_seconds: float | None = 0.0
    """Of `train_seconds` on every processor together, taken by other virtual machines; None if unknown."""
    tokens: int = 0
    curve: list[list[float]] = field(default_factory=list)
    """Rows of step, train_seconds, eval_loss."""
    work: Work = field(default_factory=Work)
    routing: RoutingTotals = field(default_factory=RoutingTotals)
    step_seconds: list[float] = field(default_factory=list)
    ratios_NL: Any = None
    """Complexity vectors measured in the epoch before; None in the first epoch."""
    several_N: Any = None
    """Tokens of each sample given two or more experts in the epoch before, over all layers."""
    next_ratios_NL: Any = None
    """Those of this epoch so far."""
    next_several_N: Any = None

    def add_time(self, watch: Stopwatch) -> None:
        """Count what a step took."""
        self.train_seconds += watch.seconds
        self.step_seconds.append(watch.seconds)
        if self.stolen_seconds is not None and watch.stolen_seconds is not None:
            self.stolen_seconds += watch.stolen_seconds
        else:
            self.stolen_seconds = None

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors, which load safely (`weights_only`)."""
        return dict(vars(self)) | {"work": asdict(self.work), "routing": asdict(self.routing)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        vars(self).update(state)
        work = state["work"]
        volumes = {name: Volume(**work[name]) for name in ("real", "padded")}
        self.work = Work(**work | volumes)
        self.routing = RoutingTotals(**state["routing"])


def save_checkpoint(accelerator: Accelerator, folder: RunFolder) -> None:
    """Write a checkpoint beside the old one, then put it in its place."""
    scratch, old = folder.path / "checkpoint.new", folder.path / "checkpoint.old"
    if accelerator.is_main_process:
        shutil.rmtree(scratch, ignore_errors=True)
    accelerator.wait_for_everyone()
    # It warns of tied weights every time; they are saved once and tied again when loaded.
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    accelerator.save_state(str(scratch))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(old, ignore_errors=True)
        if folder.checkpoint.exists():
            folder.checkpoint.rename(old)
        scratch.rename(folder.checkpoint)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, state: TrainingState, folder: RunFolder) -> None:
    """Go back to the last whole checkpoint, or to the start; drop the records beyond it."""
    place = _last_checkpoint(folder)
    if place is not None:
        accelerator.load_state(str(place))
    if accelerator.is_main_process:
        for path in (folder.steps, folder.routing, folder.evals):
            truncate_jsonl(path, state.step if place else -1)
    accelerator.wait_for_everyone()


def remove_checkpoints(folder: RunFolder) -> None:
    """Drop what a finished run no longer needs."""
    for name in ("checkpoint", "checkpoint.old", "checkpoint.new"):
        shutil.rmtree(folder.path / name, ignore_errors=True)


def _last_checkpoint(folder: RunFolder) -> Path | None:
    """A kill between two renames leaves only `checkpoint.old`; it is whole."""
    places: list[Any] = [folder.checkpoint, folder.path / "checkpoint.old"]
    return next((place for place in places if place.exists()), None)
