"""Begin to work in the folder of a run: all is checked and prepared, and no other process may come in."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError

from repro.config import RunConfig
from repro.errors import InUse, UserError, one_line
from repro.identity import identity
from repro.machine import current_environment, reset_peak_memory
from repro.moe import convert
from repro.results.environment import Environment
from repro.results.files import InputPaths, RunFolder, RunPaths, read_json, write_json
from repro.run.accelerator import make_accelerator
from repro.run.claim import Claim, is_claimed, lease_of
from repro.run.fitting import refuse_unfit
from repro.run.setup import Prepared, prepare
from repro.training.evaluator import evaluate
from repro.training.placement import Placement, parallel_of, place
from repro.training.state import Progress

_OF_PEERS = ("closed by peer", "reset by peer", "gloo", "NCCL", "ncclRemoteError")
"""What messages of errors have in them if another process has gone."""
_LOCK = ".lock"
"""File of a run folder that is locked while a process works there."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A run that is ready to train in a folder of its own."""

    config: RunConfig
    folder: RunFolder
    accelerator: Accelerator
    prepared: Prepared
    placement: Placement
    environment: Environment
    claim: Claim
    """That to the folder; of the processes of one launch the first has it."""

    @property
    def is_finished(self) -> bool:
        """Whether another process has finished the run while this one prepared it."""
        return any(gather_object([self.accelerator.is_main_process and self.folder.result.exists()]))

    def dev_loss(self) -> float:
        """Measure the model's loss on the dev split."""
        prepared = self.prepared
        return evaluate(
            self.accelerator,
            prepared.model,
            prepared.task,
            prepared.metric,
            prepared.dev,
            batch_size=self.config.evaluation.batch_size,
        ).loss

    def guarded(self, report: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Let a report of a step first make sure that the folder still is this process's.

        It then raises what `Claim.check` does.
        """

        def checked(progress: Progress) -> None:
            self.claim.check()
            report(progress)

        return checked


def folder_of(config: RunConfig, paths: RunPaths) -> RunFolder:
    """Return the folder of a run."""
    return RunFolder(paths.results / config.scale / "runs" / config.run_id)


def is_in_use(folder: RunFolder) -> bool:
    """Return whether a process works in the folder of a run at this moment."""
    return is_claimed(folder.path / _LOCK)


@contextmanager
def launched(
    config: RunConfig, paths: RunPaths, *, fresh: bool = False, tensorboard: bool = False
) -> Iterator[Launch]:
    """Prepare a run and claim its folder; files that cannot be written are one line, and what is saved stays.

    Args:
        fresh: the folder may hold another run.

    Raises:
        UserError: the inputs are wrong, or the folder cannot be used or written to.
    """
    folder = folder_of(config, paths)
    if folder.config.exists() and not fresh:
        check_config(folder, config)
    _check_writable(paths.results)
    accelerator = make_accelerator(config, paths.model, folder if tensorboard else None)
    _check_spreading(config, accelerator.num_processes)
    refuse_unfit(config, paths, accelerator.device, accelerator.num_processes)
    reset_peak_memory(accelerator.device)
    prepared = prepare(config, paths, accelerator.device)
    launch = Launch(
        config=config,
        folder=folder,
        accelerator=accelerator,
        prepared=prepared,
        placement=place(accelerator, prepared.model, config),
        environment=_environment(accelerator, config),
        claim=Claim(folder.path / _LOCK),
    )
    with _claimed(launch, paths), _storage_errors(folder), _peer_errors(accelerator):
        yield launch


def _check_spreading(config: RunConfig, processes: int) -> None:
    """Check how a run is spread: low-rank additions need whole tensors, and all others fine ones.

    Raises:
        UserError: experts cannot be spread so, additions have parts of tensors, or weights in bf16 train.
    """
    parallel_of(config, processes)
    if config.training.lora_rank is None:
        if config.model.dtype != "fp32":
            raise UserError("model.dtype: weights in bf16 lose small updates; set training.lora_rank, too")
    elif processes > 1 and config.training.shard != "none":
        raise UserError("training.lora_rank: sharded weights have no additions; set training.shard=none")


def begin(launch: Launch, paths: RunPaths, *, fresh: bool = False, tensorboard: bool = False) -> None:
    """Write what the run is made of; with `fresh` discard what an earlier one left."""
    if launch.accelerator.is_main_process:
        if fresh:
            _empty(launch.folder)
        _write_inputs(launch.folder, launch.config, paths, launch.environment)
    launch.accelerator.wait_for_everyone()
    if tensorboard:
        launch.accelerator.init_trackers("tensorboard")


def check_config(folder: RunFolder, config: RunConfig) -> None:
    """Refuse a folder that holds another run.

    Raises:
        UserError: it does.
    """
    if identity(read_json(folder.config)) != identity(config.to_dict()):
        raise UserError(
            f"{folder.path}: holds a run with another configuration;"
            " give another --out, or --fresh to discard it"
        )


def _check_writable(results: Path) -> None:
    """Refuse, before minutes of preparation, a results folder that cannot be made or written to."""
    place = next(path for path in (results.absolute(), *results.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError(f"--out {results}: cannot be written; give another folder")


@contextmanager
def _storage_errors(folder: RunFolder) -> Iterator[None]:
    """Turn a full disk, or a folder that has gone, into one line; what is saved stays.

    Raises:
        UserError: a file of the run cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        where = getattr(error, "filename", None) or folder.path
        raise UserError(
            f"{where}: cannot be written ({reason}); make it writable, or make room,"
            " and the same command continues"
        ) from error


@contextmanager
def _peer_errors(accelerator: Accelerator) -> Iterator[None]:
    """Turn the end of another process of the launch into one line.

    Raises:
        UserError: what processes do together failed.
    """
    try:
        yield
    except RuntimeError as error:
        together = isinstance(error, dist.DistError) or any(word in str(error) for word in _OF_PEERS)
        if accelerator.num_processes == 1 or not together:
            raise
        raise UserError(
            f"another process of this launch has ended ({one_line(error)[:100]});"
            " the same command continues from the last checkpoint"
        ) from error


@contextmanager
def _claimed(launch: Launch, paths: RunPaths) -> Iterator[None]:
    """Create the folder if need be, and keep other processes off it while this one works there."""
    if os.environ.get("RANK", "0") != "0":  # of the processes of one launch, the first claims it
        yield
        return
    try:
        if not launch.claim.acquire():
            raise InUse(f"{launch.folder.path}: another process is doing this run")
    except OSError as error:
        raise UserError(
            f"--out {paths.results}: cannot be written ({error.strerror}); give another folder"
        ) from error
    try:
        yield
    finally:
        launch.claim.release()


def _empty(folder: RunFolder) -> None:
    kept = (folder.path / _LOCK, lease_of(folder.path / _LOCK))
    for path in folder.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path not in kept:
            path.unlink()


def _write_inputs(folder: RunFolder, config: RunConfig, paths: RunPaths, environment: Environment) -> None:
    inputs = InputPaths(
        data=str(paths.data.resolve()) if paths.data else None,
        model=str(paths.model.resolve()) if paths.model else None,
    )
    write_json(folder.config, config.to_dict())
    write_json(folder.paths, inputs.to_json())
    write_json(folder.environment, environment.to_json())


def _environment(accelerator: Accelerator, config: RunConfig) -> Environment:
    """Return what times depend on, as of the start of training."""
    device, precision = accelerator.device, accelerator.mixed_precision
    dense = config.gate == "dense"
    return current_environment(device).model_copy(
        update={
            "processes": accelerator.num_processes,
            "precision": "fp32" if precision == "no" else precision,
            "experts_backend": None if dense else convert.choose_backend(config.experts.backend, device),
        }
    )
