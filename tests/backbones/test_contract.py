"""What every backbone must tell: each file in `repro/moe/backbones/` is held against the contract."""

import pytest
from tiny_models import Tiny

from repro import plugins
from repro.moe.backbones import (
    bart,
    base,
    bert,
    fsmt,
    gpt2,
    llama,
    mistral,
    mixtral,
    olmoe,
    qwen2,
    qwen3,
    qwen3_moe,
)

MODULES: list[base.Backbone] = [
    bart,
    bert,
    fsmt,
    gpt2,
    llama,
    mistral,
    mixtral,
    olmoe,
    qwen2,
    qwen3,
    qwen3_moe,
]
"""All backbones, so that mypy holds each against the contract."""


def test_every_backbone_is_held_against_the_contract() -> None:
    assert [base.load(name) for name in plugins.names("backbones")] == MODULES


@pytest.mark.parametrize("name", plugins.names("backbones"))
def test_the_constants_fit_the_library(name: str) -> None:
    backbone = base.load(name)
    assert backbone.CONFIG.model_type == backbone.MODEL_TYPE == name
    assert {backbone.INIT_STD, *backbone.STACKS.values()} <= backbone.CONFIG().to_dict().keys()
    assert {model_class.config_class for model_class in backbone.HEADS.values()} == {backbone.CONFIG}


def test_the_stacks_are_those_of_the_model(tiny: Tiny) -> None:
    backbone, model = base.load(tiny.backbone), tiny.build()
    stacks = backbone.stacks(model)
    assert tuple(stacks) == tuple(backbone.STACKS)
    assert tuple(dict.fromkeys(site.stack for site in backbone.ffn_sites(model))) == tuple(backbone.STACKS)
    # Each network stands in the stack that it names.
    for site in backbone.ffn_sites(model):
        owners = {name for name, stack in stacks.items() if site.norm in list(stack.module.modules())}
        assert owners == {site.stack}


def test_fixed_parameters_are_parameters_of_the_model(tiny: Tiny) -> None:
    model = tiny.build()
    own = {id(parameter) for parameter in model.parameters()}
    fixed = base.load(tiny.backbone).fixed_parameters(model)
    assert {id(parameter) for parameter in fixed} < own
    assert bool(fixed) is (tiny.backbone == "fsmt")
