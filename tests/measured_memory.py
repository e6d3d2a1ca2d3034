"""What a training step really holds in one process: bytes counted tensor by tensor."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from repro.config import RunConfig
from repro.moe import convert
from repro.moe.backbones.base import load as load_backbone
from repro.moe.lora import add_to
from repro.moe.routing import record_routing
from repro.run.accelerator import make_accelerator
from repro.run.blueprint import planned_options
from repro.run.model import fresh_model, settings_of, weights_type
from repro.tasks.base import load as load_task
from repro.training.optimizer import make_optimizer
from repro.training.placement import place


@dataclass(frozen=True)
class Measured:
    """Bytes of one process."""

    weights: int
    gradients: int
    buckets: int
    """In which DistributedDataParallel adds gradients up."""
    optimizer: int
    """Of the moments."""
    kept: int
    """What autograd keeps at the end of the forward pass, but for weights."""
    tokens: int
    rows: int
    """Assignments of experts to these tokens, over all layers; 0 for a dense model."""


class Kept:
    """Adds up the storages that autograd saves in a block."""

    def __init__(self, model: nn.Module) -> None:
        own = [*model.parameters(), *model.buffers()]
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._sizes: dict[int, int] = {}
        self.hooks = saved_tensors_hooks(self._pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            # Saved tensors stay until the backward pass, so that an address stands for one storage.
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor


def measure(config: RunConfig, sequences: int, lengths: Mapping[str, int]) -> Measured:
    """Do one step of a run's model with random weights and tokens, in every process of a launch.

    Args:
        sequences: of this process. The last is one token shorter than the others, so that there is padding.
        lengths: stack -> positions.
    """
    accelerator = make_accelerator(config)
    torch.manual_seed(0)
    model: Any = fresh_model(config, planned_options(config, None)).to(weights_type(config)).train()
    for parameter in load_backbone(config.model.backbone).fixed_parameters(model):
        parameter.requires_grad_(False)
    convert.convert(model, settings_of(config), torch.device("cpu"))
    add_to(model, config.training)
    placement = place(accelerator, model, config)
    optimizer = make_optimizer(placement.plain, config.training)
    batch = _batch(config, sequences, lengths, accelerator.process_index)
    kept = Kept(placement.plain)
    with placement.batch(), placement.gradients(last=True):
        with record_routing(placement.model) as tape, kept.hooks:
            loss = placement.model(**placement.call_options | batch).loss
        accelerator.backward(loss)
    placement.finish_gradients()
    optimizer.step()
    parameters = list(placement.plain.parameters())
    moments = [tensor for state in optimizer.state.values() for key, tensor in state.items() if key != "step"]
    return Measured(
        weights=_bytes(parameters),
        gradients=_bytes([weight.grad for weight in parameters if weight.grad is not None]),
        buckets=_buckets(placement.model),
        optimizer=_bytes(moments),
        kept=kept.bytes,
        tokens=sum(sequences * length - 1 for length in lengths.values()),
        rows=sum(int(entry.routing.load_E.sum()) for entry in tape.entries),
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def _buckets(model: nn.Module) -> int:
    if not isinstance(model, DistributedDataParallel):
        return 0
    sizes: str = model._get_ddp_logging_data()["bucket_sizes"]  # type: ignore[no-untyped-call]
    return sum(map(int, sizes.split(", ")))


def _batch(config: RunConfig, sequences: int, lengths: Mapping[str, int], process: int) -> dict[str, Any]:
    """Arguments of a call, with labels."""
    generator = torch.Generator().manual_seed(process)
    batch: dict[str, Any] = {}
    for stack, length in lengths.items():
        prefix = "decoder_" if stack == "decoder" and len(lengths) > 1 else ""
        ids = torch.randint(3, 44, (sequences, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[-1, -1] = 0
        batch |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}
    head = load_task(config.task).HEAD
    if head == "sequence-classification":
        return batch | {"labels": torch.zeros(sequences, dtype=torch.int64)}
    if head == "question-answering":
        return batch | dict.fromkeys(
            ("start_positions", "end_positions"), torch.ones(sequences, dtype=torch.int64)
        )
    return batch | {"labels": ids}
