"""Tiny models of every backbone and head, converted or not, batches for them, and a look at their parts."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from repro import plugins
from repro.config import ExpertsConfig
from repro.moe.backbones import base as backbones
from repro.moe.convert import convert
from repro.moe.experts import base as backends
from repro.moe.ffn import FFN
from repro.moe.flops import Architecture
from repro.moe.gates import base as gates
from repro.moe.gates.shared.softmax import Router
from repro.moe.layer import MoELayer
from repro.moe.settings import MoESettings
from repro.results.run import Flops

CPU = torch.device("cpu")
BACKENDS = [name for name in plugins.names("experts") if backends.load(name).available(CPU) is None]
"""Back-ends that run on this machine."""
NO_DROPOUT_BERT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NO_DROPOUT_GPT2 = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
SEQ2SEQ: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    "dropout": 0.0,
    "init_std": 0.2,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
SIZES: dict[str, dict[str, Any]] = {
    "bert": {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "initializer_range": 0.2,
        "num_labels": 2,
        **NO_DROPOUT_BERT,
    },
    "gpt2": {
        "vocab_size": 50,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_inner": 40,
        "n_positions": 32,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        **NO_DROPOUT_GPT2,
    },
    "bart": {"vocab_size": 50, **SEQ2SEQ},
    "fsmt": {"src_vocab_size": 50, "tgt_vocab_size": 44, "langs": ["de", "en"], **SEQ2SEQ},
}
LLAMA: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
LLAMAS = ("llama", "mistral", "qwen2", "qwen3")
"""Dense ones with gated networks."""
SIZES |= {name: LLAMA for name in LLAMAS} | {
    "qwen3": {**LLAMA, "head_dim": 4},
    "mixtral": {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {**LLAMA, "num_experts": 4, "num_experts_per_tok": 3},
    "qwen3_moe": {
        **LLAMA,
        "num_hidden_layers": 3,
        "head_dim": 8,
        "mlp_only_layers": [1],
        "moe_intermediate_size": 20,
        "num_experts": 4,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
    },
}
WIDTHS = {
    "bert": {"encoder": 32},
    "gpt2": {"decoder": 40},
    **{name: {"decoder": 24} for name in (*LLAMAS, "mixtral", "olmoe")},
    "qwen3_moe": {"decoder": 20},
    "bart": {"encoder": 32, "decoder": 24},
    "fsmt": {"encoder": 32, "decoder": 24},
}
LENGTHS = {"encoder": [7, 4, 2], "decoder": [5, 6, 3]}
"""Real tokens of the three sequences of a batch; not the same order in both stacks."""


@dataclass(frozen=True)
class Tiny:
    """One head of one backbone: models of two layers a stack, 16 wide, over some 50 tokens."""

    backbone: str
    head: str

    @property
    def widths(self) -> dict[str, int]:
        """Stack -> hidden width of its FFNs, in the order of computation."""
        return WIDTHS[self.backbone]

    @property
    def stacks(self) -> list[str]:
        """Stack of each FFN."""
        return [stack for stack in self.widths for _ in range(2)]

    @property
    def is_gated(self) -> bool:
        """Whether its dense networks are gated, and without biases."""
        return self.backbone in LLAMAS

    @property
    def per_token(self) -> bool:
        """Whether there are logits for every token."""
        return self.head != "sequence-classification"

    @property
    def pad(self) -> int:
        """Token that stands at the padding."""
        return int(SIZES[self.backbone].get("pad_token_id", 0))

    def build(self, **options: Any) -> Any:
        """A model with random weights, biases included, large enough that every part shows."""
        module = backbones.load(self.backbone)
        torch.manual_seed(0)
        model = module.HEADS[self.head](module.CONFIG(**SIZES[self.backbone] | options)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.2)
        return model

    def settings(self, gate: str, *, experts: Any = None, **options: Any) -> MoESettings:
        """Settings with four experts; `options` are the gate's."""
        file, fixed = plugins.resolve("gates", gate)
        return MoESettings(
            backbone=self.backbone,
            head=self.head,
            gate=file,
            gate_options=gates.load(file).Config(**fixed, **options),
            experts=ExpertsConfig(**{"count": 4} | (experts or {})),
        )

    def convert(self, model: Any, gate: str, **options: Any) -> Architecture:
        """Convert in place, from a fixed seed."""
        torch.manual_seed(1)
        return convert(model, self.settings(gate, **options), CPU)

    def converted(self, gate: str, *, sizes: Any = None, **options: Any) -> Any:
        """A converted model; `sizes` are options of its configuration."""
        model = self.build(**(sizes or {}))
        self.convert(model, gate, **options)
        return model

    def batch(self, lengths: dict[str, list[int]] | None = None, masked: bool = True) -> dict[str, Any]:
        """Arguments of a call; right-padded. Without masks every token is real, whatever stands there."""
        lengths = lengths or LENGTHS
        names = {"encoder": "", "decoder": "decoder_" if "encoder" in self.widths else ""}
        generator = torch.Generator().manual_seed(2)
        batch: dict[str, Any] = {} if self.backbone == "bert" else {"use_cache": False}
        for stack in self.widths:
            counts = torch.tensor(lengths[stack])
            ids = torch.randint(3, 44, (len(counts), int(counts.max())), generator=generator)
            batch[f"{names[stack]}input_ids"] = ids
            if masked:
                mask = torch.arange(ids.shape[1]) < counts[:, None]
                batch[f"{names[stack]}input_ids"] = torch.where(mask, ids, self.pad)
                batch[f"{names[stack]}attention_mask"] = mask.long()
        return batch

    def masks(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Stack -> mask of real tokens, (B, S), all ones where the batch has none."""
        masks = {}
        for stack in self.widths:
            prefix = "decoder_" if len(self.widths) == 2 and stack == "decoder" else ""
            ones = torch.ones_like(batch[f"{prefix}input_ids"])
            masks[stack] = batch.get(f"{prefix}attention_mask", ones)
        return masks

    def outputs(self, model: Any, batch: dict[str, Any]) -> list[torch.Tensor]:
        """The logits that mean something: those of real tokens, or all of a classifier."""
        with torch.no_grad():
            outputs = model(**batch)
        logits = [value for name, value in outputs.items() if name.endswith("logits")]
        if not self.per_token:
            return logits
        mask = list(self.masks(batch).values())[-1].bool()
        return [value[mask] for value in logits]

    def row(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """One sequence of a batch, without padding and without masks."""
        masks = self.masks(batch)
        alone = dict(batch)
        for stack, mask in masks.items():
            prefix = "decoder_" if len(masks) == 2 and stack == "decoder" else ""
            length = int(mask[index].sum())
            alone[f"{prefix}input_ids"] = batch[f"{prefix}input_ids"][index : index + 1, :length]
            alone.pop(f"{prefix}attention_mask", None)
        return alone


def moe_layers(model: nn.Module) -> list[MoELayer]:
    """The MoE layers of a model, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, MoELayer)]


def router_weight(layer: MoELayer) -> nn.Parameter:
    """The weight of a layer's one router, (E, D)."""
    (router,) = [module for module in layer.gate.modules() if isinstance(module, Router)]
    return router.weight


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    """The gradient of a parameter that has one."""
    assert parameter.grad is not None
    return parameter.grad


def checkpoint_activations(model: Any) -> None:
    """Turn gradient checkpointing on, under its name from transformers 5.23 on, and before."""
    new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
    getattr(model, new if hasattr(model, new) else old)({"use_reentrant": False})


def numbers(flops: Flops) -> dict[str, float]:
    """The parts of a count that has all of them."""
    values = flops.model_dump()
    assert None not in values.values()
    return values


def parts_of(ffn: FFN) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weights of a network that has biases: first matrix, its bias, second matrix, its bias."""
    assert ffn.b1 is not None
    assert ffn.b2 is not None
    return ffn.w1, ffn.b1, ffn.w2, ffn.b2
