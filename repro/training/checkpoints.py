"""Save checkpoints that survive a kill at any moment, and go back to the last one.

A checkpoint is a folder `checkpoint/step-<n>/`. Its manifest, with digests of its files and of the run's
records up to that step, is written last, so a folder without one was never finished. The two newest are kept
and the one that a branch starts from: if the last is damaged, the one before is there. Nothing is unpickled:
tensors of model and optimizer are safetensors, everything else is plain data and tensors, loaded with
`weights_only=True`. Any number of processes goes on from any other's.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Protocol

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from repro.config import RunConfig
from repro.errors import UserError, one_line
from repro.provenance import digest_of
from repro.results.base import Record
from repro.results.files import RunFolder, write_json
from repro.training.placement import Placement
from repro.training.schedule import Budget, set_step
from repro.training.state import TrainingState
from repro.training.state_files import (
    UNREADABLE,
    load_states,
    random_states,
    restore_random_states,
    save_states,
    synchronise,
)
from repro.training.tensor_files import load_tensors, save_tensors

_STATE, _MANIFEST = "state.pt", "manifest.json"
_NAME = re.compile(r"step-(\d+)")
_UNFINISHED = ".tmp"
"""Suffix of a folder that is being written or removed."""


class RecordsWritten(Record):
    """A record file of the run, as it was at a checkpoint."""

    size: int
    """Bytes."""
    sha256: str


class Manifest(Record):
    """`manifest.json`: what a checkpoint consists of."""

    step: int
    budget: str
    """Schedule and steps of the run (`Budget.name`)."""
    processes: int
    """Of the launch that wrote it."""
    files: dict[str, str]
    """File of the checkpoint -> SHA-256."""
    records: dict[str, RecordsWritten]
    """Record file of the run -> its beginning up to the step."""


class Resumable(Protocol):
    """A training run whose states make up a checkpoint, together with those of the random generators."""

    @property
    def accelerator(self) -> Accelerator:
        """The processes of the launch."""

    @property
    def folder(self) -> RunFolder:
        """Where the run leaves its files."""

    @property
    def placement(self) -> Placement:
        """The model on the processes."""

    @property
    def optimizer(self) -> AdamW:
        """Of the model's parameters."""

    @property
    def scheduler(self) -> LambdaLR:
        """The schedule of the learning rate."""

    @property
    def budget(self) -> Budget:
        """The steps of the run."""

    @property
    def config(self) -> RunConfig:
        """The run."""

    @property
    def state(self) -> TrainingState:
        """Counters, totals and measurements."""

    @property
    def kept_step(self) -> int | None:
        """The step whose checkpoint stays, however old."""


def save_checkpoint(run: Resumable) -> None:
    """Write a checkpoint; the newest one before it stays, older ones but that of `kept_step` are removed.

    Raises:
        OSError: it cannot be written; the checkpoint before it is still whole.
    """
    accelerator, folder = run.accelerator, run.folder
    final = step_folder(folder, run.state.step)
    scratch = final.with_name(final.name + _UNFINISHED)
    if accelerator.is_main_process:
        kept = None if run.kept_step is None else step_folder(folder, run.kept_step)
        for older in _finished(folder)[1:]:
            if older != kept:
                _remove(older)
        _remove(final)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    accelerator.wait_for_everyone()
    save_states(random_states(), scratch / _random_file(accelerator.process_index))
    save_tensors(run.placement, run.optimizer, scratch)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        save_states(run.state.state_dict(), scratch / _STATE)
        files = sorted(scratch.iterdir())
        manifest = Manifest(
            step=run.state.step,
            budget=run.budget.name,
            processes=accelerator.num_processes,
            files={path.name: digest_of(path) for path in files},
            records={path.name: _written(path) for path in _records(folder) if path.exists()},
        )
        for path in (*files, *filter(Path.exists, _records(folder))):
            synchronise(path)
        write_json(scratch / _MANIFEST, manifest.to_json())
        scratch.rename(final)
        synchronise(folder.checkpoint)
    accelerator.wait_for_everyone()


def resume(run: Resumable, start: tuple[RunFolder, int] | None = None) -> None:
    """Go back to the last checkpoint, or to the start; drop the records beyond it.

    Args:
        start: folder and step of the checkpoint of another run that this one starts from; None if it starts
            from nothing.

    Raises:
        UserError: the last checkpoint or the records before it are damaged, or of another launch.
    """
    accelerator, folder = run.accelerator, run.folder
    if accelerator.is_main_process:
        remove_leftovers(folder)
    accelerator.wait_for_everyone()
    finished = _finished(folder)
    if not finished:
        if accelerator.is_main_process:
            _refuse_foreign(folder)
            for path in _records(folder):
                path.unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        if start is not None:
            origin, step = start
            _restore(run, [step_folder(origin, step)], origin)
        return
    manifest = _restore(run, finished, folder)
    if accelerator.is_main_process:
        for path in _records(folder):
            kept = manifest.records.get(path.name)
            if kept is not None:
                os.truncate(path, kept.size)
            else:
                path.unlink(missing_ok=True)
    accelerator.wait_for_everyone()


def _restore(run: Resumable, finished: list[Path], folder: RunFolder) -> Manifest:
    """Restore all states from the newest checkpoint of a folder, if it is whole and of this budget.

    Raises:
        UserError: it is not.
    """
    checkpoint = finished[0]
    try:
        manifest = _verified(checkpoint, folder)
    except UserError as error:
        way_out = "to go back to the one before" if len(finished) > 1 else "to start over"
        raise UserError(
            f"checkpoint {checkpoint} is damaged: {error}; delete it {way_out}, or give --fresh"
        ) from error
    if manifest.budget != run.budget.name:
        raise UserError(
            f"checkpoint {checkpoint}: {manifest.processes} processes wrote it in a run of {manifest.budget};"
            f" {run.accelerator.num_processes} would do {run.budget.name}; start as many, or give --fresh"
        )
    try:
        _load(run, checkpoint, manifest)
    except UNREADABLE as error:
        raise UserError(
            f"checkpoint {checkpoint}: does not fit this run ({one_line(error)[:200]}); give --fresh"
        ) from error
    return manifest


def has_checkpoint(folder: RunFolder) -> bool:
    """Return whether there is a checkpoint to go back to."""
    return bool(_finished(folder))


def step_folder(folder: RunFolder, step: int) -> Path:
    """Return the folder of the checkpoint at a step."""
    return folder.checkpoint / f"step-{step}"


def remove_checkpoints(folder: RunFolder) -> None:
    """Remove all checkpoints: the run will not go on."""
    _remove(folder.checkpoint)


def keep_last_checkpoint(folder: RunFolder) -> None:
    """Remove all checkpoints but the last, from which the run may go on."""
    for older in _finished(folder)[1:]:
        _remove(older)


def remove_leftovers(folder: RunFolder) -> None:
    """Remove what a kill left behind: unfinished folders and files."""
    for path in (*folder.path.glob(f"*{_UNFINISHED}"), *folder.checkpoint.glob(f"*{_UNFINISHED}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _finished(folder: RunFolder) -> list[Path]:
    """List the finished checkpoints, the newest first."""
    if not folder.checkpoint.is_dir():
        return []
    steps = {
        path: int(match[1])
        for path in folder.checkpoint.iterdir()
        if (match := _NAME.fullmatch(path.name)) and path.is_dir()
    }
    return sorted(steps, key=lambda path: -steps[path])


def _refuse_foreign(folder: RunFolder) -> None:
    """Refuse a checkpoint folder of another layout.

    Raises:
        UserError: it holds files, but no checkpoint.
    """
    if folder.checkpoint.is_dir() and any(folder.checkpoint.iterdir()):
        raise UserError(f"{folder.checkpoint}: written by another version of repro; give --fresh")


def _verified(checkpoint: Path, folder: RunFolder) -> Manifest:
    """Compare a checkpoint and the records before it with its manifest.

    Raises:
        UserError: something is missing, cut short or altered.
    """
    manifest = Manifest.read(checkpoint / _MANIFEST)
    for name, digest in manifest.files.items():
        path = checkpoint / Path(name).name
        if not path.is_file():
            raise UserError(f"{name} is missing")
        if digest_of(path) != digest:
            raise UserError(f"{name} is not what was written")
    for path in _records(folder):
        kept = manifest.records.get(path.name)
        if kept is None:
            continue
        if not path.is_file() or path.stat().st_size < kept.size:
            raise UserError(f"the records before it in {path.name} are cut short")
        if digest_of(path, kept.size) != kept.sha256:
            raise UserError(f"the records before it in {path.name} are not what was written")
    return manifest


def _load(run: Resumable, checkpoint: Path, manifest: Manifest) -> None:
    """Restore all states and the random generators of this process."""
    load_tensors(run.placement, run.optimizer, checkpoint)
    run.state.load_state_dict(load_states(checkpoint / _STATE))
    set_step(run.scheduler, run.state.step)
    if manifest.processes == run.accelerator.num_processes:
        restore_random_states(load_states(checkpoint / _random_file(run.accelerator.process_index)))
    else:  # of dropout alone: no two numbers of processes can draw the same
        set_seed(run.config.seed + run.state.step, device_specific=True)


def _random_file(process: int) -> str:
    return f"random-{process}.pt"


def _records(folder: RunFolder) -> tuple[Path, ...]:
    return folder.steps, folder.evals, folder.routing, folder.exchanges


def _written(path: Path) -> RecordsWritten:
    size = path.stat().st_size
    return RecordsWritten(size=size, sha256=digest_of(path, size))


def _remove(path: Path) -> None:
    """Remove a folder so that a kill in between leaves nothing that looks whole."""
    if path.exists():
        leftover = path.with_name(path.name + _UNFINISHED)
        shutil.rmtree(leftover, ignore_errors=True)
        path.rename(leftover)
        shutil.rmtree(leftover, ignore_errors=True)
