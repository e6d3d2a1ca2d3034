"""Submit jobs through submitit, and ask what became of them: to Slurm, or to this machine in its place."""

import importlib
import importlib.util
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

from repro.errors import UserError, notice, one_line, unknown
from repro.results.jobs import Launcher
from repro.run.scales import JobSettings

if TYPE_CHECKING:
    import submitit

QUEUED = "PENDING"
"""State of a job that has not begun; every other state is of one that has."""
_STATES = "PENDING,RUNNING,SUSPENDED,CONFIGURING,COMPLETING"
"""Of jobs that are not over."""
_ANY_NUMBER = 1000
"""Times that a job may run out of time, and be queued again."""
_SECONDS_TO_SAVE = 180
"""How long before the end of its time a job is told; at most a quarter of it."""
_ANSWER_SECONDS = 60.0
_LOG_LEVEL = "SUBMITIT_LOG_LEVEL"
"""Variable that submitit reads when it is imported."""


class Scheduler:
    """Starts jobs as processes of this machine, which outlive the command."""

    launcher: Launcher = "processes"
    cluster = "local"
    """What submitit calls it."""
    poll_seconds = 1.0
    """How often it may be asked."""

    def __init__(self) -> None:
        self._own: dict[str, submitit.Job[Any]] = {}

    def submit(
        self,
        work: Callable[[], object],
        count: int,
        folder: Path,
        *,
        name: str,
        settings: JobSettings,
        cpus: int,
    ) -> list[str]:
        """Submit jobs that all do the same, and return their ids.

        Args:
            work: has a method `checkpoint`, as submitit describes it.
            folder: for what jobs print and what submitit keeps of them.
            name: of the jobs, as the scheduler lists them.
            cpus: of each job.

        Raises:
            UserError: the scheduler refuses them, in its own words, or the folder cannot be written.
        """
        submitit = load_submitit()
        if "%" in str(folder.absolute()):
            raise UserError(f"--out: {folder}: a scheduler takes % for its own; give a folder without")
        minutes = max(1, round(60 * settings.time))
        try:
            with redirect_stderr(io.StringIO()):
                executor = submitit.AutoExecutor(
                    folder,
                    cluster=self.cluster,
                    slurm_max_num_timeout=_ANY_NUMBER,
                    local_max_num_timeout=_ANY_NUMBER,
                )
                executor.update_parameters(
                    name=name,
                    timeout_min=minutes,
                    mem_gb=settings.memory,
                    gpus_per_node=settings.gpus or None,
                    cpus_per_task=cpus,
                    slurm_partition=settings.partition,
                    slurm_array_parallelism=count,
                    slurm_signal_delay_s=min(_SECONDS_TO_SAVE, 15 * minutes),
                )
                jobs = executor.submit_array([work] * count)
        except RuntimeError as error:  # what submitit makes of a refusal
            raise UserError(f"--launcher {self.launcher}: {one_line(error)}") from error
        except OSError as error:
            raise UserError(f"{folder}: no jobs could be submitted ({error.strerror})") from error
        self._own |= {job.job_id: job for job in jobs}
        return [job.job_id for job in jobs]

    def states(self, jobs: Sequence[str], folder: Path) -> dict[str, str]:
        """Return the states of the jobs that are not over.

        Args:
            folder: where they were submitted from.
        """
        return {job: "RUNNING" for job in jobs if self._is_alive(job, folder)}

    def cancel(self, jobs: Sequence[str]) -> None:
        """Take jobs out of the queue."""

    def _is_alive(self, job: str, folder: Path) -> bool:
        if job in self._own:
            return not self._own[job].done()
        with suppress(OSError):  # that number may have gone to another process since
            return str(folder.absolute()) in Path(f"/proc/{job}/cmdline").read_text(errors="replace")
        return False


class Slurm(Scheduler):
    """A cluster that is managed by Slurm."""

    launcher: Launcher = "slurm"
    cluster = "slurm"
    poll_seconds = 15.0

    def __init__(self) -> None:
        super().__init__()
        missing = [tool for tool in ("sbatch", "srun", "squeue", "scancel") if shutil.which(tool) is None]
        if missing:
            raise UserError(
                f"--launcher slurm: no {', '.join(missing)} here; give the command where jobs are submitted"
            )
        self._listed: dict[str, str] = {}

    def states(self, jobs: Sequence[str], folder: Path) -> dict[str, str]:
        """Return the states of the jobs that are not over; the last ones known if Slurm does not answer."""
        command = ["squeue", "--me", "--noheader", "--array", f"--states={_STATES}", "--format=%i %T"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=_ANSWER_SECONDS
            )
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "stderr", None) or error
            notice(f"squeue does not answer ({' '.join(str(reason).split())}); it is asked again")
            return {job: self._listed.get(job, QUEUED) for job in jobs}
        self._listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)
        return {job: self._listed[job] for job in jobs if job in self._listed}

    def cancel(self, jobs: Sequence[str]) -> None:
        """Take jobs out of the queue; those that have ended meanwhile do not matter."""
        if jobs:
            with suppress(OSError, subprocess.SubprocessError):  # it is asked again
                subprocess.run(["scancel", *jobs], capture_output=True, check=False, timeout=_ANSWER_SECONDS)


def scheduler_of(launcher: str) -> Scheduler:
    """Return the scheduler that a launcher stands for.

    Raises:
        UserError: there is none of that name, or something that it needs is missing.
    """
    if launcher not in get_args(Launcher):
        raise UserError("--launcher: " + unknown("launcher", launcher, ["local", *get_args(Launcher)]))
    if importlib.util.find_spec("submitit") is None:
        raise UserError(f"--launcher {launcher}: submitit is not installed; pip install 'repro[cluster]'")
    return Slurm() if launcher == "slurm" else Scheduler()


def load_submitit() -> ModuleType:
    """Import submitit, and let it not configure logging: that would close what other libraries write to."""
    before = os.environ.get(_LOG_LEVEL)
    os.environ[_LOG_LEVEL] = "NOCONFIG"
    try:
        return importlib.import_module("submitit")
    finally:  # jobs, which inherit it, may say what they do
        if before is None:
            del os.environ[_LOG_LEVEL]
        else:
            os.environ[_LOG_LEVEL] = before


@contextmanager
def deaf_to_the_terminal() -> Iterator[None]:
    """Ignore Ctrl-C and a closed terminal for a moment; processes that are started then do so for good."""
    numbers = (signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
