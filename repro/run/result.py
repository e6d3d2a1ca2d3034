"""Put together `result.json`: everything that tables are rebuilt from."""

import math
import os
import statistics
from collections.abc import Callable

from repro.machine import peak_memory_bytes
from repro.metrics.base import load as load_metric
from repro.moe.flops import Architecture
from repro.moe.totals import RoutingTotals
from repro.results.records import read_curve
from repro.results.run import SCHEMA_VERSION, Curriculum, Metric, Parameters, RunResult
from repro.run.launch import Launch
from repro.run.setup import Prepared
from repro.training.checkpoints import has_checkpoint, step_folder
from repro.training.curriculum import (
    Measured,
    place_ratio_correlation,
    rank_correlation,
    samples_left_out,
)
from repro.training.evaluator import Evaluation, Pause, evaluate
from repro.training.lane import Lane
from repro.training.state import TrainingState


def build_result(
    launch: Launch, state: TrainingState, lane: Lane, should_stop: Callable[[], bool]
) -> RunResult:
    """Evaluate the trained model with both gates at inference, and gather what the run measured.

    Args:
        state: of the model at the end of the budget; its last measurement is that of this model.
        lane: where it was trained.
        should_stop: asked after every batch; the last checkpoint keeps the part of an evaluation.

    Raises:
        Interrupted: `should_stop` said so.
        FloatingPointError: the model's loss is not finite.
    """
    accelerator, prepared, config, folder = launch.accelerator, launch.prepared, launch.config, launch.folder
    last_leg = folder.cooldown if has_checkpoint(folder.cooldown) else folder
    checkpoint = step_folder(last_leg, state.step)

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
    _require_finite(same, top_1)
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
        samples_per_step=state.work.real.sequences / state.step,
        samples_left_out=samples_left_out(config, prepared.data, launch.placement.processes),
        train_seconds=state.train_seconds,
        seconds_per_step=state.seconds_per_step(),
        seconds_per_step_by_epoch=state.seconds_by_epoch(),
        tokens_per_second=state.tokens / state.train_seconds,
        cpu_steal_fraction=_cpu_steal_fraction(state),
        fair_steps=state.fair_steps,
        lanes=lane.count,
        interleaved_with=list(state.partners),
        neighbours=dict(state.neighbours),
        metric=metric_entry(prepared.metric, same),
        metrics=dict(same.metrics),
        metric_top1=metric_entry(prepared.metric, top_1) if top_1 else None,
        metric_trivial=_trivial(prepared),
        eval_loss=same.loss,
        dev_loss=state.curve[-1].eval_loss,
        curve=read_curve(folder.evals),
        flops=state.work.flops(architecture),
        flops_eval=same.work.flops(architecture),
        routing=None if dense else state.routing.summary(),
        output_scale=prepared.output_scale,
        curriculum=None if dense else curriculum_entry(config.training.curriculum, prepared, state),
        routing_eval=None if dense else same.routing.summary(),
        parameters=_parameters(launch.placement.parameters, architecture, state.routing),
        peak_memory_bytes=peak_memory_bytes(accelerator.device),
        data=prepared.data_record,
        environment=launch.environment,
    )


def _require_finite(*evaluations: Evaluation | None) -> None:
    """Refuse a model that gives no numbers.

    Raises:
        FloatingPointError: a loss is infinite or NaN.
    """
    for evaluation in filter(None, evaluations):
        if not math.isfinite(evaluation.loss):
            raise FloatingPointError(
                f"the evaluation loss of the trained model is {evaluation.loss}; lower training.learning_rate"
            )


def curriculum_entry(order: str, prepared: Prepared, state: TrainingState) -> Curriculum:
    """Correlate what the curriculum's order could rest on, and what it came to.

    Spearman's rank correlations. Length with the two-expert tokens: over the training samples of the last
    whole epoch, with their share (mean over layers) and with their number; None if no epoch ended, or if one
    of the two is constant. Place in the order with that share: `place_ratio_correlation`, mean over the
    ordered epochs, of which the last may have been cut short.
    """
    measured = Measured.of(state)
    if measured is None:
        return Curriculum(
            length_ratio_correlation=None, length_count_correlation=None, place_ratio_correlation=None
        )
    lengths_N, seen_N = prepared.data.lengths_N, measured.seen_N
    ratios_N, counts_N = measured.ratios_NL.mean(1), measured.num_multi_expert_N
    places = list(state.place_ratio_correlations)
    if state.position > 0:
        places.append(place_ratio_correlation(order, state, lengths_N))
    defined = [place for place in places if place is not None]
    return Curriculum(
        length_ratio_correlation=rank_correlation(lengths_N[seen_N], ratios_N[seen_N]),
        length_count_correlation=rank_correlation(lengths_N[seen_N], counts_N[seen_N]),
        place_ratio_correlation=statistics.fmean(defined) if defined else None,
    )


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


def _trivial(prepared: Prepared) -> float | None:
    """Score the answers that need no model."""
    task, features, rows = prepared.task, prepared.validation, prepared.rows
    predictions = task.trivial(prepared.data.train, features, rows)
    if predictions is None:
        return None
    answers, references = task.answers(predictions, features, rows)
    metric = load_metric(prepared.metric).Metric()
    value = metric.compute(predictions=answers, references=references)[prepared.metric]
    assert value is None or isinstance(value, float)
    return value


def _cpu_steal_fraction(state: TrainingState) -> float | None:
    """Divide the time that other virtual machines took by the CPUs' time while training."""
    if state.cpu_steal_seconds is None:
        return None
    return state.cpu_steal_seconds / (state.train_seconds * (os.cpu_count() or 1))


def _parameters(total: int, architecture: Architecture, routing: RoutingTotals) -> Parameters:
    """Count all parameters, and those that an average token meets in a forward pass."""
    idle: float = architecture.idle_parameters
    for ffn, assignments, tokens in zip(
        architecture.moe, routing.assignments_L(), routing.tokens_L(), strict=True
    ):
        idle += (architecture.experts - assignments / tokens) * ffn.parameters
    return Parameters(total=total, active=round(total - idle))
