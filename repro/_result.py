"""Putting together `result.json`: everything that tables are rebuilt from."""

import os
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from accelerate import Accelerator

from repro import plugins
from repro._checkpoints import TrainingState
from repro._prepare import Prepared
from repro.config import RunConfig
from repro.cost import Architecture, peak_memory_bytes
from repro.evaluator import Evaluation, evaluate
from repro.records import SCHEMA_VERSION
from repro.routing import RoutingTotals


def build_result(
    accelerator: Accelerator,
    prepared: Prepared,
    config: RunConfig,
    state: TrainingState,
    environment: dict[str, Any],
    beside: Sequence[str],
) -> dict[str, Any]:
    """Evaluate the trained model with both gates at inference; see docs/results.md for the keys."""

    def measure(best_only: bool) -> Evaluation:
        return evaluate(
            accelerator,
            prepared.model,
            prepared.task,
            prepared.metric,
            prepared.validation,
            batch_size=config.evaluation.batch_size,
            best_only=best_only,
            rows=prepared.rows,
        )

    dense = config.gate == "dense"
    same = measure(best_only=False)
    top_1 = None if dense else measure(best_only=True)
    architecture = prepared.architecture
    routing = None if dense else state.routing.summary()
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": config.run_id,
        "task": config.task,
        "gate": config.gate,
        "scale": config.scale,
        "seed": config.seed,
        "config": config.to_dict(),
        "status": "finished",
        "steps": state.step,
        "epochs": state.work.real.sequences / len(prepared.data.train),
        "tokens": state.tokens,
        "train_seconds": state.train_seconds,
        "seconds_per_step": statistics.median(state.step_seconds),
        "tokens_per_second": state.tokens / state.train_seconds,
        "stolen_share": _stolen_share(state),
        "beside": list(beside),
        "metric": metric_entry(prepared.metric, same),
        "metrics": same.metrics,
        "metric_top1": metric_entry(prepared.metric, top_1) if top_1 else None,
        "eval_loss": same.loss,
        "curve": state.curve,
        "flops": state.work.flops(architecture),
        "flops_eval": same.work.flops(architecture),
        "routing": routing,
        "curriculum": None if dense else curriculum_entry(prepared, state),
        "routing_eval": None if dense else same.routing.summary(),
        "parameters": _parameters(prepared.model, architecture, state.routing),
        "peak_memory_bytes": peak_memory_bytes(accelerator.device),
        "data": prepared.data_record,
        "environment": environment,
    }


def curriculum_entry(prepared: Prepared, state: TrainingState) -> dict[str, Any]:
    """Whether longer samples have more two-expert tokens, which the curriculum's order could rest on.

    Rank correlations, over the training samples of the last whole epoch, of a sample's length with
    its share of two-expert tokens (mean over layers) and with their number. None if no epoch
    ended, or if one of the two is the same for all samples.
    """
    if state.ratios_NL is None or state.several_N is None:
        return {"length_ratio_correlation": None, "length_count_correlation": None}
    lengths_N = np.array([prepared.task.length(feature) for feature in prepared.data.train])
    return {
        "length_ratio_correlation": rank_correlation(lengths_N, state.ratios_NL.mean(1).numpy()),
        "length_count_correlation": rank_correlation(lengths_N, state.several_N.numpy()),
    }


def rank_correlation(left_N: Any, right_N: Any) -> float | None:
    """Spearman's rank correlation of two arrays; None if one of them is constant."""
    if left_N.min() == left_N.max() or right_N.min() == right_N.max():
        return None
    # It takes a second to import, which the first step need not wait for.
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(left_N), rankdata(right_N))[0, 1])


def metric_entry(name: str, evaluation: Evaluation) -> dict[str, Any]:
    """The task's own metric, with its direction and the number of examples behind it."""
    return {
        "name": name,
        "value": evaluation.metrics[name],
        "higher_is_better": plugins.load("metrics", name).HIGHER_IS_BETTER,
        "count": evaluation.count,
    }


def _stolen_share(state: TrainingState) -> float | None:
    """Share of the processors' time, while training, that other virtual machines took."""
    if state.stolen_seconds is None:
        return None
    return state.stolen_seconds / (state.train_seconds * (os.cpu_count() or 1))


def _parameters(model: Any, architecture: Architecture, routing: RoutingTotals) -> dict[str, Any]:
    """All parameters, and those that an average token of each layer meets in a forward pass."""
    total = sum(parameter.numel() for parameter in model.parameters())
    idle = 0.0
    for ffn, assignments, tokens in zip(
        architecture.moe, routing.assignments_L(), routing.tokens_L(), strict=True
    ):
        one_expert = 2 * ffn.d_model * ffn.d_hidden + ffn.d_model + ffn.d_hidden
        idle += (architecture.experts - assignments / tokens) * one_expert
    return {"total": total, "active": round(total - idle)}
