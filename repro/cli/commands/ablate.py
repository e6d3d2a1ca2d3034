"""`repro ablate`: the runs of studies and their tables."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from repro.cli.arguments import (
    Json,
    Model,
    Results,
    Source,
    comma_separated,
    numbers,
    quiet_libraries,
    repeatable,
    settings_by_option,
)
from repro.cli.console import print_rows
from repro.errors import UserError

Studies = Annotated[
    list[str],
    typer.Argument(
        metavar="STUDY...",
        help="Any of schemes (Table 3), threshold (Table 5), curriculum (Table 6), gates, adamoe, weights,"
        " learning-rate.",
    ),
]
Variants = Annotated[
    str, typer.Option(help="Rows to run, separated by commas, e.g. top-2,adaptive; all by default.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of every run.", metavar="KEY=VALUE")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List the runs and what they will take; run nothing.")
]
Turns = Annotated[
    int,
    typer.Option(
        min=0, help="Runs of a task and seed take turns of so many steps; 0: each trains to its end."
    ),
]
LaneCount = Annotated[
    int | None,
    typer.Option(
        "--lanes", min=1, max=256, help="Runs that work at the same time; cores / --threads by default."
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, max=256, help="Threads of each; by default as the scale says.")
]
AtOnce = Annotated[
    int | None,
    typer.Option(min=1, help="Most open runs; by default as many as memory allows (see --dry-run)."),
]
LauncherName = Annotated[
    str,
    typer.Option(
        "--launcher",
        help="local: this command does the runs; slurm: jobs of a cluster do; processes: as slurm, but jobs"
        " are processes of this machine.",
    ),
]
JobCount = Annotated[
    int | None,
    typer.Option("--jobs", min=1, max=1000, help="Most jobs; by default one for each task and seed."),
]
Partition = Annotated[
    str | None, typer.Option(help="Of the cluster; by default as the scale or the cluster says.")
]
Gpus = Annotated[int | None, typer.Option(min=0, max=64, help="GPUs of each job; none by default.")]
Gigabytes = Annotated[
    float | None, typer.Option("--memory", min=0.5, help="Gigabytes of each job; by default the cluster's.")
]
Hours = Annotated[
    float | None,
    typer.Option("--time", min=0.05, max=10_000, help="Hours of each job, which then is queued again; 4."),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=4096,
        help="With --dry-run: of the launch of each run; by default as many as share its experts, or one.",
    ),
]
NoTrain = Annotated[
    bool,
    typer.Option(
        "--no-train",
        help="With threshold and --model: a pretrained MoE model as it is, tasks wikitext by default.",
    ),
]


def command(
    studies: Studies,
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas; all by default.")] = "",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each row, with seeds 0, 1, ...")] = 1,
    scale: Annotated[str, typer.Option(help="mini, small or paper: a file in experiments/.")] = "mini",
    data: Source = None,
    model: Model = None,
    values: Annotated[str, typer.Option(help="With threshold: other values, separated by commas.")] = "",
    variants: Variants = "",
    settings: Settings = None,
    turns: Turns = 10,
    no_train: NoTrain = False,
    lanes: LaneCount = None,
    threads: Threads = None,
    at_once: AtOnce = None,
    launcher: LauncherName = "local",
    jobs: JobCount = None,
    partition: Partition = None,
    gpus: Gpus = None,
    memory: Gigabytes = None,
    time: Hours = None,
    dry_run: DryRun = False,
    processes: Processes = None,
    out_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Do the missing runs of studies and write their tables.

    Several runs work at the same time, each on CPU cores of its own, and those of a task and seed take
    turns, so that their times can be compared. Finished runs are not repeated, unfinished ones are
    continued; a run that fails does not stop the others. Finished rows with the same settings stay in the
    tables beside those asked for. Studies given together share the runs that they have in common. With
    --launcher slurm jobs of a cluster do the runs.
    """
    _require_dry_run(processes, dry_run)
    quiet_libraries()
    if no_train:
        unused = {"--seeds": seeds > 1, "--variants": variants, "--lanes": lanes, "--threads": threads}
        unused |= {"--at-once": at_once, "--dry-run": dry_run, "--launcher": launcher != "local"}
        pretrained = _to_thin(studies, model, unused)
        _thin(pretrained, tasks, scale, data, values, settings, out_folder, as_json)
        return
    from repro.cli.cluster import Working, scheduler_for, way_of
    from repro.cli.studies import dry_run_rows, run_studies
    from repro.run.contradictions import Override
    from repro.run.scales import read_scale, threads_of
    from repro.study.plan import plan, task_names, together
    from repro.study.variants import names_by_study

    names = _members(studies, values)
    read_scale(scale)
    given = {"jobs": jobs, "partition": partition, "gpus": gpus, "memory": memory, "time": time}
    scheduler, job_settings = scheduler_for(launcher, given, scale)
    by_option = settings_by_option({}, settings)
    numbers_varied = numbers("--values", values)
    only = names_by_study(names, numbers_varied, _labels(variants))
    plans = {
        study: plan(
            study,
            tasks=task_names(study, scale, comma_separated(tasks)),
            seeds=seeds,
            scale=scale,
            data=data,
            model=model,
            overrides={key: Override(value, option) for option, (key, value) in by_option.items()},
            results=out_folder,
            values=numbers_varied,
            only=only[study],
        )
        for study in names
    }
    if dry_run:
        print_rows("runs", dry_run_rows(together(plans.values()), processes), as_json)
        return
    working = Working(lanes=lanes, threads=threads or threads_of(scale), turns=turns, at_once=at_once)
    way = way_of(plans, out_folder / scale, working, scheduler, job_settings)
    failed = run_studies(plans, out_folder / scale, way, command=repeatable(sys.argv[1:]), as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _members(studies: list[str], values: str) -> list[str]:
    """Return the studies that names stand for, each once.

    Raises:
        UserError: there is no such study, or several are to have the same values.
    """
    from repro.study.definition import resolve_study

    names = list(dict.fromkeys(resolve_study(study) for study in studies))
    if len(names) > 1 and values:
        raise UserError(f"--values: give one study, not {', '.join(names)}")
    return names


def _labels(variants: str) -> list[str]:
    """Split labels of rows, which may have spaces in them, at their commas."""
    return [label for part in variants.split(",") if (label := part.strip())]


def _require_dry_run(processes: int | None, dry_run: bool) -> None:
    if processes is not None and not dry_run:
        raise UserError(
            "--processes: has no effect without --dry-run; torchrun starts the processes of a run"
        )


def _thin(
    model: str,
    tasks: str,
    scale: str,
    data: str | None,
    values: str,
    settings: list[str] | None,
    out_folder: Path,
    as_json: bool,
) -> None:
    """Draw the curve of quality against experts per token of a pretrained MoE model."""
    from repro.cli.thinning import request, run_curves

    options = settings_by_option({}, settings)
    asked = [
        request(model, task=task, scale=scale, data=data, split="validation", options=options)
        for task in comma_separated(tasks) or ["wikitext"]
    ]
    run_curves(asked, numbers("--values", values), out_folder / scale, as_json)


def _to_thin(studies: list[str], model: str | None, unused: Mapping[str, object]) -> str:
    """Return the model of `--no-train`.

    Args:
        unused: option -> what was given, of those that mean something to trainings alone.

    Raises:
        UserError: with every option that is missing, or has no effect.
    """
    problems = [f"{option}: has no effect with --no-train" for option, given in unused.items() if given]
    if [study.replace("_", "-") for study in studies] != ["threshold"]:
        problems.append(f"--no-train: shows the study threshold alone, not {', '.join(studies)}")
    if model is None:
        problems.append("--no-train: give a pretrained MoE model with --model")
    if problems:
        raise UserError(*problems)
    assert model is not None
    return model
