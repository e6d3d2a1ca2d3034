"""Evaluate the model of a finished run once more."""

from pathlib import Path
from typing import Literal

from repro.data.rows import rows_fingerprint
from repro.errors import UserError
from repro.results.files import RunFolder
from repro.results.run import EvalResult, RowsRead
from repro.run.reopen import finished_config, open_finished
from repro.run.result import metric_entry
from repro.run.setup import encoded
from repro.training.evaluator import evaluate


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
