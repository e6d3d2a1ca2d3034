"""Read the scale files, `experiments/<scale>.toml`. No torch here: lists and reports need the names."""

import tomllib
from pathlib import Path

from repro.config import Sections
from repro.errors import UserError, unknown

_PACKAGE = Path(__file__).parent.parent


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
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"experiments/{path.name}: {error}") from error
