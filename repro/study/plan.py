"""Plan the runs of a study."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro import paper, plugins
from repro.config import ModelConfig, RunConfig
from repro.errors import UserError
from repro.moe.backbones.base import load as load_backbone
from repro.results.files import RunFolder, RunPaths
from repro.run.contradictions import Override
from repro.run.model import check_family
from repro.run.resolve import resolve
from repro.run.scales import read_scale
from repro.study.definition import load_study
from repro.study.variants import (
    cannot_stand,
    chosen_variants,
    relative_settings,
    variant_settings,
    variants_of,
)


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a study."""

    variant: str
    """The row of the table that it belongs to."""
    config: RunConfig
    paths: RunPaths
    init_from: "PlannedRun | None" = None
    """The run from whose trained model it starts."""

    @property
    def folder(self) -> RunFolder:
        """Where it leaves its files."""
        return RunFolder(self.paths.results / self.config.scale / "runs" / self.config.run_id)

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return self.folder.result.exists()


def task_names(study: str, scale: str, chosen: Sequence[str]) -> list[str]:
    """Return the chosen tasks, or those of the paper that the scale describes, in its order, and the study's.

    Raises:
        UserError: one of them is unknown.
    """
    definition = load_study(study)
    if not chosen:
        also = [task for task in definition.also if definition.sections_of(task, scale)]
        return [name for name in read_scale(scale) if name in paper.tasks()] + also
    return list(dict.fromkeys(plugins.resolve("tasks", name, where="--tasks: ")[0] for name in chosen))


def plan(
    study: str,
    *,
    tasks: Sequence[str],
    seeds: int,
    scale: str,
    data: str | None,
    overrides: Mapping[str, Override],
    results: Path,
    model: str | None = None,
    values: Sequence[float] = (),
    only: Sequence[str] = (),
) -> list[PlannedRun]:
    """Plan the runs of a study, in the order in which they are done: what is compared stands together.

    Settings that a variant fixes, or that mean nothing to it, do not apply to it. Variants that cannot
    stand in a task's model are left out. A run that starts from another's model is named by that run,
    so it can be planned before there is one.

    Beside the chosen variants stand those of the study whose runs, with the same settings and seeds, are
    finished: asking for a few rows takes none from the table.

    Args:
        model: a pretrained model from which every run starts; its family must be that of all tasks.
        values: what the study varies, in place of its own values.
        only: these variants; all by default.

    Raises:
        UserError: with the problems of all chosen runs, each once.
    """
    runs: list[PlannedRun] = []
    problems: dict[str, None] = {}
    chosen = chosen_variants(study, values, only)
    variants = variants_of(study, ()) | chosen
    for task in tasks:
        of_all, of_chosen = (
            variant_settings(study, some, overrides, task, scale) for some in (variants, chosen)
        )
        settings = of_all | of_chosen
        for seed in range(seeds):
            for label, variant in variants.items():
                if cannot_stand(variant.gate, scale, task):
                    continue
                try:
                    relative = relative_settings(study, variant, settings[label], scale, task)
                    config, paths = resolve(
                        task=task,
                        scale=scale,
                        gate=variant.gate,
                        seed=seed,
                        data=data,
                        model=model,
                        overrides=settings[label] | relative,
                        results=results,
                        sections=load_study(study).sections_of(task, scale),
                    )
                    runs.append(PlannedRun(variant=label, config=config, paths=paths))
                except UserError as error:
                    if label in chosen:
                        problems |= dict.fromkeys(error.problems)
    if model is not None:
        problems |= _misfits(runs)
    if problems:
        raise UserError(*problems)
    if not any(run.variant in chosen for run in runs):
        raise UserError(f"--variants: {', '.join(chosen)}: no place in a model of {', '.join(tasks)}")
    init_from = {label: variant.init_from for label, variant in variants.items() if variant.init_from}
    return _chosen_or_finished(_chained(runs, init_from), chosen)


def _misfits(runs: Iterable[PlannedRun]) -> dict[str, None]:
    """Say why a model is not one for these tasks; one look a task, for the hub takes its time."""
    problems: dict[str, None] = {}
    for run in {run.config.task: run for run in runs}.values():
        try:
            check_family(run.config, run.paths)
        except UserError as error:
            problems |= dict.fromkeys(error.problems)
    return problems


def _chosen_or_finished(runs: Sequence[PlannedRun], chosen: Container[str]) -> list[PlannedRun]:
    """Keep the runs of chosen rows, and of those that lack none of their runs."""
    lacking = {(run.config.task, run.variant) for run in runs if not run.finished}
    return [run for run in runs if run.variant in chosen or (run.config.task, run.variant) not in lacking]


def _chained(runs: Sequence[PlannedRun], init_from: Mapping[str, str]) -> list[PlannedRun]:
    """Link each run of a variant that starts from another's model to the run of its task and seed.

    Of a task whose checkpoint is a pretrained MoE model, that is what the first run would have made: it is
    left out, and the others start from the checkpoint.
    """
    by_variant = {(run.config.task, run.config.seed, run.variant): run for run in runs}
    chained = []
    for run in runs:
        if _is_pretrained_moe(run.config):
            chained += [] if run.variant in init_from.values() else [run]
        elif run.variant in init_from:
            first = by_variant[run.config.task, run.config.seed, init_from[run.variant]]
            chained.append(_continued(run, first))
        else:
            chained.append(run)
    return chained


def _is_pretrained_moe(config: RunConfig) -> bool:
    backbone = load_backbone(config.model.backbone)
    return config.model.checkpoint is not None and backbone.own_router(backbone.CONFIG()) is not None


def _continued(run: PlannedRun, first: PlannedRun) -> PlannedRun:
    """Let a run start from the model of another, which brings tokenizer, sizes and experts.

    The id of the first run stands for everything that decides its numbers, so it names the model.
    """
    model = ModelConfig(backbone=first.config.model.backbone, checkpoint=f"run:{first.config.run_id}")
    experts = replace(run.config.experts, init="random", scale="none")
    return replace(
        run,
        config=replace(run.config, model=model, experts=experts),
        paths=replace(run.paths, model=first.folder.model),
        init_from=first,
    )


def together(plans: Iterable[Sequence[PlannedRun]]) -> list[PlannedRun]:
    """Join the runs of several studies, each once, in the order in which they can be interleaved.

    Those that start from another's model come last.
    """
    runs: dict[str, PlannedRun] = {}
    for planned in plans:
        for run in planned:
            runs.setdefault(run.config.run_id, run)
    tasks = list(dict.fromkeys(run.config.task for run in runs.values()))
    return sorted(
        runs.values(),
        key=lambda run: (tasks.index(run.config.task), run.config.seed, run.init_from is not None),
    )
