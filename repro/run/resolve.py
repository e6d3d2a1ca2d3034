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
from repro.errors import UserError, for_all, notice, unknown
from repro.moe.folder import fingerprint_model
from repro.moe.gates.base import is_adaptive
from repro.moe.gates.base import load as load_gate
from repro.moe.pretrained import is_converted, own_router
from repro.results.files import RunPaths, name_of_model
from repro.run.contradictions import Override, checked_model, contradictions
from repro.run.model import blocks_folder
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
    sections: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[RunConfig, RunPaths]:
    """Merge scale file, task and command line into a run, and find its inputs.

    Args:
        data: `synthetic`, `hub` or a folder; None takes the scale's.
        model: a local directory or a hub id; None takes the scale's.
        overrides: dotted key of `RunConfig` (`training.steps`, `gate.threshold`) -> value.
        sections: of the task in a study that gives it another model: `model` is taken in the place of the
            scale's, others over it.

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
    own, sections = sections or {}, _sections(read, task, scale)
    for name, values in own.items():
        sections[name] = {**({} if name == "model" else sections[name]), **values}
    sections["gate_options"] = _gate_options(sections.pop("gate"), scale, gate_file) | gate_fixed
    rates = _rates(sections.pop("learning_rate"), f"experiments/{scale}.toml: {task}.learning_rate")
    if gate_name in rates:
        overrides = {"training.learning_rate": rates[gate_name], **overrides}

    problems = _apply(sections, overrides, task, gate_file, gate_name, gate_fixed)
    adaptive = is_adaptive(gate_file)
    why_random = _choose_curriculum(sections, overrides, adaptive)
    paths = _find_inputs(sections, overrides, task, data, model, results, problems)
    try:
        folder = paths.model or blocks_folder(str(sections["model"].get("backbone")), model)
        _choose_experts(sections, overrides, gate_file, folder)
    except UserError as error:
        problems += error.problems
    problems += contradictions(sections, overrides, gate_name, adaptive)
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
    if why_random is not None:
        notice(f"{task}, {gate_name}: data in random order, as {why_random}")
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
    names = [*SECTIONS, "task", "gate", "learning_rate", "lanes", "launcher"]
    merged: Sections = {section: {} for section in names}
    for source in ("base", task):
        for section, values in scale.get(source, {}).items():
            if section not in names:
                raise UserError(f"experiments/{name}.toml: {source}: {unknown('section', section, names)}")
            merged[section] |= values
    merged["task_options"] = merged.pop("task")
    del merged["lanes"], merged["launcher"]  # where runs are done is no part of what is run
    return merged


def _gate_options(options: Mapping[str, Any], scale: str, gate_file: str) -> dict[str, Any]:
    """Pick what a scale sets of the gates' options: those that this gate has.

    Raises:
        UserError: no gate has that option.
    """
    known = {name for gate in plugins.names("gates") for name in option_names("gates", gate)}
    for option in options:
        if option not in known:
            raise UserError(f"experiments/{scale}.toml: gate: {unknown('option', option, sorted(known))}")
    own = option_names("gates", gate_file)
    return {option: value for option, value in options.items() if option in own}


def _rates(rates: Mapping[str, Any], where: str) -> dict[str, Override]:
    """Read the learning rates that were picked for single schemes; scheme, as results name it -> rate.

    They hold where neither the user nor a study sets a rate.

    Raises:
        UserError: there is no such scheme.
    """
    picked = {}
    for scheme, rate in rates.items():
        file, fixed = plugins.resolve("gates", scheme, where=f"{where}: ")
        picked[_gate_name(file, fixed, {})] = Override(rate, f"{where}.{scheme}")
    return picked


def _choose_experts(
    sections: Sections, overrides: Mapping[str, Override], gate_file: str, model: Path | None
) -> None:
    """Fit copies, which are to start as what they were copied from, and leave random experts as drawn.

    A model with experts of its own brings them: what the scale says of their start does not apply. Unless
    they are set, number and weights of the experts are those of a model with MoE blocks.
    """
    experts, own = sections["experts"], own_router(model)
    if own is None and not is_converted(model):
        experts.setdefault("scale", "fitted" if experts.get("init") == "upcycle" else "none")
        return
    for key in ("init", "scale"):
        if f"experts.{key}" not in overrides:
            experts.pop(key, None)
    if own is not None:
        if "experts.count" not in overrides:
            experts["count"] = own.experts
        if "combine" in option_names("gates", gate_file) and "gate.combine" not in overrides:
            sections["gate_options"]["combine"] = own.combine


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


def _choose_curriculum(sections: Sections, overrides: Mapping[str, Override], adaptive: bool) -> str | None:
    """Choose an order of data, unless one is set: the paper's for adaptive gates if it acts, or else random.

    Orders by ratios act from the second epoch on. A number of steps may be less than one epoch, which is
    known only after the data are read: then an order by ratios must be asked for.

    Returns:
        Why it is random with an adaptive gate; None if it is not, or was asked for.
    """
    if "training.curriculum" in overrides:
        return None
    epochs = sections["training"].get("epochs")
    acts = isinstance(epochs, int | float) and epochs > 1
    sections["training"]["curriculum"] = "cosine" if adaptive and acts else "random"
    if not adaptive or acts:
        return None
    if epochs is None:
        return "with training.steps an order by ratios must be asked for (--curriculum cosine)"
    return "an order by ratios would act from the second epoch on"


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
                f"dir:{name_of_model(model_folder)}:{fingerprint_model(model_folder)}"
            )
    return RunPaths(results=results, data=data_folder, model=model_folder)
