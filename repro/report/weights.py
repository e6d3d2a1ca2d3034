"""What explains the differences between schemes: scale, learned routing or the number of experts.

A difference of validation losses between two variants of the study `weights` is a sum of differences in
which one thing changes, seed by seed. With L the loss of a variant:

* top-1 (or adaptive) behind top-2, L(top-1 raw) - L(top-2 raw):
    * rule: the same with layers that start at the scale of the dense ones, L(top-1 fitted) - L(top-2 fitted);
    * scale: the rest, (L(top-1 raw) - L(top-1 fitted)) - (L(top-2 raw) - L(top-2 fitted)).
* top-1 behind hash, L(top-1 raw) - L(hash 1), one expert each:
    * scale: L(top-1 raw) - L(top-1 straight-through), whose weights have the value 1, as that of the hash;
    * routing drift: L(top-1 straight-through) - L(hash 1), a router that is learned against one that never
      changes where a token goes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from repro.report.schemes import SchemeRow, scheme_rows
from repro.report.statistics import interval, mean
from repro.results.published import Published

STUDY = "weights"
BASELINE = "top-2 raw"
"""The variant that all others are compared with."""

Contrast: TypeAlias = Mapping[str, int]
"""Variant -> factor of its loss in a sum."""
Rows: TypeAlias = Mapping[str, SchemeRow]
"""Variant -> row, of one task."""
Word: TypeAlias = Literal["explains", "works against", "undecided"]
"""What a part does to a gap: the same sign, the other one, or an interval of one of them that contains 0."""


@dataclass(frozen=True)
class Gap:
    """A difference of losses between two variants, and the parts that it is the sum of."""

    name: str
    whole: Contrast
    parts: Mapping[str, Contrast]


def _behind_top_2(scheme: str) -> Gap:
    raw, fitted = {f"{scheme} raw": 1, "top-2 raw": -1}, {f"{scheme} fitted": 1, "top-2 fitted": -1}
    rest = raw | {variant: -factor for variant, factor in fitted.items()}
    return Gap(f"{scheme} behind top-2", raw, {"scale": rest, "rule": fitted})


GAPS = (
    _behind_top_2("top-1"),
    _behind_top_2("adaptive"),
    Gap(
        "top-1 behind hash",
        {"top-1 raw": 1, "hash 1": -1},
        {
            "scale": {"top-1 raw": 1, "top-1 straight-through": -1},
            "routing drift": {"top-1 straight-through": 1, "hash 1": -1},
        },
    ),
)


def tasks(published: Published) -> list[Rows]:
    """Return the rows of every task of the study, by variant."""
    by_task: dict[str, dict[str, SchemeRow]] = {}
    for row in scheme_rows(published, STUDY, lambda scheme: BASELINE):
        by_task.setdefault(row.task, {})[row.scheme] = row
    return list(by_task.values())


def summed(rows: Rows, contrast: Contrast) -> list[float]:
    """Sum the validation losses of variants, each times its factor, for every seed that all of them have."""
    losses = [
        {run.seed: factor * run.eval_loss for run in rows[variant].runs} if variant in rows else {}
        for variant, factor in contrast.items()
    ]
    seeds = set.intersection(*map(set, losses))
    return [sum(of_seed[seed] for of_seed in losses) for seed in sorted(seeds)]


def difference(rows: Rows, variant: str) -> list[float]:
    """Return the loss of each run minus the baseline's of its seed; zeros of the baseline itself."""
    return (
        [0.0 for _ in rows[variant].runs] if variant == BASELINE else summed(rows, {variant: 1, BASELINE: -1})
    )


def word(part: Sequence[float], gap: Sequence[float]) -> Word:
    """Say what a part does to a gap; nothing is decided unless both are told from 0."""
    signs = [_sign(values) for values in (part, gap)]
    if 0 in signs:
        return "undecided"
    return "explains" if signs[0] == signs[1] else "works against"


def _sign(values: Sequence[float]) -> int:
    """Return 1 or -1; 0 if the interval contains 0, or there is none."""
    middle, half = _middle(values), interval(values)
    if half is None or abs(middle) <= half:
        return 0
    return 1 if middle > 0 else -1


def _middle(values: Sequence[float]) -> float:
    """Return the mean of differences of losses, which have no more digits; -0.0 would have a sign."""
    middle = mean(values)
    assert middle is not None
    return round(middle, 6) + 0.0


@dataclass(frozen=True)
class Explained:
    """A gap on one task, and its parts: paired differences of losses, by seed."""

    task: str
    """Title."""
    gap: str
    whole: Sequence[float]
    parts: Mapping[str, Sequence[float]]


def explained(published: Published) -> list[Explained]:
    """Return the gaps of every task that have a seed with all runs they are made of."""
    found = []
    for rows in tasks(published):
        title = next(iter(rows.values())).title
        for gap in GAPS:
            whole = summed(rows, gap.whole)
            parts = {cause: summed(rows, contrast) for cause, contrast in gap.parts.items()}
            if whole and all(parts.values()):
                found.append(Explained(title, gap.name, whole, parts))
    return found


def explanations(published: Published) -> list[str]:
    """Put the parts of every gap into a line a task, and what they come to into a closing sentence."""
    found = explained(published)
    lines = []
    for one in found:
        shares = ", ".join(f"{cause} {_told(values)}" for cause, values in one.parts.items())
        lines.append(f"{one.task}, {one.gap} by {_told(one.whole)}: {shares}")
    return [*lines, closing(found)] if found else []


def amount(values: Sequence[float]) -> str:
    """Write the mean of paired differences, with its interval if there is more than one."""
    half = interval(values)
    return f"{_middle(values):+.3g}" + ("" if half is None else f" ± {half:.2g}")


def _told(values: Sequence[float]) -> str:
    """Write the mean, and whether it is told from 0."""
    if interval(values) is None:
        return f"{amount(values)} (one seed, undecided)"
    return amount(values) + ("" if _sign(values) else " (undecided)")


def closing(found: Sequence[Explained]) -> str:
    """Say in one sentence which cause explains which gap, on which tasks."""
    verdicts: dict[str, dict[tuple[Word, str], list[str]]] = {}
    for one in found:
        for cause, values in one.parts.items():
            places = verdicts.setdefault(one.gap, {}).setdefault((word(values, one.whole), cause), [])
            places.append(one.task)

    def phrases(of_gap: Mapping[tuple[Word, str], Sequence[str]]) -> Iterable[str]:
        for wanted in ("explains", "works against", "undecided"):
            for (said, cause), titles in of_gap.items():
                if said == wanted:
                    where = ", ".join(titles)
                    yield (
                        f"{cause} undecided on {where}"
                        if said == "undecided"
                        else f"{cause} {said} it on {where}"
                    )

    sentences = (f"{gap}: {'; '.join(phrases(of_gap))}" for gap, of_gap in verdicts.items())
    return "What explains what: " + ". ".join(sentences) + "."
