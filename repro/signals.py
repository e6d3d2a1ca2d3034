"""Keep signals from processes until they can answer them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def started_deaf_to(*numbers: signal.Signals) -> Iterator[None]:
    """Block signals in the processes that `multiprocessing` starts inside, until they unblock them.

    Ctrl-C reaches all processes of a terminal: one that still imports would print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(numbers))
    try:
        # The first process needs it, and its start would unblock SIGINT and SIGTERM.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, set(numbers))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
