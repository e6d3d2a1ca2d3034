"""Choose the variants of a study that are run, and merge their settings."""

from collections.abc import Iterable, Mapping, Sequence

from repro import plugins
from repro.checks import shown
from repro.config import ALTERNATIVES, option_names
from repro.errors import UserError, unknown
from repro.moe.backbones.base import load as load_backbone
from repro.moe.gates.base import load as load_gate
from repro.run.contradictions import Override
from repro.run.scales import read_scale
from repro.study.definition import Variant, load_study

Variants = dict[str, Variant]
"""Label -> variant."""


def variants_of(study: str, values: Sequence[float]) -> Variants:
    """Return the variants of a study, by label.

    Args:
        values: in place of the study's own; none to keep those.

    Raises:
        UserError: the study does not vary a number.
    """
    definition = load_study(study)
    if not values:
        return definition.variants
    varied = definition.values
    if varied is None:
        raise UserError(f"--values: has no effect on {study!r}; use it with threshold")
    kept = {
        label: variant
        for label, variant in definition.variants.items()
        if varied.setting not in variant.settings
    }
    section, _, key = varied.setting.partition(".")
    return kept | {f"{value:g}": Variant(gate=varied.gate, set={section: {key: value}}) for value in values}


def chosen_variants(study: str, values: Sequence[float], only: Sequence[str]) -> Variants:
    """Choose variants of a study, in its order, with those from whose models they start.

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
    chosen = set.union(*(named[name] for name in only or variants))
    chosen |= {first for label in chosen if (first := variants[label].init_from) is not None}
    return {label: variant for label, variant in variants.items() if label in chosen}


def names_by_study(
    studies: Sequence[str], values: Sequence[float], only: Sequence[str]
) -> dict[str, list[str]]:
    """Sort names given for several studies at once: for each study those that it has.

    Args:
        values, only: as in `chosen_variants`.

    Raises:
        UserError: no study has such a variant, or a study has none of those named.
    """
    by_study = {study: _labels_by_name(variants_of(study, values)) for study in studies}
    anywhere = list(dict.fromkeys(name for names in by_study.values() for name in names))
    misspelt = [name for name in only if name not in anywhere]
    if misspelt:
        raise UserError(*(f"--variants: {unknown('variant', name, anywhere)}" for name in misspelt))
    chosen = {study: [name for name in only if name in names] for study, names in by_study.items()}
    without = [study for study, names in chosen.items() if only and not names]
    if without:
        raise UserError(
            *(f"--variants: names no variant of {study}; leave the study out" for study in without)
        )
    return chosen


def _labels_by_name(variants: Variants) -> dict[str, set[str]]:
    """Map each name that a user may give to the labels it stands for."""
    named: dict[str, set[str]] = {}
    for label in variants:
        named.setdefault(label.partition(" ")[0], set()).add(label)
    return named | {label: {label} for label in variants}


def variant_settings(
    study: str, variants: Variants, overrides: Mapping[str, Override], task: str, scale: str
) -> dict[str, dict[str, Override]]:
    """Merge the settings of each variant: its recipe, over it the user's, over those the study's own."""
    shared = load_study(study).settings
    meaningless = {label: _without_effect(variant.gate, overrides) for label, variant in variants.items()}
    nowhere = set.intersection(*meaningless.values())
    settings = {}
    for label, variant in variants.items():
        kept = {
            key: override for key, override in overrides.items() if key not in meaningless[label] - nowhere
        }
        nothing_to_it = _without_effect(variant.gate, shared)
        of_all = {key: value for key, value in shared.items() if key not in nothing_to_it}
        own = {key: Override(value, f"study {study}") for key, value in (of_all | variant.settings).items()}
        recipe = _recipe(study, label, task, scale, overrides) if variant.init_from is not None else {}
        below = _without_alternatives(recipe | kept, own)
        settings[label] = below | own
    return settings


def relative_settings(
    study: str, variant: Variant, settings: Mapping[str, Override], scale: str, task: str
) -> dict[str, Override]:
    """Multiply what a variant sets relatively: a factor times what its settings say, or else the scale.

    Rates that a scale records for single schemes are no base: they were picked by such factors.

    Raises:
        UserError: what is to be multiplied is no number.
    """
    made = {}
    sections = read_scale(scale)
    for key, factor in variant.factors.items():
        section, _, name = key.partition(".")
        of_task, of_all = (sections.get(part, {}).get(section, {}).get(name) for part in (task, "base"))
        base = settings[key].value if key in settings else of_all if of_task is None else of_task
        if not isinstance(base, int | float):
            raise UserError(f"study {study}: times.{key}: {factor:g} times {shown(base)} is no number")
        made[key] = Override(factor * base, f"study {study}")
    return made


def _recipe(study: str, label: str, task: str, scale: str, user_keys: Iterable[str]) -> dict[str, Override]:
    """Return the settings by which a variant that starts from another's model is trained on.

    Args:
        user_keys: of two alternatives (steps or epochs) the user's stands.
    """
    origin = f"experiments/studies/{study}.toml"
    settings = {
        key: Override(value, origin) for key, value in load_study(study).recipe_of(label, task, scale).items()
    }
    return _without_alternatives(settings, user_keys)


def _without_alternatives(settings: Mapping[str, Override], above: Iterable[str]) -> dict[str, Override]:
    """Drop settings that are replaced by others: of two alternatives (steps or epochs) those above stand."""
    pairs = [{f"training.{key}" for key in pair} for pair in ALTERNATIVES]
    replaced = set().union(*(pair for pair in pairs if pair & set(above)))
    return {key: override for key, override in settings.items() if key not in replaced}


def cannot_stand(gate: str, scale: str, task: str) -> bool:
    """Tell whether the gate is for encoders only and the task's model has a decoder."""
    backbone = read_scale(scale).get(task, {}).get("model", {}).get("backbone")
    if backbone is None:
        return False
    gate_class = load_gate(gate).Gate
    encoders_only = gate_class is not None and gate_class.encoders_only is not None
    return encoders_only and "decoder" in load_backbone(backbone).STACKS


def _without_effect(gate: str, keys: Iterable[str]) -> set[str]:
    """Pick the settings that have no effect on a gate, but may have on others."""
    options = option_names("gates", plugins.resolve("gates", gate)[0])
    return {
        key
        for key in keys
        if (gate == "dense" and key.startswith("experts."))
        or (key.startswith("gate.") and key.removeprefix("gate.") not in options)
    }
