"""What stands in the report of a scale: the answer, then tables and figures, then what they rest upon."""

from collections import Counter
from collections.abc import Mapping, Sequence

from repro import plugins
from repro.report.claims.definition import SUBJECTS
from repro.report.claims.verdicts import Judged, judged
from repro.report.page import VERDICTS, Picture, Section
from repro.report.schemes import share_multi_expert
from repro.report.tables import base as tables
from repro.report.tables.base import Cell, Row
from repro.results.published import Published
from repro.results.run import RunResult

SHOWN = {
    "table3": "table3_detail",
    "table5": "table5_detail",
    "table6": "table6_detail",
    "table4": "table4",
    "gates": "gates",
    "weights": "weights",
    "adamoe": "adamoe",
    "learning_rate": "learning_rate",
    "thinning": "thinning",
    "table1": "table1",
    "parallel": "parallel",
}
"""Tables of the paper in the order of the report, and the member of `tables` that shows each."""
PLACES = {
    "answer": ("claims",),
    "claims": ("claims_time", "claims_quality", "claims_tokens"),
    "table3": ("table3", "pareto", "curves"),
    "table4": ("figure1", "figure2", "load"),
    "gates": ("gates",),
    "table1": ("table1",),
}
"""Part of the report -> figures that stand above its table; others come behind all tables."""
CAVEATS = {
    "mini": "Models and texts of this scale are toys: what carries over is how time, FLOPs and shares behave,"
    " not the qualities. ",
    "small": "Models of this scale are small and see little data: their qualities are far below those of"
    " the paper's checkpoints. ",
}
"""Scale -> what to bear in mind."""
_MANY = 40
"""Rows of a table that is folded."""
_RULE = "A claim holds, or does not, if the whole 95 % interval says so; else it is open."


def introduction(published: Published) -> str:
    """Say in two sentences what was measured."""
    trained = {result.task for result in published.results.values()}
    seeds = {result.seed for result in published.results.values()}
    counts = (("run", published.results), ("task", trained), ("seed", seeds))
    counted = ", ".join(f"{len(things)} {word}{'s' * (len(things) != 1)}" for word, things in counts)
    return (
        "What was measured, beside the values of Adaptive Gating in Mixture-of-Experts based Language"
        f" Models (EMNLP 2023): {counted}. An empty cell was not measured."
    )


def sections(published: Published, scale: str, pictures: Mapping[str, Picture]) -> list[Section]:
    """Put the report together.

    Args:
        scale: its name.
        pictures: by the name of their files.
    """
    verdicts = judged(published)
    table3, *others = [_table(name, published, pictures) for name in SHOWN]
    made = [_answer(verdicts, scale, pictures), table3, _claims(verdicts, pictures), *others]
    placed = {name for names in PLACES.values() for name in names}
    made += [
        Section(
            title="Figures", pictures=[picture for name, picture in pictures.items() if name not in placed]
        ),
        Section(title="Circumstances", rows=_circumstances(published)),
        Section(
            title="Runs",
            text="The links lead to the files of a run, on the machine that made it.",
            rows=[_run(result, published) for result in published.results.values()],
            is_folded=True,
        ),
    ]
    return [section for section in made if section.rows or section.pictures]


def claim_row(one: Judged) -> Row:
    """Return a claim as a reader in a hurry wants it, with units."""
    return {
        "Claim": one.claim.text,
        "Verdict": one.judgement.verdict,
        "Ours": one.ours,
        "95 % interval": one.interval,
        "The paper": one.paper,
    }


def _answer(verdicts: Sequence[Judged], scale: str, pictures: Mapping[str, Picture]) -> Section:
    counts: Counter[str] = Counter(one.judgement.verdict for one in verdicts)
    return Section(
        title="Does the paper hold?",
        text=f"{CAVEATS.get(scale, '')}{_RULE}",
        counts=[(verdict, counts[verdict]) for verdict in VERDICTS],
        rows=[claim_row(one) for one in verdicts if one.claim.headline],
        pictures=_placed("answer", pictures),
    )


def _claims(verdicts: Sequence[Judged], pictures: Mapping[str, Picture]) -> Section:
    ordered = sorted(verdicts, key=lambda one: SUBJECTS.index(one.claim.subject))
    return Section(
        title="All claims",
        text="Behind each claim: its rule, what is measured, what the paper says, and why the verdict is what"
        " it is.",
        rows=[
            {"Subject": one.claim.subject[:1].upper() + one.claim.subject[1:], **claim_row(one)}
            for one in ordered
        ],
        details=[_rule(one) for one in ordered],
        group="Subject",
        pictures=_placed("claims", pictures),
    )


def _rule(one: Judged) -> Row:
    estimate = one.judgement.estimate
    return {
        "Holds if": f"the interval lies {one.rule}",
        "Measured": one.claim.quantity,
        "The paper says": f"{one.claim.paper} ({one.claim.where})",
        "Why": one.judgement.reason,
        "Smallest effect that could have been seen": one.effect,
        "What would decide it": one.would_decide,
        "Values": estimate.size if estimate else None,
    }


def _table(name: str, published: Published, pictures: Mapping[str, Picture]) -> Section:
    table = tables.load_shown(SHOWN[name])
    title, _, text = plugins.summary("tables", name).partition(": ")
    rows = table.shown(published)
    return Section(
        title=title,
        text=text[:1].upper() + text[1:],
        rows=rows,
        notes=table.notes(published),
        pictures=_placed(name, pictures),
        is_folded=len(rows) > _MANY,
    )


def _placed(part: str, pictures: Mapping[str, Picture]) -> list[Picture]:
    return [pictures[name] for name in PLACES.get(part, ()) if name in pictures]


def _circumstances(published: Published) -> list[Row]:
    """On what the runs were made: one row for each machine, setting and state of the code."""
    counts = Counter(_circumstance(result) for result in published.results.values())
    return [{"Number of runs": runs, **dict(circumstance)} for circumstance, runs in counts.items()]


def _circumstance(result: RunResult) -> tuple[tuple[str, Cell], ...]:
    environment = result.environment
    return (
        ("Device", environment.device),
        ("Processor", environment.processor),
        ("Cores", environment.cores),
        ("Threads", environment.threads),
        ("Precision", environment.precision),
        ("torch", environment.packages.get("torch")),
        ("transformers", environment.packages.get("transformers")),
        ("Data", result.data.source),
        ("Code", environment.code_state),
    )


def _run(result: RunResult, published: Published) -> Row:
    share = share_multi_expert(result)
    return {
        "Run": result.run_id,
        "Steps": result.steps,
        "Tokens": result.tokens,
        "Training, s": result.train_seconds,
        "Step, ms": 1000 * result.seconds_per_step,
        "FLOPs per token": result.flops.per_token,
        "Two experts": None if share is None else f"{share:.0%}",
        "Metric": result.metric.name,
        "Quality": result.metric.value,
        "Heat map": result.run_id if result.run_id in published.analyses else None,
    }
