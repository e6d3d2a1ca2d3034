"""A BERT of two tiny layers, converted or not, a padded batch for it, and its layers from their formulas."""

from typing import Any

import torch
import transformers
from tiny_models import parts_of, router_weight

from repro import plugins
from repro.config import ExpertsConfig
from repro.moe.backbones import bert
from repro.moe.backbones.base import FFNSite
from repro.moe.convert import convert
from repro.moe.flops import Architecture
from repro.moe.gates import base as gates
from repro.moe.layer import MoELayer
from repro.moe.settings import MoESettings

CPU = torch.device("cpu")
HEADS = sorted(bert.HEADS)
LENGTHS = [7, 4, 2]


def build(head: str = "sequence-classification", **options: Any) -> Any:
    """A BERT with random weights, biases included, large enough that every part shows in the output."""
    sizes = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "initializer_range": 0.2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    torch.manual_seed(0)
    model = bert.HEADS[head](transformers.BertConfig(**sizes | options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model


def settings(
    gate: str, head: str = "sequence-classification", *, experts: Any = None, **options: Any
) -> MoESettings:
    file, fixed = plugins.resolve("gates", gate)
    return MoESettings(
        backbone="bert",
        head=head,
        gate=file,
        gate_options=gates.load(file).Config(**fixed, **options),
        experts=ExpertsConfig(**{"count": 4} | (experts or {})),
    )


def converted(
    gate: str, head: str = "sequence-classification", *, experts: Any = None, **options: Any
) -> Any:
    model = build(head)
    torch.manual_seed(1)
    convert(model, settings(gate, head, experts=experts, **options), CPU)
    return model


def token_ids() -> torch.Tensor:
    return torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(2))


def padding_mask() -> torch.Tensor:
    """Three sequences of 7, 4 and 2 tokens."""
    return (torch.arange(7) < torch.tensor(LENGTHS)[:, None]).long()


def outputs_of(model: Any, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
    """The logits: one tensor of the classifier, start and end logits of question answering."""
    with torch.no_grad():
        return list(model(*args, **kwargs).values())


def real(head: str, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The logits that mean something: all of a classifier, those of real tokens elsewhere."""
    return logits[mask.bool()] if head == "question-answering" else logits


def converted_ffns(architecture: Architecture) -> list[bool]:
    return [ffn.converted for ffn in architecture.ffns]


def dense_ffn(site: FFNSite, hidden: torch.Tensor) -> torch.Tensor:
    """FFN(x) = W2 gelu(W1 x + b1) + b2, the activation of BERT."""
    w1_FD, b1_F, w2_DF, b2_D = parts_of(site.ffn)
    inner = torch.nn.functional.gelu(hidden @ w1_FD.t() + b1_F)
    output: torch.Tensor = inner @ w2_DF.t() + b2_D
    return output.detach()


def mean_total(layer: MoELayer, norm: Any, gate: str, threshold: float = 0.1) -> float:
    """Mean over 4096 random tokens from a norm of the sum of their raw combine weights, from the formula.

    p1 for top-1, p1 + p2 for top-2; adaptive: p1 + p2 where (p1 - p2) / (p1 + p2) <= T, else p1.
    """
    x_TD = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x_TD = norm.weight * x_TD + norm.bias
        probs_TE = (x_TD @ router_weight(layer).t()).softmax(1)
    p1_T, p2_T = probs_TE.topk(2, dim=1).values.unbind(1)
    close_T = (p1_T - p2_T) / (p1_T + p2_T) <= threshold
    with_second_T = {"top-1": close_T & False, "top-2": close_T | True, "adaptive": close_T}[gate]
    return float((p1_T + torch.where(with_second_T, p2_T, 0.0)).double().mean())
