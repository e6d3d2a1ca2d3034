"""Processes that are started deaf to a signal."""

import subprocess
import sys
from pathlib import Path

# A new interpreter: only where no process of `multiprocessing` runs yet, its first one unblocks signals.
SCRIPT = """
import multiprocessing
import signal

from repro.signals import started_deaf_to


def blocked():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def tell(sender):
    sender.send(blocked())


if __name__ == "__main__":
    before = blocked()
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe()
    processes = [context.Process(target=tell, args=(sender,)) for _ in range(2)]
    with started_deaf_to(signal.SIGINT, signal.SIGUSR2):
        for process in processes:
            process.start()
    assert blocked() == before
    for process in processes:
        assert receiver.poll(60)
        print(*sorted(signal.Signals(number).name for number in receiver.recv()))
        process.join()
"""


def test_the_first_process_and_the_next_are_deaf(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, ["SIGINT SIGUSR2"] * 2, "")
