"""Numbers of the curriculum study, shared by its tables and claims."""

from repro.report.schemes import SchemeRow, performance, scheme_rows
from repro.results.published import Published

STUDY = "curriculum"


def orders(published: Published) -> list[SchemeRow]:
    """Return the row of every order of the study, compared with the curriculum on the same back-end."""

    def baseline(scheme: str) -> str:
        return " ".join(["cosine", *scheme.split()[1:]])

    return list(scheme_rows(published, STUDY, baseline))


def inflation(row: SchemeRow) -> float | None:
    """Return the relative time to equal loss, minus 1."""
    return None if row.norm_time is None else row.norm_time - 1


def difference(row: SchemeRow) -> float | None:
    """Return the performance minus the baseline's."""
    mine, others = row.mean(performance), row.baseline_mean(performance)
    return None if mine is None or others is None else mine - others
