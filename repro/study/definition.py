"""Read what a study compares: `experiments/studies/<study>.toml`, checked and typed."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from repro.errors import UserError, unknown
from repro.results.base import describe
from repro.run.scales import experiments_folder, read_toml

Tree = dict[str, JsonValue]
"""Settings as nested tables: section -> key -> value."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Variant(_Table):
    """One row of a study's table: a gate with its settings."""

    gate: str
    tree: Tree = Field(default_factory=dict, alias="set")
    times: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Settings relative to what the scale or the user says: section -> key -> factor."""
    init_from: str | None = None
    """The variant from whose trained model it starts, of the same task and seed."""
    baseline: str | None = None
    """The variant whose loss is its target, in place of the study's."""

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Dotted key of `RunConfig` -> value."""
        return dict(flattened(self.tree))

    @property
    def factors(self) -> dict[str, float]:
        """Dotted key of `RunConfig` -> factor."""
        return {
            f"{section}.{key}": factor for section, keys in self.times.items() for key, factor in keys.items()
        }


class Varied(_Table):
    """What `--values` varies."""

    gate: str
    setting: str
    """Dotted key of `RunConfig`."""


class StudyDefinition(_Table):
    """The variants of a study, the table that shows them, and how those that go on are trained."""

    title: str
    """One line for `repro list studies`."""
    table: str
    """The member of `report/tables` that is printed after the study."""
    variants: dict[str, Variant]
    """Label -> variant; each is run on every task and seed."""
    tree: Tree = Field(default_factory=dict, alias="set")
    """Settings of all variants to which they mean something; a variant's own replace them."""
    baseline: str | None = None
    """The variant whose loss at its budget is the target of time; the others go on until they reach it."""
    values: Varied | None = None
    recipe: dict[str, Tree] = Field(default_factory=dict)
    """Settings of the variants that start from another's model: those of all (`base`), then by label."""
    also: list[str] = Field(default_factory=list)
    """Tasks on which it is done beside those of the paper, at the scales that `models` has for them."""
    models: dict[str, dict[str, dict[str, Tree]]] = Field(default_factory=dict)
    """Task -> scale -> sections of a run with another model; `model` is taken instead of the scale's."""
    recipes: dict[str, dict[str, Tree]] = Field(default_factory=dict)
    """Task with another model -> its recipe, over that of all tasks."""

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Settings of all variants; dotted key of `RunConfig` -> value."""
        return dict(flattened(self.tree))

    def baseline_of(self, label: str) -> str | None:
        """Return the variant whose loss at its budget is the target of a variant's time, if there is one."""
        variant = self.variants.get(label)
        return variant.baseline if variant and variant.baseline else self.baseline

    def sections_of(self, task: str, scale: str) -> dict[str, Tree]:
        """Return the sections of a task's other model at a scale; none where the scale's own is taken."""
        return self.models.get(task, {}).get(scale, {})

    def recipe_of(self, label: str, task: str, scale: str) -> dict[str, JsonValue]:
        """Merge the settings by which a variant is trained on; dotted key of `RunConfig` -> value."""
        recipes = [self.recipe]
        if self.sections_of(task, scale):
            recipes.append(self.recipes.get(task, {}))
        merged: dict[str, JsonValue] = {}
        for recipe in recipes:
            for name in ("base", label):
                merged |= flattened(recipe.get(name, {}))
        return merged


def flattened(tree: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Yield the leaves of nested tables under dotted keys, in their order."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _folder() -> Path:
    return experiments_folder() / "studies"


def study_names() -> list[str]:
    """List all studies, sorted; a study is a file."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def resolve_study(name: str) -> str:
    """Return the name of a study as its file has it; `-` and `_` are the same.

    Raises:
        UserError: there is no such study.
    """
    stem = name.replace("-", "_")
    if stem not in study_names():
        raise UserError(unknown("study", name, study_names()))
    return stem


def load_study(name: str) -> StudyDefinition:
    """Read the definition of a study.

    Raises:
        UserError: there is no such study, or its file is wrong.
    """
    return _read(_folder() / f"{resolve_study(name)}.toml")


@cache
def _read(path: Path) -> StudyDefinition:
    where = f"experiments/studies/{path.name}"
    try:
        definition = StudyDefinition.model_validate(read_toml(path, where))
    except ValidationError as error:
        raise UserError(f"{where}: {describe(error)}") from None
    if definition.baseline is not None and definition.baseline not in definition.variants:
        raise UserError(f"{where}: baseline: {unknown('variant', definition.baseline, definition.variants)}")
    for label, variant in definition.variants.items():
        for key, other in (("init_from", variant.init_from), ("baseline", variant.baseline)):
            if other is not None and other not in definition.variants:
                near = unknown("variant", other, definition.variants)
                raise UserError(f"{where}: variants.{label}.{key}: {near}")
    return definition
