"""One run from its configuration to `result.json`, and the evaluation of a finished one."""

import os
import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import set_seed

from repro import moe, plugins
from repro._checkpoints import remove_checkpoints
from repro.config import RunConfig, from_dict
from repro.cost import Architecture, peak_memory_bytes
from repro.errors import UserError, unknown
from repro.evaluator import Evaluation, evaluate
from repro.experiments import Places
from repro.provenance import environment
from repro.records import SCHEMA_VERSION, RunFolder, read_json, write_json
from repro.tasks._data import load_rows, rows_fingerprint
from repro.tasks._tokenizer import trained_tokenizer
from repro.trainer import TrainingData, TrainingState, train


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that is ready to train."""

    accelerator: Accelerator
    task: ModuleType
    tokenizer: Any
    model: Any
    architecture: Architecture
    data: TrainingData
    validation: list[dict[str, Any]]
    """All validation features, in the order of their rows."""
    references: list[Any]
    data_record: dict[str, Any]


def execute(
    config: RunConfig,
    places: Places,
    *,
    fresh: bool = False,
    tensorboard: bool = False,
    report: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Do a run: start it, continue it from its checkpoint, or return its result if it is finished.

    Args:
        fresh: discard what an earlier run with the same configuration left.
        report: called with the record of every step.
        should_stop: asked after every step.

    Raises:
        UserError: the inputs are wrong, or the folder cannot be used.
        Interrupted: `should_stop` said so; a checkpoint was saved.
    """
    folder = RunFolder(places.results / config.scale / "runs" / config.run_id)
    if fresh and folder.path.exists():
        shutil.rmtree(folder.path)
    if folder.result.exists():
        _check_folder(folder, config)
        return read_json(folder.result)
    prepared = prepare(config, places, tensorboard=tensorboard, folder=folder)
    _open_folder(prepared, folder, config, places)
    state = train(
        prepared.accelerator,
        prepared.model,
        config,
        prepared.data,
        folder,
        report=report,
        should_stop=should_stop,
    )
    result = _result(prepared, config, state)
    if prepared.accelerator.is_main_process:
        moe.save(prepared.accelerator.unwrap_model(prepared.model), folder.model)
        prepared.tokenizer.save_pretrained(folder.model)
        write_json(folder.result, result)
        remove_checkpoints(folder)
    prepared.accelerator.end_training()
    return result


def prepare(config: RunConfig, places: Places, *, folder: RunFolder, tensorboard: bool = False) -> Prepared:
    """Load data, tokenizer and model, all from the seed.

    Raises:
        UserError: something of it is missing or does not fit.
    """
    accelerator = _accelerator(config, folder if tensorboard else None)
    task = plugins.load("tasks", config.task)
    rows = {
        split: load_rows(
            task,
            config.data.source,
            places.data,
            split,
            config.data.train_samples if split == "train" else config.data.validation_samples,
        )
        for split in ("train", "validation")
    }
    set_seed(config.seed)
    tokenizer = _tokenizer(config, task, rows["train"], places)
    features = {split: task.encode(rows[split], tokenizer, config.data.max_length) for split in rows}
    model = _model(config, task, tokenizer, places)
    settings = moe.MoESettings(
        backbone=config.model.backbone,
        head=task.HEAD,
        gate=config.gate,
        gate_options=config.gate_options,
        experts=config.experts,
    )
    positions = getattr(model.config, "max_position_embeddings", config.data.max_length)
    if config.data.max_length > positions:
        raise UserError(
            f"data.max_length: {config.data.max_length} is more than the {positions} positions of the model"
        )
    architecture = moe.convert(model, settings, accelerator.device)
    subset = _fixed_subset(len(features["validation"]), config.evaluation.samples)
    return Prepared(
        accelerator=accelerator,
        task=task,
        tokenizer=tokenizer,
        model=model.to(accelerator.device),
        architecture=architecture,
        data=TrainingData(
            task=task,
            train=features["train"],
            validation=[features["validation"][index] for index in subset],
            pad_id=tokenizer.pad_token_id,
        ),
        validation=features["validation"],
        references=task.references(rows["validation"]),
        data_record={
            "source": config.data.source.split(":")[0],
            "fingerprint": rows_fingerprint(rows["train"] + rows["validation"]),
            "counts": {split: len(rows[split]) for split in rows},
        },
    )


def evaluate_run(
    folder: RunFolder, *, split: str, gate_at_inference: str, data: Path | None
) -> dict[str, Any]:
    """Evaluate the saved model of a finished run on a split.

    Args:
        gate_at_inference: `same` as trained, or `top-1`.
        data: a data folder; None takes the one the run was trained on.

    Raises:
        UserError: the run is not finished, or the data are not there.
    """
    if not folder.result.exists():
        raise UserError(f"{folder.path}: not a finished run (no result.json)")
    config = from_dict(read_json(folder.config))
    if gate_at_inference == "top-1" and config.gate == "dense":
        raise UserError("--gate-at-inference top-1: the run is dense, it has no gate")
    source = config.data.source
    place = data
    if data is not None:
        source = "folder:given"
    elif source.startswith("folder:"):
        recorded = read_json(folder.places)["data"]
        place = Path(recorded)
    accelerator = _accelerator(config, None)
    task = plugins.load("tasks", config.task)
    rows = load_rows(task, source, place, split, config.data.validation_samples)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder.model)
    features = task.encode(rows, tokenizer, config.data.max_length)
    model = moe.load(folder.model, accelerator.device, config.experts.backend)
    evaluation = evaluate(
        accelerator,
        accelerator.prepare_model(model, evaluation_mode=True),
        task,
        features,
        pad_id=tokenizer.pad_token_id,
        batch_size=config.evaluation.batch_size,
        best_only=gate_at_inference == "top-1",
        references=task.references(rows),
    )
    return {
        "run_id": config.run_id,
        "task": config.task,
        "gate": config.gate,
        "split": split,
        "gate_at_inference": gate_at_inference,
        "metric": _metric(task, evaluation),
        "metrics": evaluation.metrics,
        "eval_loss": evaluation.loss,
        "routing": None if config.gate == "dense" else evaluation.routing.summary(),
        "data": {"fingerprint": rows_fingerprint(rows), "count": len(rows)},
    }


def _accelerator(config: RunConfig, tracked: RunFolder | None) -> Accelerator:
    """Device, precision and processes; `auto` precision is bf16 on GPUs that have it, else fp32."""
    precision = config.training.precision
    if precision == "auto":
        has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16" if has_bf16 else "fp32"
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        log_with="tensorboard" if tracked else None,
        project_dir=str(tracked.path) if tracked else None,
    )
    if tracked:
        accelerator.init_trackers("tensorboard")
    return accelerator


def _tokenizer(config: RunConfig, task: ModuleType, rows: list[dict[str, Any]], places: Places) -> Any:
    if config.model.checkpoint is None:
        texts = (text for row in rows for text in task.texts(row))
        assert config.model.vocab_size is not None, "checked when the configuration was resolved"
        return trained_tokenizer(config.model.backbone, texts, config.model.vocab_size)
    source = places.model or config.model.checkpoint
    try:
        return transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--model {source}: no tokenizer ({_first_line(error)})") from error


def _model(config: RunConfig, task: ModuleType, tokenizer: Any, places: Places) -> Any:
    """The dense model, from scratch or from a checkpoint."""
    backbone = plugins.load("backbones", config.model.backbone)
    model_class = backbone.HEADS[task.HEAD]
    options = dict(config.model.config)
    known = set(backbone.CONFIG().to_dict())
    unknown_options = [
        f"model.config.{unknown('option', name, sorted(known))}" for name in options if name not in known
    ]
    if unknown_options:
        raise UserError(*unknown_options)
    if config.model.checkpoint is None:
        options |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        try:
            return model_class(backbone.CONFIG(**options, **task.MODEL_OPTIONS))
        except (ValueError, TypeError) as error:
            raise UserError(f"model.config: {_first_line(error)}") from error
    source = places.model or config.model.checkpoint
    try:
        found = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--model {source}: not a model directory ({_first_line(error)})") from error
    if found.model_type != backbone.MODEL_TYPE:
        raise UserError(
            f"--model {source}: it is a {found.model_type!r} model;"
            f" task {config.task!r} needs {backbone.MODEL_TYPE!r}"
        )
    try:
        return model_class.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, **options, **task.MODEL_OPTIONS
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"--model {source}: cannot be loaded ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _fixed_subset(size: int, wanted: int) -> list[int]:
    """Evenly spread over the split, the same in every run."""
    wanted = min(size, wanted)
    return [index * size // wanted for index in range(wanted)]


def _check_folder(folder: RunFolder, config: RunConfig) -> None:
    if folder.config.exists() and read_json(folder.config) != config.to_dict():
        raise UserError(
            f"{folder.path}: holds a run with another configuration;"
            " give another --out, or --fresh to discard it"
        )


def _open_folder(prepared: Prepared, folder: RunFolder, config: RunConfig, places: Places) -> None:
    """Create the folder, or take it up where it was left, and note the circumstances."""
    if not prepared.accelerator.is_main_process:
        prepared.accelerator.wait_for_everyone()
        return
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        _check_folder(folder, config)
        write_json(folder.config, config.to_dict())
        write_json(
            folder.places,
            {
                "data": str(places.data.resolve()) if places.data else None,
                "model": str(places.model.resolve()) if places.model else None,
            },
        )
        write_json(folder.environment, _environment(prepared, config))
    except OSError as error:
        raise UserError(
            f"--out {places.results}: cannot be written ({error.strerror}); give another folder"
        ) from error
    prepared.accelerator.wait_for_everyone()


def _environment(prepared: Prepared, config: RunConfig) -> dict[str, Any]:
    device = prepared.accelerator.device
    dense = config.gate == "dense"
    return environment() | {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": prepared.accelerator.num_processes,
        "load_average": list(os.getloadavg()),
        "precision": {"no": "fp32"}.get(
            prepared.accelerator.mixed_precision, prepared.accelerator.mixed_precision
        ),
        "experts_backend": None if dense else moe.choose_backend(config.experts.backend, device),
    }


def _samples_per_step(config: RunConfig) -> int:
    return config.training.batch_size * config.training.accumulation


def _metric(task: ModuleType, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "name": task.METRIC,
        "value": evaluation.metrics[task.METRIC],
        "higher_is_better": plugins.load("metrics", task.METRIC).HIGHER_IS_BETTER,
        "count": evaluation.count,
    }


def _result(prepared: Prepared, config: RunConfig, state: TrainingState) -> dict[str, Any]:
    """Evaluate the trained model both ways and put everything together."""

    def measure(best_only: bool) -> Evaluation:
        return evaluate(
            prepared.accelerator,
            prepared.model,
            prepared.task,
            prepared.validation,
            pad_id=prepared.data.pad_id,
            batch_size=config.evaluation.batch_size,
            best_only=best_only,
            references=prepared.references,
        )

    dense = config.gate == "dense"
    same = measure(best_only=False)
    top_1 = None if dense else measure(best_only=True)
    architecture = prepared.architecture
    routing = state.routing.summary()
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": config.run_id,
        "task": config.task,
        "gate": config.gate,
        "scale": config.scale,
        "seed": config.seed,
        "config": config.to_dict(),
        "status": "finished",
        "steps": state.step,
        "epochs": state.step * _samples_per_step(config) / len(prepared.data.train),
        "tokens": state.tokens,
        "train_seconds": state.train_seconds,
        "seconds_per_step": statistics.median(state.step_seconds),
        "tokens_per_second": state.tokens / state.train_seconds,
        "metric": _metric(prepared.task, same),
        "metrics": same.metrics,
        "metric_top1": _metric(prepared.task, top_1) if top_1 else None,
        "eval_loss": same.loss,
        "curve": state.curve,
        "flops": state.work.flops(architecture),
        "flops_eval": same.work.flops(architecture),
        "routing": None if dense else routing,
        "routing_eval": None if dense else same.routing.summary(),
        "parameters": _parameters(prepared.model, architecture, routing["mean_experts"]),
        "peak_memory_bytes": peak_memory_bytes(prepared.accelerator.device),
        "data": prepared.data_record,
        "environment": _environment(prepared, config),
    }


def _parameters(model: Any, architecture: Architecture, mean_experts: Any) -> dict[str, Any]:
    """All parameters, and those that an average token meets in a forward pass."""
    total = sum(parameter.numel() for parameter in model.parameters())
    if not architecture.moe_layers:
        return {"total": total, "active": total}
    width, hidden = architecture.d_model, architecture.d_hidden
    one_expert = 2 * width * hidden + width + hidden
    idle = architecture.moe_layers * (architecture.experts - mean_experts) * one_expert
    return {"total": total, "active": round(total - idle)}
