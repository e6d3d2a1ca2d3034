"""The circumstances of a measurement: code, libraries, machine."""

from pydantic import Field

from repro import provenance
from repro.results.base import Record


class Environment(Record):
    """What a number depends on besides the configuration. Names no host, user or path."""

    python: str
    """Version of Python."""
    system: str
    """Operating system."""
    processor: str
    """Model of the CPU."""
    cores: int | None
    """Logical CPUs of the machine."""
    openmp: dict[str, str] = Field(default_factory=dict)
    """Variables of the environment that decide how OpenMP's threads run."""
    packages: dict[str, str | None]
    """Library -> version; None if it is not installed."""
    git_commit: str | None
    """Commit of the code; None outside a repository."""
    git_modified: bool | None
    """Whether files of the package or of `experiments/` differed from that commit."""
    device: str
    """`cpu`, or the name of the GPU."""
    threads: int
    """Threads of one PyTorch operation."""
    load_average: float
    """Processes that wanted to run, mean of the last minute, at the start."""
    processes: int | None = None
    """Processes of the launch; None for a layer benchmark."""
    precision: str | None = None
    """`fp32` or `bf16`; None for a layer benchmark, whose cases name theirs."""
    experts_backend: str | None = None
    """Expert back-end; None for a dense model."""

    @property
    def changed(self) -> list[str]:
        """What differs between this code and these libraries and those here."""
        return provenance.changed_since(self.git_commit, self.git_modified, self.packages)

    @property
    def machine(self) -> str:
        """What was computed on: the processor, and the GPU if there is one."""
        return self.processor if self.device == "cpu" else f"{self.device}, {self.processor}"

    @property
    def code_state(self) -> str:
        """The commit, shortened; a plus sign says that files were changed since."""
        return (self.git_commit or "")[:8] + ("+" if self.git_modified else "")
