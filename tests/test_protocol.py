"""The trunk of a run, the cooldown that branches off it, and trunks that go on until a loss is reached."""

import math
from pathlib import Path

import pytest
from command_line import SMALL, CommandLine, Json, only_run, read_lines, read_object, timeless
from refusals import refused

STEPS = 10
SETTINGS: dict[str, object] = {
    "training.steps": STEPS,
    "training.checkpoint_every": 3,
    "evaluation.points": 5,
}
"""Trunk to step 11, cooldown from step 8 to 10."""


def train(cli: CommandLine, out: Path, *options: object, **changes: object) -> Json:
    settings = SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    answer = cli.train("adaptive", out, "--json", *options, settings=settings)
    return answer.json()


def curve(out: Path) -> list[tuple[int, float]]:
    """Points of the trunk without times."""
    return [(row["step"], row["eval_loss"]) for row in read_lines(only_run(out) / "evals.jsonl")]


@pytest.fixture(scope="module")
def finished(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the run."""
    out = tmp_path_factory.mktemp("finished")
    train(cli, out)
    return out


class TestTrunkAndCooldown:
    def test_what_is_recorded(self, finished: Path) -> None:
        folder = only_run(finished)
        trunk, cooldown = read_lines(folder / "steps.jsonl"), read_lines(folder / "cooldown" / "steps.jsonl")
        assert [row["step"] for row in trunk] == list(range(1, 12))
        assert [row["step"] for row in cooldown] == [9, 10]
        rate = trunk[-1]["learning_rate"]
        assert {row["learning_rate"] for row in trunk} == {rate}  # of 10 steps one warms up, at the full rate
        assert [row["learning_rate"] for row in cooldown] == pytest.approx([rate, rate / 2])
        assert [step for step, _ in curve(finished)] == [0, 2, 4, 6, 8, 10, 11]
        assert [row["step"] for row in read_lines(folder / "cooldown" / "evals.jsonl")] == [10]

    def test_the_branch_starts_from_the_trunk(self, finished: Path) -> None:
        """Its first step has the weights, the batch and the rate of the trunk; behind it they part."""
        folder = only_run(finished)
        trunk = [timeless(row) for row in read_lines(folder / "steps.jsonl")]
        cooldown = [timeless(row) for row in read_lines(folder / "cooldown" / "steps.jsonl")]
        assert cooldown[0] == trunk[8]
        assert cooldown[1]["loss"] == trunk[9]["loss"]
        assert read_lines(folder / "cooldown" / "evals.jsonl")[0]["eval_loss"] != dict(curve(finished))[10]

    def test_the_result_is_of_the_branch_and_the_curve_of_the_trunk(self, finished: Path) -> None:
        folder = only_run(finished)
        result = read_object(folder / "result.json")
        assert result["steps"] == STEPS
        assert [(step, loss) for step, _, loss in result["curve"]] == curve(finished)
        assert result["dev_loss"] == read_lines(folder / "cooldown" / "evals.jsonl")[0]["eval_loss"]
        path = read_lines(folder / "steps.jsonl")[:8] + read_lines(folder / "cooldown" / "steps.jsonl")
        assert result["train_seconds"] == pytest.approx(sum(row["seconds"] for row in path))
        assert result["tokens"] == sum(row["tokens"] for row in path)

    def test_what_is_left_goes_on_from_the_trunk(self, finished: Path) -> None:
        folder = only_run(finished)
        assert [path.name for path in (folder / "checkpoint").iterdir()] == ["step-11"]
        assert not (folder / "cooldown" / "checkpoint").exists()

    def test_a_constant_rate_has_a_branch_without_steps(
        self, cli: CommandLine, finished: Path, tmp_path: Path
    ) -> None:
        result = train(cli, tmp_path, training__schedule="constant")
        assert curve(tmp_path) == curve(finished)
        assert result["dev_loss"] == dict(curve(tmp_path))[STEPS]
        assert result["train_seconds"] == pytest.approx(
            sum(row["seconds"] for row in read_lines(only_run(tmp_path) / "steps.jsonl")[:STEPS])
        )

    def test_a_linear_schedule_has_no_branch(self, cli: CommandLine, finished: Path, tmp_path: Path) -> None:
        result = train(cli, tmp_path, training__schedule="linear")
        assert [point[0] for point in result["curve"]] == [0, 2, 4, 6, 8, 10]
        assert result["dev_loss"] == result["curve"][-1][2]
        assert not (only_run(tmp_path) / "cooldown").exists()
        assert not (only_run(tmp_path) / "checkpoint").exists()


class TestUntilLoss:
    def test_a_trunk_goes_on_as_if_there_were_no_branch(
        self, cli: CommandLine, finished: Path, tmp_path: Path
    ) -> None:
        """Out of reach: both end at twice the budget, the one behind its result, the other in one go."""
        again = tmp_path / "again"
        train(cli, again)
        before = read_object(only_run(again) / "result.json")
        late = train(cli, again, "--until-loss", "0")
        whole = train(cli, tmp_path / "whole", "--until-loss", "0")
        assert (late["steps"], late["trained_steps"]) == (None, 2 * STEPS)
        assert {**late, "train_seconds": None} == {**whole, "train_seconds": None}
        assert curve(again) == curve(tmp_path / "whole")
        assert [step for step, _ in curve(again)] == [0, 2, 4, 6, 8, 10, 11, 12, 14, 16, 18, 20]
        after = read_object(only_run(again) / "result.json")
        assert [(step, loss) for step, _, loss in after["curve"]] == curve(again)
        assert {**after, "curve": None} == {**before, "curve": None}
        assert not (only_run(tmp_path / "whole") / "result.json").exists()

    def test_it_stops_a_margin_behind_the_loss(
        self, cli: CommandLine, finished: Path, tmp_path: Path
    ) -> None:
        losses = curve(finished)
        target = (losses[1][1] + losses[2][1]) / 2
        assert losses[2][1] < target < losses[1][1]
        reached = train(cli, tmp_path, "--until-loss", target)
        assert 2 < reached["steps"] <= 4
        assert reached["trained_steps"] == 4 + 2 * (reached["steps"] > 3)
        assert reached["train_seconds"] > 0
        assert curve(tmp_path) == losses[: len(curve(tmp_path))]
        # The same command again trains nothing; without the option the run goes on to its end.
        assert train(cli, tmp_path, "--until-loss", target) == reached
        assert train(cli, tmp_path)["curve"][-1][0] == 11
        assert curve(tmp_path) == losses

    def test_reached_by_a_finished_run(self, cli: CommandLine, finished: Path) -> None:
        before = (only_run(finished) / "result.json").read_bytes()
        first, last = curve(finished)[0][1], curve(finished)[-1][1]
        reached = train(cli, finished, "--until-loss", first - 0.01 * (first - last))
        assert reached["trained_steps"] == 11
        assert 0 < reached["steps"] < 11
        assert (only_run(finished) / "result.json").read_bytes() == before

    def test_words(self, cli: CommandLine, finished: Path) -> None:
        first = curve(finished)[0][1]
        answer = cli.train("adaptive", finished, "--until-loss", first, settings=SETTINGS)
        assert answer.out.splitlines()[0].startswith(f"loss {first:.4g} after 0 steps, 0 s of training")

    @pytest.mark.parametrize("value", ["nan", "inf"])
    def test_a_loss_that_is_none(self, cli: CommandLine, tmp_path: Path, value: str) -> None:
        refused(
            cli.train("adaptive", tmp_path, "--until-loss", value),
            rf"--until-loss: must be finite, got {value}",
        )

    def test_a_schedule_under_which_losses_fall_by_themselves(self, cli: CommandLine, tmp_path: Path) -> None:
        answer = cli.train("adaptive", tmp_path, "--until-loss", 1, settings={"training.schedule": "linear"})
        refused(answer, r"--until-loss: with training\.schedule = 'linear' .*use 'wsd' or 'constant'")
        assert list(tmp_path.iterdir()) == []


def test_a_study_lets_trunks_go_on_to_the_loss_of_top_2(cli: CommandLine, tmp_path: Path) -> None:
    """Every scheme has a number, or went to twice the budget; nothing that could go on is left behind."""
    settings = [f"--set={key}={value}" for key, value in (SMALL | SETTINGS).items()]
    answer = cli(
        "ablate",
        "schemes",
        "--tasks",
        "sst2",
        "--turns",
        2,
        "--seeds",
        1,
        "--out",
        tmp_path,
        "--json",
        *settings,
    )
    rows = {row["Scheme"]: row for row in answer.json()["tables"]["schemes"]}
    assert rows["top-2"]["Norm. Training Time"] == 1
    results = {
        result["gate"]: result
        for path in tmp_path.glob("mini/runs/*/result.json")
        for result in [read_object(path)]
    }
    for scheme in ("dense", "top-1", "adaptive"):
        cell, end = rows[scheme]["Norm. Training Time"], results[scheme]["curve"][-1][0]
        if isinstance(cell, str):
            assert cell.startswith("> ")
            assert end == 2 * STEPS
        else:
            assert math.isfinite(cell)
            assert 11 <= end <= 2 * STEPS
    assert not list(tmp_path.glob("mini/runs/*/checkpoint"))
