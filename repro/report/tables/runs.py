"""One row per finished run, with everything that was measured on it."""

from collections.abc import Mapping, Sequence

from repro import paper
from repro.report.origin import ORIGIN, origin_cells
from repro.report.schemes import mean_experts, performance_top_1, share_multi_expert, share_multi_expert_eval
from repro.report.tables.base import Row
from repro.results.published import Published
from repro.results.run import RunResult

FILE = "runs.csv"
COLUMNS = (
    "Run",
    "Task",
    "Scheme",
    "Seed",
    "Metric",
    "Performance",
    "Performance (top-1 at inference)",
    "Paper",
    "Examples",
    "Eval loss",
    "Steps",
    "Epochs",
    "Train seconds",
    "Seconds per step",
    "Tokens per second",
    "Stolen share",
    "FLOPs per token",
    "FLOPs per token executed",
    "FLOPs per token dense",
    "Mean experts",
    "Share two experts",
    "Share two experts by layer",
    "Share two experts at evaluation",
    "Load CV by layer",
    "Logit std by layer",
    "Parameters",
    "Active parameters",
    "Peak memory bytes",
    *ORIGIN,
)


def rows(published: Published) -> list[Row]:
    """Derive rows in the order of task, scheme and seed. Lists by layer are separated by spaces."""
    results = sorted(published.results.values(), key=lambda run: (run.task, run.gate, run.seed))
    return [_row(run, published.commands) for run in results]


def _row(run: RunResult, commands: Mapping[str, str]) -> Row:
    values = (
        run.run_id,
        run.task,
        run.gate,
        run.seed,
        run.metric.name,
        run.metric.value,
        performance_top_1(run),
        (paper.scheme(run.task, run.gate) or {}).get("performance"),
        run.metric.count,
        run.eval_loss,
        run.steps,
        run.epochs,
        run.train_seconds,
        run.seconds_per_step,
        run.tokens_per_second,
        run.cpu_steal_fraction,
        run.flops.per_token,
        run.flops.per_token_executed,
        run.flops.dense_per_token,
        mean_experts(run),
        share_multi_expert(run),
        _listed(run.routing.share_multi_expert_per_layer if run.routing else []),
        share_multi_expert_eval(run),
        _listed(run.routing.load_cv_per_layer if run.routing else []),
        _listed(run.routing.logit_std_per_layer if run.routing else []),
        run.parameters.total,
        run.parameters.active,
        run.peak_memory_bytes,
        *origin_cells([run], commands).values(),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _listed(values: Sequence[float | None]) -> str | None:
    return " ".join("" if value is None else f"{value:.4f}" for value in values) if values else None
