"""The model card, `README.md` beside the weights of a run: what the model is, how to load and to make it."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from repro import plugins
from repro.config import ALTERNATIVES, SECTIONS, options_class
from repro.errors import UserError
from repro.moe.gates.base import is_adaptive
from repro.moe.models import AUTO_CLASSES
from repro.results.files import RunFolder, write_file
from repro.results.run import RunResult
from repro.run.scales import read_scale
from repro.tasks.base import load as load_task

_Values = Mapping[str, Any]


def write_card(folder: RunFolder, result: RunResult) -> None:
    """Write the card of a finished run's model."""
    write_file(folder.model / "README.md", model_card(result).encode())


def model_card(result: RunResult) -> str:
    """Return the card of a run's model, in Markdown with the hub's head."""
    dense = result.gate == "dense"
    task = load_task(result.task)
    metric, flops = result.metric, result.flops_eval
    lines = [
        "---",
        f"library_name: {'transformers' if dense else 'repro'}",
        *([] if _local(result.checkpoint) else [f"base_model: {result.checkpoint}"]),
        *([] if dense else ["tags:", "- mixture-of-experts", "- adaptive-gating"]),
        "---",
        "",
        f"# {result.run_id}",
        "",
        f"* Task: {task.TITLE} (`{result.task}`), {result.data.source} data, {result.steps} steps.",
        f"* Quality: {metric.name} {_number(metric.value)} on {metric.count} examples of the validation"
        f" split, loss {_number(result.eval_loss)}.",
        f"* Gate: {_gate(result)}.",
        f"* Operations: {_number(flops.per_token)} FLOPs per token of the validation split as routed,"
        f" {_number(flops.per_token_executed)} as executed,"
        f" {_number(flops.dense_per_token)} of the dense model.",
        f"* Parameters: {result.parameters.total}; an average token meets {result.parameters.active}.",
        "",
        *_loading(task.HEAD, dense),
        "It was made, and is evaluated again, by",
        "",
        "```",
        command(result),
        f"repro eval {result.run_id}",
        "```",
    ]
    return "\n".join(lines) + "\n"


def _local(checkpoint: str | None) -> bool:
    """Return whether a run started from no model of the hub."""
    return checkpoint is None or checkpoint.startswith(("dir:", "run:"))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _gate(result: RunResult) -> str:
    """Name the gate with its options, and what it did on the validation split."""
    if result.routing_eval is None:
        return "dense, without MoE layers"
    options = ", ".join(f"{name} {value}" for name, value in _section(result, "gate_options").items())
    count = _section(result, "experts")["count"]
    mean = _number(result.routing_eval.mean_experts)
    return f"{result.gate} ({options}), {count} experts a layer, {mean} experts per token"


def _loading(head: str, dense: bool) -> list[str]:
    name = AUTO_CLASSES.get(head)
    if name is None:
        return []
    return [
        "```python",
        f"from transformers import {name}, AutoTokenizer",
        *([] if dense else ["", "import repro.hf  # without it transformers refuses the model"]),
        "",
        f'model = {name}.from_pretrained("FOLDER")',
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        "```",
        "",
    ]


def command(result: RunResult) -> str:
    """Return the command that makes a run: its names, and every setting that is not that of its scale."""
    parts = ["repro", "train", "--task", result.task, "--gate", result.gate]
    parts += ["--scale", result.scale, "--seed", str(result.seed)]
    scale = _scale(result)
    source = str(_section(result, "data")["source"])
    if source != scale.get("data", {}).get("source", "synthetic"):
        parts += ["--data", "DIR" if source.startswith("folder:") else source]
    given = scale.get("model", {})
    if result.checkpoint is not None and result.checkpoint != given.get("checkpoint"):
        parts += ["--model", "DIR" if _local(result.checkpoint) else result.checkpoint]
        scale["model"] = {name: value for name, value in given.items() if name == "backbone"}
    for key, value in _changed(result, scale):
        parts += ["--set", f"{key}={_spelled(value)}"]
    return shlex.join(parts)


def _section(result: RunResult, name: str) -> _Values:
    section = result.config[name]
    assert isinstance(section, dict), "a configuration has this section"
    return section


def _scale(result: RunResult) -> dict[str, dict[str, Any]]:
    """Return what the scale says of the task, by section; nothing of a scale that is not there any more."""
    try:
        read = read_scale(result.scale)
    except UserError:
        return {}
    parts = [read.get("base", {}), read.get(result.task, {})]
    return {name: {**parts[0].get(name, {}), **parts[1].get(name, {})} for name in {*parts[0], *parts[1]}}


def _changed(result: RunResult, scale: Mapping[str, _Values]) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a run's settings that differ from the scale's and from the defaults."""
    gate, fixed = plugins.resolve("gates", result.gate)
    classes = {**SECTIONS, "task": options_class("tasks", result.task), "gate": options_class("gates", gate)}
    config = {
        **{name: _section(result, name) for name in SECTIONS},
        "task": _section(result, "task_options"),
        "gate": _section(result, "gate_options"),
    }
    skipped = {"data.source", "model.checkpoint", "model.config", *(f"gate.{name}" for name in fixed)}
    skipped |= {
        f"training.{name}" for pair in ALTERNATIVES for name in pair if config["training"][name] is None
    }
    if is_adaptive(gate):  # by default it is chosen, in one of two ways
        yield "training.curriculum", config["training"]["curriculum"]
        skipped.add("training.curriculum")
    for section, cls in classes.items():
        if section == "experts" and result.gate == "dense":
            continue
        said = scale.get(section, {})
        if section == "experts" and result.checkpoint is not None:
            said = {}  # a model with experts of its own brings them: what the scale says does not apply
        defaults = {name: _default(cls, name) for name in config[section]}
        for name, value in config[section].items():
            if f"{section}.{name}" not in skipped and value != said.get(name, defaults[name]):
                yield f"{section}.{name}", value
    options = scale.get("model", {}).get("config", {})
    for name, value in config["model"]["config"].items():
        if name not in options or value != options[name]:
            yield f"model.config.{name}", value


def _default(cls: Any, name: str) -> Any:
    return cls.__pydantic_fields__[name].default


def _spelled(value: object) -> str:
    """Write a value as `--set` reads it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
