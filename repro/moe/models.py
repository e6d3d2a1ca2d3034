"""Classes of converted models for `transformers`: a `model_type` of their own, and routing in their outputs.

For every head of every backbone there is a subclass of its class, `Repro<class>`, and for its configuration
`Repro<class>` with the `model_type` `repro-<type>`, which no library takes for a dense model. They are
attributes of `repro.hf`, under whose name they are pickled.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, modeling_outputs

from repro import plugins
from repro.errors import UserError
from repro.moe.backbones import base as backbones
from repro.moe.convert import convert
from repro.moe.folder import CONFIG_KEY, OWN_TYPE
from repro.moe.layer import MoELayer
from repro.moe.routing import LayerRouting, record_routing
from repro.moe.settings import SavedSettings

AUTO_CLASSES = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "causal-language-model": "AutoModelForCausalLM",
    "sequence-to-sequence": "AutoModelForSeq2SeqLM",
}
"""Head -> the class of `transformers` that loads a model with it."""
ROUTING = ("aux_loss", "router_logits")
"""What outputs have beside those of the dense model."""
_MODULE = "repro.hf"
_PREFIX = "Repro"
_MARK = "a model with MoE layers of the package `repro`: import repro.hf, then load it by an Auto class"
"""Stands for the `dtype` in a saved configuration. A class of the dense family that is named outright would
only warn of a strange `model_type`; it looks this up among torch's types, and its error shows the text."""


@functools.cache
def config_class(backbone: str) -> Any:
    """Return the class of the configurations of a backbone's converted models."""
    base = backbones.load(backbone).CONFIG

    def to_diff_dict(self: Any) -> dict[str, Any]:
        saved: dict[str, Any] = base.to_diff_dict(self)
        # `torch_dtype` is the older name, which every version of the library still reads.
        return saved | {"dtype": _MARK, "torch_dtype": saved.get("dtype")}

    def from_dict(cls: Any, /, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        taken = {key: value for key, value in config_dict.items() if value != _MARK}
        return base.from_dict.__func__(cls, taken, **kwargs)

    ignored = getattr(base, "keys_to_ignore_at_inference", ["past_key_values"])
    namespace = {
        "__doc__": f"The configuration of a converted model; {base.__name__} is that of a dense one.",
        "__module__": _MODULE,
        "model_type": OWN_TYPE + base.model_type,
        "keys_to_ignore_at_inference": [*ignored, *ROUTING],
        "output_router_logits": False,
        "router_aux_loss_coef": 1.0,
        "to_diff_dict": to_diff_dict,
        "from_dict": classmethod(from_dict),
    }
    return type(_PREFIX + base.__name__, (base,), namespace)


@functools.cache
def dense_config_class(backbone: str) -> Any:
    """Return what stands for a family's own configurations among the Auto classes: it makes these.

    A converted model that was saved before it had a `model_type` of its own is refused there: the dense
    class would take half of its weights, and draw the rest.
    """
    base = backbones.load(backbone).CONFIG

    def make(cls: Any, /, *args: Any, **kwargs: Any) -> Any:
        return base(*args, **kwargs)

    def from_dict(cls: Any, /, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        if CONFIG_KEY in config_dict:
            where = config_dict.get("_name_or_path") or kwargs.get("name_or_path") or "config.json"
            raise UserError(f"{where}: a model of an older version of repro; repro.load loads it")
        return base.from_dict(config_dict, **kwargs)

    namespace = {
        "__doc__": f"Makes a {base.__name__}, unless the model has MoE layers.",
        "__module__": base.__module__,
        "__new__": make,
        "from_dict": classmethod(from_dict),
    }
    return type(base.__name__, (base,), namespace)


@functools.cache
def model_class(backbone: str, head: str) -> Any:
    """Return the class of the converted models of a backbone with a head."""
    base = backbones.load(backbone).HEADS[head]
    signature = inspect.signature(base.forward)
    own_routing = "output_router_logits" in signature.parameters

    def build(self: Any, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, config, *args, **kwargs)
        where = Path(config.name_or_path or "config.json")
        if getattr(config, CONFIG_KEY, None) is None:
            raise UserError(f"{where}: no {CONFIG_KEY} in it; repro.convert converts a dense model")
        settings = SavedSettings.load(getattr(config, CONFIG_KEY), where).settings("auto", where)
        convert(self, settings, torch.device("cpu"))

    @functools.wraps(base.forward)
    def forward(self: Any, *args: Any, output_router_logits: bool | None = None, **kwargs: Any) -> Any:
        if own_routing:  # of the family's own routers, which are gone
            kwargs["output_router_logits"] = False
        wanted = self.config.output_router_logits if output_router_logits is None else output_router_logits
        call = functools.partial(base.forward, self, *args, **kwargs)
        return _with_routing(self, call, kwargs.get("return_dict")) if wanted else call()

    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        made = base.from_pretrained.__func__(cls, *args, **kwargs)
        _align(made[0] if isinstance(made, tuple) else made)
        return made

    if not own_routing:
        forward.__signature__ = _with_keyword(signature, "output_router_logits")  # type: ignore[attr-defined]
    namespace = {
        "__doc__": f"{base.__name__} with MoE layers in the places of feed-forward networks.",
        "__module__": _MODULE,
        "config_class": config_class(backbone),
        "__init__": build,
        "from_pretrained": classmethod(from_pretrained),
        "forward": forward,
    }
    return type(_PREFIX + base.__name__, (base,), namespace)


def _align(model: PreTrainedModel) -> None:
    """Copy weights that lie in memory as in their file to where a line of the cache begins.

    Elsewhere the last bits of products are others than those of weights that were trained here, or loaded
    by `pretrained.load`.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
            tensor.data = tensor.data.clone()


def _with_keyword(signature: inspect.Signature, name: str) -> inspect.Signature:
    """Add a keyword to a signature: `transformers` reads there what a model takes."""
    parameters = list(signature.parameters.values())
    place = next((index for index, one in enumerate(parameters) if one.kind is one.VAR_KEYWORD), None)
    keyword = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters.insert(len(parameters) if place is None else place, keyword)
    return signature.replace(parameters=parameters)


def _with_routing(model: PreTrainedModel, call: Callable[..., Any], return_dict: bool | None) -> Any:
    """Call the dense model's `forward`, and add the routing to its outputs."""
    outer = next(module for module in model.modules() if isinstance(module, MoELayer)).tape
    with record_routing(model) as tape:
        outputs = call(return_dict=True)
    if outer is not None:  # of a `record_routing` around this call
        outer.entries += tape.entries
    aux_loss = tape.loss()
    parts = {**outputs, "aux_loss": aux_loss, "router_logits": tuple(map(router_logits, tape.entries))}
    if outputs.loss is not None:
        parts["loss"] = outputs.loss + model.config.router_aux_loss_coef * aux_loss
    kind: Any = type(outputs)
    result = output_class(kind)(**parts)
    wanted = model.config.return_dict if return_dict is None else return_dict
    return result if wanted else result.to_tuple()


@functools.cache
def output_class(base: Any) -> Any:
    """Return a class of outputs that has `aux_loss` and `router_logits`, too."""
    if {one.name for one in dataclasses.fields(base)} >= set(ROUTING):
        return base
    fields = [(name, Any, dataclasses.field(default=None)) for name in ROUTING]
    made = dataclasses.make_dataclass(_PREFIX + base.__name__, fields, bases=(base,))
    made.__module__ = _MODULE
    return made


def router_logits(entry: LayerRouting) -> Tensor:
    """Return the logarithms of a gate's probabilities, (B S, E), sequence by sequence.

    Softmax gives the probabilities again, where they sum to 1: logits without their common constant.
    """
    probs_TE = entry.routing.probs_TE
    logits_TE = probs_TE.clamp(min=torch.finfo(probs_TE.dtype).tiny).log()
    if entry.time_major:
        return logits_TE.view(*entry.shape, -1).transpose(0, 1).flatten(0, 1)
    return logits_TE


def class_named(name: str) -> Any:
    """Return a class of this module by its name.

    Raises:
        AttributeError: there is none.
    """
    for backbone in plugins.names("backbones"):
        if name == config_class(backbone).__name__:
            return config_class(backbone)
        for head, base in backbones.load(backbone).HEADS.items():
            if name == _PREFIX + base.__name__:
                return model_class(backbone, head)
    outputs: Any = getattr(modeling_outputs, name.removeprefix(_PREFIX), None)
    if outputs is None or not name.startswith(_PREFIX):
        raise AttributeError(f"module {_MODULE!r} has no attribute {name!r}")
    return output_class(outputs)


def is_converted(model: PreTrainedModel) -> bool:
    """Return whether a model has MoE layers made here."""
    return getattr(model.config, CONFIG_KEY, None) is not None


def saved_settings(config: PreTrainedConfig) -> SavedSettings:
    """Return the settings of a converted model.

    Raises:
        UserError: its configuration was changed to something else.
    """
    return SavedSettings.load(getattr(config, CONFIG_KEY), Path(config.name_or_path or "model.config"))


def own_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return a copy of a converted model's configuration, of a class of its own: what is to be saved."""
    saved = saved_settings(config)
    own = copy.deepcopy(config)
    own.__class__ = config_class(saved.backbone)
    own.__dict__.pop("model_type", None)  # of a configuration read from a file
    own.architectures = [model_class(saved.backbone, saved.head).__name__]
    if not isinstance(config, config_class(saved.backbone)):
        own.router_aux_loss_coef = 1.0  # the coefficient of a gate is in its own loss
    return own


def set_config(model: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Give a model another configuration, with all its parts."""
    before = model.config
    for module in model.modules():
        if getattr(module, "config", None) is before:
            module.config = config


def adopt(model: PreTrainedModel) -> PreTrainedModel:
    """Give a converted model and its configuration classes of their own, in place; return it."""
    saved = saved_settings(model.config)
    set_config(model, own_config(model.config))
    model.__class__ = model_class(saved.backbone, saved.head)
    return model
