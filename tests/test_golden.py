"""Twenty losses on the path to a tiny model, sixteen of its trunk and four of its cooldown: one curve per
gate on sst2 and two of other architectures with `adaptive`. A refactoring shows equal numbers.

After a change that is meant to change them: `REPRO_GOLDEN=write make test`, and review the difference.
"""

import json
import os
from pathlib import Path

import pytest
from command_line import CommandLine, Settings, only_run, read_path
from rows_by_hand import FolderOf

from repro import plugins

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
GATES = sorted(
    {"dense", "top-1", "top-2"} | {name.replace("_", "-") for name in plugins.names("gates")} - {"top-k"}
)
ONE_NUMBER = {"dense", "top-1", "top-2", "hash"}
"""Those that have no ratios to order by: every token of theirs has as many experts."""

# The decoder and the encoder-decoder, on hand-made rows: a change of the corpora changes nothing here.
OTHER_TASKS = {
    "wikitext": {
        "model.config.resid_pdrop": 0,
        "model.config.embd_pdrop": 0,
        "model.config.attn_pdrop": 0,
    },
    "wmt19": {"model.config.dropout": 0},
}


def losses(
    cli: CommandLine, gate: str, out: Path, *options: object, task: str, settings: Settings
) -> list[float]:
    """Train twenty steps and return their losses."""
    settings = {"training.steps": 20, "training.learning_rate": 3e-3, **settings}
    answer = cli.train(gate, out, *options, task=task, settings=settings)
    assert answer.status == 0, answer.err
    curve = [row["loss"] for row in read_path(only_run(out))]
    assert len(curve) == 20
    return curve


def compare(name: str, curve: list[float]) -> None:
    """Compare with the golden losses, which are replaced first if the user asks for it."""
    if os.environ.get("REPRO_GOLDEN") == "write":
        before = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(json.dumps(before | {name: curve}, indent=1, sort_keys=True) + "\n")
    assert json.loads(GOLDEN.read_text())[name] == pytest.approx(curve, rel=1e-4)


@pytest.mark.parametrize("gate", GATES)
def test_golden_losses(cli: CommandLine, gate: str, tmp_path: Path) -> None:
    # Dropout would tie the numbers to one library's stream of random bits.
    settings: dict[str, object] = {
        "model.config.hidden_dropout_prob": 0,
        "model.config.attention_probs_dropout_prob": 0,
    }
    if gate not in ONE_NUMBER:
        settings["training.curriculum"] = "cosine"
    compare(gate, losses(cli, gate, tmp_path, task="sst2", settings=settings))


@pytest.mark.parametrize("task", sorted(OTHER_TASKS))
def test_golden_losses_of_other_architectures(
    cli: CommandLine, tmp_path: Path, folder_of: FolderOf, task: str
) -> None:
    """Several epochs, so the order of the samples comes from the routing."""
    options = ("--data", folder_of(task), "--curriculum", "cosine")
    curve = losses(cli, "adaptive", tmp_path / "out", *options, task=task, settings=OTHER_TASKS[task])
    assert curve[-1] < 0.7 * curve[0]
    compare(f"{task} adaptive", curve)


def test_no_curve_without_a_gate() -> None:
    assert sorted(json.loads(GOLDEN.read_text())) == sorted(
        [*GATES, *(f"{task} adaptive" for task in OTHER_TASKS)]
    )
