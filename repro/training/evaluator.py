"""Evaluate a model on a set of examples: loss, metric, routing, FLOPs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from pydantic import JsonValue

from repro.metrics.base import load as load_metric
from repro.moe.flops import Work
from repro.moe.routing import RoutingTotals, force_top1_routing, record_routing
from repro.tasks.base import Feature, Row, Task


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
) -> Evaluation:
    """Evaluate without gradient, longest examples first; processes share the batches.

    Args:
        metric: a member of `metrics`.
        force_top1: route every token to its best expert alone (top-1 gating at inference).
        rows: what the features were encoded from; None measures the loss alone.
    """
    order = sorted(range(len(features)), key=lambda index: -task.length(features[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    loss_sum, terms = 0.0, 0
    predictions: dict[int, Any] = {}
    totals, work = RoutingTotals(), Work()
    # A wrapper for data parallelism would wait in every forward pass for the other processes.
    model = accelerator.unwrap_model(model)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), force_top1_routing(model, force_top1):
        for batch_indices in batches[accelerator.process_index :: accelerator.num_processes]:
            chosen = [features[index] for index in batch_indices]
            collated = task.collate(chosen)
            batch = send_to_device(collated, accelerator.device)
            with record_routing(model) as tape:
                outputs = model(**batch)
            loss_sum += float(task.loss(outputs, batch)) * task.loss_terms(collated)
            terms += task.loss_terms(collated)
            totals += RoutingTotals.of(tape)
            work += Work.of(tape, task.masks(collated))
            if rows is not None:
                predicted = task.predict(model, batch, outputs, chosen)
                predictions.update(zip(batch_indices, predicted, strict=True))
    model.train(was_training)
    parts = gather_object([(loss_sum, terms, predictions, totals, work)])
    metrics: Mapping[str, JsonValue] = {}
    count = len(features)
    if rows is not None:
        gathered = {index: predicted for part in parts for index, predicted in part[2].items()}
        ordered = [gathered[index] for index in range(len(features))]
        answers, references = task.answers(ordered, features, rows)
        scorer = load_metric(metric).Metric()
        metrics, count = scorer.compute(predictions=answers, references=references), len(references)
    return Evaluation(
        loss=sum(part[0] for part in parts) / sum(part[1] for part in parts),
        metrics=metrics,
        count=count,
        routing=sum((part[3] for part in parts), RoutingTotals()),
        work=sum((part[4] for part in parts), Work()),
    )
