"""The variants of a study: which of them are run, and with which settings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from repro import plugins
from repro.config import ALTERNATIVES
from repro.errors import UserError, unknown
from repro.experiments import Override, option_names, read_experiment, read_scale

Variants = dict[str, tuple[str, dict[str, Any]]]
"""Label -> gate and settings."""


def variants_of(study: str, values: Sequence[float]) -> Variants:
    """The variants of a study: label -> gate and settings.

    Args:
        values: in place of the study's own; none to keep those.

    Raises:
        UserError: the study does not vary a number.
    """
    module = plugins.load("studies", study)
    variants: Variants = module.VARIANTS
    if not values:
        return variants
    if not hasattr(module, "VALUES"):
        raise UserError(f"--values: has no effect on {study!r}; use it with threshold")
    gate, key = module.VALUES
    kept = {label: variant for label, variant in variants.items() if key not in variant[1]}
    return kept | {f"{value:g}": (gate, {key: value}) for value in values}


def chosen_variants(study: str, values: Sequence[float], only: Sequence[str]) -> Variants:
    """The variants of a study that are wanted, in its order, and those from whose models they start.

    Args:
        values: as in `variants_of`.
        only: labels, or first words that are no label: `adaptive` is `adaptive 1.1`, `adaptive 1.25` and
            so on; none for all.

    Raises:
        UserError: the study has no such variant.
    """
    variants = variants_of(study, values)
    names_by_study([study], values, only)
    named = _labels_by_name(variants)
    wanted = set.union(*(named[name] for name in only or variants))
    wanted |= {first for label, first in after_of(study).items() if label in wanted}
    return {label: variant for label, variant in variants.items() if label in wanted}


def names_by_study(
    studies: Sequence[str], values: Sequence[float], only: Sequence[str]
) -> dict[str, list[str]]:
    """Names given for several studies at once: for each study those that are labels of its own.

    Args:
        values, only: as in `chosen_variants`.

    Raises:
        UserError: no study has such a variant, or a study has none of those named.
    """
    known = {study: _labels_by_name(variants_of(study, values)) for study in studies}
    anywhere = list(dict.fromkeys(name for names in known.values() for name in names))
    strange = [name for name in only if name not in anywhere]
    if strange:
        raise UserError(*(f"--variants: {unknown('variant', name, anywhere)}" for name in strange))
    chosen = {study: [name for name in only if name in names] for study, names in known.items()}
    without = [study for study, names in chosen.items() if only and not names]
    if without:
        raise UserError(
            *(f"--variants: names no variant of {study}; leave the study out" for study in without)
        )
    return chosen


def _labels_by_name(variants: Variants) -> dict[str, set[str]]:
    """What a variant may be called -> the labels it stands for."""
    named: dict[str, set[str]] = {}
    for label in variants:
        named.setdefault(label.partition(" ")[0], set()).add(label)
    return named | {label: {label} for label in variants}


def after_of(study: str) -> Mapping[str, str]:
    """Variant -> the variant from whose model it starts."""
    after: Mapping[str, str] = getattr(plugins.load("studies", study), "AFTER", {})
    return after


def variant_settings(
    study: str, variants: Variants, overrides: Mapping[str, Override]
) -> dict[str, dict[str, Override]]:
    """The settings of each variant: the recipe's, over them the user's, over those its own."""
    meaningless = {variant: _without_effect(gate, overrides) for variant, (gate, _) in variants.items()}
    nowhere = set.intersection(*meaningless.values())
    settings = {}
    for variant, (_, fixed) in variants.items():
        given = {
            key: override for key, override in overrides.items() if key not in meaningless[variant] - nowhere
        }
        own = {key: Override(value, f"study {study}") for key, value in fixed.items()}
        settings[variant] = _recipe(study, variant, overrides) | given | own
    return settings


def _recipe(study: str, variant: str, given: Iterable[str]) -> dict[str, Override]:
    """How a variant that starts from another's model is trained on; nothing for other variants.

    Args:
        given: the user's keys; of two alternatives (steps or epochs) the user's stands.
    """
    if variant not in after_of(study):
        return {}
    read = read_experiment(study)
    settings = {
        f"{section}.{key}": Override(value, f"experiments/{study}.toml")
        for table in ("base", variant)
        for section, values in read.get(table, {}).items()
        for key, value in values.items()
    }
    for pair in ALTERNATIVES:
        keys = {f"training.{key}" for key in pair}
        if keys & set(given):
            settings = {key: override for key, override in settings.items() if key not in keys}
    return settings


def cannot_stand(gate: str, scale: str, task: str) -> bool:
    """Whether the gate is for encoders only and the task's model has a decoder."""
    member, _ = plugins.resolve("gates", gate)
    backbone = read_scale(scale).get(task, {}).get("model", {}).get("backbone")
    if backbone is None or "ENCODERS_ONLY" not in plugins.constants("gates", member):
        return False
    stacks: Any = plugins.constants("backbones", backbone)["STACKS"]
    return "decoder" in stacks


def _without_effect(gate: str, keys: Iterable[str]) -> set[str]:
    """The settings among these that mean nothing to a gate, but may to others."""
    options = option_names("gates", plugins.resolve("gates", gate)[0])
    return {
        key
        for key in keys
        if (gate == "dense" and key.startswith("experts."))
        or (key.startswith("gate.") and key.removeprefix("gate.") not in options)
    }
