"""Make converted models known to `transformers`: importing this module is enough, and nothing runs remotely.

Its Auto classes, pipelines, `generate` and `Trainer` then take a saved model as any other. Without it
they refuse the model, as its `model_type` (`repro-bert`, ...) is unknown. Models of before there were these
types have that of a dense one: with this module the Auto classes refuse them, and name `repro.load`.
"""

from typing import Any

import transformers
from torch import nn

from repro import plugins
from repro.moe import models
from repro.moe.backbones import base as backbones
from repro.moe.gates.base import Gate
from repro.moe.layer import moe_layers
from repro.moe.routing import Routing


def __getattr__(name: str) -> Any:
    """Return a class of converted models, of their configurations or outputs: pickles name them so."""
    return models.class_named(name)


def register() -> None:
    """Register the classes of all backbones; done when this module is imported."""
    for backbone in plugins.names("backbones"):
        config = models.config_class(backbone)
        transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
        dense = models.dense_config_class(backbone)
        transformers.AutoConfig.register(dense.model_type, dense, exist_ok=True)
        for head in backbones.load(backbone).HEADS:
            if head in models.AUTO_CLASSES:
                auto_class = getattr(transformers, models.AUTO_CLASSES[head])
                auto_class.register(config, models.model_class(backbone, head), exist_ok=True)


class UpdateGates(transformers.TrainerCallback):
    """Moves the gates that have a state (`ratio`, `relu`, `adaptive-budget`) under `transformers.Trainer`.

    After the backward pass of every batch, as `RoutingTape.update_gates` does in one's own loop.
    """

    def __init__(self) -> None:
        self._routings: dict[Gate[Any], Routing] = {}
        self._hooks: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Watch the gates of the model."""
        self._hooks = [layer.gate.register_forward_hook(self._keep) for layer in moe_layers(kwargs["model"])]

    def _keep(self, gate: nn.Module, inputs: tuple[Any, ...], routing: Routing) -> None:
        # A pass that gradient checkpointing repeats decides the same.
        if gate.training and isinstance(gate, Gate):
            self._routings[gate] = routing

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the gates after a batch whose gradient is accumulated."""
        for gate, routing in self._routings.items():
            gate.update_state(routing)
        self._routings.clear()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the gates after the last batch of a step."""
        self.on_substep_end(args, state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the gates alone."""
        for hook in self._hooks:
            hook.remove()


register()
