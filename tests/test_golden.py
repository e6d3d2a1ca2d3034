"""Twenty losses of a tiny model, one curve per gate on sst2 and two of other architectures with
`adaptive`: a refactoring shows equal numbers.

After a change that is meant to change them: `REPRO_GOLDEN=write make test`, and review the difference.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from repro import plugins

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
GATES = sorted(
    {"dense", "top-1", "top-2"} | {name.replace("_", "-") for name in plugins.names("gates")} - {"top-k"}
)


# The decoder and the encoder-decoder, on hand-made rows: a change of the corpora changes nothing here.
OTHER_TASKS = {
    "wikitext": {
        "model.config.resid_pdrop": 0,
        "model.config.embd_pdrop": 0,
        "model.config.attn_pdrop": 0,
    },
    "wmt19": {"model.config.dropout": 0},
}


def losses(repro: Any, gate: str, out: Path, *options: object, task: str, **changes: object) -> list[float]:
    """The losses of twenty steps, and the file of golden ones updated if the user asks for it."""
    settings = {"training.steps": 20, "training.learning_rate": 3e-3} | changes
    answer = repro.train(gate, out, *options, task=task, **settings)
    assert answer.status == 0, answer.err
    (steps,) = out.glob("*/runs/*/steps.jsonl")
    found = [json.loads(line)["loss"] for line in steps.read_text().splitlines()]
    assert len(found) == 20
    return found


def compare(name: str, found: list[float]) -> None:
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("REPRO_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(known | {name: found}, indent=1, sort_keys=True) + "\n")
    assert json.loads(GOLDEN.read_text())[name] == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("gate", GATES)
def test_golden_losses(repro: Any, gate: str, tmp_path: Path) -> None:
    # Dropout would tie the numbers to one library's stream of random bits.
    still = {"model.config.hidden_dropout_prob": 0, "model.config.attention_probs_dropout_prob": 0}
    compare(gate, losses(repro, gate, tmp_path, task="sst2", **still))


@pytest.mark.parametrize("task", sorted(OTHER_TASKS))
def test_golden_losses_of_other_architectures(repro: Any, tmp_path: Path, folder_of: Any, task: str) -> None:
    """Several epochs, so the order of the samples comes from the routing."""
    options = ("--data", folder_of(task))
    found = losses(repro, "adaptive", tmp_path / "out", *options, task=task, **OTHER_TASKS[task])
    assert found[-1] < 0.7 * found[0]
    compare(f"{task} adaptive", found)


def test_no_curve_without_a_gate() -> None:
    assert sorted(json.loads(GOLDEN.read_text())) == sorted(
        [*GATES, *(f"{task} adaptive" for task in OTHER_TASKS)]
    )
