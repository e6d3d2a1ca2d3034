"""What a converted model is besides its Hugging Face configuration, and the part of it that is saved."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue, ValidationError

from repro.config import ExpertsConfig
from repro.errors import UserError
from repro.moe.folder import CONFIG_KEY
from repro.moe.gates import base as gates
from repro.results.base import Record, describe, wrong_version

SCHEMA_VERSION: Literal[1] = 1
"""Version of what is saved under `CONFIG_KEY`; models of before it have none."""


@dataclass(frozen=True, kw_only=True)
class MoESettings:
    """Everything that a converted model needs besides the Hugging Face configuration."""

    backbone: str
    head: str
    gate: str
    gate_options: Any
    """The `Config` of the gate's own module."""
    experts: ExpertsConfig


class SavedExperts(Record):
    """The experts of a saved model; how they are computed and were initialized is no property of it."""

    count: int
    activation: Literal["model", "relu"]
    every: int


class SavedSettings(Record):
    """The part of the settings that is saved with a model, under `CONFIG_KEY` in its `config.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    backbone: str
    head: str
    gate: str
    gate_options: dict[str, JsonValue]
    experts: SavedExperts

    @classmethod
    def of(cls, settings: MoESettings) -> SavedSettings:
        """Take from the settings what is saved."""
        experts = settings.experts
        return cls(
            schema_version=SCHEMA_VERSION,
            backbone=settings.backbone,
            head=settings.head,
            gate=settings.gate,
            gate_options=asdict(settings.gate_options),
            experts=SavedExperts(count=experts.count, activation=experts.activation, every=experts.every),
        )

    @classmethod
    def load(cls, plain: object, folder: Path) -> SavedSettings:
        """Check what stands in the configuration of a saved model.

        Raises:
            UserError: it is not of this shape.
        """
        version = plain.get("schema_version", SCHEMA_VERSION) if isinstance(plain, dict) else SCHEMA_VERSION
        if version != SCHEMA_VERSION:
            raise UserError(wrong_version(_unreadable(folder), "schema version", version, SCHEMA_VERSION))
        return cls.parse(json.dumps(plain), _unreadable(folder))

    def settings(self, backend: str, folder: Path) -> MoESettings:
        """Return the settings of the model in a folder, its experts computed by a back-end.

        Raises:
            UserError: there is no such gate, or an option or a size is not valid.
        """
        try:
            return MoESettings(
                backbone=self.backbone,
                head=self.head,
                gate=self.gate,
                gate_options=gates.load(self.gate).Config(**self.gate_options),
                experts=ExpertsConfig(backend=backend, **self.experts.model_dump()),
            )
        except ValidationError as error:
            raise UserError(f"{_unreadable(folder)}: {describe(error)}") from error
        except UserError as error:  # no such gate
            raise UserError(f"{_unreadable(folder)}: {error}") from error


def _unreadable(folder: Path) -> str:
    return f"{folder}: not a saved model ({CONFIG_KEY} in config.json)"
