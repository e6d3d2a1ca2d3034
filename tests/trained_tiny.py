"""Tiny models of every backbone, trained for a few steps by the one loop, in one process or several."""

import dataclasses
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from command_line import read_lines
from resolved import config
from tiny_models import Tiny
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.nn.functional import cross_entropy

from repro.config import RunConfig
from repro.errors import Interrupted
from repro.moe.layer import MoELayer
from repro.moe.lora import add_to, merge_low_rank
from repro.results.files import RunFolder
from repro.run.accelerator import make_accelerator
from repro.tasks.base import Feature, Task
from repro.training.curriculum import TrainingData
from repro.training.placement import place
from repro.training.state import Progress
from repro.training.tensor_files import whole_tensors
from repro.training.trainer import train

HEADS = {
    "bert": "sequence-classification",
    "gpt2": "causal-language-model",
    "bart": "sequence-to-sequence",
    "fsmt": "sequence-to-sequence",
    "mixtral": "causal-language-model",
}
"""Backbone -> one of its heads."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained, and how it is spread."""

    backbone: str = "gpt2"
    gate: str = "adaptive"
    experts: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    samples: int = 22
    steps: int = 3
    stop_after: int | None = None
    """Steps after which it is asked to stop."""

    @property
    def config(self) -> RunConfig:
        """Its settings: all that are not named are those of a run at `mini`."""
        run = config(self.gate)
        settings: dict[str, Any] = {
            "steps": self.steps,
            "epochs": None,
            "batch_size": 8,
            "batch_tokens": None,
        }
        settings |= {"schedule": "linear", "curriculum": "random", "learning_rate": 1e-2, "warmup": 0.0}
        return dataclasses.replace(
            run,
            experts=dataclasses.replace(run.experts, **{"count": 4} | self.experts),
            training=dataclasses.replace(run.training, **settings | self.training),
        )


@dataclass(frozen=True)
class Trained:
    """What training came to."""

    steps: list[dict[str, Any]]
    """Records of the steps."""
    weights: dict[str, Tensor]
    """Of the whole model; none in processes but the first."""
    tensors: dict[str, Tensor]
    """Of model and optimizer, as they stand in the last checkpoint."""
    states: dict[str, Tensor]
    """Buffers of the gates, in this process."""
    parameters: int
    """Numbers of the whole model."""
    own_parameters: int
    """Numbers that this process holds."""


class TinyTask:
    """Every sequence names its tokens again, or the parity of its first one."""

    def __init__(self, tiny: Tiny) -> None:
        self.tiny = tiny

    def length(self, feature: Feature) -> int:
        return max(map(int, feature["lengths"].values()))

    def collate(self, features: list[Feature]) -> dict[str, Any]:
        lengths = {stack: [feature["lengths"][stack] for feature in features] for stack in self.tiny.widths}
        batch = self.tiny.batch(lengths)
        for stack, mask in self.tiny.masks(batch).items():
            prefix = "decoder_" if len(self.tiny.widths) == 2 and stack == "decoder" else ""
            for row, feature in enumerate(features):
                length = int(mask[row].sum())
                batch[f"{prefix}input_ids"][row, :length] = torch.tensor(feature["ids"][:length])
        return batch

    def masks(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self.tiny.masks(batch)

    def loss_terms(self, batch: dict[str, Any]) -> int:
        mask_BS = list(self.masks(batch).values())[-1]
        return int(mask_BS.sum()) if self.tiny.per_token else len(mask_BS)

    def loss(self, outputs: Any, batch: dict[str, Any]) -> Tensor:
        ids_BS = batch["decoder_input_ids" if len(self.tiny.widths) == 2 else "input_ids"]
        if not self.tiny.per_token:
            return cross_entropy(outputs.logits, ids_BS[:, 0] % 2)
        mask_BS = list(self.masks(batch).values())[-1].bool()
        return cross_entropy(outputs.logits[mask_BS], ids_BS[mask_BS])


def features(tiny: Tiny, samples: int) -> list[Feature]:
    """Sequences of 1 to 9 tokens."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 10, (samples, 2), generator=generator).tolist()
    ids = torch.randint(3, 44, (samples, 9), generator=generator).tolist()
    return [
        {"lengths": dict(zip(("encoder", "decoder"), pair, strict=True)), "ids": row}
        for pair, row in zip(lengths, ids, strict=True)
    ]


def train_tiny(case: Case, folder: Path) -> Trained:
    """Train a case in a folder, from its checkpoint if there is one."""
    run = case.config
    accelerator = make_accelerator(run)
    tiny = Tiny(case.backbone, HEADS[case.backbone])
    model = tiny.build()
    if case.gate != "dense":
        tiny.convert(model, case.gate)
    add_to(model, run.training)
    placement = place(accelerator, model, run)
    folder.mkdir(parents=True, exist_ok=True)
    done: list[Progress] = []
    with suppress(Interrupted):
        train(
            placement,
            run,
            TrainingData(task=cast(Task, TinyTask(tiny)), train=features(tiny, case.samples)),
            RunFolder(folder),
            measure_loss=lambda: 1.0,
            report=done.append,
            should_stop=lambda: case.stop_after is not None and len(done) >= case.stop_after,
        )
    accelerator.wait_for_everyone()
    tensors = _saved(max((folder / "checkpoint").glob("step-*"), key=lambda path: int(path.name[5:])))
    own_parameters = sum(parameter.numel() for parameter in model.parameters())
    if run.training.lora_rank is not None:
        merge_low_rank(model)
    return Trained(
        steps=read_lines(folder / "steps.jsonl"),
        weights=whole_tensors(placement),
        tensors=tensors,
        states={
            f"{number}.{name}": buffer.clone()
            for number, layer in enumerate(_layers(model))
            for name, buffer in layer.gate.named_buffers()
        },
        parameters=placement.parameters,
        own_parameters=own_parameters,
    )


def _saved(checkpoint: Path) -> dict[str, Tensor]:
    """Read whole tensors of a checkpoint, whichever process wrote which part of them."""
    reader = HuggingFaceStorageReader(str(checkpoint))
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings(action="ignore"):  # that it is one process
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def _layers(model: nn.Module) -> list[MoELayer]:
    return [module for module in model.modules() if isinstance(module, MoELayer)]
