"""`repro report --publish`: what is in git of a scale, apart from what the user's own commands write."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import CommandLine
from factories import make_analysis, make_case, make_environment, make_result, make_study
from refusals import contents, refused
from test_parallel_bench import make_parallel

from repro import plugins
from repro.cli.arguments import repeatable
from repro.errors import UserError
from repro.report.publish import publish, stale_published
from repro.results.bench import Bench
from repro.results.files import write_json
from repro.results.published import Published
from repro.results.run import RunResult

ROOT = Path(__file__).parent.parent
COMMAND = "repro ablate schemes --tasks sst2"
DENSE, TOP_2 = make_result("sst2", "dense"), make_result("sst2", "top-2")


def measure(results: Path, *runs: RunResult, study: str = "schemes", command: str | None = COMMAND) -> Path:
    """Write runs and a study that asked for them, as `repro ablate` does; return the folder of the scale."""
    scale = results / "mini"
    variants: dict[str, list[str]] = {}
    for run in runs:
        (scale / "runs" / run.run_id).mkdir(parents=True, exist_ok=True)
        write_json(scale / "runs" / run.run_id / "result.json", run.to_json())
        variants.setdefault(run.gate, []).append(run.run_id)
    commands = {run.run_id: command for run in runs if command is not None}
    (scale / "studies").mkdir(exist_ok=True)
    record = make_study(study, {"sst2": variants}).to_json() | {"commands": commands}
    write_json(scale / "studies" / f"{study}.json", record)
    return scale


def analyze(scale: Path, run: RunResult, source: str = "synthetic") -> None:
    """Write an analysis and its page, as `repro analyze` leaves them."""
    (scale / "analysis").mkdir(exist_ok=True)
    analysis = make_analysis(run_id=run.run_id, data__source=source)
    write_json(scale / "analysis" / f"{run.run_id}.json", analysis.to_published_json(), indent=None)
    (scale / "analysis" / f"{run.run_id}.html").write_text("sentences")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def drawn() -> None:
    """Figures are drawn, which takes a second; else there are none."""


@pytest.fixture(autouse=True)
def without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    names = plugins.names
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(plugins, "names", lambda family: [] if family == "figures" else names(family))


class TestPublish:
    def test_everything_that_a_clone_needs(self, tmp_path: Path) -> None:
        adaptive = make_result("sst2", "adaptive")
        scale = measure(tmp_path, DENSE, TOP_2, adaptive)
        analyze(scale, adaptive)
        bench = Bench(cases=[make_case()], parallel=[make_parallel()])
        write_json(scale / "bench.json", bench.to_json())
        before = contents(scale)
        written = publish(tmp_path, "mini")
        assert contents(scale) == before
        published = tmp_path / "published" / "mini"
        assert {"runs.jsonl", "bench.json", "studies/schemes.json"} <= files(published)
        assert {f"analysis/{adaptive.run_id}.{kind}" for kind in ("json", "html")} <= files(published)
        assert {"table3_detail.csv", "report.html"} <= files(published)
        assert all(path.is_file() for path in written)
        ours, theirs = Published.read(scale), Published.read(published)
        assert theirs.results == ours.results
        assert (theirs.bench, theirs.parallel) == (ours.bench, ours.parallel)
        assert len(theirs.parallel) == 1
        assert stale_published(tmp_path) == []
        assert [path.name for path in published.parent.iterdir()] == ["mini"]

    def test_every_row_names_code_machine_and_command(self, tmp_path: Path) -> None:
        measure(tmp_path, DENSE, TOP_2)
        publish(tmp_path, "mini")
        for name in ("runs.csv", "table3_detail.csv"):
            head, *rows = (tmp_path / "published" / "mini" / name).read_text().splitlines()
            place = head.split(",").index("Code")
            assert head.split(",")[place : place + 3] == ["Code", "Processor", "Command"]
            assert len(rows) == 2
            assert all(f"01234567,a processor,{COMMAND}" in row for row in rows)

    def test_runs_that_no_study_compares_are_left_out(self, tmp_path: Path) -> None:
        scale = measure(tmp_path, DENSE, TOP_2)
        stray = make_result("sst2", "adaptive")
        (scale / "runs" / stray.run_id).mkdir()
        write_json(scale / "runs" / stray.run_id / "result.json", stray.to_json())
        analyze(scale, stray)
        publish(tmp_path, "mini")
        published = Published.read(tmp_path / "published" / "mini")
        assert set(published.results) == {DENSE.run_id, TOP_2.run_id}
        assert published.analyses == {}

    def test_text_of_real_data_is_left_out(self, tmp_path: Path) -> None:
        adaptive = make_result("sst2", "adaptive")
        analyze(measure(tmp_path, adaptive), adaptive, source="folder")
        publish(tmp_path, "mini")
        assert [path.suffix for path in (tmp_path / "published/mini/analysis").iterdir()] == [".json"]

    def test_what_is_not_measured_anew_stays(self, tmp_path: Path) -> None:
        """Another study, and layer timings; of what is measured anew the new stands."""
        write_json(measure(tmp_path, DENSE, study="gates") / "bench.json", {"cases": [make_case().to_json()]})
        publish(tmp_path, "mini")
        shutil.rmtree(tmp_path / "mini")
        case = make_case(tokens=200)
        write_json(measure(tmp_path, TOP_2) / "bench.json", {"cases": [case.to_json()]})
        publish(tmp_path, "mini")
        published = Published.read(tmp_path / "published" / "mini")
        assert set(published.studies) == {"gates", "schemes"}
        assert set(published.results) == {DENSE.run_id, TOP_2.run_id}
        assert [one.tokens for one in published.bench] == [100, 200]
        measure(tmp_path, make_result("sst2", "top-2", eval_loss=0.25))
        publish(tmp_path, "mini")
        assert Published.read(tmp_path / "published/mini").results[TOP_2.run_id].eval_loss == 0.25

    def test_with_nothing_new_tables_are_made_again(self, tmp_path: Path) -> None:
        """A clone has no runs of its own: after a change of a table it can still be published."""
        measure(tmp_path, DENSE, TOP_2)
        publish(tmp_path, "mini")
        shutil.rmtree(tmp_path / "mini")
        before = contents(tmp_path)
        (tmp_path / "published" / "mini" / "table3.csv").write_text("of an older version")
        publish(tmp_path, "mini")
        assert contents(tmp_path) == before

    def test_other_tasks_of_a_study_stay(self, tmp_path: Path) -> None:
        scale = measure(tmp_path, DENSE, TOP_2)
        publish(tmp_path, "mini")
        shutil.rmtree(tmp_path / "mini")
        other = make_result("squad", "top-2")
        measure(tmp_path, other)
        record = make_study("schemes", {"squad": {"top-2": [other.run_id]}}).to_json()
        write_json(scale / "studies" / "schemes.json", record | {"commands": {other.run_id: "repro"}})
        publish(tmp_path, "mini")
        study = Published.read(tmp_path / "published" / "mini").studies["schemes"]
        assert set(study.tasks) == {"sst2", "squad"}
        assert study.commands == {DENSE.run_id: COMMAND, TOP_2.run_id: COMMAND, other.run_id: "repro"}

    def test_pixels_of_equal_drawings_stay_and_old_figures_go(self, tmp_path: Path, drawn: None) -> None:
        measure(tmp_path, DENSE, TOP_2)
        publish(tmp_path, "mini")
        figures = tmp_path / "published" / "mini" / "figures"
        (figures / "curves.png").write_bytes(b"of another version")
        (figures / "gates.svg").write_text("no longer drawn")
        publish(tmp_path, "mini")
        assert (figures / "curves.png").read_bytes() == b"of another version"
        assert {path.stem for path in figures.iterdir()} == {"curves", "pareto", "table3"}

    def test_files_put_there_by_hand_stay(self, tmp_path: Path) -> None:
        """A table of another study goes: it is made anew if there is something to say."""
        measure(tmp_path, DENSE, TOP_2)
        publish(tmp_path, "mini")
        for name in ("lanes.csv", "gates.csv"):
            (tmp_path / "published" / "mini" / name).write_text("a\n")
        publish(tmp_path, "mini")
        assert {"lanes.csv", "gates.csv"} & files(tmp_path / "published" / "mini") == {"lanes.csv"}


class TestMixed:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"git_commit": "89abcdef01"}, r"runs of 2 states of the code \(01234567, 89abcdef\)"),
            ({"git_modified": True}, r"runs of 2 states of the code \(01234567, 01234567\+\)"),
            ({"git_commit": None}, r"runs of 2 states of the code \(01234567, unknown\)"),
            ({"processor": "another"}, r"runs of 2 kinds of machines \(a processor; another\)"),
            ({"device": "H200"}, r"runs of 2 kinds of machines \(a processor; H200, a processor\)"),
        ],
    )
    def test_one_line_each(
        self, cli: CommandLine, tmp_path: Path, change: dict[str, object], message: str
    ) -> None:
        other = TOP_2.model_copy(update={"environment": make_environment(**change)})
        measure(tmp_path, DENSE, other)
        before = contents(tmp_path)
        answer = cli("report", "--publish", "--out", tmp_path)
        way_out = "do the others again in one command, or publish with --mixed"
        refused(answer, rf"{re.escape(str(tmp_path / 'mini'))}: study schemes, sst2: {message}; {way_out}$")
        assert contents(tmp_path) == before

    def test_tables_say_so(self, cli: CommandLine, tmp_path: Path) -> None:
        measure(tmp_path, DENSE, make_result("sst2", "top-2", environment__git_commit="89abcdef01"))
        assert cli("report", "--publish", "--mixed", "--out", tmp_path).status == 0
        published = tmp_path / "published" / "mini"
        note = "Sentiment analysis: runs of 2 states of the code (01234567, 89abcdef)"
        assert f"* {note}\n" in (published / "report.md").read_text()
        table = (published / "table3_detail.csv").read_text()
        assert "01234567,a processor" in table and "89abcdef,a processor" in table

    def test_two_seeds_of_a_row(self, tmp_path: Path) -> None:
        """The row names both; in the other study nothing is compared with the second commit."""
        second = make_result("sst2", "dense", 1, environment__git_commit="89abcdef01")
        measure(tmp_path, DENSE, second)
        measure(tmp_path, TOP_2, study="gates")
        with pytest.raises(UserError) as error:
            publish(tmp_path, "mini")
        assert len(error.value.problems) == 1
        publish(tmp_path, "mini", mixed=True)
        assert "01234567; 89abcdef,a processor" in (tmp_path / "published/mini/table3_detail.csv").read_text()

    def test_runs_of_an_older_study_that_change_under_it(self, tmp_path: Path) -> None:
        """A run that two studies share was done again, with other code."""
        measure(tmp_path, DENSE, TOP_2, study="gates")
        publish(tmp_path, "mini")
        shutil.rmtree(tmp_path / "mini")
        measure(tmp_path, make_result("sst2", "top-2", environment__git_commit="89abcdef01"))
        with pytest.raises(UserError, match="study gates, sst2: runs of 2 states of the code"):
            publish(tmp_path, "mini")


class TestFaults:
    """Whatever is wrong: one line, and what was published before is still there."""

    def test_nothing_measured(self, cli: CommandLine, tmp_path: Path) -> None:
        refused(
            cli("report", "--publish", "--out", tmp_path), r"mini: no finished run of a study and no layer"
        )
        assert list(tmp_path.iterdir()) == []

    def test_a_command_that_was_not_recorded(self, tmp_path: Path) -> None:
        measure(tmp_path, DENSE, TOP_2, command=None)
        with pytest.raises(UserError, match=r"study schemes: 2 runs without the command .* give it again"):
            publish(tmp_path, "mini", mixed=True)

    @pytest.mark.parametrize("file", ["mini/studies/schemes.json", "published/mini/studies/schemes.json"])
    def test_a_damaged_file(self, cli: CommandLine, tmp_path: Path, file: str) -> None:
        measure(tmp_path, DENSE, TOP_2)
        publish(tmp_path, "mini")
        (tmp_path / file).write_text("{")
        before = contents(tmp_path)
        refused(cli("report", "--publish", "--out", tmp_path), rf"{re.escape(file)}: cannot be read")
        assert contents(tmp_path) == before

    def test_a_folder_that_cannot_be_written(self, cli: CommandLine, tmp_path: Path) -> None:
        measure(tmp_path, DENSE, TOP_2)
        (tmp_path / "published").write_text("a file where the folder should be")
        refused(cli("report", "--publish", "--out", tmp_path), r"published/mini: cannot be written \(.+\)")

    @pytest.mark.parametrize("renames", [0, 1])
    def test_a_stop_while_folders_change_places(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
    ) -> None:
        measure(tmp_path, DENSE, TOP_2)
        publish(tmp_path, "mini")
        before = contents(tmp_path / "published")
        measure(tmp_path, DENSE, make_result("sst2", "top-2", eval_loss=0.25))
        rename, done = Path.rename, []

        def stopped(path: Path, target: Path) -> Path:
            if path.parent.name.startswith(".mini.") or path.name == "mini":
                done.append(path)
                if len(done) == renames + 1:
                    raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", stopped)
        with pytest.raises(KeyboardInterrupt):
            publish(tmp_path, "mini")
        assert contents(tmp_path / "published") == before

    def test_a_kill_while_folders_change_places(self, tmp_path: Path) -> None:
        """The old folder lies in the scratch folder of the killed process, the new one beside it."""
        measure(tmp_path, DENSE, study="gates")
        publish(tmp_path, "mini")
        published = tmp_path / "published"
        shutil.copytree(published / "mini", published / ".mini.abc" / "mini")
        (published / "mini").rename(published / ".mini.abc" / "old")
        measure(tmp_path, TOP_2)
        publish(tmp_path, "mini")
        assert set(Published.read(published / "mini").studies) == {"gates", "schemes"}
        assert [path.name for path in published.iterdir()] == ["mini"]


class TestCheck:
    def test_every_published_scale(self, cli: CommandLine, tmp_path: Path) -> None:
        measure(tmp_path, DENSE, TOP_2)
        publish(tmp_path, "mini")
        (tmp_path / "mini").rename(tmp_path / "small")
        publish(tmp_path, "small")
        answer = cli("report", "--check", "--out", tmp_path)
        assert (answer.status, answer.out, answer.err) == (0, "", "")
        changed = tmp_path / "published" / "small" / "table3.csv"
        changed.write_text("made up\n")
        answer = cli("report", "--check", "--out", tmp_path)
        message = f"repro: {changed}: not what the published runs give; `repro report --publish` writes it\n"
        assert (answer.status, answer.err) == (1, message)
        assert cli("report", "--check", "--scale", "mini", "--out", tmp_path).status == 0

    def test_what_is_not_published(self, cli: CommandLine, tmp_path: Path) -> None:
        check = ("report", "--check", "--out", tmp_path)
        refused(cli(*check), r"published: nothing is published; `repro report --publish` does it$")
        measure(tmp_path, DENSE, TOP_2)
        publish(tmp_path, "mini")
        refused(cli(*check, "--scale", "small"), r"published: mini, not small is published; ")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--check", "--publish"], "--publish: has no effect with --check; give one or the other"),
            (["--mixed"], "--mixed: has no effect without --publish"),
        ],
    )
    def test_options_without_effect(
        self, cli: CommandLine, tmp_path: Path, options: list[str], message: str
    ) -> None:
        refused(cli("report", *options, "--out", tmp_path), re.escape(message))


@pytest.mark.parametrize(
    ("typed", "repeated"),
    [
        (["ablate", "schemes", "--seeds", "5"], "repro ablate schemes --seeds 5"),
        (["ablate", "schemes", "--out", "/home/me/results"], "repro ablate schemes"),
        (["ablate", "schemes", "--out=results"], "repro ablate schemes"),
        (["ablate", "schemes", "--data", "/"], "repro ablate schemes --data DIR"),
        (["ablate", "schemes", "--model=/", "--seeds", "2"], "repro ablate schemes --model DIR --seeds 2"),
        (["ablate", "schemes", "--data", "hub"], "repro ablate schemes --data hub"),
        (
            ["ablate", "gates", "--variants", "top-2,ratio 1.25"],
            "repro ablate gates --variants 'top-2,ratio 1.25'",
        ),
    ],
)
def test_a_command_as_others_can_repeat_it(typed: list[str], repeated: str) -> None:
    assert repeatable(typed) == repeated


def test_git_sees_published_results_alone() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    ignored = [
        "results/mini/table3.csv",
        "results/small/runs/a/result.json",
        "results/published/.mini.a/old/x",
    ]
    paths = [*ignored, "results/published/mini/table3.csv"]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *paths], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ignored


def test_a_study_without_commands_is_read(tmp_path: Path) -> None:
    """Those of older versions."""
    measure(tmp_path, DENSE)
    path = tmp_path / "mini" / "studies" / "schemes.json"
    plain = json.loads(path.read_text())
    del plain["commands"]
    path.write_text(json.dumps(plain))
    assert Published.read(tmp_path / "mini").commands == {}
