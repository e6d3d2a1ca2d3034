"""Time the layer of Table 1 with its experts spread over processes of this machine."""

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from repro.bench.cases import Case
from repro.bench.spread_layer import SpreadLayer
from repro.errors import UserError
from repro.machine import reuse_freed_memory
from repro.results.files import write_json
from repro.results.parallel import ParallelCase
from repro.signals import started_deaf_to

_POLL_SECONDS = 0.2


def measure(
    case: Case, processes: int, *, repeats: int, progress: Callable[[], None] = lambda: None
) -> ParallelCase:
    """Time a layer in processes of this machine, on its GPUs if it has as many, beside its prediction.

    Args:
        case: `tokens` are those of each process.
        processes: they divide the experts.
        repeats: rounds after one to warm up; medians are taken.
        progress: called after every round.

    Raises:
        UserError: a process failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with started_deaf_to(signal.SIGINT):
            running: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
                _work, args=(processes, case, repeats, folder), nprocs=processes, join=False, daemon=True
            )
        told = 0
        try:
            finished = False
            while not finished:
                finished = running.join(timeout=_POLL_SECONDS, grace_period=_POLL_SECONDS)
                rounds = len(list(folder.glob("round-*")))
                for _ in range(told, rounds):
                    progress()
                told = rounds
        except ProcessException as error:
            raise UserError(f"--parallel {processes}: {_reason(error)}") from error
        finally:
            for process in running.processes:
                process.kill()
                process.join()
        return ParallelCase.read(folder / "case.json")


def _reason(error: ProcessException) -> str:
    """Return the last line of what a process said when it failed, or by which signal it ended."""
    return str(error).strip().splitlines()[-1]


def _work(rank: int, processes: int, case: Case, repeats: int, folder: Path) -> None:
    """Measure in one of the processes; the first writes the outcome, and an empty file after each round."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    reuse_freed_memory()
    on_gpus = torch.cuda.is_available() and torch.cuda.device_count() >= processes
    device = torch.device("cuda", rank) if on_gpus else torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
    dist.init_process_group(
        "nccl" if on_gpus else "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes
    )
    try:
        layer = SpreadLayer(case, device)
        for number in range(repeats + 1):
            layer.round(counts=number > 0)
            if rank == 0:
                (folder / f"round-{number}").touch()
        outcome = layer.outcome()
        if rank == 0:
            write_json(folder / "case.json", outcome.to_json())
        dist.barrier()
    finally:
        dist.destroy_process_group()
