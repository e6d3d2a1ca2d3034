"""Do one run from its configuration to `result.json`."""

import shutil
from collections.abc import Callable

from repro.config import RunConfig
from repro.moe import lora, pretrained
from repro.provenance import digest_of
from repro.results.files import ModelFiles, RunFolder, RunPaths, write_json
from repro.results.run import RunResult, read_result
from repro.run.card import write_card
from repro.run.launch import Launch, begin, check_config, folder_of, launched
from repro.run.result import build_result
from repro.training.checkpoints import keep_last_checkpoint, remove_checkpoints, remove_leftovers
from repro.training.lane import ALONE, Lane
from repro.training.state import Progress
from repro.training.tensor_files import whole_tensors
from repro.training.trainer import train


def execute(
    config: RunConfig,
    paths: RunPaths,
    *,
    fresh: bool = False,
    tensorboard: bool = False,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    lane: Lane = ALONE,
) -> RunResult:
    """Do a run: start it, continue it from its checkpoint, or return its result if it is finished.

    Args:
        fresh: discard what an earlier run with the same configuration left.
        report: called after every step.
        should_stop: asked after every step.
        lane: where it trains.

    Raises:
        UserError: the inputs are wrong, or the folder cannot be used.
        Interrupted: `should_stop` said so; a checkpoint was saved.
        FloatingPointError: the model diverged.
    """
    folder = folder_of(config, paths)
    if folder.config.exists() and not fresh:
        check_config(folder, config)
        if folder.result.exists():
            return _finished(config, folder)
    with launched(config, paths, fresh=fresh, tensorboard=tensorboard) as launch:
        if not fresh and launch.is_finished:
            return _finished(config, folder)
        begin(launch, paths, fresh=fresh, tensorboard=tensorboard)
        accelerator = launch.accelerator
        state = train(
            launch.placement,
            config,
            launch.prepared.data,
            folder,
            measure_loss=launch.dev_loss,
            report=launch.guarded(report),
            should_stop=should_stop,
            lane=lane,
        )
        if config.training.lora_rank is not None:  # a model as any other is evaluated and saved
            lora.merge_low_rank(launch.placement.plain)
        _save_model(launch)
        accelerator.wait_for_everyone()
        result = build_result(launch, state, lane, should_stop)
        if accelerator.is_main_process:
            write_card(folder, result)
            write_json(folder.result, result.to_json())
            _remove_passed(config, folder)
        accelerator.end_training()
        return result


def _finished(config: RunConfig, folder: RunFolder) -> RunResult:
    """Read the result of a finished run, and remove what a kill behind its last step left."""
    result = read_result(folder.result)
    remove_leftovers(folder)
    _remove_passed(config, folder)
    return result


def _remove_passed(config: RunConfig, folder: RunFolder) -> None:
    """Remove the checkpoints that nothing goes on from: all but the last of a trunk at a constant rate."""
    remove_checkpoints(folder.cooldown)
    if config.training.schedule == "linear":
        remove_checkpoints(folder)
    else:
        keep_last_checkpoint(folder)


def _save_model(launch: Launch) -> None:
    """Save model and tokenizer, all files or none: before the evaluation, which may fail or be stopped."""
    folder, model = launch.folder, launch.prepared.model
    weights = whole_tensors(launch.placement) if launch.accelerator.num_processes > 1 else None
    if not launch.accelerator.is_main_process:
        return
    scratch = folder.model.with_name(f"{folder.model.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    pretrained.save(model, scratch, weights)
    launch.prepared.tokenizer.save_pretrained(scratch)
    digests = {path.name: digest_of(path) for path in sorted(scratch.iterdir())}
    write_json(folder.model_files, ModelFiles(files=digests).to_json())
    shutil.rmtree(folder.model, ignore_errors=True)
    scratch.rename(folder.model)
