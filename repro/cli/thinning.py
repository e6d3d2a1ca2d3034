"""Pretrained MoE models with other gates, without training: `eval --gate`, `ablate --no-train`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.cli.console import Row, out, plain_table, print_json
from repro.errors import UserError
from repro.report.build import build_report
from repro.report.numbers import quantity
from repro.report.tables import thinning
from repro.results.files import write_json
from repro.results.published import Published
from repro.results.thinning import Thinning, Thinnings, ThinPoint
from repro.run.contradictions import Override
from repro.run.thin import Request, own_k, thin

_VALUES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
"""Those of the study, and both ends: of equal experts alone, and nearly the model itself, which is T = 1."""


def request(
    model: str,
    *,
    task: str,
    scale: str,
    data: str | Path | None,
    split: str,
    options: Mapping[str, tuple[str, Any]],
) -> Request:
    """Put together what the user asks for.

    Args:
        options: option as typed -> key and value.
    """
    return Request(
        model=model,
        task=task,
        scale=scale,
        data=None if data is None else str(data),
        split=split,
        overrides={key: Override(value, option) for option, (key, value) in options.items()},
    )


def evaluate_gate(asked: Request, gate: str, as_json: bool) -> None:
    """Evaluate a model with a gate, beside its own top-k, and print both.

    Raises:
        UserError: as `thin`.
    """
    curve = thin(asked, [(gate, {})])
    if as_json:
        print_json(curve.to_json())
        return
    out.print(f"{curve.model} {curve.task} {curve.split}, without training", markup=False)
    out.print(plain_table([_line(point, curve) for point in (curve.own, *curve.points)]))
    out.print(f"{curve.own.metric.count} examples")


def _line(point: ThinPoint, curve: Thinning) -> Row:
    shares = point.routing.share_by_count or []
    by_count = ", ".join(f"{count}: {share:.1%}" for count, share in enumerate(shares) if share)
    return {
        "gate": f"{point.gate} (its own)" if point is curve.own else point.gate,
        point.metric.name: point.metric.value,
        "loss": point.eval_loss,
        "experts": point.routing.mean_experts,
        "share by number": by_count,
        "FLOPs/token": quantity(point.flops.per_token),
    }


def run_curves(requests: Sequence[Request], values: Sequence[float], scale: Path, as_json: bool) -> None:
    """Measure quality against experts per token by threshold, and rebuild the tables of the scale.

    The gate is `adaptive`, or for models with more than two experts a token its extension `adaptive-k`.

    Args:
        requests: one for each task.
        values: thresholds; none for the usual ones.

    Raises:
        UserError: as `thin`; a file of the scale's results is damaged, or the folder cannot be written.
    """
    Published.read(scale)
    for asked in requests:
        k = own_k(asked.model)
        gate, of_model = ("adaptive", {}) if k == 2 else ("adaptive-k", {"gate.k": Override(k, "MODEL")})
        gates = [
            (gate, {**of_model, "gate.threshold": Override(value, "--values")})
            for value in dict.fromkeys(values or _VALUES)
        ]
        _save(scale, thin(asked, gates))
    written = build_report(scale)
    published = Published.read(scale)
    if as_json:
        files = [str(path) for path in written]
        print_json({"tables": {"threshold": thinning.rows(published)}, "files": files})
        return
    out.print(plain_table(thinning.shown(published)))
    for note in thinning.notes(published):
        out.print(f"* {note}", markup=False)
    out.print(str(scale / thinning.FILE), markup=False)


def _save(scale: Path, curve: Thinning) -> None:
    """Put a curve into `thinning.json`, in place of an older measurement of it."""
    path = scale / "thinning.json"
    curves = Thinnings.read(path).curves if path.exists() else []
    kept = [*(one for one in curves if one.key != curve.key), curve]
    try:
        scale.mkdir(parents=True, exist_ok=True)
        write_json(path, Thinnings(curves=sorted(kept, key=lambda one: one.key)).to_json())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
