"""Loss, metric and routing of a model on a set of examples."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device

from repro import plugins
from repro.cost import Work
from repro.routing import RoutingTotals, best_expert_only, record_routing


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one pass over a set of examples gives."""

    loss: float
    """Mean task loss over its terms (examples or tokens), without auxiliary losses."""
    metrics: dict[str, float]
    """Empty unless references were given."""
    count: int
    """Examples evaluated."""
    routing: RoutingTotals
    work: Work


def evaluate(
    accelerator: Accelerator,
    model: Any,
    task: ModuleType,
    features: list[dict[str, Any]],
    *,
    pad_id: int,
    batch_size: int,
    best_only: bool = False,
    references: list[Any] | None = None,
) -> Evaluation:
    """Evaluate without gradient, longest examples first; processes share the batches.

    Args:
        best_only: route every token to its best expert alone (top-1 gating at inference).
        references: one per feature; None measures the loss alone.
    """
    order = sorted(range(len(features)), key=lambda index: -len(features[index]["input_ids"]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    loss_sum, terms = 0.0, 0
    predictions: dict[int, Any] = {}
    totals, work = RoutingTotals(), Work()
    # A wrapper for data parallelism would wait in every forward pass for the other processes.
    model = accelerator.unwrap_model(model)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), best_expert_only(model, best_only):
        for batch_indices in batches[accelerator.process_index :: accelerator.num_processes]:
            chosen = [features[index] for index in batch_indices]
            batch = send_to_device(task.collate(chosen, pad_id), accelerator.device)
            with record_routing(model) as tape:
                outputs = model(**batch)
            loss_sum += float(outputs.loss) * task.loss_terms(batch)
            terms += task.loss_terms(batch)
            totals += RoutingTotals.of(tape)
            work += Work.of(tape, [len(feature["input_ids"]) for feature in chosen])
            if references is not None:
                found = task.predict(outputs, batch)
                predictions.update(zip(batch_indices, found, strict=True))
    model.train(was_training)
    parts = gather_object([(loss_sum, terms, predictions, totals, work)])
    metrics = {}
    if references is not None:
        metric = plugins.load("metrics", task.METRIC).Metric(keep_in_memory=True)
        gathered = {index: found for part in parts for index, found in part[2].items()}
        ordered = [gathered[index] for index in range(len(features))]
        metrics = metric.compute(predictions=ordered, references=references)
    return Evaluation(
        loss=sum(part[0] for part in parts) / sum(part[1] for part in parts),
        metrics=metrics,
        count=len(features),
        routing=sum((part[3] for part in parts), RoutingTotals()),
        work=sum((part[4] for part in parts), Work()),
    )
