"""Launches of several processes that need no imports: forked from a server that has done them."""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["launches", "trained_tiny"])
_SECONDS = 120


def launch(work: Callable[..., Any], processes: int, *arguments: object) -> list[Any]:
    """Call a function in every process of a launch, with the environment of `torchrun`.

    Returns:
        What it returned, by rank; an error in one of them is raised here.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pairs = [_CONTEXT.Pipe() for _ in range(processes)]
    running = [
        _CONTEXT.Process(target=_call, args=(theirs, rank, processes, port, work, arguments), daemon=True)
        for rank, (_, theirs) in enumerate(pairs)
    ]
    for process in running:
        process.start()
    for _, theirs in pairs:
        theirs.close()
    try:
        outcomes = [pickle.loads(ours.recv_bytes()) if ours.poll(_SECONDS) else TimeoutError() for ours, _ in pairs]
    finally:
        for process in running:
            process.kill()
            process.join()
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if errors:
        raise errors[0]
    return outcomes


def _call(
    channel: Connection,
    rank: int,
    processes: int,
    port: int,
    work: Callable[..., Any],
    arguments: tuple[object, ...],
) -> None:
    torch.set_num_threads(1)
    if processes > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    try:
        outcome = work(*arguments)
    except Exception as error:
        channel.send_bytes(pickle.dumps(error))
        raise
    # By value: tensors in shared memory would end with this process.
    channel.send_bytes(pickle.dumps(outcome))
