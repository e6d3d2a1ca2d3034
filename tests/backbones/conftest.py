"""Every head of every backbone, as fixtures."""

import pytest
from tiny_models import Tiny

from repro import plugins
from repro.moe.backbones import base as backbones

ALL = [Tiny(name, head) for name in plugins.names("backbones") for head in backbones.load(name).HEADS]


def _id(tiny: Tiny) -> str:
    return f"{tiny.backbone}-{tiny.head}" if tiny.backbone == "bert" else tiny.backbone


@pytest.fixture(params=ALL, ids=_id)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    """Every head of every backbone."""
    assert isinstance(request.param, Tiny)
    return request.param


@pytest.fixture(params=[one for one in ALL if one.backbone in ("bart", "fsmt")], ids=_id)
def seq2seq(request: pytest.FixtureRequest) -> Tiny:
    """The encoder-decoders."""
    assert isinstance(request.param, Tiny)
    return request.param


@pytest.fixture
def gpt2() -> Tiny:
    """The decoder-only one."""
    return Tiny("gpt2", "causal-language-model")
