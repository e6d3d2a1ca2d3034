"""Read the scale files, `experiments/<scale>.toml`. No torch here: lists and reports need the names."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from repro.checks import shown
from repro.config import Sections
from repro.errors import UserError, one_line, unknown
from repro.results.base import Record, describe

_PACKAGE = Path(__file__).parent.parent


class JobSettings(Record):
    """What a job of a cluster is given, and how many there are."""

    partition: Annotated[str, Field(pattern=r"^\S+$")] | None = None
    """Where jobs wait; None: the default of the cluster."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    memory: Annotated[float, Field(ge=0.5)] | None = None
    """Gigabytes; None: as the cluster has it."""
    time: Annotated[float, Field(ge=0.05, le=10_000)] = 4.0
    """Hours, after which a job is stopped and queued again."""
    jobs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """At most; None: one for each task and seed."""


def experiments_folder() -> Path:
    """Return `experiments/` of the source checkout, or its copy inside an installed package."""
    packaged = _PACKAGE / "experiments"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "experiments"


def scale_names() -> list[str]:
    """List all scales, sorted; a scale is a file."""
    return sorted(path.stem for path in experiments_folder().glob("*.toml"))


def read_scale(name: str) -> dict[str, Sections]:
    """Read a scale file: `base` or a task -> sections.

    Raises:
        UserError: there is no such scale, or its file is not TOML.
    """
    if name not in scale_names():
        raise UserError("--scale: " + unknown("scale", name, scale_names()))
    path = experiments_folder() / f"{name}.toml"
    where = f"experiments/{path.name}"
    scale: dict[str, Sections] = read_toml(path, where)
    for task, sections in scale.items():
        _require_table(sections, f"{where}: {task}")
        for section, values in sections.items():
            _require_table(values, f"{where}: {task}.{section}")
    return scale


def threads_of(name: str) -> int | None:
    """Return how many threads each run of a study has at a scale; None: all cores.

    Raises:
        UserError: there is no such scale, or `base.lanes` of it is not what it should be.
    """
    lanes = read_scale(name).get("base", {}).get("lanes", {})
    where = f"experiments/{name}.toml: base.lanes"
    for option in lanes:
        if option != "threads":
            raise UserError(f"{where}: {unknown('option', option, ['threads'])}")
    threads = lanes.get("threads")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UserError(f"{where}.threads: expected a whole number from 1 on, got {shown(threads)}")
    return threads


def job_settings_of(name: str) -> JobSettings:
    """Return what jobs are given at a scale, if nothing else is said.

    Raises:
        UserError: there is no such scale, or `base.launcher` of it is not what it should be.
    """
    table = read_scale(name).get("base", {}).get("launcher", {})
    where = f"experiments/{name}.toml: base.launcher"
    for option in table:
        if option not in JobSettings.model_fields:
            raise UserError(f"{where}: {unknown('option', option, JobSettings.model_fields)}")
    try:
        return JobSettings.model_validate(table)
    except ValidationError as error:
        raise UserError(f"{where}.{describe(error)}") from error


def _require_table(value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a table, got {shown(value)}")


def read_toml(path: Path, where: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        where: names the file, for messages.

    Raises:
        UserError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise UserError(f"{where}: {one_line(error)}") from error
