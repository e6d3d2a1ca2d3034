"""`repro list tasks --scale`: the sizes of a scale's models, without weights, against known numbers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CommandLine, Json
from factories import make_result, make_routing, make_study

from repro import paper, plugins
from repro.cli import console
from repro.cli.sizes import size_rows
from repro.results.files import append_jsonl, write_json
from repro.run.blueprint import blueprint
from repro.run.resolve import resolve

Rows = Callable[[str], dict[str, Json]]
"""Scale -> task -> row."""
TASKS = {"arc", *paper.tasks()}


@pytest.fixture(scope="module")
def rows(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """`rows(scale)`: task -> row, as the command prints them with `--json`; nothing was run before."""
    made: dict[str, dict[str, Json]] = {}

    def make(scale: str) -> dict[str, Json]:
        if scale not in made:
            folder = tmp_path_factory.mktemp("results")
            printed = cli("list", "tasks", "--scale", scale, "--out", folder, "--json").json()
            assert set(printed) == {"tasks"}
            made[scale] = {row["task"]: row for row in printed["tasks"]}
            assert len(made[scale]) == len(printed["tasks"])
            assert list(folder.iterdir()) == []
        return made[scale]

    return make


@pytest.mark.parametrize("scale", ["mini", "paper"])
class TestBothScales:
    def test_a_row_for_every_task(self, rows: Rows, scale: str) -> None:
        assert set(rows(scale)) == TASKS

    def test_ratios(self, rows: Rows, scale: str) -> None:
        """One expert costs what the dense model does, but for the router; two more than 1 + share."""
        for row in rows(scale).values():
            dense, top_1, top_2 = (row[f"{name} FLOPs"] for name in ("dense", "top-1", "top-2"))
            assert 0.5 < dense / top_2 < 1
            assert row["dense / top-2"] == dense / top_2
            assert dense <= top_1 < 1.02 * dense
            if row["adaptive / top-2"]:
                assert row["dense / top-2"] < row["adaptive / top-2"] < 1

    def test_a_mixture_has_more_parameters(self, rows: Rows, scale: str) -> None:
        for row in rows(scale).values():
            assert 5 < row["MoE model"] / row["dense model"] < 16

    def test_what_is_not_known_is_empty(self, rows: Rows, scale: str) -> None:
        """The paper prints no share for summarization and has no multiple choice; nothing was run."""
        unknown = [task for task, row in rows(scale).items() if not row["adaptive / top-2"]]
        assert unknown == ["arc", "cnn_dailymail"]
        assert [task for task, row in rows(scale).items() if not row["dense / top-2, paper"]] == ["arc"]
        assert {row["adaptive FLOPs, our share"] for row in rows(scale).values()} == {None}

    def test_the_ratios_of_the_paper(self, rows: Rows, scale: str) -> None:
        """Printed FLOPs over those of its top-2 row."""
        for task in paper.tasks():
            row, printed = rows(scale)[task], paper.tables()["table3"][task]
            for column, gate in (("dense / top-2, paper", "dense"), ("adaptive / top-2, paper", "adaptive")):
                assert row[column] == printed[gate]["flops"] / printed["top-2"]["flops"]


class TestPaperScale:
    @pytest.mark.parametrize(
        ("task", "low", "high"),
        [
            ("sst2", 109, 110),
            ("squad", 108.5, 110),  # 108.9: BERT-Base without its pooler, rounded to 109
            ("wikitext", 354, 356),
            ("soda", 354, 356),
            ("cnn_dailymail", 406, 407),
        ],
    )
    def test_millions_of_parameters(self, rows: Rows, task: str, low: float, high: float) -> None:
        assert low <= rows("paper")[task]["dense model"] / 1e6 <= high

    @pytest.mark.parametrize(
        ("task", "parameters", "d_model", "d_hidden", "layers"),
        [
            ("sst2", 109_483_778, 768, 3072, 12),
            ("wikitext", 354_823_168, 1024, 4096, 24),
            ("cnn_dailymail", 406_291_456, 1024, 4096, 24),
        ],
    )
    def test_as_published_and_by_hand(
        self, tmp_path: Path, task: str, parameters: int, d_model: int, d_hidden: int, layers: int
    ) -> None:
        """bert-base-uncased with two labels, gpt2-medium, facebook/bart-large; 16 experts and a router."""

        def counted(gate: str) -> int:
            config, _ = resolve(
                task=task,
                scale="paper",
                gate=gate,
                seed=0,
                data=None,
                model=None,
                overrides={},
                results=tmp_path,
            )
            return blueprint(config, dict(config.model.config)).parameters

        assert counted("dense") == parameters
        expert = 2 * d_model * d_hidden + d_model + d_hidden
        assert counted("top-2") == parameters + layers * (15 * expert + 16 * d_model)

    def test_lengths(self, rows: Rows) -> None:
        assert {task: row["length"] for task, row in rows("paper").items()} == {
            "sst2": "128",
            "squad": "384",
            "wmt19": "256+256",
            "cnn_dailymail": "1024+142",
            "wikitext": "1024",
            "soda": "512",
            "arc": "256",
        }

    def test_flops_of_bert_by_hand(self, rows: Rows) -> None:
        """128 tokens: projections and FFN of 12 layers, attention, and the pooler once a sequence."""
        layer = 4 * 768**2 + 2 * 768 * 3072 + 2 * 128 * 768
        per_token = 2 * (12 * layer + (768**2 + 2 * 768) / 128)
        assert rows("paper")["sst2"]["dense FLOPs"] == pytest.approx(per_token, rel=0.005)
        top_2 = per_token + 2 * 12 * (2 * 768 * 3072 + 16 * 768)
        assert rows("paper")["sst2"]["top-2 FLOPs"] == pytest.approx(top_2, rel=0.005)


class TestOurShare:
    def publish(self, results: Path, scale: str, *shares: float) -> None:
        """A study of `scale` (or `published/<scale>`) whose adaptive runs on SST-2 gave these shares."""
        name = Path(scale).name
        runs = [
            make_result(run_id=f"{name}-{number}", scale=name, routing=make_routing(share))
            for number, share in enumerate(shares)
        ]
        folder = results / scale
        (folder / "studies").mkdir(parents=True)
        if runs:
            append_jsonl(folder / "runs.jsonl", [run.to_json() for run in runs])
        study = make_study("schemes", {"sst2": {"adaptive": [run.run_id for run in runs]}})
        write_json(folder / "studies" / "schemes.json", study.to_json())

    def row(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> Json:
        """The row of SST-2; the other tasks would only take time."""
        names = plugins.names
        monkeypatch.setattr(plugins, "names", lambda family: ["sst2"] if family == "tasks" else names(family))
        (row,) = size_rows("mini", results)
        return dict(row)

    def test_mean_over_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """At a share of 1/2, FLOPs lie half way between one and two experts."""
        self.publish(tmp_path, "mini", 0.25, 0.75)
        row = self.row(tmp_path, monkeypatch)
        ratio = row["top-1 FLOPs"] / row["top-2 FLOPs"]
        mixed = row["adaptive FLOPs, our share"] / row["top-2 FLOPs"]
        assert mixed == pytest.approx((ratio + 1) / 2, rel=1e-6)

    def test_small_stands_before_mini(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.publish(tmp_path, "mini", 0.5)
        self.publish(tmp_path, "small", 1.0)
        row = self.row(tmp_path, monkeypatch)
        assert row["adaptive FLOPs, our share"] == row["top-2 FLOPs"]

    def test_here_before_published(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.publish(tmp_path, "published/mini", 0.0)
        row = self.row(tmp_path, monkeypatch)
        assert row["adaptive FLOPs, our share"] == row["top-1 FLOPs"]
        self.publish(tmp_path, "mini", 1.0)
        row = self.row(tmp_path, monkeypatch)
        assert row["adaptive FLOPs, our share"] == row["top-2 FLOPs"]

    def test_without_a_finished_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.publish(tmp_path, "mini")
        assert self.row(tmp_path, monkeypatch)["adaptive FLOPs, our share"] is None


class TestCommand:
    @pytest.mark.parametrize("what", ["gates", "backends", "studies", "runs"])
    def test_only_tasks_have_sizes(self, cli: CommandLine, what: str) -> None:
        answer = cli("list", what, "--scale", "paper")
        assert (answer.status, answer.out) == (2, "")
        assert answer.err == f"repro: --scale: has no effect on {what!r}; use it with tasks\n"

    def test_unknown_scale(self, cli: CommandLine) -> None:
        answer = cli("list", "tasks", "--scale", "papper")
        assert (answer.status, answer.out) == (2, "")
        assert answer.err.startswith("repro: --scale: unknown scale 'papper'. Did you mean 'paper'?")
        assert answer.err.count("\n") == 1

    def test_no_number_is_cut_on_a_terminal(
        self, cli: CommandLine, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """80 columns: headers may wrap between words, values may not."""
        sized = list(rows("paper").values())
        monkeypatch.setattr("repro.cli.sizes.size_rows", lambda scale, results: sized)
        answer = cli("list", "tasks", "--scale", "paper", "--out", tmp_path)
        assert (answer.status, answer.err) == (0, "")
        assert all(len(line) <= 80 for line in answer.out.splitlines())
        words = set(answer.out.split())
        assert {console._cell(value) for row in sized for value in row.values() if value} <= words
