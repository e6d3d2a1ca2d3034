"""Put gates in front of an MoE model's experts without training: metric, loss, FLOPs, experts per token."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from repro import plugins
from repro.config import RunConfig, option_names
from repro.data.features import report_special_tokens
from repro.data.rows import rows_fingerprint
from repro.data.tokenizers import pretrained_tokenizer
from repro.errors import UserError
from repro.machine import current_environment
from repro.moe import hub, pretrained
from repro.moe.backbones import base as backbones
from repro.moe.backbones.base import OwnRouter
from repro.moe.convert import convert
from repro.moe.folder import CONFIG_KEY, family_of, read_configuration
from repro.moe.gates.base import load as load_gate
from repro.moe.settings import SavedSettings
from repro.results.files import RunPaths
from repro.results.run import RowsRead
from repro.results.thinning import Thinning, ThinPoint
from repro.run.accelerator import make_accelerator
from repro.run.contradictions import Override
from repro.run.model import check_family, check_sizes, converted_model, dense_model, settings_of
from repro.run.reopen import rows_of
from repro.run.resolve import resolve
from repro.run.result import metric_entry
from repro.run.setup import encoded
from repro.tasks.base import Feature, Row, Task
from repro.tasks.base import load as load_task
from repro.training.evaluator import evaluate

Overrides = Mapping[str, Override]


@dataclass(frozen=True, kw_only=True)
class Request:
    """An MoE model, pretrained or trained here, and what it is to be evaluated on."""

    model: str
    """A folder or a hub id."""
    task: str
    scale: str
    data: str | None
    """`synthetic`, `hub` or a folder; None takes the scale's."""
    split: str
    overrides: Overrides
    """Settings of the run; those of gates (`gate.*`) are not for the model's own."""


@dataclass(frozen=True, kw_only=True)
class _Own:
    """The routing that a model comes with, and which model it is."""

    router: OwnRouter
    backbone: str
    experts: Mapping[str, object]
    """Settings of its experts; `experts.<key>` -> value."""
    is_converted: bool
    """Whether it was trained here: it has MoE layers then, and no blocks of its family."""


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """The model, and the examples."""

    paths: RunPaths
    task: Task
    rows: list[Row]
    features: list[Feature]
    accelerator: Accelerator
    blocks: Any
    """The model with its own blocks, whose weights all gates share; None of one that was converted."""


def thin(request: Request, gates: Sequence[tuple[str, Overrides]]) -> Thinning:
    """Evaluate a model with its own top-k, then with other gates, whose routers are the model's.

    The weights of a pretrained model are in memory once, whatever the number of gates.

    Args:
        gates: names, each with settings of its own, over those of the request.

    Raises:
        UserError: it is no MoE model with top-k, a gate cannot do without training, or an input is wrong.
    """
    own = _own(request.model)
    for gate, _ in gates:
        _check_gate(gate)
    of_all = {key: one for key, one in request.overrides.items() if not key.startswith("gate.")}
    of_own = {"gate.k": Override(own.router.k, "MODEL")}
    planned = [_resolved(request, own, "top-k", of_all | of_own)]
    planned += [_resolved(request, own, gate, {**request.overrides, **more}) for gate, more in gates]
    config, paths = planned[0]
    opened = _open(request, own, config, paths)
    points = [_evaluated(opened, config) for config, _ in planned]
    assert config.model.checkpoint is not None
    return Thinning(
        model=config.model.checkpoint,
        task=config.task,
        split=request.split,
        precision="bf16" if "bf16" in (opened.accelerator.mixed_precision, config.model.dtype) else "fp32",
        own=points[0],
        points=points[1:],
        data=RowsRead(fingerprint=rows_fingerprint(opened.rows), count=len(opened.rows)),
        environment=current_environment(opened.accelerator.device),
    )


def own_k(model: str) -> int:
    """Return how many experts a token has in a model.

    Raises:
        UserError: it is no MoE model with top-k, or is not there.
    """
    return _own(model).router.k


def _own(model: str) -> _Own:
    """Look at a model: one of a family with MoE blocks, or one that was trained here with top-k.

    Raises:
        UserError: it is neither, or is not there.
    """
    folder = Path(model) if Path(model).is_dir() else hub.snapshot(model)
    plain = read_configuration(folder)
    family = family_of(plain, folder)
    router = pretrained.own_router(folder)
    if router is not None:
        experts = {"experts.count": router.experts}
        return _Own(router=router, backbone=family.MODEL_TYPE, experts=experts, is_converted=False)
    if CONFIG_KEY in plain:
        saved = SavedSettings.load(plain[CONFIG_KEY], folder)
        options = saved.settings("auto", folder).gate_options
        if saved.gate.replace("-", "_").startswith("top_") and hasattr(options, "k"):
            return _Own(
                router=OwnRouter(experts=saved.experts.count, k=options.k, combine=options.combine),
                backbone=saved.backbone,
                experts={f"experts.{key}": value for key, value in saved.experts.to_json().items()},
                is_converted=True,
            )
    what = "has no MoE layers" if CONFIG_KEY not in plain else f"was trained with the gate {saved.gate!r}"
    raise UserError(
        f"{model}: {what}; without training, gates can stand in a model that routes by top-k: one trained"
        f" here, or a pretrained one ({', '.join(_moe_families())})"
    )


def _moe_families() -> Iterator[str]:
    for name in plugins.names("backbones"):
        backbone = backbones.load(name)
        if backbone.own_router(backbone.CONFIG()) is not None:
            yield name


def _resolved(request: Request, own: _Own, gate: str, settings: Overrides) -> tuple[RunConfig, RunPaths]:
    """Resolve the model with a gate as a run that is never trained.

    Raises:
        UserError: as `resolve`.
    """
    member, _ = plugins.resolve("gates", gate)
    of_model = {"model.backbone": own.backbone, "training.curriculum": "random", **own.experts}
    if "combine" in option_names("gates", member):
        of_model["gate.combine"] = own.router.combine
    return resolve(
        task=request.task,
        scale=request.scale,
        gate=gate,
        seed=0,
        data=request.data,
        model=request.model,
        overrides={**{key: Override(value, "MODEL") for key, value in of_model.items()}, **settings},
        results=Path("results"),
    )


def _check_gate(gate: str) -> None:
    """Refuse a gate that says nothing without training.

    Raises:
        UserError: it is such a one, or there is none of that name.
    """
    gate_class = load_gate(plugins.resolve("gates", gate, where="--gate: ")[0]).Gate
    if gate_class is None:
        raise UserError(f"--gate {gate}: has no experts; the model's own top-k stands beside every gate")
    if gate_class.needs_frequencies:
        raise UserError(f"--gate {gate}: needs the frequencies of a training split; use repro train --model")


def _open(request: Request, own: _Own, config: RunConfig, paths: RunPaths) -> _Opened:
    """Load rows, tokenizer and, unless it was converted, the model.

    Raises:
        UserError: something of it is missing or does not fit.
    """
    check_family(config, paths)
    module = load_task(config.task)
    rows = rows_of(config, config.data.source, paths.data, request.split)
    tokenizer = pretrained_tokenizer(paths.model or request.model, where="MODEL ")
    report_special_tokens(module, rows, request.split, tokenizer)
    task = module.Task(config.task_options, tokenizer, config.data.max_length)
    accelerator = make_accelerator(config, paths.model)
    return _Opened(
        paths=paths,
        task=task,
        rows=rows,
        features=encoded(task, rows, request.split, rows_fingerprint(rows)),
        accelerator=accelerator,
        blocks=None
        if own.is_converted
        else dense_model(config, module, tokenizer, paths).to(accelerator.device).eval(),
    )


def _evaluated(opened: _Opened, config: RunConfig) -> ThinPoint:
    """Evaluate the model with a gate; its own blocks stay for the next one."""
    accelerator, metric = opened.accelerator, load_task(config.task).METRIC
    if opened.blocks is None:
        model, architecture = converted_model(config, opened.paths, accelerator.device)
    else:
        model = sharing_copy(opened.blocks)
        architecture = convert(model, settings_of(config), accelerator.device)
    check_sizes(config, model, opened.task.tokenizer)
    opened.task.configure(model, opened.features)
    evaluation = evaluate(
        accelerator,
        accelerator.prepare_model(model, evaluation_mode=True),
        opened.task,
        metric,
        opened.features,
        batch_size=config.evaluation.batch_size,
        rows=opened.rows,
    )
    return ThinPoint(
        gate=config.gate,
        threshold=getattr(config.gate_options, "threshold", None),
        metric=metric_entry(metric, evaluation),
        eval_loss=evaluation.loss,
        flops=evaluation.work.flops(architecture),
        routing=evaluation.routing.summary(),
    )


def sharing_copy(model: nn.Module) -> Any:
    """Copy the modules of a model, but none of its weights: conversion in place leaves the original whole."""
    weights = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(weight): weight for weight in weights})
