"""Scales as files, and a line for whatever is wrong with one."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from resolved import config, problems

from repro.run.scales import experiments_folder


class TestScaleFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        shutil.copytree(experiments_folder(), tmp_path / "experiments")
        monkeypatch.setattr("repro.run.scales.experiments_folder", lambda: tmp_path / "experiments")
        return tmp_path / "experiments"

    def append(self, folder: Path, text: str) -> None:
        path = folder / "mini.toml"
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")

    def test_a_file_is_a_scale(self, folder: Path) -> None:
        (folder / "mini.toml").rename(folder / "tiny.toml")
        assert config(scale="tiny").scale == "tiny"
        (line,) = problems(config, scale="mini")
        assert line.startswith("--scale: unknown scale 'mini'. Did you mean 'tiny'?")

    def test_options_of_a_task(self, folder: Path) -> None:
        path = folder / "mini.toml"
        path.write_text(path.read_text(encoding="utf-8").replace("beams = 4", "beams = 0"), encoding="utf-8")
        assert problems(config, task="wmt19") == [
            "experiments/mini.toml: wmt19.task.beams: must be at least 1, got 0"
        ]
        self.append(folder, "\n[sst2.task]\nbeams = 2\n")
        (line,) = problems(config)
        assert line.startswith("experiments/mini.toml: sst2.task.beams: unknown key 'beams'")

    def test_both_batch_sizes(self, folder: Path) -> None:
        path = folder / "mini.toml"
        text = path.read_text(encoding="utf-8")
        path.write_text(
            text.replace("[sst2.training]\n", "[sst2.training]\nbatch_tokens = 9\n"), encoding="utf-8"
        )
        (line,) = problems(config)
        assert "training.batch_size, training.batch_tokens: give exactly one of them" in line
        # What the user gives decides.
        assert config(overrides={"training.batch_size": 4}).training.batch_tokens is None

    def test_unknown_section(self, folder: Path) -> None:
        self.append(folder, "\n[sst2.trainng]\nsteps = 3\n")
        (line,) = problems(config)
        assert line.startswith("experiments/mini.toml: sst2")
        assert "unknown section 'trainng'. Did you mean 'training'?" in line

    def test_unknown_key(self, folder: Path) -> None:
        self.append(folder, "\n[sst2.experts]\ncont = 3\n")
        (line,) = problems(config)
        assert line.startswith("experiments/mini.toml: sst2.experts.cont: unknown key 'cont'")
        assert "Did you mean 'count'?" in line

    def test_wrong_value(self, folder: Path) -> None:
        self.append(folder, '\n[sst2.experts]\ncount = "many"\n')
        lines = problems(config)
        assert lines == ["experiments/mini.toml: sst2.experts.count: expected a whole number, got 'many'"]

    def test_not_toml(self, folder: Path) -> None:
        self.append(folder, "\n[sst2.experts\n")
        (line,) = problems(config)
        assert line.startswith("experiments/mini.toml: ")
        assert "line" in line

    def test_no_section_for_the_task(self, folder: Path) -> None:
        (folder / "mini.toml").write_text("[base.experts]\ncount = 16\n", encoding="utf-8")
        assert problems(config) == ["experiments/mini.toml: no section for task 'sst2'"]

    def test_neither_checkpoint_nor_vocabulary(self, folder: Path) -> None:
        path = folder / "mini.toml"
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(?m)^vocab_size = .*\n", "", text), encoding="utf-8")
        assert problems(config) == ["experiments/mini.toml: model: give a checkpoint or a vocab_size"]

    def test_a_recorded_learning_rate_is_part_of_the_run(self, folder: Path) -> None:
        """It holds for its scheme alone, where nobody else sets a rate."""
        scale = tomllib.loads((folder / "mini.toml").read_text(encoding="utf-8"))
        rates = {task: scale[task]["training"]["learning_rate"] for task in ("soda", "cnn_dailymail")}
        self.append(folder, "\n[soda.learning_rate]\ndense = 5e-4\ntop_2 = 3\n")
        recorded = config("dense", task="soda")
        assert recorded.training.learning_rate == 5e-4
        by_hand = config("dense", task="soda", overrides={"training.learning_rate": 5e-4})
        assert recorded.run_id == by_hand.run_id
        assert config("top-k", task="soda").training.learning_rate == 3.0
        assert config("top-2", task="soda").training.learning_rate == 3.0
        for scheme in ("top-1", "adaptive"):
            assert config(scheme, task="soda").training.learning_rate == rates["soda"]
        assert config("dense", task="cnn_dailymail").training.learning_rate == rates["cnn_dailymail"]
        own = config("dense", task="soda", overrides={"training.learning_rate": 0.01})
        assert own.training.learning_rate == 0.01

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (
                "dens = 1e-4",
                "experts/mini.toml: soda.learning_rate: unknown gate 'dens'. Did you mean 'dense'?",
            ),
            (
                "dense = 0",
                "experiments/mini.toml: soda.learning_rate.dense: training.learning_rate:"
                " must be greater than 0, got 0",
            ),
            (
                "dense = 'low'",
                "experiments/mini.toml: soda.learning_rate.dense: training.learning_rate:"
                " expected a number, got 'low'",
            ),
        ],
    )
    def test_a_wrong_learning_rate_is_one_line(self, folder: Path, line: str, problem: str) -> None:
        self.append(folder, f"\n[soda.learning_rate]\n{line}\n")
        assert problems(config, "dense", task="soda") == [problem.replace("experts/", "experiments/")]

    def test_options_of_gates(self, folder: Path) -> None:
        """They hold for the gates that have them, under what the user says."""
        self.append(folder, '\n[base.gate]\ncombine = "renormalised"\n')
        assert config("top-2").gate_options.combine == "renormalised"
        assert config("top-2", overrides={"gate.combine": "raw"}).gate_options.combine == "raw"
        assert config("dense").gate == "dense"
        self.append(folder, "\n[sst2.gate]\ncombin = 1\n")
        (line,) = problems(config)
        assert line == "experiments/mini.toml: gate: unknown option 'combin'. Did you mean 'combine'?"


def test_copies_are_fitted_unless_said_otherwise() -> None:
    """Random experts are left as they are drawn."""
    for init, scale in (("random", "none"), ("upcycle", "fitted")):
        assert config(overrides={"experts.init": init}).experts.scale == scale
        for chosen in ("none", "fitted"):
            assert config(overrides={"experts.init": init, "experts.scale": chosen}).experts.scale == chosen
    (line,) = problems(config, "dense", overrides={"experts.scale": "fitted"})
    assert "experts.scale has no effect: the gate 'dense' has no experts" in line


def test_models_of_the_paper_start_as_their_checkpoints() -> None:
    made = config("top-2", scale="paper")
    assert (made.experts.init, made.experts.scale) == ("upcycle", "fitted")
    assert made.gate_options.combine == "renormalised"
