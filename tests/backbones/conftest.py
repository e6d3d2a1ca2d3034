"""Every head of every backbone, as fixtures."""

import pytest
from tiny_models import Tiny

from repro import plugins
from repro.moe.backbones import base as backbones

BLOCKS = ("mixtral", "olmoe", "qwen3_moe")
"""Families with MoE blocks (`test_blocks.py`)."""
RELATIVES = ("mistral", "qwen2", "qwen3")
"""Dense families that share all but their attention with Llama (`test_relatives.py`)."""
ALL = [
    Tiny(name, head)
    for name in plugins.names("backbones")
    if name not in (*BLOCKS, *RELATIVES)
    for head in backbones.load(name).HEADS
]


def _id(tiny: Tiny) -> str:
    return f"{tiny.backbone}-{tiny.head}" if tiny.backbone == "bert" else tiny.backbone


@pytest.fixture(params=ALL, ids=_id)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    """Every head of every backbone whose networks are dense; Llama stands for its relatives."""
    assert isinstance(request.param, Tiny)
    return request.param


@pytest.fixture(params=[one for one in ALL if one.backbone in ("bart", "fsmt")], ids=_id)
def seq2seq(request: pytest.FixtureRequest) -> Tiny:
    """The encoder-decoders."""
    assert isinstance(request.param, Tiny)
    return request.param


@pytest.fixture
def gpt2() -> Tiny:
    """A decoder alone."""
    return Tiny("gpt2", "causal-language-model")


@pytest.fixture(params=BLOCKS)
def blocks(request: pytest.FixtureRequest) -> Tiny:
    """The families with MoE blocks."""
    return Tiny(request.param, "causal-language-model")


@pytest.fixture(params=RELATIVES)
def relative(request: pytest.FixtureRequest) -> Tiny:
    """The relatives of Llama."""
    return Tiny(request.param, "causal-language-model")
