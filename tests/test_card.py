"""The model card of a run: what it says, and that its command is the run's."""

import shlex
from pathlib import Path

import pytest
from command_line import CommandLine, TrainedRuns, only_run
from factories import make_result
from resolved import config

from repro.results.run import RunResult, read_result
from repro.run.card import command, model_card


def card_of(folder: Path) -> str:
    return (folder / "model" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("gate", "task"), [("adaptive", "sst2"), ("top-2", "wmt19"), ("dense", "sst2")])
def test_the_command_is_that_of_the_run(cli: CommandLine, trained: TrainedRuns, gate: str, task: str) -> None:
    """It finds the run finished, as settings and with them the id are the same."""
    made = trained(gate, task)
    (line,) = [line for line in card_of(made.folder).splitlines() if line.startswith("repro train")]
    answer = cli(*shlex.split(line)[1:], "--out", made.results)
    assert answer.status == 0, answer.err
    assert "was finished before" in answer.err
    assert only_run(made.results) == made.folder
    assert f"repro eval {made.folder.name}" in card_of(made.folder)


def test_what_it_says(trained: TrainedRuns) -> None:
    made = trained("adaptive")
    text, result = card_of(made.folder), made.result
    assert text == model_card(read_result(made.folder / "result.json"))
    assert text.startswith("---\nlibrary_name: repro\ntags:\n")
    assert "Sentiment analysis (`sst2`), synthetic data, 6 steps" in text
    assert f"accuracy {result['metric']['value']:.4g} on 32 examples" in text
    assert "adaptive (threshold 0.1, normalisation pair" in text
    assert f"{result['routing_eval']['mean_experts']:.4g} experts per token" in text
    assert f"{result['flops_eval']['per_token']:.4g} FLOPs per token" in text
    assert "import repro.hf" in text
    assert "AutoModelForSequenceClassification" in text


def test_a_dense_model_needs_no_package(trained: TrainedRuns) -> None:
    text = card_of(trained("dense").folder)
    assert "library_name: transformers" in text
    assert "import repro.hf" not in text
    assert "Gate: dense" in text


def result_of(**sections: dict[str, object]) -> RunResult:
    plain = config("top-2", task="sst2").to_dict()
    for name, values in sections.items():
        plain[name] |= values
    return make_result("sst2", "top-2").model_copy(update={"config": plain})


def test_inputs_on_this_machine_are_not_named() -> None:
    """Where they lie is nobody's business, and what is in them has no place in a command."""
    result = result_of(
        data={"source": "folder:0123456789abcdef"},
        model={
            "checkpoint": "dir:mine:0123456789abcdef",
            "config": {"hidden_dropout_prob": 0.3},
            "vocab_size": None,
        },
    )
    line = command(result)
    assert "--data DIR --model DIR" in line
    assert "--set model.config.hidden_dropout_prob=0.3" in line
    assert "vocab_size" not in line
    assert "base_model" not in model_card(result)


def test_a_model_of_the_hub_is_named() -> None:
    result = result_of(
        model={"checkpoint": "google-bert/bert-base-uncased", "config": {}, "vocab_size": None}
    )
    assert "--model google-bert/bert-base-uncased" in command(result)
    assert "base_model: google-bert/bert-base-uncased" in model_card(result)
