"""Evaluate a model on a set of examples: loss, metric, routing, FLOPs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from pydantic import JsonValue

from repro.errors import Interrupted
from repro.metrics.base import load as load_metric
from repro.moe.flops import Work
from repro.moe.routing import force_top1_routing, idle_routing, record_routing
from repro.moe.totals import RoutingTotals
from repro.tasks.base import Feature, Row, Task
from repro.training.placement import needs_company
from repro.training.state_files import load_sealed, save_sealed


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of one pass over a set of examples."""

    loss: float
    """Mean task loss over its terms (examples or tokens), without auxiliary losses."""
    metrics: Mapping[str, JsonValue]
    """Empty unless rows were given."""
    count: int
    """Examples that the metric compared, or features without one."""
    routing: RoutingTotals
    work: Work


@dataclass(kw_only=True)
class _Sums:
    """Everything that the batches done so far add up to, on one process."""

    batches: int = 0
    loss: float = 0.0
    """Sum over the loss terms."""
    terms: int = 0
    predictions: dict[int, Any] = field(default_factory=dict)
    """Index of the feature -> prediction."""
    routing: RoutingTotals = field(default_factory=RoutingTotals)
    work: Work = field(default_factory=Work)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(state: Mapping[str, Any]) -> "_Sums":
        parts = {"routing": RoutingTotals(**state["routing"]), "work": Work.of_plain(state["work"])}
        return _Sums(**{**state, **parts})


@dataclass(frozen=True, kw_only=True)
class Pause:
    """How an evaluation is stopped, and where its part is kept to go on from."""

    should_stop: Callable[[], bool]
    """Called after every batch."""
    part: Path
    """Without suffix; every process adds its own."""


def evaluate(
    accelerator: Accelerator,
    model: Any,
    task: Task,
    metric: str,
    features: list[Feature],
    *,
    batch_size: int,
    force_top1: bool = False,
    rows: list[Row] | None = None,
    pause: Pause | None = None,
) -> Evaluation:
    """Evaluate without gradient, longest examples first; processes share the batches.

    Where none of them can call the model alone (`placement.needs_company`), all do as many passes: one that
    has no batch left goes through the motions with an example, of which nothing counts.

    Args:
        metric: a member of `metrics`.
        force_top1: route every token to its best expert alone (top-1 gating at inference).
        rows: what the features were encoded from; None measures the loss alone.
        pause: for an evaluation that may be stopped and goes on where it was; None runs to the end.

    Raises:
        Interrupted: `pause.should_stop` said so; the part that is done was saved.
    """
    order = sorted(range(len(features)), key=lambda index: -task.length(features[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    part = None if pause is None else pause.part.with_suffix(f".{accelerator.process_index}")
    sums = _resumed(part)
    passes = len(mine)
    in_company = needs_company(model)
    if in_company:
        passes = -(-len(batches) // accelerator.num_processes)
        # Unless all have done as much, they start over.
        sums = sums if len({sums.batches for sums in gather_object([sums])}) == 1 else _Sums()
    was_training = model.training
    model.eval()
    # What one of several processes gathers in `inference_mode` could not be trained on later.
    without_gradient = torch.no_grad() if in_company else torch.inference_mode()
    with without_gradient, force_top1_routing(model, force_top1):
        for number in range(sums.batches, passes):
            predict = rows is not None
            if number < len(mine):
                _add_batch(sums, model, task, features, mine[number], accelerator.device, predict=predict)
            else:
                with idle_routing(model):
                    one = batches[-1][:1]
                    _add_batch(_Sums(), model, task, features, one, accelerator.device, predict=predict)
                sums.batches += 1
            if pause is None or part is None:
                continue
            stop = pause.should_stop()
            if any(gather_object([stop])) if in_company else stop:
                save_sealed(sums.state_dict(), part)
                raise Interrupted(f"stopped after batch {number + 1} of {passes} of an evaluation")
    model.train(was_training)
    return _outcome(gather_object([sums]), task, metric, features, rows)


def _resumed(part: Path | None) -> _Sums:
    """Go on from the part of an earlier evaluation; start over if there is none, or it is damaged."""
    state = None if part is None else load_sealed(part)
    return _Sums() if state is None else _Sums.of(state)


def _add_batch(
    sums: _Sums,
    model: Any,
    task: Task,
    features: list[Feature],
    indices: list[int],
    device: torch.device,
    *,
    predict: bool,
) -> None:
    """Run one batch and add it to the sums."""
    chosen = [features[index] for index in indices]
    collated = task.collate(chosen)
    batch = send_to_device(collated, device)
    with record_routing(model) as tape:
        outputs = model(**batch)
    terms = task.loss_terms(collated)
    sums.loss += float(task.loss(outputs, batch)) * terms
    sums.terms += terms
    sums.routing += RoutingTotals.of(tape)
    sums.work += Work.of(tape, task.masks(collated))
    if predict:
        sums.predictions.update(zip(indices, task.predict(model, batch, outputs, chosen), strict=True))
    sums.batches += 1


def _outcome(
    parts: list[_Sums], task: Task, metric: str, features: list[Feature], rows: list[Row] | None
) -> Evaluation:
    """Put the parts of all processes together, and compute the metric if there are rows."""
    metrics: Mapping[str, JsonValue] = {}
    count = len(features)
    if rows is not None:
        by_index = {index: value for part in parts for index, value in part.predictions.items()}
        ordered = [by_index[index] for index in range(len(features))]
        answers, references = task.answers(ordered, features, rows)
        metrics, count = (
            load_metric(metric).Metric().compute(predictions=answers, references=references),
            len(references),
        )
    return Evaluation(
        loss=sum(part.loss for part in parts) / sum(part.terms for part in parts),
        metrics=metrics,
        count=count,
        routing=sum((part.routing for part in parts), RoutingTotals()),
        work=sum((part.work for part in parts), Work()),
    )
