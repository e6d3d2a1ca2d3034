"""A claim as data: its words, its rule and its measurement, read from `claims.toml`."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

Count: TypeAlias = int | Literal["all"]
Parameter: TypeAlias = str | float | Sequence[str]
Subject: TypeAlias = Literal["time", "quality", "FLOPs", "tokens and layers", "AdaMoE"]
SUBJECTS: Sequence[Subject] = ("time", "quality", "FLOPs", "tokens and layers", "AdaMoE")
"""In the order of the report."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of a paper: a number that must lie between two limits, or a count of such numbers."""

    text: str
    subject: Subject
    where: str
    """Section, table or figure of the paper; another paper is named."""
    paper: str
    """The paper's own number."""
    quantity: str
    """What the number is, with its unit."""
    measure: str
    """A measurement of `measures.MEASURES`."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    """Arguments of the measurement."""
    above: float | None = None
    """The number is larger than this one."""
    below: float | None = None
    """The number is smaller than this one."""
    count: Count | None = None
    """How many items (tasks, cases) must lie between them, each judged alone; None judges the mean."""
    reading: str | None = None
    """What of words or rule is ours, since the paper leaves it open."""
    paper_value: float | None = None
    """The paper's number in the unit of `quantity`, of a count the number of items; None: it prints none."""
    paper_of: int | None = None
    """Items of the paper, of which `paper_value` keep to the rule."""
    headline: bool = False
    """Whether it is one of the few that a reader in a hurry looks for."""
    short: str | None = None
    """Name of the number on a line of a terminal."""

    @property
    def rule(self) -> str:
        """When the claim holds: the whole interval lies there."""
        limits = " and ".join(
            f"{sign} {limit:.3g}"
            for sign, limit in ((">", self.above), ("<", self.below))
            if limit is not None
        )
        if self.count is None:
            return limits
        return f"{limits} in {'all' if self.count == 'all' else f'at least {self.count}'}"


@cache
def claims() -> Sequence[Claim]:
    """Read all claims, in the order of the report."""
    text = (Path(__file__).parent / "claims.toml").read_text(encoding="utf-8")
    return tuple(Claim(**entry) for entry in tomllib.loads(text)["claim"])
