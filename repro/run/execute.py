"""Do one run from its configuration to `result.json`, and evaluate a finished one."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from accelerate import Accelerator
from accelerate.utils import gather_object
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from repro.config import RunConfig
from repro.data.rows import rows_fingerprint
from repro.errors import UserError, one_line
from repro.machine import current_environment, reset_peak_memory
from repro.moe import convert, pretrained
from repro.provenance import digest_of
from repro.results.environment import Environment
from repro.results.files import InputPaths, ModelFiles, RunFolder, RunPaths, read_json, write_json
from repro.results.run import EvalResult, RowsRead, RunResult, read_result
from repro.run.accelerator import make_accelerator
from repro.run.reopen import finished_config, open_finished
from repro.run.result import build_result, metric_entry
from repro.run.setup import Prepared, encoded, prepare
from repro.training.checkpoints import remove_checkpoints, remove_leftovers
from repro.training.evaluator import evaluate
from repro.training.state import Progress, TrainingState
from repro.training.trainer import train

_LOCK = ".lock"
"""File of a run folder that is locked while a process works there."""


def execute(
    config: RunConfig,
    paths: RunPaths,
    *,
    fresh: bool = False,
    tensorboard: bool = False,
    interleaved_with: Sequence[str] = (),
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> RunResult:
    """Do a run: start it, continue it from its checkpoint, or return its result if it is finished.

    Args:
        fresh: discard what an earlier run with the same configuration left.
        interleaved_with: ids of the runs whose steps are interleaved with this one's, for its result.
        report: called after every step.
        should_stop: asked after every step.

    Raises:
        UserError: the inputs are wrong, or the folder cannot be used.
        Interrupted: `should_stop` said so; a checkpoint was saved.
        FloatingPointError: the model diverged.
    """
    folder = RunFolder(paths.results / config.scale / "runs" / config.run_id)
    if folder.config.exists() and not fresh:
        _check_config(folder, config)
        if folder.result.exists():
            return _finished(folder)
    _check_writable(paths.results)
    accelerator = make_accelerator(config, paths.model, folder if tensorboard else None)
    reset_peak_memory(accelerator.device)
    prepared = prepare(config, paths, accelerator.device)
    environment = _environment(accelerator, config)
    with _claimed(folder, paths), _storage_errors(folder):
        # Another process may have finished the run while this one prepared it.
        if not fresh and any(gather_object([accelerator.is_main_process and folder.result.exists()])):
            return _finished(folder)
        if accelerator.is_main_process:
            if fresh:
                _empty(folder)
            _write_inputs(folder, config, paths, environment)
        accelerator.wait_for_everyone()
        if tensorboard:
            accelerator.init_trackers("tensorboard")
        state = _trained(accelerator, prepared, config, folder, report, should_stop)
        if accelerator.is_main_process:
            _save_model(accelerator, prepared, folder)
        accelerator.wait_for_everyone()
        result = build_result(
            accelerator, prepared, config, state, environment, interleaved_with, folder, should_stop
        )
        if accelerator.is_main_process:
            write_json(folder.result, result.to_json())
            remove_checkpoints(folder)
        accelerator.end_training()
        return result


def _finished(folder: RunFolder) -> RunResult:
    """Read the result of a finished run, and remove what a kill behind its last step left."""
    result = read_result(folder.result)
    remove_leftovers(folder)
    remove_checkpoints(folder)
    return result


def _trained(
    accelerator: Accelerator,
    prepared: Prepared,
    config: RunConfig,
    folder: RunFolder,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> TrainingState:
    """Train from the last checkpoint, or from the start, to the end."""

    def measure_loss() -> float:
        return evaluate(
            accelerator,
            prepared.model,
            prepared.task,
            prepared.metric,
            prepared.subset,
            batch_size=config.evaluation.batch_size,
        ).loss

    return train(
        accelerator,
        prepared.model,
        config,
        prepared.data,
        folder,
        measure_loss=measure_loss,
        report=report,
        should_stop=should_stop,
    )


def _save_model(accelerator: Accelerator, prepared: Prepared, folder: RunFolder) -> None:
    """Save model and tokenizer, all files or none: before the evaluation, which may fail or be stopped."""
    scratch = folder.model.with_name(f"{folder.model.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    pretrained.save(accelerator.unwrap_model(prepared.model), scratch)
    prepared.tokenizer.save_pretrained(scratch)
    digests = {path.name: digest_of(path) for path in sorted(scratch.iterdir())}
    write_json(folder.model_files, ModelFiles(files=digests).to_json())
    shutil.rmtree(folder.model, ignore_errors=True)
    scratch.rename(folder.model)


def evaluate_run(
    folder: RunFolder, *, split: str, gate_at_inference: Literal["same", "top-1"], data: Path | None
) -> EvalResult:
    """Evaluate the saved model of a finished run on a split.

    Args:
        gate_at_inference: `same` as trained, or `top-1`: the best expert alone.
        data: a data folder; None takes the one the run was trained on.

    Raises:
        UserError: the run is not finished, or the data are not there.
    """
    config = finished_config(folder)
    if gate_at_inference == "top-1" and config.gate == "dense":
        raise UserError("--gate-at-inference top-1: the run is dense, it has no gate")
    run = open_finished(folder, config, split, data)
    fingerprint = rows_fingerprint(run.rows)
    evaluation = evaluate(
        run.accelerator,
        run.model,
        run.task,
        run.module.METRIC,
        encoded(run.task, run.rows, split, fingerprint),
        batch_size=config.evaluation.batch_size,
        force_top1=gate_at_inference == "top-1",
        rows=run.rows,
    )
    return EvalResult(
        run_id=config.run_id,
        task=config.task,
        gate=config.gate,
        split=split,
        gate_at_inference=gate_at_inference,
        metric=metric_entry(run.module.METRIC, evaluation),
        metrics=dict(evaluation.metrics),
        eval_loss=evaluation.loss,
        routing=None if config.gate == "dense" else evaluation.routing.summary(),
        data=RowsRead(fingerprint=fingerprint, count=len(run.rows)),
    )


def _check_config(folder: RunFolder, config: RunConfig) -> None:
    if read_json(folder.config) != config.to_dict():
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
def _claimed(folder: RunFolder, paths: RunPaths) -> Iterator[None]:
    """Create the folder if need be, and keep other processes off it while this one works there."""
    if os.environ.get("RANK", "0") != "0":  # of the processes of one launch, the first claims it
        yield
        return
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.path / _LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder.path}: another process is doing this run") from error
    except OSError as error:
        raise UserError(
            f"--out {paths.results}: cannot be written ({error.strerror}); give another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _empty(folder: RunFolder) -> None:
    for path in folder.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
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
