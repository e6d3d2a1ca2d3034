"""Parts of the replication report, in Markdown: models, cost, claims by subject, tables as on the page."""

from collections.abc import Iterable, Sequence

import scales

from repro.report import weights
from repro.report.claims.definition import Subject
from repro.report.claims.verdicts import judged
from repro.report.page import cell, head, literal
from repro.report.schemes import STUDY, tasks_in_order, title
from repro.report.tables.base import Row, load_shown
from repro.results.run import RunResult

BASELINE = "top-2"
SECONDS = 3600
"""Of an hour."""
STUDIES = sorted(path.stem for path in (scales.ROOT / "experiments" / "studies").glob("*.toml"))


def models(*names: str) -> list[str]:
    """Return, for each scale and task, the top-2 model of Table 3, its data and its budget."""
    heads = ("task", "scale", "model", "MoE layers", "experts", "parameters", "active")
    rows = []
    for scale in names:
        tasks = scales.published(scale).of_study(STUDY)
        found = {task: variants[BASELINE] for task, variants in tasks.items() if variants.get(BASELINE)}
        rows += [
            (title(task), f"`{scale}`", *_model(found[task][0]), str(len(found[task])))
            for task in tasks_in_order(found)
        ]
    return scales.table((*heads, "train", "dev", "validation", "batch", "steps", "seeds"), rows)


def _model(run: RunResult) -> tuple[str, ...]:
    sections = {name: run.config.get(name) for name in ("model", "experts", "training")}
    model, experts, training = (section if isinstance(section, dict) else {} for section in sections.values())
    batch = training.get("batch_tokens")
    layers = len(run.routing.share_by_count_per_layer) if run.routing else 0
    return (
        str(model.get("backbone")),
        str(layers),
        str(experts.get("count")),
        cell(run.parameters.total),
        cell(run.parameters.active),
        *(str(run.data.counts.get(split, "")) for split in ("train", "dev", "validation")),
        f"{batch} tokens" if batch else f"{training.get('batch_size')} rows",
        str(run.steps),
    )


def cost(*names: str) -> list[str]:
    """Return, for each study of each scale, how many runs it has, how long they trained, and on what."""
    heads = (
        "study",
        "scale",
        "tasks",
        "runs",
        "seeds",
        "hours of training",
        "processor",
        "device",
        "threads",
    )
    rows = []
    for scale in names:
        published = scales.published(scale)
        for study in published.studies:
            tasks = published.of_study(study)
            runs = [run for variants in tasks.values() for found in variants.values() for run in found]
            rows.append((f"`{study}`", f"`{scale}`", str(len(tasks)), *_cost(runs)))
    return scales.table((*heads, "precision", "torch", "transformers"), rows)


def _cost(runs: Sequence[RunResult]) -> tuple[str, ...]:
    environments = [run.environment for run in runs]
    return (
        str(len(runs)),
        str(len({run.seed for run in runs})),
        f"{sum(run.train_seconds for run in runs) / SECONDS:.1f}",
        _each(one.processor for one in environments),
        _each(one.device for one in environments),
        _each(one.threads for one in environments),
        _each(one.precision for one in environments),
        _each(one.packages.get("torch") for one in environments),
        _each(one.packages.get("transformers") for one in environments),
    )


def _each(values: Iterable[object]) -> str:
    """Name every value once."""
    return ", ".join(dict.fromkeys(map(str, values)))


def claims_about(subject: Subject, *names: str) -> list[str]:
    """Return the claims of a subject, as they turned out at each scale."""
    return scales.claims_where(lambda claim: claim.subject == subject, names)


def undecided(*names: str) -> list[str]:
    """Return the open claims of each scale, and what would decide them."""
    heads = ("claim", "scale", "ours, 95 % interval", "holds if", "what would decide it")
    rows = [
        (
            f"{one.claim.text} ({one.claim.where})",
            f"`{scale}`",
            f"{one.ours} ({one.interval})",
            one.rule,
            one.would_decide,
        )
        for scale in names
        for one in judged(scales.published(scale))
        if one.judgement.verdict == "open"
    ]
    return scales.table(heads, rows) if rows else ["None."]


def missing(*names: str) -> list[str]:
    """Return, for each scale, how many claims were not measured, and the studies without a result."""
    rows = []
    for scale in names:
        published = scales.published(scale)
        verdicts = [one.judgement.verdict for one in judged(published)]
        without = [name for name in STUDIES if not any(published.of_study(name).values())]
        counted = f"{verdicts.count('not measured')} of {len(verdicts)}"
        rows.append((f"`{scale}`", counted, ", ".join(f"`{name}`" for name in without) or "none"))
    return scales.table(("scale", "claims not measured", "studies without a result"), rows)


def shown(name: str, scale: str) -> list[str]:
    """Return a table as the report page has it, without the runs of its rows."""
    rows: Sequence[Row] = load_shown(name).shown(scales.published(scale))
    columns = [column for column in rows[0] if column != "Runs"] if rows else []
    return scales.table(
        (literal(head(column)) for column in columns),
        ([literal(cell(row[column])) for column in columns] for row in rows),
    )


def explained(scale: str) -> list[str]:
    """Return what the study of weights says about the differences of schemes: their parts, and a sentence."""
    found = weights.explained(scales.published(scale))
    rows = [
        (
            one.task,
            one.gap,
            weights.amount(one.whole),
            f"{cause} {weights.amount(values)}",
            _word(values, one.whole),
        )
        for one in found
        for cause, values in one.parts.items()
    ]
    heads = ("task", "difference", "nats", "of it", "which")
    return [*scales.table(heads, rows), *(["", weights.closing(found)] if found else [])]


def _word(part: Sequence[float], whole: Sequence[float]) -> str:
    said = weights.word(part, whole)
    return said if said == "undecided" else f"{said} it"
