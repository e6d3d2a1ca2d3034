"""Merge a scale file and the command line into one complete, checked `RunConfig`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repro import plugins
from repro.config import (
    ALTERNATIVES,
    SECTIONS,
    RunConfig,
    Sections,
    from_dict,
    option_names,
)
from repro.data.rows import folder_fingerprint
from repro.errors import UserError, for_all, unknown
from repro.moe.folder import fingerprint_model
from repro.moe.gates.base import is_adaptive
from repro.moe.gates.base import load as load_gate
from repro.results.files import RunPaths
from repro.run.contradictions import Override, checked_model, contradictions
from repro.run.scales import read_scale
from repro.tasks.base import load as load_task

_OWN_OPTIONS = {
    "data.source": "use --data",
    "model.checkpoint": "use --model",
    "model.config": "give one option, e.g. model.config.hidden_size=128",
}
"""Keys of a run that `--set` cannot give, and what can."""


def resolve(
    *,
    task: str,
    scale: str,
    gate: str,
    seed: int,
    data: str | None,
    model: str | None,
    overrides: Mapping[str, Override],
    results: Path,
) -> tuple[RunConfig, RunPaths]:
    """Merge scale file, task and command line into a run, and find its inputs.

    Args:
        data: `synthetic`, `hub` or a folder; None takes the scale's.
        model: a local directory or a hub id; None takes the scale's.
        overrides: dotted key of `RunConfig` (`training.steps`, `gate.threshold`) -> value.

    Raises:
        UserError: every problem that can be found before reading the data.
    """
    steps: Sequence[Callable[[], Any]] = (
        lambda: plugins.resolve("tasks", task, where="--task: "),
        lambda: plugins.resolve("gates", gate, where="--gate: "),
        lambda: read_scale(scale),
    )
    (task, _), (gate_file, gate_fixed), read = for_all(lambda step: step(), steps)
    gate_name = _gate_name(gate_file, gate_fixed, overrides)
    sections = _sections(read, task, scale)
    sections["gate_options"] = dict(gate_fixed)

    problems = _apply(sections, overrides, task, gate_file, gate_name, gate_fixed)
    problems += _choose_curriculum(sections, overrides, gate_name, is_adaptive(gate_file))
    paths = _find_inputs(sections, overrides, task, data, model, results, problems)
    problems += contradictions(sections, overrides, dense=gate_name == "dense")
    plain = {"task": task, "scale": scale, "gate": gate_name, "seed": seed, **sections}
    origins = {key: f"{override.origin}: " for key, override in overrides.items()}

    def where(key: str) -> str:
        return origins.get(key, f"experiments/{scale}.toml: {task}.")

    try:
        config = from_dict(plain, where)
        config = dataclasses.replace(config, model=checked_model(config, where))
    except UserError as error:
        raise UserError(*problems, *error.problems) from None
    if config.model.checkpoint is None and config.model.vocab_size is None:
        problems.append(f"experiments/{scale}.toml: model: give a checkpoint or a vocab_size")
    if problems:
        raise UserError(*problems)
    return config, paths


def _gate_name(gate_file: str, fixed: Mapping[str, int], overrides: Mapping[str, Override]) -> str:
    """Return a gate's name in results: `top-2` for the member `top_k` with k = 2, however it was given."""
    name = gate_file.replace("_", "-")
    if not name.endswith("-k"):
        return name
    default = Override(load_gate(gate_file).Config().k, "default")
    k = fixed.get("k", overrides.get("gate.k", default).value)
    return f"{name.removesuffix('-k')}-{k}" if isinstance(k, int) else name


def _sections(scale: Mapping[str, Sections], task: str, name: str) -> Sections:
    """Merge the sections of `base` and, over them, those of the task."""
    if task not in scale:
        raise UserError(f"experiments/{name}.toml: no section for task {task!r}")
    names = [*SECTIONS, "task"]
    merged: Sections = {section: {} for section in names}
    for source in ("base", task):
        for section, values in scale.get(source, {}).items():
            if section not in names:
                raise UserError(f"experiments/{name}.toml: {source}: {unknown('section', section, names)}")
            merged[section] |= values
    merged["task_options"] = merged.pop("task")
    return merged


def _apply(
    sections: Sections,
    overrides: Mapping[str, Override],
    task: str,
    gate_file: str,
    gate_name: str,
    gate_fixed: Mapping[str, int],
) -> list[str]:
    """Put the user's values into their sections; return the problems that are not about a value itself."""
    own = {"gate": ("gates", gate_name, gate_file), "task": ("tasks", task, task)}
    keys = [f"{name}.{f.name}" for name, cls in SECTIONS.items() for f in dataclasses.fields(cls)]
    for name, (family, _, file) in own.items():
        keys += [f"{name}.{key}" for key in option_names(family, file)]
    problems = []
    for key, override in overrides.items():
        section, _, rest = key.partition(".")
        if key in _OWN_OPTIONS:
            problems.append(f"{override.origin}: {_OWN_OPTIONS[key]}")
        elif key.startswith("model.config."):
            _set_option(sections, rest.removeprefix("config."), override.value)
        elif section in own and key not in keys:
            problems.append(f"{override.origin}: {_no_option(*own[section], rest)}")
        elif section == "gate" and rest in gate_fixed:
            problems.append(
                f"{override.origin}: the name {gate_name!r} fixes {rest} = {gate_fixed[rest]};"
                f" use --gate {gate_file.replace('_', '-')}"
            )
        elif key in keys:
            sections[f"{section}_options" if section in own else section][rest] = override.value
        else:
            problems.append(f"{override.origin}: {unknown('key', key, keys)}")
    for pair in ALTERNATIVES:
        set_by_user = [key for key in pair if f"training.{key}" in overrides]
        if len(set_by_user) == 1:
            (other,) = set(pair) - set(set_by_user)
            sections["training"].pop(other, None)
    return problems


def _set_option(sections: Sections, name: str, value: object) -> None:
    """Add an option of the model to those of the scale; what else stands there is refused later."""
    options = sections["model"].get("config", {})
    if isinstance(options, Mapping):
        sections["model"]["config"] = {**options, name: value}


def _no_option(family: str, name: str, file: str, option: str) -> str:
    """Say that a gate or task lacks an option, and which others have it."""
    keys = ", ".join(option_names(family, file)) or "none"
    having = [other for other in plugins.names(family) if option in option_names(family, other)]
    spelled = ", ".join(other.replace("_", "-") if family == "gates" else other for other in having)
    return f"the {family[:-1]} {name!r} has no option {option!r}; it has: {keys}." + (
        f" {family.capitalize()} with {option!r}: {spelled}." if having else ""
    )


def _choose_curriculum(
    sections: Sections, overrides: Mapping[str, Override], gate_name: str, adaptive: bool
) -> list[str]:
    """Choose the paper's order for gates whose samples differ in it, random order for the others."""
    override = overrides.get("training.curriculum")
    if override is None:
        sections["training"]["curriculum"] = "cosine" if adaptive else "random"
    elif override.value in ("cosine", "count") and not adaptive:
        return [
            f"{override.origin}: {override.value!r} orders samples by their share of two-expert tokens,"
            f" which is the same for all under {gate_name!r}; use random or length"
        ]
    return []


def _find_inputs(
    sections: Sections,
    overrides: Mapping[str, Override],
    task: str,
    data: str | None,
    model: str | None,
    results: Path,
    problems: list[str],
) -> RunPaths:
    """Replace folders on this machine by fingerprints of what is in them."""
    data_folder = model_folder = None
    if data in ("synthetic", "hub"):
        sections["data"]["source"] = data
    elif data is not None:
        data_folder = Path(data)
        try:
            fingerprint = folder_fingerprint(data_folder, load_task(task))
            sections["data"]["source"] = f"folder:{fingerprint}"
        except UserError as error:
            problems += error.problems
    if model is not None:
        sections["model"].pop("vocab_size", None)
        sections["model"]["config"] = {
            key.removeprefix("model.config."): override.value
            for key, override in overrides.items()
            if key.startswith("model.config.")
        }
        sections["model"]["checkpoint"] = model
        if Path(model).is_dir():
            model_folder = Path(model)
            sections["model"]["checkpoint"] = (
                f"dir:{model_folder.resolve().name}:{fingerprint_model(model_folder)}"
            )
    return RunPaths(results=results, data=data_folder, model=model_folder)
