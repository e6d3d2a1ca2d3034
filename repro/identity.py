"""What makes a run another run: the part of a configuration that its id is made of."""

from collections.abc import Mapping
from typing import Any

_PLACEMENT = (
    ("experts", "parallel"),
    ("training", "shard"),
    ("training", "gradient_checkpointing"),
    ("training", "exchange_times"),
)
"""Section and key of what changes where a run is computed, and none of its numbers."""
_LEFT_OUT = {
    ("training", "batch_tokens_of"): "process",
    ("training", "balance_over"): "global",
    ("training", "lora_rank"): None,
    ("training", "lora_alpha"): None,
    ("training", "balance_late"): 1.0,
    ("model", "dtype"): "fp32",
}
"""Section and key -> default, of what came later or matters to several processes only."""


def identity(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that makes it another run.

    How a run is spread over devices does not. Settings that came later, or matter to several processes only,
    are left out at their defaults, so that a run has the same id as before there were any.

    Args:
        plain: as `RunConfig.to_dict` gives it, or an older version did.
    """
    left_out = {
        *_PLACEMENT,
        *(place for place, default in _LEFT_OUT.items() if _at(plain, place) == default),
    }
    return {
        section: {key: value for key, value in values.items() if (section, key) not in left_out}
        if isinstance(values, Mapping)
        else values
        for section, values in plain.items()
    }


def _at(plain: Mapping[str, Any], place: tuple[str, str]) -> object:
    values = plain.get(place[0])
    return values.get(place[1]) if isinstance(values, Mapping) else None
