"""What the tables of the curriculum study share."""

from repro.records import Published
from repro.tables._schemes import SchemeRow, performance, scheme_rows

STUDY = "curriculum"


def orders(published: Published) -> list[SchemeRow]:
    """Every order of the study, compared with the curriculum on the same back-end."""

    def against(scheme: str) -> str:
        return " ".join(["cosine", *scheme.split()[1:]])

    return list(scheme_rows(published, STUDY, against))


def inflation(row: SchemeRow) -> float | None:
    """Relative time to equal loss, minus 1."""
    return None if row.norm_time is None else row.norm_time - 1


def difference(row: SchemeRow) -> float | None:
    """Performance minus the baseline's."""
    mine, others = row.mean(performance), row.baseline_mean(performance)
    return None if mine is None or others is None else mine - others
