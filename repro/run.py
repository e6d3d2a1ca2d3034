"""One run from its configuration to `result.json`, and the evaluation of a finished one."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from repro import moe, saved
from repro._checkpoints import remove_checkpoints
from repro._finished import finished_config, open_finished
from repro._prepare import encoded, make_accelerator, prepare
from repro._result import build_result, metric_entry
from repro.config import RunConfig
from repro.cost import machine, reset_peak_memory
from repro.errors import UserError
from repro.evaluator import evaluate
from repro.provenance import environment
from repro.records import Places, RunFolder, read_json, write_json
from repro.tasks._data import rows_fingerprint
from repro.trainer import train


def execute(
    config: RunConfig,
    places: Places,
    *,
    fresh: bool = False,
    tensorboard: bool = False,
    beside: Sequence[str] = (),
    report: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Do a run: start it, continue it from its checkpoint, or return its result if it is finished.

    Args:
        fresh: discard what an earlier run with the same configuration left.
        beside: ids of the runs that this one takes turns with, for its result.
        report: called with the record of every step.
        should_stop: asked after every step.

    Raises:
        UserError: the inputs are wrong, or the folder cannot be used.
        Interrupted: `should_stop` said so; a checkpoint was saved.
    """
    folder = RunFolder(places.results / config.scale / "runs" / config.run_id)
    if folder.config.exists() and not fresh:
        _check_config(folder, config)
        if folder.result.exists():
            return read_json(folder.result)
    _check_writable(places.results)
    accelerator = make_accelerator(config, places.model, folder if tensorboard else None)
    reset_peak_memory(accelerator.device)
    prepared = prepare(config, places, accelerator.device)
    circumstances = _circumstances(accelerator, config)
    with _claimed(folder, places):
        if accelerator.is_main_process:
            if fresh:
                _empty(folder)
            _write_inputs(folder, config, places, circumstances)
        accelerator.wait_for_everyone()
        if tensorboard:
            accelerator.init_trackers("tensorboard")

        def measure_loss() -> float:
            return evaluate(
                accelerator,
                prepared.model,
                prepared.task,
                prepared.metric,
                prepared.subset,
                batch_size=config.evaluation.batch_size,
            ).loss

        state = train(
            accelerator,
            prepared.model,
            config,
            prepared.data,
            folder,
            measure_loss=measure_loss,
            report=report,
            should_stop=should_stop,
        )
        result = build_result(accelerator, prepared, config, state, circumstances, beside)
        if accelerator.is_main_process:
            saved.save(accelerator.unwrap_model(prepared.model), folder.model)
            prepared.tokenizer.save_pretrained(folder.model)
            write_json(folder.result, result)
            remove_checkpoints(folder)
        accelerator.end_training()
        return result


def evaluate_run(
    folder: RunFolder, *, split: str, gate_at_inference: str, data: Path | None
) -> dict[str, Any]:
    """Evaluate the saved model of a finished run on a split.

    Args:
        gate_at_inference: `same` as trained, or `top-1`.
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
        best_only=gate_at_inference == "top-1",
        rows=run.rows,
    )
    return {
        "run_id": config.run_id,
        "task": config.task,
        "gate": config.gate,
        "split": split,
        "gate_at_inference": gate_at_inference,
        "metric": metric_entry(run.module.METRIC, evaluation),
        "metrics": evaluation.metrics,
        "eval_loss": evaluation.loss,
        "routing": None if config.gate == "dense" else evaluation.routing.summary(),
        "data": {"fingerprint": fingerprint, "count": len(run.rows)},
    }


def _check_config(folder: RunFolder, config: RunConfig) -> None:
    if read_json(folder.config) != config.to_dict():
        raise UserError(
            f"{folder.path}: holds a run with another configuration;"
            " give another --out, or --fresh to discard it"
        )


def _check_writable(results: Path) -> None:
    """Before minutes of preparation: the results folder can be made and written to."""
    place = next(path for path in (results.absolute(), *results.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError(f"--out {results}: cannot be written; give another folder")


@contextmanager
def _claimed(folder: RunFolder, places: Places) -> Iterator[None]:
    """Create the folder if need be, and keep other processes off it while this one works there."""
    if os.environ.get("RANK", "0") != "0":  # of the processes of one launch, the first claims it
        yield
        return
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = (folder.path / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"--out {places.results}: cannot be written ({error.strerror}); give another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder.path}: another process is doing this run") from error
        yield


def _empty(folder: RunFolder) -> None:
    for path in folder.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _write_inputs(
    folder: RunFolder, config: RunConfig, places: Places, circumstances: dict[str, Any]
) -> None:
    write_json(folder.config, config.to_dict())
    write_json(
        folder.places,
        {
            "data": str(places.data.resolve()) if places.data else None,
            "model": str(places.model.resolve()) if places.model else None,
        },
    )
    write_json(folder.environment, circumstances)


def _circumstances(accelerator: Accelerator, config: RunConfig) -> dict[str, Any]:
    """What a time depends on, as of the start of training."""
    device = accelerator.device
    precision = accelerator.mixed_precision
    dense = config.gate == "dense"
    own = {
        "processes": accelerator.num_processes,
        "precision": "fp32" if precision == "no" else precision,
        "experts_backend": None if dense else moe.choose_backend(config.experts.backend, device),
    }
    return environment() | machine(device) | own
