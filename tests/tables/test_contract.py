"""Every table keeps its contract; those that are shown keep that of shown tables."""

import pytest
from factories import make_published

from repro import plugins
from repro.errors import UserError
from repro.report.tables import (
    adamoe,
    claims,
    gates,
    learning_rate,
    parallel,
    runs,
    table1,
    table3,
    table3_detail,
    table4,
    table4_detail,
    table5,
    table5_detail,
    table6,
    table6_detail,
    thinning,
    weights,
)
from repro.report.tables.base import ShownTable, Table, load, load_shown
from repro.study.definition import load_study, study_names

# mypy checks signatures and types of each module against the protocol.
SHOWN: dict[str, ShownTable] = {
    "adamoe": adamoe,
    "gates": gates,
    "learning_rate": learning_rate,
    "parallel": parallel,
    "table1": table1,
    "table3": table3,
    "table3_detail": table3_detail,
    "table4": table4,
    "table5_detail": table5_detail,
    "table6_detail": table6_detail,
    "thinning": thinning,
    "weights": weights,
}
TABLES: dict[str, Table] = SHOWN | {
    "claims": claims,
    "runs": runs,
    "table4_detail": table4_detail,
    "table5": table5,
    "table6": table6,
}


def test_all_members_are_here() -> None:
    assert set(plugins.names("tables")) == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_table(name: str) -> None:
    table = load(name)
    assert table is TABLES[name]
    assert isinstance(table, Table)
    assert f"{name}.csv" == table.FILE
    assert len(set(table.COLUMNS)) == len(table.COLUMNS)


@pytest.mark.parametrize("name", SHOWN)
def test_a_shown_table(name: str) -> None:
    table = load_shown(name)
    assert table is SHOWN[name]
    assert isinstance(table, ShownTable)
    assert (table.shown(make_published()), table.notes(make_published())) == ([], [])


@pytest.mark.parametrize("study", study_names())
def test_the_table_of_a_study_is_shown(study: str) -> None:
    assert load_study(study).table in SHOWN


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"unknown table 'table33'\. Did you mean 'table3'"):
        load("table33")
