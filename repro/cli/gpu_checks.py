"""`repro bench --gpu`: every check that needs a CUDA device, its outcomes and the tables made of them."""

from pathlib import Path

import torch
import typer

from repro.bench.gpu import Plan, checks
from repro.cli.benches import save
from repro.cli.console import err, out, print_json
from repro.config import RunConfig
from repro.errors import UserError
from repro.machine import current_environment
from repro.report.build import build_report
from repro.results.files import write_json
from repro.results.gpu import GpuChecks
from repro.results.published import Published
from repro.run.contradictions import Override
from repro.run.resolve import resolve

MODELS = ("sst2", "wmt19", "cnn_dailymail", "wikitext")
"""Tasks of the paper's four models."""


def run_gpu_checks(folder: Path, as_json: bool) -> None:
    """Do all checks on the first CUDA device; each is saved when it is done.

    Raises:
        UserError: there is no CUDA device, or a file of the results is damaged or cannot be written.
        Exit: with status 1 if a check failed.
    """
    if not torch.cuda.is_available():
        raise UserError("--gpu: there is no CUDA device here; tests do the same on the CPU in small")
    plan = Plan(models=[paper_model(task) for task in MODELS])
    if not do_checks(plan, torch.device("cuda", 0), folder, as_json):
        raise typer.Exit(1)


def paper_model(task: str) -> RunConfig:
    """Resolve a top-2 run at scale `paper` on one device: 16 copies of each FFN, activations computed again.

    Raises:
        UserError: there is no such task.
    """
    settings: dict[str, object] = {
        "experts.init": "upcycle",
        "experts.parallel": 1,
        "training.gradient_checkpointing": True,
    }
    overrides = {key: Override(value, "--gpu") for key, value in settings.items()}
    return resolve(
        task=task,
        scale="paper",
        gate="top-2",
        seed=0,
        data=None,
        model=None,
        overrides=overrides,
        results=Path(),
    )[0]


def do_checks(plan: Plan, device: torch.device, folder: Path, as_json: bool) -> bool:
    """Do the checks of a plan, into `checks.json`, `bench.json` and the tables of a folder.

    Returns:
        Whether none failed.

    Raises:
        UserError: a file of the results is damaged or cannot be written.
    """
    Published.read(folder)
    done = GpuChecks(environment=current_environment(device), checks=[])
    for check in checks(plan, device, lambda case: save(folder, case)):
        done = done.model_copy(update={"checks": [*done.checks, check]})
        _write(folder / "checks.json", done)
        (err if as_json else out).print(f"{check.name}: {check.in_words()}")
    files = [folder / "checks.json", *build_report(folder)]
    if as_json:
        print_json({**done.to_json(), "files": [str(path) for path in files]})
    else:
        out.print(str(folder / "checks.json"))
    return all(check.passed is not False for check in done.checks)


def _write(path: Path, done: GpuChecks) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, done.to_json())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
