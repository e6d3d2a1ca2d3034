"""Twenty losses of a tiny model, one curve per gate: a refactoring shows equal numbers.

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


def losses(repro: Any, gate: str, out: Path) -> list[float]:
    answer = repro.train(
        gate,
        out,
        **{
            "training.steps": 20,
            "training.learning_rate": 3e-3,
            # Dropout would tie the numbers to one library's stream of random bits.
            "model.config.hidden_dropout_prob": 0,
            "model.config.attention_probs_dropout_prob": 0,
        },
    )
    assert answer.status == 0, answer.err
    (steps,) = out.glob("*/runs/*/steps.jsonl")
    return [json.loads(line)["loss"] for line in steps.read_text().splitlines()]


@pytest.mark.parametrize("gate", GATES)
def test_golden_losses(repro: Any, gate: str, tmp_path: Path) -> None:
    found = losses(repro, gate, tmp_path)
    assert len(found) == 20
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("REPRO_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(known | {gate: found}, indent=1, sort_keys=True) + "\n")
    assert json.loads(GOLDEN.read_text())[gate] == pytest.approx(found, rel=1e-4)


def test_no_curve_without_a_gate() -> None:
    assert sorted(json.loads(GOLDEN.read_text())) == GATES
