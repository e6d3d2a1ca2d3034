"""`checks.json`: what the checks on a CUDA device came to."""

from repro.results.base import Record
from repro.results.environment import Environment


class GpuCheck(Record):
    """One check."""

    name: str
    passed: bool | None
    """None: it was not done."""
    numbers: dict[str, float]
    """What was measured, by what it is."""
    note: str
    """Why it failed or was not done."""

    def in_words(self) -> str:
        """Say what it came to, on one line."""
        state = {True: "passed", False: "failed", None: "not done"}[self.passed]
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.numbers.items())
        return " ".join(filter(None, (state, numbers, self.note)))


class GpuChecks(Record):
    """All checks, in the order in which they were done."""

    environment: Environment
    checks: list[GpuCheck]
