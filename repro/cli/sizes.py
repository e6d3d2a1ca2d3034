"""`repro list tasks --scale`: parameters and FLOPs of a scale's models, without weights or data."""

from collections.abc import Sequence
from pathlib import Path

from repro import paper, plugins
from repro.cli.console import Row
from repro.config import RunConfig
from repro.moe.volume import Volume
from repro.report.schemes import STUDY
from repro.report.statistics import mean
from repro.results.published import FOLDER, Published
from repro.results.run import RunResult
from repro.run.blueprint import blueprint, planned_options
from repro.run.memory import stack_lengths
from repro.run.resolve import resolve

StudyRows = dict[str, dict[str, list[RunResult]]]
"""Task -> variant -> finished runs."""


def size_rows(scale: str, results: Path) -> list[Row]:
    """Size each task's model: dense and converted with a top-2 gate.

    FLOPs are those of a forward pass per token, for sequences of the scale's full length, with 1,
    2, or on average 1 + share experts per token; the share is the paper's (section 4.4), and that
    measured at scale `small` or `mini`, the first that has a finished study here or a published one.
    """
    studies = [
        Published.read(folder).of_study(STUDY)
        for name in ("small", "mini")
        for folder in (results / name, results / FOLDER / name)
    ]
    return [_row(task, scale, results, _measured_share(task, studies)) for task in plugins.names("tasks")]


def scale_config(task: str, scale: str, gate: str, results: Path) -> RunConfig:
    """Return a task's run as a scale has it.

    Raises:
        UserError: there is no such scale, or it has no such task.
    """
    return resolve(
        task=task, scale=scale, gate=gate, seed=0, data=None, model=None, overrides={}, results=results
    )[0]


def _row(task: str, scale: str, results: Path, share_ours: float | None) -> Row:
    config = scale_config(task, scale, "top-2", results)
    options = planned_options(config, None)
    dense_parameters = blueprint(scale_config(task, scale, "dense", results), options).parameters
    plan = blueprint(config, options)
    architecture = plan.architecture
    stacks = {ffn.stack for ffn in architecture.ffns}
    lengths = stack_lengths(config, stacks)
    volume = Volume.of({stack: [lengths[stack]] for stack in stacks})

    def per_token(experts: float) -> float:
        return 2 * architecture.analytic_macs(volume, experts) / volume.tokens

    top_2 = per_token(2)
    share_paper = paper.tables()["share_two"].get(task)
    theirs = {gate: paper.scheme(task, gate) or {} for gate in ("top-2", "adaptive", "dense")}
    dense = 2 * architecture.dense_macs(volume) / volume.tokens
    return {
        "task": task,
        "length": "+".join(str(lengths[stack]) for stack in sorted(stacks, reverse=True)),
        "dense model": dense_parameters,
        "MoE model": plan.parameters,
        "dense FLOPs": dense,
        "top-1 FLOPs": per_token(1),
        "top-2 FLOPs": top_2,
        "adaptive FLOPs, paper's share": None if share_paper is None else per_token(1 + share_paper),
        "adaptive FLOPs, our share": None if share_ours is None else per_token(1 + share_ours),
        "dense / top-2": dense / top_2,
        "dense / top-2, paper": _ratio(theirs["dense"], theirs["top-2"]),
        "adaptive / top-2": None if share_paper is None else per_token(1 + share_paper) / top_2,
        "adaptive / top-2, paper": _ratio(theirs["adaptive"], theirs["top-2"]),
    }


def columns(rows: Sequence[Row], first: int, last: int) -> list[Row]:
    """Pick the task and some of the columns: all do not fit beside each other on a terminal."""
    return [{"task": row["task"]} | dict(list(row.items())[first:last]) for row in rows]


def _ratio(part: dict[str, float], whole: dict[str, float]) -> float | None:
    return part["flops"] / whole["flops"] if part and whole else None


def _measured_share(task: str, studies: Sequence[StudyRows]) -> float | None:
    """Return the adaptive gate's share of two-expert tokens in the first study that has it."""
    for study in studies:
        runs = study.get(task, {}).get("adaptive", [])
        shares = [
            share
            for run in runs
            if run.routing is not None and (share := run.routing.share_multi_expert) is not None
        ]
        if shares:
            return mean(shares)
    return None
