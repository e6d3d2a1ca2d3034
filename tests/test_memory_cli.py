"""Plans of memory on the command line: lists, dry runs, and runs that cannot fit."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import SMALL_BY_TASK, Answer, CommandLine, Json, Settings
from refusals import refused
from resolved import resolved

from repro.moe.numerics import Numerics
from repro.run.blueprint import blueprint, planned_options
from repro.run.memory import Memory, Way, planned
from repro.study.plan import task_names

GPUS = ("--scale", "paper", "--gpus", 8, "--memory", 40)


@dataclass(frozen=True)
class Plan:
    """What the list prints for a terminal and as JSON."""

    shown: Answer
    plain: Json

    def row(self, task: str, way: str, *, checkpointing: bool = False) -> Json:
        """The one row of a task and way."""
        (row,) = [
            row
            for row in self.plain["ways"]
            if (row["task"], row["way"], row["checkpointing"]) == (task, way, checkpointing)
        ]
        assert isinstance(row, dict)
        return row


@pytest.fixture(scope="module")
def plan(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """For eight GPUs of 40 GB."""
    out = tmp_path_factory.mktemp("results")
    plain = cli("list", "tasks", *GPUS, "--out", out, "--json").json()
    rows = plain["models"], plain["ways"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("repro.cli.memories.memory_rows", lambda *arguments: rows)
        shown = cli("list", "tasks", *GPUS, "--out", out)
    assert list(out.iterdir()) == []
    return Plan(shown, plain)


class TestList:
    def test_a_row_for_each_task_and_way(self, plan: Plan) -> None:
        assert set(plan.plain) == {"models", "ways"}
        assert {row["task"] for row in plan.plain["models"]} == {
            *task_names("schemes", "paper", []),
            "arc",
            "arc (adamoe)",
        }
        # Low-rank additions have no sharded weights.
        assert len(plan.plain["ways"]) == (7 * 4 + 2) * 2

    def test_gpt2_medium_by_hand(self, plan: Plan) -> None:
        """354,823,168 parameters; 16 experts of 2 x 1024 x 4096 + 5120 and a router in each of 24 layers."""
        expert = 2 * 1024 * 4096 + 1024 + 4096
        experts = 24 * 16 * expert
        rest = 354_823_168 - 24 * expert + 24 * 16 * 1024
        copies = plan.row("wikitext", "copies")
        assert copies["weights"] == 4 * (rest + experts)
        assert copies["gradients"] == copies["optimiser"] == 8 * (rest + experts)
        spread = plan.row("wikitext", "spread")
        assert spread["weights"] == 4 * (rest + experts / 8)
        assert spread["gradients"] == 8 * rest + 4 * experts / 8
        assert spread["optimiser"] == 8 * (rest + experts / 8)
        parts = ("weights", "gradients", "optimiser", "activations")
        assert spread["total"] == pytest.approx(sum(spread[part] for part in parts))

    def test_mixtral_with_low_rank_additions_by_hand(self, plan: Plan) -> None:
        """Mixtral-8x7B: 46,702,792,704 parameters in bf16, routers and additions of rank 8 in fp32."""
        width, hidden, layers = 4096, 14336, 32
        experts = layers * 8 * 3 * width * hidden
        attention = 2 * width * width + 2 * width * 1024
        routers = layers * 8 * width
        rest = 2 * 32000 * width + layers * (attention + 2 * width) + width
        assert rest + routers + experts == 46_702_792_704
        of_experts = layers * 8 * 8 * ((width + 2 * hidden) + (hidden + width))
        trained = layers * 8 * (2 * (width + width) + 2 * (width + 1024)) + routers
        spread = plan.row("arc (adamoe)", "spread")
        assert spread["weights"] == 2 * (rest + experts / 8) + 4 * (trained + of_experts / 8)
        assert spread["gradients"] == 8 * trained + 4 * of_experts / 8
        assert spread["optimiser"] == 8 * (trained + of_experts / 8)
        copies = plan.row("arc (adamoe)", "copies")
        assert copies["weights"] == 2 * (rest + experts) + 4 * (trained + of_experts)
        assert copies["optimiser"] == copies["gradients"] == 8 * (trained + of_experts)
        assert (copies["fits"], spread["fits"]) == (False, True)

    def test_without_peft(self, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """All else is listed."""
        monkeypatch.setattr("repro.moe.lora.is_installed", lambda: False)
        answer = cli("list", "tasks", "--scale", "mini", *GPUS[2:], "--out", tmp_path, "--json")
        tasks = [row["task"] for row in answer.json()["models"]]
        assert "arc" in tasks
        assert "arc (adamoe)" not in tasks
        assert "adamoe, arc: not planned (" in answer.err
        assert "peft is not installed" in answer.err

    def test_what_fits(self, plan: Plan) -> None:
        """Copies of the paper's larger models do not; what the scale sets does, for every task."""
        large = [task for task in task_names("schemes", "paper", []) if task not in ("sst2", "squad")]
        assert [plan.row(task, "copies")["fits"] for task in large] == [False] * 4
        assert [row["set"] for row in plan.plain["models"]] == ["spread"] * 8
        assert [row["fits"] for row in plan.plain["models"]] == [True] * 8
        for row in plan.plain["ways"]:
            assert row["fits"] == (1.05 * row["total"] + 2e9 <= 40e9)

    def test_checkpointing_takes_less(self, plan: Plan) -> None:
        for task in task_names("schemes", "paper", []):
            kept, again = (
                plan.row(task, "spread", checkpointing=checkpointing) for checkpointing in (False, True)
            )
            assert again["activations"] < 0.7 * kept["activations"]
            assert again["weights"] == kept["weights"]

    def test_nothing_is_cut_on_a_terminal(self, plan: Plan) -> None:
        assert (plan.shown.status, plan.shown.err) == (0, "")
        assert all(len(line) <= 80 for line in plan.shown.out.splitlines())
        words = set(plan.shown.out.split())
        for row in plan.plain["ways"]:
            numbers = [value for value in row.values() if isinstance(value, float)]
            assert {f"{round(number / 1e9, 1):.4g}" for number in numbers} <= words

    @pytest.mark.parametrize(
        ("arguments", "problems"),
        [
            (("runs", "--gpus", 8), ["--gpus: has no effect without a scale; use it with tasks --scale"]),
            (("tasks", "--gpus", 8, "--memory", 40), ["--gpus: has no effect", "--memory: has no effect"]),
            (("--memory", 40), ["--memory: has no effect"]),
            (("tasks", "--scale", "paper", "--gpus", 8), ["--gpus: give --memory, GB of each, too"]),
            (("tasks", "--scale", "paper", "--memory", 40), ["--memory: give --gpus, too"]),
            (("tasks", "--scale", "paper", "--gpus", 0, "--memory", 40), ["--gpus"]),
        ],
    )
    def test_refused(self, cli: CommandLine, arguments: tuple[object, ...], problems: list[str]) -> None:
        refused(cli("list", *arguments), *problems)


def dry_run(cli: CommandLine, out: Path, *options: object, settings: Settings | None = None) -> Answer:
    """Plan Table 3 for a small task, with settings that replace those of `SMALL_BY_TASK`."""
    merged = SMALL_BY_TASK["sst2"] | {"experts.count": None} | dict(settings or {})
    given = [f"{key}={value}" for key, value in merged.items() if value is not None]
    overrides = [argument for setting in given for argument in ("--set", setting)]
    return cli("ablate", "schemes", "--tasks", "sst2", "--out", out, "--dry-run", *overrides, *options)


class TestDryRun:
    def test_plans_for_eight(self, cli: CommandLine, tmp_path: Path) -> None:
        """64 samples in batches of 16 are four steps for any number of processes; each has an eighth."""
        one = dry_run(cli, tmp_path, "--json").json()["runs"]
        eight = dry_run(cli, tmp_path, "--processes", 8, "--json").json()["runs"]
        assert [row["steps an epoch"] for row in eight] == [4] * 4
        assert [row["steps"] for row in eight] == [row["steps"] for row in one]
        for several, alone in zip(eight, one, strict=True):
            assert several["tokens a process"] == pytest.approx(alone["tokens"] / 8, abs=1)
            assert several["GB a process"] > 0

    def test_batches_by_positions_are_of_each_process(self, cli: CommandLine, tmp_path: Path) -> None:
        """Four times as many processes compute four times as many positions in a step."""
        settings = {"training.batch_size": None, "training.batch_tokens": 100}
        two, eight = (
            dry_run(cli, tmp_path, "--processes", processes, "--json", settings=settings).json()["runs"][0]
            for processes in (2, 8)
        )
        assert eight["steps an epoch"] <= two["steps an epoch"] / 2

    def test_fits_a_terminal(self, cli: CommandLine, tmp_path: Path) -> None:
        answer = dry_run(cli, tmp_path, "--processes", 8)
        assert answer.status == 0
        assert ", 8 processes each, about " in answer.err
        assert all(len(line) <= 80 for line in answer.out.splitlines())

    def test_refused(self, cli: CommandLine, tmp_path: Path) -> None:
        answer = cli("ablate", "schemes", "--processes", 8, "--out", tmp_path)
        refused(answer, "--processes: has no effect without --dry-run")
        spread = {"experts.parallel": 3}
        answer = dry_run(cli, tmp_path, "--processes", 8, "--variants", "top-2", settings=spread)
        refused(answer, "experts.parallel: 3 does not divide the 16 experts")


class TestTrain:
    """Runs on devices that are said to be small."""

    @pytest.fixture
    def on(self, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
        """`on(bytes)`: train on a device with that much memory; nothing may be loaded."""

        def loaded(*arguments: object) -> None:
            raise AssertionError("something was loaded")

        def train(memory: float, *options: object) -> Answer:
            monkeypatch.setattr("repro.run.fitting.device_memory", lambda device: memory)
            monkeypatch.setattr("repro.run.launch.prepare", loaded)
            answer = cli.train(
                "top-2", tmp_path / "results", *options, settings={"training.precision": "fp32"}
            )
            assert not (tmp_path / "results").exists()
            return answer

        return train

    @staticmethod
    def needed(**settings: object) -> Memory:
        """What one process of the small run holds on a GPU."""
        overrides = SMALL_BY_TASK["sst2"] | settings
        run, _ = resolved("top-2", overrides=overrides)
        made = blueprint(run, planned_options(run, None))
        return planned(run, made, Numerics(device="cuda", bf16=False), Way.of(run, 1))

    def test_names_checkpointing(self, on: Callable[..., Answer]) -> None:
        again = self.needed(**{"training.gradient_checkpointing": True})
        assert again.total < self.needed().total
        (line,) = refused(on(again.total + again.reserve), r"^repro: sst2: needs 2\.\d GB on each device")
        assert line.endswith("; it fits with --set training.gradient_checkpointing=true")
        assert "weights 0.0, gradients 0.0, optimiser 0.0, activations 0.0, reserve 2.0" in line

    def test_names_smaller_parts_of_a_batch(self, on: Callable[..., Answer]) -> None:
        half = self.needed(**{"training.gradient_checkpointing": True, "training.batch_size": 8})
        (line,) = refused(on(half.total + half.reserve), "it fits with")
        options = ("gradient_checkpointing=true", "batch_size=8", "accumulation=2")
        assert line.endswith(" ".join(f"--set training.{option}" for option in options))

    def test_names_more_processes(self, on: Callable[..., Answer]) -> None:
        """Experts are most of the model; with what is outside the layers sharded, too, less is left."""
        whole = self.needed(**{"training.gradient_checkpointing": True, "training.batch_size": 1})
        memory = whole.total + whole.reserve - 1.05 * (whole.weights + whole.optimizer) / 4
        (line,) = refused(on(memory), "it fits with torchrun --nproc-per-node")
        assert "--set training.gradient_checkpointing=true" in line or "fsdp" in line

    def test_low_rank_additions(self, on: Callable[..., Answer]) -> None:
        """What is frozen has neither gradients nor moments."""
        low, whole = self.needed(**{"training.lora_rank": 2}), self.needed()
        assert low.optimizer < 0.1 * whole.optimizer
        option = ("--set", "training.lora_rank=2")
        refused(on(low.total + low.reserve - 1e6, *option), r"^repro: sst2: needs 2\.\d GB on each device")
        with pytest.raises(AssertionError, match="something was loaded"):
            on(low.total + low.reserve + 1, *option)

    def test_nothing_fits(self, on: Callable[..., Answer]) -> None:
        (line,) = refused(on(1e9), "no settings make it fit; take a smaller model")
        assert "which has 1.0" in line

    def test_fits(self, on: Callable[..., Answer]) -> None:
        enough = self.needed()
        with pytest.raises(AssertionError, match="something was loaded"):
            on(enough.total + enough.reserve + 1)
