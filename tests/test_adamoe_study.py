"""AdaMoE's headline from the command line: one model trained on twice, its table, failures and Ctrl-C."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import SMALL, CommandLine, Json, read_object
from in_process import do_in_process

from repro.config import RunConfig
from repro.errors import Interrupted
from repro.results.files import RunPaths
from repro.results.run import RunResult
from repro.run.execute import execute

VARIANTS = ("top-2", "plain", "adamoe")


def arguments(out: Path, *options: object) -> list[str]:
    """Four null experts beside the four true ones of a small run."""
    settings = [f"--set={key}={value}" for key, value in (SMALL | {"gate.nulls": 4}).items()]
    return ["ablate", "adamoe", "--tasks", "sst2", "--out", str(out), *map(str, options), *settings]


def study(out: Path) -> Json:
    return read_object(out / "mini" / "studies" / "adamoe.json")


def results(out: Path) -> dict[str, Json]:
    """Variant -> result of its finished run."""
    runs = out / "mini" / "runs"
    return {
        variant: read_object(runs / run_id / "result.json")
        for variant, (run_id,) in study(out)["tasks"]["sst2"].items()
        if (runs / run_id / "result.json").exists()
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


class Done:
    """A finished study, and what it was said to take."""

    def __init__(self, cli: CommandLine, out: Path) -> None:
        self.out = out
        self.planned = cli(*arguments(out, "--dry-run", "--json"))
        self.exists_after_planning = out.exists()
        self.answer = cli(*arguments(out))


@pytest.fixture(scope="module")
def done(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Read only."""
    return Done(cli, tmp_path_factory.mktemp("adamoe") / "results")


def test_both_start_where_the_first_ended(done: Done) -> None:
    assert done.answer.status == 0, done.answer.err
    made = results(done.out)
    assert tuple(made) == VARIANTS
    first = made["top-2"]
    assert first["config"]["model"]["checkpoint"] is None
    for variant in ("plain", "adamoe"):
        assert made[variant]["config"]["model"]["checkpoint"] == f"run:{first['run_id']}"
    assert made["plain"]["curve"][0][2] == pytest.approx(first["dev_loss"], rel=1e-5)
    # Null experts start as copies of the true ones, so three of all choose as two of the true ones do.
    assert made["adamoe"]["curve"][0][2] == pytest.approx(first["dev_loss"], rel=1e-5)
    assert made["adamoe"]["curve"][-1][2] != made["plain"]["curve"][-1][2]
    assert made["plain"]["routing"]["mean_experts"] == 2
    assert 0 < made["adamoe"]["routing_eval"]["mean_experts"] < 2


def test_the_table_and_the_claims(done: Done) -> None:
    made = results(done.out)
    table = rows(done.out / "mini" / "adamoe.csv")
    assert [row["Scheme"] for row in table] == list(VARIANTS)
    for row in table:
        result = made[row["Scheme"]]
        assert row["Runs"] == result["run_id"]
        assert row["Reason for empty cells"] == ""
        gain = 100 * (result["metric"]["value"] - made["plain"]["metric"]["value"])
        assert float(row["Gain"]) == pytest.approx(gain, rel=1e-3, abs=1e-9)
    assert [row["FLOPs saved (paper)"] for row in table] == ["", "", "0.145"]
    assert float(table[1]["FLOPs saved"]) == 0
    assert 0 < float(table[2]["FLOPs saved"]) < 0.5
    ours = [row for row in rows(done.out / "mini" / "claims.csv") if row["Where"] == "AdaMoE, abstract"]
    assert (ours[0]["Samples"], ours[0]["Verdict"]) == ("1", "open")
    assert 1 - float(ours[0]["Ours"]) == pytest.approx(float(table[2]["FLOPs saved"]), abs=1e-3)
    assert "AdaMoE's headline" in (done.out / "mini" / "report.md").read_text(encoding="utf-8")


def test_what_it_says(done: Done) -> None:
    lines = done.answer.err.splitlines()
    assert lines[0] == "3 runs, 0 of them finished before"
    for number, variant in enumerate(VARIANTS, 1):
        assert f"[{number}/3] sst2 {variant} seed 0" in lines
    shown = [line for line in done.answer.out.splitlines() if str(done.out) not in line]
    assert all(len(line) <= 80 for line in shown)
    assert "* (paper): AdaMoE, Mixtral-8x7B on ARC-C; gains are points of the metric" in shown
    assert shown[-1].startswith("Beside the report: adamoe.csv ")
    words = {word for line in shown for word in line.split()}
    assert {*VARIANTS, "0.145", "1.69", "Accuracy"} <= words


def test_a_dry_run_knows_the_runs_before_the_first_is_made(done: Done) -> None:
    assert not done.exists_after_planning
    planned = done.planned.json()["runs"]
    made = results(done.out)
    assert [row["run"] for row in planned] == [made[variant]["run_id"] for variant in VARIANTS]
    for row, variant in zip(planned, VARIANTS, strict=True):
        # A trunk has a margin of one step here, and the branch does two again.
        assert (row["state"], row["steps"]) == ("to do", made[variant]["steps"] + 3)
        assert row["params"] == made[variant]["parameters"]["total"]


def test_repeats_nothing_and_can_be_evaluated(cli: CommandLine, done: Done, tmp_path: Path) -> None:
    out = tmp_path / "results"
    shutil.copytree(done.out, out)
    answer = cli(*arguments(out))
    assert (answer.status, answer.err) == (0, "3 runs, 3 of them finished before\n")
    result = results(out)["adamoe"]
    again = cli("eval", result["run_id"], "--out", out, "--json").json()
    assert again["metric"] == result["metric"]


Failing = Callable[[Exception, Callable[[RunConfig], bool]], None]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """`failing(error, which)`: runs whose configuration is such a one fail."""

    def make(error: Exception, which: Callable[[RunConfig], bool]) -> None:
        def fail_some(config: RunConfig, paths: RunPaths, **options: Any) -> RunResult:
            if which(config):
                raise error
            return execute(config, paths, **options)

        do_in_process(monkeypatch, fail_some)

    return make


def test_a_first_run_that_fails(
    cli: CommandLine, tmp_path: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are not tried and say why; the same command makes all of them."""
    failing(MemoryError("too big"), lambda config: config.model.checkpoint is None)
    answer = cli(*arguments(tmp_path))
    assert (answer.status, answer.out) == (1, "")
    ((first,), *others) = study(tmp_path)["tasks"]["sst2"].values()
    reason = f"the run that it starts from, {first}, is not finished"
    assert study(tmp_path)["failed"] == {
        first: "MemoryError: too big",
        **{run_id: reason for (run_id,) in others},
    }
    assert answer.err.splitlines()[-1] == f"repro: {others[-1][0]} failed: {reason}"

    monkeypatch.undo()
    answer = cli(*arguments(tmp_path))
    assert answer.status == 0, answer.err
    assert study(tmp_path)["failed"] == {}
    assert tuple(results(tmp_path)) == VARIANTS


def test_goes_on_after_an_interruption(
    cli: CommandLine, done: Done, tmp_path: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs are those of a study that was not interrupted."""
    failing(Interrupted("stopped after step 1 of 6"), lambda config: config.gate == "adamoe")
    answer = cli(*arguments(tmp_path))
    assert answer.status == 130
    assert tuple(results(tmp_path)) == ("top-2", "plain")
    monkeypatch.undo()
    answer = cli(*arguments(tmp_path))
    assert answer.status == 0, answer.err
    assert answer.err.startswith("3 runs, 2 of them finished before\n")
    assert study(tmp_path) == study(done.out)
    losses = [[one["curve"][-1][2] for one in results(out).values()] for out in (tmp_path, done.out)]
    assert losses[0] == losses[1]


def test_a_model_that_was_deleted(cli: CommandLine, done: Done, tmp_path: Path) -> None:
    """What is finished stays; what is left says what to do, and then is made as before."""
    out = tmp_path / "results"
    shutil.copytree(done.out, out)
    made = results(out)
    runs = out / "mini" / "runs"
    shutil.rmtree(runs / made["top-2"]["run_id"] / "model")
    shutil.rmtree(runs / made["adamoe"]["run_id"])
    answer = cli(*arguments(out))
    assert answer.status == 1
    reason = (
        f"the run that it starts from, {made['top-2']['run_id']}, has no model any more;"
        " delete its folder to train it again"
    )
    assert study(out)["failed"] == {made["adamoe"]["run_id"]: reason}
    shutil.rmtree(runs / made["top-2"]["run_id"])
    answer = cli(*arguments(out))
    assert answer.status == 0, answer.err
    assert answer.err.startswith("3 runs, 1 of them finished before\n")
    assert results(out)["adamoe"]["curve"][-1][2] == made["adamoe"]["curve"][-1][2]
