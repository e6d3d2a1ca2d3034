"""Tables of a published scale in Markdown, as README and docs show them: read from its CSV files."""

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import stdev

from repro.report.claims.definition import Claim
from repro.report.claims.verdicts import Judged, judged
from repro.report.figures import claims
from repro.report.page import VERDICTS, several
from repro.report.schemes import SchemeRow, eval_loss, performance, scheme_rows, spaced
from repro.report.statistics import detectable
from repro.results.published import Published

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "results" / "published"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return a Markdown table, or that there is nothing."""
    heads, rows = tuple(heads), list(rows)
    if not rows:
        return ["Not measured."]
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def schemes(scale: str) -> list[str]:
    """Return Table 3 of a scale, with what stands behind its times."""
    heads = (
        *("task (metric)", "scheme", "time to equal loss", "95 %", "paper", "steps", "time per step"),
        *("FLOPs", "paper", "quality", "±", "two experts"),
    )
    return table(heads, map(_scheme, _read(scale, "table3_detail.csv")))


def _scheme(row: Mapping[str, str]) -> tuple[str, ...]:
    share = row["Share two experts"]
    return (
        f"{row['Task']} ({row['Metric']})" if row["Scheme"] == "dense" else "",
        row["Scheme"],
        _ratio(row["Norm. Training Time"]),
        _range(row["Norm. Training Time interval"]),
        _ratio(row["Norm. Training Time (paper)"]),
        _ratio(row["Steps to target"]),
        _ratio(row["Time per step"]),
        _ratio(row["Norm. FLOPs"]),
        _ratio(row["Norm. FLOPs (paper)"]),
        _short(row["Inference Performance"], 3),
        _short(row["Inference Performance interval"]),
        f"{float(share):.0%}" if share and row["Scheme"] == "adaptive" else "",
    )


def answer(*scales: str, page: Path = ROOT) -> list[str]:
    """Return how many claims hold at each published scale, a picture of the first, and the main claims.

    Args:
        page: the folder of the page that this stands in.
    """
    found = {scale: judged(published(scale)) for scale in with_claims(scales)}
    lines = [f"* `{scale}`: {_counts(judgements)}" for scale, judgements in found.items()]
    for scale in found:
        picture = PUBLISHED / scale / "figures" / f"{claims.FILE}.png"
        if picture.is_file():
            place = Path(os.path.relpath(picture, page)).as_posix()
            lines += ["", f"![{claims.TITLE}]({place})", "", f"*{claims.SEE}*"]
            break
    return [*lines, *([""] if lines else []), *claims_where(lambda claim: claim.headline, scales)]


def claims_where(wanted: Callable[[Claim], bool], scales: Iterable[str]) -> list[str]:
    """Return claims with the paper's number, and verdict and number at each scale that measures one."""
    found = {
        scale: [one for one in judged(published(scale)) if wanted(one.claim)] for scale in with_claims(scales)
    }
    heads = ("claim", "the paper", *(f"`{scale}`: ours, 95 % interval" for scale in found))
    return table(heads, map(_claim, zip(*found.values(), strict=True)))


@cache
def published(scale: str) -> Published:
    """Read what is published of a scale, once; nothing if it is not there."""
    return Published.read(PUBLISHED / scale)


def with_claims(scales: Iterable[str]) -> list[str]:
    """Return the scales at which a claim is measured: runs of other studies alone tell nothing about them."""
    return [
        scale
        for scale in scales
        if any(one.judgement.verdict != "not measured" for one in judged(published(scale)))
    ]


def _counts(judgements: Sequence[Judged]) -> str:
    counts: Counter[str] = Counter(one.judgement.verdict for one in judgements)
    named = ", ".join(f"{counts[verdict]} {several(verdict, counts[verdict])}" for verdict in VERDICTS)
    return f"of {len(judgements)} claims {named}"


def _claim(of_scales: Sequence[Judged]) -> tuple[str, ...]:
    claim = of_scales[0].claim
    return (f"{claim.text} ({claim.where})", of_scales[0].paper or claim.paper, *map(_verdict, of_scales))


def _verdict(one: Judged) -> str:
    verdict = f"**{one.judgement.verdict}**"
    return f"{verdict}: {one.ours} ({one.interval})" if one.ours else verdict


def judgements(scale: str) -> list[str]:
    """Return every claim with its verdict, ours, its interval and the paper's number."""
    rows = (
        (
            claim["Claim"],
            claim["Where"],
            claim["Verdict"],
            _short(claim["Ours"], 3),
            _span(claim["Low"], claim["High"]),
            claim["Holds if"],
            claim["Paper"],
        )
        for claim in (_read(scale, "claims.csv") if with_claims([scale]) else ())
    )
    return table(("claim", "where", "verdict", "ours", "95 %", "holds if", "paper"), rows)


def _span(low: str, high: str) -> str:
    return f"{_short(low, 3)} to {_short(high, 3)}" if low or high else ""


def words(scale: str) -> list[str]:
    """Return Table 4: the words that most often get two experts."""
    rows = ((row["Task"], row["Top-2 gating tokens"]) for row in _read(scale, "table4.csv"))
    return table(("task", "words with two experts more often than others"), rows)


def rates(scale: str) -> list[str]:
    """Return the learning rate picked for every scheme; a star says that it is at an end of the search."""
    searches: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _read(scale, "learning_rate.csv"):
        searches.setdefault((row["Task"], row["Scheme"]), []).append(row)
    cells: dict[str, dict[str, str]] = {}
    for (task, scheme), rows in searches.items():
        picked = next((place for place, row in enumerate(rows) if row["Picked"] == "yes"), None)
        if picked is not None:
            star = "*" if picked in (0, len(rows) - 1) else ""
            cells.setdefault(task, {})[scheme] = f"{float(rows[picked]['Learning rate']):g}{star}"
    schemes = list(dict.fromkeys(scheme for _, scheme in searches))
    return table(
        ("task", *schemes), ((task, *(row.get(one, "") for one in schemes)) for task, row in cells.items())
    )


def layers(scale: str, of: tuple[str, str] | None = None) -> list[str]:
    """Return Table 1: the time of a layer by its share of one-expert tokens, in every case.

    Args:
        of: sizes and precision of one layer; None: all.
    """
    cases = {key: case for key, case in _cases(scale, "grouped").items() if of in (None, (key[0], key[2]))}
    shares = ("1.0", "0.8", "0.5", "0.2")
    heads = ("layer", "tokens", "precision", "ms", *(f"{float(one):.0%} one expert" for one in shares))
    first = next(iter(cases.values()), {})
    rows = [
        ("operations", "", "", "", *(_ratio(first[one]["Computation"]) for one in shares if one in first)),
        ("paper", "", "", "", *(_ratio(first[one]["Time (paper)"]) for one in shares if one in first)),
    ]
    for (layer, tokens, precision), case in cases.items():
        times = (_ratio(case[one]["Time"]) if one in case else "" for one in shares)
        rows.append((layer, tokens, precision, _short(case["0.0"]["ms"], 3), *times))
    return table(heads, rows)


def implementations(scale: str) -> list[str]:
    """Return, with two experts for every token, the time of every implementation over that of `grouped`."""
    ours = _cases(scale, "grouped")
    others = (
        "padded",
        "loop",
        "transformers-eager",
        "transformers-grouped_mm",
        "transformers-batched_mm",
        "dense",
    )
    timed = {other: _cases(scale, other) for other in others}
    rows = []
    for key, case in ours.items():
        base = case["0.0"]
        ratios = (
            f"{float(timed[other][key]['0.0']['ms']) / float(base['ms']):.2f}" if key in timed[other] else ""
            for other in others
        )
        rows.append((*key, *ratios, base["Processor"], base["Code"]))
    return table(("layer", "tokens", "precision", *others, "processor", "code"), rows)


def _cases(scale: str, implementation: str) -> dict[tuple[str, str, str], dict[str, dict[str, str]]]:
    """Layer, tokens and precision -> share of one-expert tokens -> row, of one implementation."""
    cases: dict[tuple[str, str, str], dict[str, dict[str, str]]] = {}
    for row in _read(scale, "table1.csv"):
        if row["Implementation"] == implementation:
            key = (row["Layer"], row["Tokens"], row["Precision"])
            cases.setdefault(key, {})[row["Top-1 share"]] = row
    return dict(sorted(cases.items(), key=lambda item: (item[0][0], item[0][2], int(item[0][1]))))


def circumstances(scale: str) -> list[str]:
    """Return how many runs are of which code, machine and command."""
    columns = ("Code", "Processor", "Command")
    counts = Counter(tuple(run[name] for name in columns) for run in _read(scale, "runs.csv"))
    rows = (
        (str(count), f"`{code}`", machine, f"`{text}`" if text else "not recorded")
        for (code, machine, text), count in counts.most_common()
    )
    return table(("runs", "code", "processor", "command"), rows)


def spreads(scale: str) -> list[str]:
    """Return, for adaptive gating against top-2, the spread over seeds and the smallest effect to be seen."""
    heads = (
        *("task (metric)", "steps", "seeds", "time ratio, 95 %", "loss difference: standard deviation"),
        *("smallest effect", "metric difference: standard deviation", "smallest effect"),
    )
    rows = scheme_rows(published(scale))
    return table(heads, (_spread(row) for row in rows if row.scheme == "adaptive" and row.runs))


def _spread(row: SchemeRow) -> tuple[str, ...]:
    time = row.time_to_target
    differences = (row.paired(eval_loss), row.paired(performance))
    return (
        f"{row.title} ({row.metric})",
        str(row.runs[0].steps),
        str(len(row.runs)),
        _range(spaced(time.interval)) if time and time.interval else _ratio(str(row.norm_time)),
        *(cell for values in differences for cell in _deviation_and_effect(values)),
    )


def _deviation_and_effect(differences: Sequence[float]) -> tuple[str, str]:
    effect = detectable(differences)
    return ("", "") if effect is None else (f"{stdev(differences):.2g}", f"{effect:.2g}")


def _read(scale: str, name: str) -> Iterable[dict[str, str]]:
    """Iterate over the rows of a published table; none if it is not there."""
    if not (PUBLISHED / scale / name).exists():
        return
    with (PUBLISHED / scale / name).open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _ratio(cell: str) -> str:
    """Round to hundredths; leave a bound as it is."""
    try:
        return f"{float(cell):.2f}"
    except ValueError:
        return cell


def _range(cell: str) -> str:
    """Write an interval in words; nothing for that of a baseline, which is compared with itself."""
    ends = [_ratio(end) for end in cell.split()]
    return " to ".join(ends) if len(set(ends)) > 1 else ""


def _short(cell: str, digits: int = 2) -> str:
    """Round a number to so many significant digits, at least to units."""
    if not cell:
        return ""
    value = float(cell)
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
