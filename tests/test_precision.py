"""What `--precision auto` chooses, by capability and by width."""

from pathlib import Path

import pytest
import torch
from command_line import CommandLine, Settings
from planned import overrides_of

from repro.run import accelerator
from repro.run.resolve import resolve

WIDE = {"hidden_size": 512, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 1}


def chosen(tmp_path: Path, settings: Settings, task: str = "sst2", checkpoint: Path | None = None) -> str:
    """Precision of a run at scale `mini` with settings of the model or the training."""
    config, paths = resolve(
        task=task,
        scale="mini",
        gate="dense",
        seed=0,
        data=None,
        model=str(checkpoint) if checkpoint else None,
        overrides=overrides_of(settings),
        results=tmp_path,
    )
    return str(accelerator.make_accelerator(config, paths.model).mixed_precision)


def wide(width: int) -> dict[str, object]:
    return {f"model.config.{key}": value for key, value in (WIDE | {"hidden_size": width}).items()}


@pytest.mark.parametrize("instructions", ["amx_bf16", "avx512_bf16"])
def test_wide_models_use_bf16_where_the_processor_has_it(
    instructions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})
    assert chosen(tmp_path, wide(512)) == "bf16"
    assert chosen(tmp_path, wide(508)) == "no"
    assert chosen(tmp_path, wide(512) | {"training.precision": "fp32"}) == "no"


def test_other_processors_use_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False})
    assert chosen(tmp_path, wide(512)) == "no"
    assert chosen(tmp_path, wide(512) | {"training.precision": "bf16"}) == "bf16"


def test_the_width_of_a_checkpoint_counts(
    gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    # Its layers are 16 wide.
    monkeypatch.setattr(accelerator, "_BF16_WIDTH", 16)
    assert chosen(tmp_path, {}, "wikitext", gpt2_folder) == "bf16"
    monkeypatch.setattr(accelerator, "_BF16_WIDTH", 17)
    assert chosen(tmp_path, {}, "wikitext", gpt2_folder) == "no"


def test_a_wrong_model_option_is_reported_later(tmp_path: Path, cli: CommandLine) -> None:
    done = cli(
        "train", "--task", "sst2", "--gate", "dense", "--out", tmp_path, "--set", "model.config.hiden_size=64"
    )
    assert done.status == 2
    assert "'hiden_size'" in done.err
