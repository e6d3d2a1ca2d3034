"""Put together `result.json`: everything that tables are rebuilt from."""

import math
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator
from torch import nn

from repro.config import RunConfig
from repro.machine import peak_memory_bytes
from repro.metrics.base import load as load_metric
from repro.moe.flops import Architecture
from repro.moe.routing import RoutingTotals
from repro.results.environment import Environment
from repro.results.files import RunFolder
from repro.results.run import SCHEMA_VERSION, Curriculum, Metric, Parameters, RunResult
from repro.run.setup import Prepared
from repro.training.checkpoints import step_folder
from repro.training.evaluator import Evaluation, Pause, evaluate
from repro.training.state import TrainingState


def build_result(
    accelerator: Accelerator,
    prepared: Prepared,
    config: RunConfig,
    state: TrainingState,
    environment: Environment,
    interleaved_with: Sequence[str],
    folder: RunFolder,
    should_stop: Callable[[], bool],
) -> RunResult:
    """Evaluate the trained model with both gates at inference, and gather what the run measured.

    Args:
        folder: whose last checkpoint keeps the part of an evaluation that is stopped.
        should_stop: asked after every batch.

    Raises:
        Interrupted: `should_stop` said so.
        FloatingPointError: the model's loss is not finite.
    """
    checkpoint = step_folder(folder, state.step)

    def measure(force_top1: bool) -> Evaluation:
        name = "evaluation-top-1" if force_top1 else "evaluation"
        return evaluate(
            accelerator,
            prepared.model,
            prepared.task,
            prepared.metric,
            prepared.validation,
            batch_size=config.evaluation.batch_size,
            force_top1=force_top1,
            rows=prepared.rows,
            pause=Pause(should_stop=should_stop, part=checkpoint / name),
        )

    dense = config.gate == "dense"
    same = measure(force_top1=False)
    top_1 = None if dense else measure(force_top1=True)
    for evaluation in filter(None, (same, top_1)):
        if not math.isfinite(evaluation.loss):
            raise FloatingPointError(
                f"the evaluation loss of the trained model is {evaluation.loss}; lower training.learning_rate"
            )
    architecture = prepared.architecture
    return RunResult(
        schema_version=SCHEMA_VERSION,
        run_id=config.run_id,
        task=config.task,
        gate=config.gate,
        scale=config.scale,
        seed=config.seed,
        config=config.to_dict(),
        status="finished",
        steps=state.step,
        epochs=state.work.real.sequences / len(prepared.data.train),
        tokens=state.tokens,
        train_seconds=state.train_seconds,
        seconds_per_step=statistics.median(state.step_seconds),
        tokens_per_second=state.tokens / state.train_seconds,
        cpu_steal_fraction=_cpu_steal_fraction(state),
        interleaved_with=list(interleaved_with),
        metric=metric_entry(prepared.metric, same),
        metrics=dict(same.metrics),
        metric_top1=metric_entry(prepared.metric, top_1) if top_1 else None,
        eval_loss=same.loss,
        curve=state.curve,
        flops=state.work.flops(architecture),
        flops_eval=same.work.flops(architecture),
        routing=None if dense else state.routing.summary(),
        curriculum=None if dense else curriculum_entry(prepared, state),
        routing_eval=None if dense else same.routing.summary(),
        parameters=_parameters(prepared.model, architecture, state.routing),
        peak_memory_bytes=peak_memory_bytes(accelerator.device),
        data=prepared.data_record,
        environment=environment,
    )


def curriculum_entry(prepared: Prepared, state: TrainingState) -> Curriculum:
    """Correlate each sample's length with its two-expert tokens, on which the curriculum's order could rest.

    Spearman's rank correlations over the training samples of the last whole epoch, with the share (mean
    over layers) and with the number. None if no epoch ended, or if one of the two is constant.
    """
    if state.ratios_NL is None or state.num_multi_expert_N is None:
        return Curriculum(length_ratio_correlation=None, length_count_correlation=None)
    lengths_N = np.array([prepared.task.length(feature) for feature in prepared.data.train])
    return Curriculum(
        length_ratio_correlation=rank_correlation(lengths_N, state.ratios_NL.mean(1).numpy()),
        length_count_correlation=rank_correlation(lengths_N, state.num_multi_expert_N.numpy()),
    )


def rank_correlation(left_N: npt.NDArray[Any], right_N: npt.NDArray[Any]) -> float | None:
    """Return Spearman's rank correlation of two arrays; None if one of them is constant."""
    if left_N.min() == left_N.max() or right_N.min() == right_N.max():
        return None
    # It takes a second to import, which the first step need not wait for.
    from scipy.stats import spearmanr

    return float(spearmanr(left_N, right_N).statistic)


def metric_entry(name: str, evaluation: Evaluation) -> Metric:
    """Take the task's own metric out of an evaluation, with its direction and number of examples."""
    value = evaluation.metrics[name]
    assert value is None or isinstance(value, float)
    return Metric(
        name=name,
        value=value,
        higher_is_better=load_metric(name).HIGHER_IS_BETTER,
        count=evaluation.count,
    )


def _cpu_steal_fraction(state: TrainingState) -> float | None:
    """Divide the time that other virtual machines took by the CPUs' time while training."""
    if state.cpu_steal_seconds is None:
        return None
    return state.cpu_steal_seconds / (state.train_seconds * (os.cpu_count() or 1))


def _parameters(model: nn.Module, architecture: Architecture, routing: RoutingTotals) -> Parameters:
    """Count all parameters, and those that an average token meets in a forward pass."""
    total = sum(parameter.numel() for parameter in model.parameters())
    idle = 0.0
    for ffn, assignments, tokens in zip(
        architecture.moe, routing.assignments_L(), routing.tokens_L(), strict=True
    ):
        one_expert = 2 * ffn.d_model * ffn.d_hidden + ffn.d_model + ffn.d_hidden
        idle += (architecture.experts - assignments / tokens) * one_expert
    return Parameters(total=total, active=round(total - idle))
