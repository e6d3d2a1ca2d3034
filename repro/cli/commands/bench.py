"""`repro bench`: the time of one layer, or of the parts of a step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from repro.cli.arguments import Json, Results, comma_separated, quiet_libraries
from repro.errors import UserError


def _refuse_without_effect(given: Mapping[str, bool]) -> None:
    """Refuse options that the first one given leaves without effect.

    Args:
        given: option -> whether it was given, in the order in which one decides.

    Raises:
        UserError: more than one was given.
    """
    first, *others = [option for option, is_given in given.items() if is_given] or [""]
    if others:
        raise UserError(*(f"{option}: has no effect with {first}" for option in others))


def command(
    sizes: Annotated[
        str, typer.Option(help="Layers: bert, gpt2, fsmt, mixtral, olmoe, separated by commas.")
    ] = "bert",
    tokens: Annotated[str, typer.Option(help="Tokens of a batch, separated by commas.")] = "624,3072",
    precision: Annotated[str, typer.Option(help="fp32, bf16, or both.")] = "fp32,bf16",
    experts: Annotated[
        int | None,
        typer.Option(min=2, help="Experts of the layer; by default 16, or those of Mixtral and OLMoE."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; medians are reported.")] = 5,
    only: Annotated[str, typer.Option(help="Implementations, separated by commas; all by default.")] = "",
    parallel: Annotated[
        str | None,
        typer.Option(help="Spread the experts over so many processes, separated by commas.", metavar="N"),
    ] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Do every check that needs a CUDA device, into results/gpu.")
    ] = False,
    task: Annotated[
        str | None, typer.Option(help="Time a training step of this task instead, part by part.")
    ] = None,
    gate: Annotated[
        str, typer.Option(help="With --task: the gate; several, separated by commas, are compared.")
    ] = "top-2",
    steps: Annotated[int, typer.Option(min=2, help="With --task: steps that are timed.")] = 20,
    data: Annotated[
        str | None, typer.Option(help="With --task: synthetic, hub, or a data folder.", metavar="SOURCE")
    ] = None,
    scale: Annotated[
        str, typer.Option(help="Scale of the task, or whose results the table joins; also `gpu`.")
    ] = "mini",
    out_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Time one MoE layer (Table 1), or the steps of a task with --task.

    A layer is timed with forced shares of top-1 tokens, side by side with other implementations; with
    --parallel in several processes, beside a prediction.
    Run it with nothing else on the machine.
    """
    _refuse_without_effect(
        {"--gpu": gpu, "--task": task is not None, "--parallel": parallel is not None, "--only": bool(only)}
    )
    quiet_libraries()
    if gpu:
        from repro.cli.gpu_checks import run_gpu_checks

        run_gpu_checks(out_folder / "gpu", as_json)
        return
    from repro.cli.benches import cases, run_bench, run_parallel_bench
    from repro.cli.step_benches import run_gate_bench, run_step_bench
    from repro.run.scales import read_scale

    if task is not None:
        gates = comma_separated(gate)
        if len(gates) > 1:
            run_gate_bench(task, gates, scale=scale, data=data, steps=steps, repeats=repeats, as_json=as_json)
        else:
            run_step_bench(task, gate, scale=scale, data=data, steps=steps, as_json=as_json)
        return
    if scale != "gpu":
        read_scale(scale)
    chosen = cases(comma_separated(sizes), comma_separated(tokens), comma_separated(precision), experts)
    if parallel is not None:
        processes = comma_separated(parallel)
        run_parallel_bench(chosen, processes, repeats=repeats, scale=out_folder / scale, as_json=as_json)
        return
    run_bench(
        chosen,
        repeats=repeats,
        only=comma_separated(only),
        scale=out_folder / scale,
        as_json=as_json,
    )
