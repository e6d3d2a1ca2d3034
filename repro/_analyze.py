"""`repro analyze`: which runs, what is written, and a short table of each."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro._arguments import run_folder
from repro._terminal import err, out, plain_table, print_json
from repro.analysis import analyzable, analyze_run, write_analysis
from repro.errors import UserError
from repro.experiments import read_scale
from repro.figures.load import relative_load, variation
from repro.records import RunFolder
from repro.report import build_report
from repro.tables._analyses import items, top_words

WORDS = 8
"""Words that are named for each run."""


def chosen_runs(runs: Sequence[str], results: Path, scale: str | None) -> list[RunFolder]:
    """The runs that were named, or all of a scale that have a gate and a saved model.

    Raises:
        UserError: with one line for each named run that cannot be analysed; or there is none.
    """
    if runs and scale is not None:
        raise UserError("--scale: has no effect on runs that are named; give one or the other")
    folders: list[RunFolder] = []
    problems: list[str] = []
    for run in runs:
        try:
            folder = RunFolder(run_folder(run, results))
            analyzable(folder)
            folders.append(folder)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    if runs:
        return folders
    scale = scale or "mini"
    read_scale(scale)
    found = [RunFolder(path.parent) for path in sorted((results / scale).glob("runs/*/result.json"))]
    folders = [folder for folder in found if _can_be_analyzed(folder)]
    if not folders:
        raise UserError(
            f"{results / scale}: no finished run with a gate and a saved model, of {len(found)} finished;"
            f" make one with `repro train --scale {scale} --gate adaptive`"
        )
    return folders


def _can_be_analyzed(folder: RunFolder) -> bool:
    try:
        analyzable(folder)
    except UserError:
        return False
    return True


def analyze_all(folders: Sequence[RunFolder], data: Path | None, samples: int | None, as_json: bool) -> None:
    """Analyse the runs one after the other, then rebuild what is published of their scales."""
    analyses: list[dict[str, Any]] = []
    written: list[Path] = []
    for number, folder in enumerate(folders, 1):
        err.print(f"[{number}/{len(folders)}] {folder.path.name}", markup=False)
        analysis = analyze_run(folder, data=data, samples=samples)
        written += write_analysis(folder, analysis)
        analyses.append({key: value for key, value in analysis.items() if key != "samples"})
        if not as_json:
            _show(analysis)
    for scale_folder in dict.fromkeys(folder.path.resolve().parent.parent for folder in folders):
        written += build_report(scale_folder)
    if as_json:
        print_json({"analyses": analyses, "files": [str(path) for path in written]})
        return
    places = dict.fromkeys(str(path.parent) for path in written)
    out.print(f"written to {' '.join(places)}", markup=False)


def _show(analysis: dict[str, Any]) -> None:
    data = analysis["data"]
    out.print(f"{analysis['run_id']}: {data['sequences']} of {data['of']} sequences", markup=False)
    out.print(plain_table([_layer_row(layer) for layer in analysis["layers"]]))
    words = top_words(items([analysis]), WORDS)
    named = ", ".join(f"{word.name} {word.share or 0:.0%}" for word in words)
    line = f"most often two experts: {named or 'no word significantly more than others'}"
    out.print(
        "\n".join(textwrap.wrap(line, 80, subsequent_indent="  ")), "", sep="\n", markup=False, emoji=False
    )


def _layer_row(layer: dict[str, Any]) -> dict[str, Any]:
    tokens, load = layer["tokens"], layer["load"]
    return {
        "Layer": layer["layer"] + 1,
        "Stack": layer["stack"],
        "Tokens": tokens,
        "Two experts %": _percent(sum(layer["by_count"][2:]), tokens),
        "Clear top-1 %": _percent(layer["clear"], tokens),
        "Load CV": round(variation(relative_load(load)), 3),
        "Dead experts": sum(1 for value in load if not value),
    }


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None
