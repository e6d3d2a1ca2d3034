"""`repro analyze`: which runs, what is written, and a short table of each."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from repro.analysis.analyze import analyzable, analyze_run, nothing_to_analyze, write_analysis
from repro.cli.arguments import run_folder
from repro.cli.console import Row, err, out, plain_table, print_json
from repro.errors import UserError, for_all
from repro.report.analyses import items, top_words
from repro.report.build import build_report
from repro.results.analysis import Analysis, LayerAnalysis
from repro.results.files import RunFolder
from repro.results.published import Published
from repro.run.reopen import finished_config
from repro.run.scales import read_scale

WORDS = 8
"""Words that are named for each run."""


def chosen_runs(runs: Sequence[str], results: Path, scale: str | None) -> list[RunFolder]:
    """Return the runs that were named, or all of a scale that have a gate and a saved model.

    Raises:
        UserError: with one line for each named run that cannot be analysed, and each damaged file; or there
            is no run.
    """
    if runs and scale is not None:
        raise UserError("--scale: has no effect on runs that are named; give one or the other")
    if runs:
        return for_all(lambda run: _named(run, results), runs)
    scale = scale or "mini"
    read_scale(scale)
    finished = [RunFolder(path.parent) for path in sorted((results / scale).glob("runs/*/result.json"))]
    folders = [folder for folder, fit in zip(finished, for_all(_has_gate, finished), strict=True) if fit]
    if not folders:
        raise UserError(
            f"{results / scale}: no finished run with a gate and a saved model, of {len(finished)} finished;"
            f" make one with `repro train --scale {scale} --gate adaptive`"
        )
    return folders


def _named(run: str, results: Path) -> RunFolder:
    folder = RunFolder(run_folder(run, results))
    analyzable(folder)
    return folder


def _has_gate(folder: RunFolder) -> bool:
    return nothing_to_analyze(folder, finished_config(folder)) is None


def analyze_all(folders: Sequence[RunFolder], data: Path | None, samples: int | None, as_json: bool) -> None:
    """Analyse the runs one after the other, then rebuild what is published of their scales.

    Raises:
        UserError: a run cannot be analysed, or, before any is, a published file of its scale is damaged.
    """
    scale_folders = list(dict.fromkeys(folder.path.resolve().parent.parent for folder in folders))
    for scale_folder in scale_folders:
        Published.read(scale_folder)
    analyses: list[Analysis] = []
    written: list[Path] = []
    for number, folder in enumerate(folders, 1):
        err.print(f"[{number}/{len(folders)}] {folder.path.name}", markup=False)
        analysis = analyze_run(folder, data=data, samples=samples)
        written += write_analysis(folder, analysis)
        analyses.append(analysis)
        if not as_json:
            _show(analysis)
    for scale_folder in scale_folders:
        written += build_report(scale_folder)
    if as_json:
        published = [analysis.to_published_json() for analysis in analyses]
        print_json({"analyses": published, "files": [str(path) for path in written]})
        return
    parents = dict.fromkeys(str(path.parent) for path in written)
    out.print(f"written to {' '.join(parents)}", markup=False)


def _show(analysis: Analysis) -> None:
    """Print the layers of a run, and the words that most often get two experts."""
    data = analysis.data
    out.print(f"{analysis.run_id}: {data.sequences} of {data.of} sequences", markup=False)
    out.print(plain_table([_layer_row(layer) for layer in analysis.layers]))
    words = top_words(items([analysis]), WORDS)
    named = ", ".join(f"{word.name} {word.share or 0:.0%}" for word in words)
    line = f"most often two experts: {named or 'no word significantly more than others'}"
    out.print(
        "\n".join(textwrap.wrap(line, 80, subsequent_indent="  ")), "", sep="\n", markup=False, emoji=False
    )


def _layer_row(layer: LayerAnalysis) -> Row:
    return {
        "Layer": layer.layer + 1,
        "Stack": layer.stack,
        "Tokens": layer.tokens,
        "Two experts %": _percent(layer.multi_expert, layer.tokens),
        "Clear top-1 %": _percent(layer.clear, layer.tokens),
        "Load CV": round(layer.load_cv, 3),
        "Dead experts": layer.load.count(0),
    }


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None
