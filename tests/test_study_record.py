"""The record of which runs a study compares, `studies/<study>.json`."""

from pathlib import Path

import pytest
from command_line import Json, read_object
from planned import SCHEMES, finish, planned

from repro.errors import UserError
from repro.results.files import write_json
from repro.study.record import record_study

COMMAND = "repro ablate schemes"


def recorded(scale: Path) -> Json:
    return read_object(scale / "studies" / "schemes.json")


def test_rows_and_their_runs(tmp_path: Path) -> None:
    runs = planned(tmp_path, seeds=2)
    record_study("schemes", runs, {}, tmp_path, COMMAND)
    ids = {(run.variant, run.config.seed): run.config.run_id for run in runs}
    assert recorded(tmp_path) == {
        "study": "schemes",
        "tasks": {"sst2": {scheme: [ids[scheme, 0], ids[scheme, 1]] for scheme in SCHEMES}},
        "failed": {},
        "commands": {run_id: COMMAND for run_id in ids.values()},
    }
    assert [path.name for path in (tmp_path / "studies").iterdir()] == ["schemes.json"]


def test_tasks_are_merged_and_replaced(tmp_path: Path) -> None:
    """Other tasks stay; of the same task the last command says what is compared."""
    sst2, wikitext = planned(tmp_path, seeds=2), planned(tmp_path, ("wikitext",))
    record_study("schemes", sst2, {}, tmp_path, COMMAND)
    record_study("schemes", wikitext, {}, tmp_path, COMMAND)
    before = recorded(tmp_path)["tasks"]
    assert list(before) == ["sst2", "wikitext"]
    assert len(before["sst2"]["top-2"]) == 2
    fewer = planned(tmp_path, settings={"training.steps": 3})
    record_study("schemes", fewer, {}, tmp_path, COMMAND)
    again = recorded(tmp_path)["tasks"]
    assert again["wikitext"] == before["wikitext"]
    assert again["sst2"] == {run.variant: [run.config.run_id] for run in fewer}


def test_reasons_stay_until_the_run_is_done(tmp_path: Path) -> None:
    sst2, wikitext = planned(tmp_path), planned(tmp_path, ("wikitext",))
    ids = [run.config.run_id for run in (*sst2, *wikitext)]
    record_study("schemes", sst2, {ids[1]: "MemoryError: big", ids[2]: "ValueError: odd"}, tmp_path, COMMAND)
    record_study("schemes", wikitext, {ids[4]: "OSError: no disk"}, tmp_path, COMMAND)
    everything = {ids[1]: "MemoryError: big", ids[2]: "ValueError: odd", ids[4]: "OSError: no disk"}
    assert recorded(tmp_path)["failed"] == everything
    finish(sst2[1])
    record_study("schemes", sst2, {ids[2]: "ValueError: other"}, tmp_path, COMMAND)
    assert recorded(tmp_path)["failed"] == {ids[2]: "ValueError: other", ids[4]: "OSError: no disk"}


def test_reasons_of_runs_that_are_no_longer_compared_go(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    record_study("schemes", runs, {runs[1].config.run_id: "MemoryError: big"}, tmp_path, COMMAND)
    record_study("schemes", planned(tmp_path, settings={"training.steps": 3}), {}, tmp_path, COMMAND)
    assert recorded(tmp_path)["failed"] == {}


def test_unwritable(tmp_path: Path) -> None:
    (tmp_path / "studies").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"studies.schemes\.json: cannot be written \(.+\)"):
        record_study("schemes", planned(tmp_path), {}, tmp_path, COMMAND)


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "schemes.json").write_text("{")
    with pytest.raises(UserError, match=r"schemes\.json: cannot be read"):
        record_study("schemes", planned(tmp_path), {}, tmp_path, COMMAND)


def test_commands(tmp_path: Path) -> None:
    """Of a finished run the first that is known; of others the last; none of a run that is not compared."""
    runs = planned(tmp_path)
    ids = [run.config.run_id for run in runs]
    record_study("schemes", runs, {}, tmp_path, "first")
    finish(runs[0])
    record_study("schemes", runs, {}, tmp_path, "second")
    assert recorded(tmp_path)["commands"] == {ids[0]: "first"} | dict.fromkeys(ids[1:], "second")
    fewer = planned(tmp_path, settings={"training.steps": 3})
    record_study("schemes", fewer, {}, tmp_path, "third")
    assert recorded(tmp_path)["commands"] == {run.config.run_id: "third" for run in fewer}


def test_the_command_of_a_run_from_before_they_were_recorded(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    record_study("schemes", runs, {}, tmp_path, "first")
    finish(runs[0])
    path = tmp_path / "studies" / "schemes.json"
    write_json(path, {key: value for key, value in recorded(tmp_path).items() if key != "commands"})
    record_study("schemes", runs, {}, tmp_path, "again")
    assert recorded(tmp_path)["commands"][runs[0].config.run_id] == "again"
