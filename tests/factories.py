"""Complete, valid results in round numbers, one place for all tests.

Every factory takes changes of any field; `__` reaches into a part of the value:
`make_result("sst2", "top-2", metric__value=None, curve=[(0, 0.0, 1.0)])`. Names and types are checked
as in a file that is read.
"""

from collections.abc import Mapping, Sequence

from repro.results.analysis import Analysis
from repro.results.base import Record
from repro.results.bench import BenchCase
from repro.results.environment import Environment
from repro.results.parallel import ParallelCase
from repro.results.published import Published
from repro.results.records import RoutingSummary, StepRecord
from repro.results.run import RunResult
from repro.results.study import Study

METRICS = {
    "sst2": "accuracy",
    "wmt19": "bleu",
    "squad": "f1",
    "cnn_dailymail": "rouge1",
    "wikitext": "perplexity",
    "soda": "perplexity",
}
"""Task of the paper -> its metric, in the order of Table 3."""
TIMES = {
    "grouped": {0.8: (120, 0.36), 0.5: (150, 0.45), 0.0: (200, 0.5)},
    "transformers-eager": {0.8: (120, 0.9), 0.0: (200, 1.0)},
    "dense": {0.8: (120, 0.3), 0.0: (200, 0.5)},
}
"""Implementation -> share of top-1 tokens -> rows, and seconds of forward and backward."""


def make_environment(**changes: object) -> Environment:
    """Make the circumstances of a run on a machine that does not exist."""
    values: dict[str, object] = {
        "python": "3.11.7",
        "system": "Linux",
        "processor": "a processor",
        "cores": 2,
        "openmp": {},
        "packages": {"torch": "9.9", "transformers": "8.8"},
        "git_commit": "0123456789abcdef",
        "git_modified": False,
        "device": "cpu",
        "threads": 1,
        "load_average": 0.5,
        "processes": 1,
        "precision": "fp32",
        "experts_backend": "grouped",
    }
    return Environment.model_validate(_changed(values, changes))


def make_routing(share_multi_expert: float, **changes: object) -> RoutingSummary:
    """Make the routing of two equal layers with this share of two-expert tokens."""
    shares = [0.0, 1 - share_multi_expert, share_multi_expert]
    values: dict[str, object] = {
        "mean_experts": 1 + share_multi_expert,
        "share_by_count": shares,
        "share_by_count_per_layer": [shares, shares],
        "load_cv_per_layer": [0.125, 0.25],
        "logit_std_per_layer": [1.0, 2.0],
    }
    return RoutingSummary.model_validate(_changed(values, changes))


def make_step(step: int = 1, **changes: object) -> StepRecord:
    """Make the record of a step of a dense model: half a second for 50 tokens."""
    values: dict[str, object] = {
        "step": step,
        "epoch": 0,
        "loss": 1.0,
        "auxiliary_loss": 0.0,
        "gradient_norm": 1.0,
        "learning_rate": 0.5,
        "seconds": 0.5,
        "tokens": 50,
        "padded_tokens": 60,
        "mean_experts": None,
        "share_multi_expert": None,
    }
    return StepRecord.model_validate(_changed(values, changes))


def make_result(task: str = "sst2", gate: str = "adaptive", seed: int = 0, **changes: object) -> RunResult:
    """Make a finished run whose loss falls from 1 to 0.5 in 20 steps of half a second.

    Top-2 gives two experts to all tokens, top-1 to none, other gates to a quarter. The fields that older
    results lack, `cpu_steal_fraction` and `interleaved_with`, are absent.

    Args:
        gate: a gate, or a variant of a study as `ratio 1.25`.
    """
    gate = gate.replace(" ", "-")
    dense = gate == "dense"
    routing = None if dense else make_routing({"top-2": 1.0, "top-1": 0.0}.get(gate, 0.25))
    flops = {"per_token": 4.0, "per_token_executed": 6.0, "macs_per_token": 2.0, "dense_per_token": 3.0}
    name = METRICS.get(task, "acc_norm")
    metric = {"name": name, "value": 0.5, "higher_is_better": name != "perplexity", "count": 8}
    values: dict[str, object] = {
        "schema_version": 2,
        "run_id": f"{task}-{gate}-s{seed}-00000000",
        "task": task,
        "gate": gate,
        "scale": "mini",
        "seed": seed,
        "config": {"task": task, "gate": gate, "seed": seed}
        | {"model": {"checkpoint": None}, "training": {"schedule": "wsd"}},
        "status": "finished",
        "steps": 20,
        "epochs": 2.0,
        "tokens": 1000,
        "train_seconds": 10.0,
        "seconds_per_step": 0.5,
        "seconds_per_step_by_epoch": [0.5, 0.5],
        "tokens_per_second": 100.0,
        "metric": metric,
        "metrics": {name: 0.5},
        "metric_top1": None if dense else metric | {"value": 0.25},
        "eval_loss": 0.5,
        "dev_loss": 0.5,
        "curve": [[0, 0.0, 1.0], [10, 5.0, 0.75], [20, 10.0, 0.5]],
        "flops": flops,
        "flops_eval": flops,
        "routing": routing,
        "curriculum": None,
        "routing_eval": routing,
        "parameters": {"total": 7, "active": 5},
        "peak_memory_bytes": 11,
        "data": {
            "source": "synthetic",
            "counts": {"train": 64, "dev": 8, "validation": 8},
            "fingerprints": {"train": "0" * 16, "dev": "1" * 16, "validation": "2" * 16},
            "skipped": {"train": 0, "dev": 0, "validation": 0},
            "features": {"train": 64, "dev": 8, "validation": 8},
            "cut": {"train": 0.0, "dev": 0.0, "validation": 0.0},
        },
        "environment": make_environment(experts_backend=None if dense else "grouped"),
    }
    return RunResult.model_validate(_changed(values, changes))


def make_analysis(task: str = "sst2", gate: str = "adaptive", seed: int = 0, **changes: object) -> Analysis:
    """Make an analysis of two encoder layers and four experts; 30 % of the tokens get two experts.

    "hardly" gets two far more often than others, "film" and "." less often. Each of the ten sequences is a
    group of its own, with 100 tokens.
    """
    everything = [1000, [200, 400], [100] * 10, [60] * 10]
    negation = [40, [38, 34], [4] * 10, [8] * 6 + [6] * 4]
    encoder = {
        "all": everything,
        "words": {
            "all": [800, [200, 320]],
            "types": 3,
            "rows": [
                [".", 50, [0, 0], 50, [0, 0], [5] * 10, [0] * 10],
                ["film", 30, [3, 3], 30, [3, 3], [3] * 10, [2] * 3 + [0] * 7],
                ["hardly", 20, [20, 18], *negation],
            ],
        },
        "categories": {
            "negation": negation,
            "content": [960, [162, 366], [96] * 10, [52] * 6 + [54] * 4],
        },
        "parts": {"text": everything},
        "positions": [[100, [20, 40], [10] * 10, [6] * 10]] * 10,
        "lengths": {"9-16": everything},
        "frequency": {"ranks 1-10": everything},
    }
    values: dict[str, object] = {
        "version": 2,
        "run_id": f"{task}-{gate}-s{seed}-00000000",
        "task": task,
        "gate": gate,
        "scale": "mini",
        "seed": seed,
        "threshold": 0.1,
        "data": {"split": "validation", "source": "synthetic", "sequences": 10, "of": 10},
        "layers": [
            {"layer": 0, "stack": "encoder", "tokens": 1000, "by_count": [0, 800, 200], "clear": 600}
            | {"load": [300, 300, 300, 300], "mass": [0.25] * 4},
            {"layer": 1, "stack": "encoder", "tokens": 1000, "by_count": [0, 600, 400], "clear": 500}
            | {"load": [1400, 0, 0, 0], "mass": [0.7, 0.1, 0.1, 0.1]},
        ],
        "stacks": {"encoder": encoder},
        "activations": {
            "layer": 1,
            "tokens": [["film", [0.7, 0.1, 0.1, 0.1]], ["hardly", [0.3, 0.3, 0.2, 0.2]]],
        },
        "training": {"steps": [10, 20], "share_two": [[0.5, 0.3], [0.2, None]]},
    }
    return Analysis.model_validate(_changed(values, changes))


def make_case(times: Mapping[str, Mapping[float, tuple[int, float]]] = TIMES, **changes: object) -> BenchCase:
    """Make a case of the layer benchmark; by default 40 % less computation takes our layer 28 % less time.

    Args:
        times: implementation -> share of top-1 tokens -> rows, and seconds of forward and backward.
    """
    rows = [
        {"implementation": name, "share_top1": share, "rows": count, "both_seconds": seconds}
        | {"forward_seconds": 0.1, "forward_spread": None, "both_spread": None}
        for name, shares in times.items()
        for share, (count, seconds) in shares.items()
    ]
    values: dict[str, object] = {
        "size": "bert",
        "d_model": 768,
        "d_hidden": 3072,
        "experts": 16,
        "tokens": 100,
        "precision": "fp32",
        "repeats": 3,
        "environment": make_environment(),
        "rows": rows,
    }
    return BenchCase.model_validate(_changed(values, changes))


def make_study(
    name: str, tasks: Mapping[str, Mapping[str, Sequence[str]]], failed: Mapping[str, str] | None = None
) -> Study:
    """Make a study that asked for these runs: task -> variant -> run ids."""
    lists = {
        task: {variant: list(run_ids) for variant, run_ids in variants.items()}
        for task, variants in tasks.items()
    }
    return Study(study=name, tasks=lists, failed=dict(failed or {}))


def make_published(
    *results: RunResult,
    studies: Sequence[Study] = (),
    analyses: Sequence[Analysis] = (),
    bench: Sequence[BenchCase] = (),
    parallel: Sequence[ParallelCase] = (),
) -> Published:
    """Make what a scale has published; a run of no study is in no table that compares."""
    return Published(
        results={result.run_id: result for result in results},
        studies={study.study: study for study in studies},
        analyses={analysis.run_id: analysis for analysis in analyses},
        bench=bench,
        parallel=parallel,
    )


def compare_gates(*results: RunResult, study: str = "schemes") -> Published:
    """Publish a study that asked for just these runs; its variants are their gates."""
    tasks: dict[str, dict[str, list[str]]] = {}
    for result in results:
        tasks.setdefault(result.task, {}).setdefault(result.gate, []).append(result.run_id)
    return make_published(*results, studies=[make_study(study, tasks)])


def compare_variants(
    study: str,
    variants: Mapping[str, Sequence[RunResult | str]],
    task: str = "sst2",
    failed: Mapping[str, str] | None = None,
) -> Published:
    """Publish a study of one task: variant -> finished runs, and the run ids of missing ones."""
    run_ids = {
        variant: [one if isinstance(one, str) else one.run_id for one in runs]
        for variant, runs in variants.items()
    }
    finished = [one for runs in variants.values() for one in runs if not isinstance(one, str)]
    return make_published(*finished, studies=[make_study(study, {task: run_ids}, failed)])


def _changed(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Replace fields; `a__b` is field `b` of part `a`."""
    changed = dict(values)
    parts: dict[str, dict[str, object]] = {}
    for name, value in changes.items():
        field, _, rest = name.partition("__")
        if rest:
            parts.setdefault(field, {})[rest] = value
        else:
            changed[field] = value
    for field, inner in parts.items():
        part = changed[field]
        plain = part.to_json() if isinstance(part, Record) else part
        if not isinstance(plain, Mapping):
            raise TypeError(f"{field} has no fields, so {', '.join(inner)} cannot be changed")
        changed[field] = _changed(plain, inner)
    return changed
