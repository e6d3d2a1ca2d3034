"""Which tokens get two experts: the validation split once more through a finished run's model.

The paper's Figures 1 and 2 and its Table 4 are made of this (3.1, 4.5).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from torch import nn

from repro.analysis.heatmap import render
from repro.analysis.observer import Observer
from repro.analysis.tally import thinned
from repro.analysis.words import LabelledText, labelled_texts, word_marks
from repro.config import RunConfig
from repro.data.rows import rows_fingerprint
from repro.errors import UserError
from repro.moe.backbones.base import Stack
from repro.moe.backbones.base import load as load_backbone
from repro.moe.routing import RoutingLayer, record_routing
from repro.results.analysis import ANALYSIS_VERSION, Analysis, AnalyzedData
from repro.results.files import RunFolder, whole_lines, write_file, write_json
from repro.results.records import RoutingRecord
from repro.results.run import read_result
from repro.run.reopen import FinishedRun, finished_config, open_finished
from repro.run.setup import encoded, evenly_spread
from repro.tasks.base import Feature, Task

POINTS = 50
"""Points of the share of two-expert tokens over training."""


def analyzable(folder: RunFolder) -> RunConfig:
    """Return the configuration of a run that can be analysed.

    Raises:
        UserError: the run is not finished, a file is damaged, or there is nothing to analyse.
    """
    config = finished_config(folder)
    nothing = nothing_to_analyze(folder, config)
    if nothing is not None:
        raise UserError(f"{folder.path}: {nothing}")
    run_id = read_result(folder.result).run_id
    path = folder.path.resolve()
    # What is published of it goes to the folders above, under the name of the run.
    if (path.parent.name, path.name) != ("runs", run_id):
        raise UserError(f"{folder.path}: expected to be <results>/<scale>/runs/{run_id}; move it there")
    return config


def nothing_to_analyze(folder: RunFolder, config: RunConfig) -> str | None:
    """Say why a finished run is none that can be analysed; None if it can be."""
    if config.gate == "dense":
        return "the run is dense, it has no gate to analyse"
    if not (folder.model / "config.json").is_file():
        return "no saved model in it; train it again with --fresh"
    return None


def analyze_run(folder: RunFolder, *, data: Path | None = None, samples: int | None = None) -> Analysis:
    """Analyse a finished run on its validation split, with the gate as trained.

    Args:
        data: a data folder; None takes the one the run was trained on.
        samples: sequences, evenly spread over the split; None takes all.

    Raises:
        UserError: the run cannot be analysed, or its data are not there.
    """
    config = analyzable(folder)
    run = open_finished(folder, config, "validation", data)
    features = encoded(run.task, run.rows, "validation", rows_fingerprint(run.rows))
    chosen = evenly_spread(len(features), samples or len(features))
    backbone = load_backbone(config.model.backbone)
    model = run.accelerator.unwrap_model(run.model)
    observer = observe(
        model,
        run.task,
        [features[index] for index in chosen],
        layer_stacks(backbone.stacks(model)),
        labels=_labels(run, features, chosen),
        batch_size=config.evaluation.batch_size,
        device=run.accelerator.device,
    )
    return Analysis(
        version=ANALYSIS_VERSION,
        run_id=folder.path.resolve().name,
        task=config.task,
        gate=config.gate,
        scale=config.scale,
        seed=config.seed,
        threshold=config.to_dict()["gate_options"].get("threshold"),
        data=AnalyzedData(
            split="validation",
            source=run.source.split(":")[0],
            sequences=len(chosen),
            of=len(features),
        ),
        layers=observer.layers(),
        stacks=observer.stacks(),
        activations=observer.activations(),
        training=thinned(_routing_records(folder), POINTS),
        samples=observer.samples(),
    )


def write_analysis(folder: RunFolder, analysis: Analysis) -> list[Path]:
    """Write `analysis.json` into the run; publish it without its samples, and these as a page.

    Returns:
        The published files: the analysis, and `tokens.html` under the name of the run.

    Raises:
        UserError: a folder cannot be written.
    """
    published = folder.path.resolve().parent.parent / "analysis"
    paths = [published / f"{analysis.run_id}.json", published / f"{analysis.run_id}.html"]
    try:
        write_json(folder.analysis, analysis.to_json(), indent=None)
        published.mkdir(exist_ok=True)
        write_json(paths[0], analysis.to_published_json(), indent=None)
        write_file(paths[1], render(analysis).encode())
    except OSError as error:
        raise UserError(f"{published}: cannot be written ({error.strerror})") from error
    return paths


def layer_stacks(stacks: Mapping[str, Stack]) -> list[str]:
    """Return the stack of each MoE layer, in the order of computation."""
    stack_by_layer = {
        module.layer: name
        for name, stack in stacks.items()
        for module in stack.module.modules()
        if isinstance(module, RoutingLayer)
    }
    return [stack_by_layer[layer] for layer in sorted(stack_by_layer)]


def observe(
    model: nn.Module,
    task: Task,
    features: Sequence[Feature],
    stack_L: Sequence[str],
    *,
    labels: Sequence[LabelledText | None],
    batch_size: int,
    device: torch.device,
) -> Observer:
    """Run the model over the features, longest first, and count what its gates decide.

    Args:
        stack_L: the stack of each MoE layer.
        labels: the labelled text that each feature is from; None where there is none.
    """
    observer = Observer(task, len(features), stack_L, word_marks(task.tokenizer.get_vocab()))
    order = sorted(range(len(features)), key=lambda index: -task.length(features[index]))
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = send_to_device(task.collate([features[index] for index in indices]), device)
            with record_routing(model) as tape:
                model(**batch)
            observer.count_layers(tape)
            counts_LBS = [entry.count_BS().tolist() for entry in tape.entries]
            for row, index in enumerate(indices):
                counts_LS = [counts_BS[row] for counts_BS in counts_LBS]
                observer.count_tokens(index, features[index], counts_LS, labels[index])
                if observer.is_sampled(index):
                    observer.sample(index, features[index], tape, row)
    model.train(was_training)
    return observer


def _routing_records(folder: RunFolder) -> list[RoutingRecord]:
    """Read how each step up to the budget was routed: the trunk's up to the cooldown, then the cooldown's.

    Raises:
        UserError: a record is damaged, or some are missing.
    """
    path, budget = folder.routing, read_result(folder.result).steps
    cooldown = _records(folder.cooldown.routing)
    end = cooldown[0].step - 1 if cooldown else budget
    records = [record for record in _records(path) if record.step <= end] + cooldown
    if [record.step for record in records] != list(range(1, budget + 1)):
        raise UserError(
            f"{path}: not one line for each of the {budget} steps; restore it, or train the run with --fresh"
        )
    return records


def _records(path: Path) -> list[RoutingRecord]:
    return [
        RoutingRecord.parse(line, f"{path}: line {number}")
        for number, line in enumerate(whole_lines(path), 1)
    ]


def _labels(run: FinishedRun, features: list[Feature], chosen: list[int]) -> list[LabelledText | None]:
    """Return the labelled text of each chosen feature; only generated corpora have labels."""
    if run.source != "synthetic":
        return [None] * len(chosen)
    marks = word_marks(run.task.tokenizer.get_vocab())
    columns = run.module.COLUMNS
    if run.module.CONTIGUOUS:  # features are cut from the whole stream
        words = [pair for row in run.rows for text in labelled_texts(row, columns) for pair in text]
        return [LabelledText([words], marks)] * len(chosen)
    # A task whose rows give several features says which row each is from.
    numbers = [features[index].get("row", index) for index in chosen]
    texts = {
        number: LabelledText(labelled_texts(run.rows[number], columns), marks) for number in set(numbers)
    }
    return [texts[number] for number in numbers]
