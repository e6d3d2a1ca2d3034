"""Contract of the tasks: what is learned, from which examples, and how well. The trainer knows none of them.

A file `tasks/<name>.py` is a task. The module satisfies `TaskModule`, its class `Task` derives from the one
here. Importing it loads no numerical library: lists, tables and the report read its constants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from repro import plugins

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

Row: TypeAlias = dict[str, Any]
"""One example of a data set: column -> value, in the hub's column schema."""
Feature: TypeAlias = dict[str, Any]
"""One encoded example: plain JSON values, with `input_ids` and `cut`, whether it was truncated to fit."""
Batch: TypeAlias = "dict[str, Tensor]"
"""Argument of the model -> tensor, first dimension B."""
Prediction: TypeAlias = Any
"""Answer to one feature, a plain value of the task's own type: a label, a text, a likelihood, a span."""
TEMPLATE = "template"
"""The part of an input (`Task.parts`) that is no text of the row: words that a task puts around it."""


class Gap(str):
    """What a row lacks that the corpora of a task do lack here and there: it is left out and counted."""


class Task(ABC):
    """One task with its options, tokenizer and lengths.

    Subclasses annotate `config` with their own class.
    """

    config: object
    """The `Config` of the task's module."""
    max_length: int
    """Tokens of the longest input."""

    def __init__(self, config: object, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length = max_length

    @abstractmethod
    def encode(self, rows: list[Row]) -> list[Feature]:
        """Encode rows into features, in their order; a row may give several, or several rows one.

        A special token of the tokenizer that stands in a text is text: `split_special_tokens=True`.

        Features are cached as JSON by rows, options, tokenizer and length (`data.features`), so they depend
        on nothing else and hold only what JSON gives back unchanged: text, numbers, true, false, null, lists,
        and dicts with text as keys; no tuples, no tensors.
        """

    @abstractmethod
    def collate(self, features: list[Feature]) -> Batch:
        """Build the model's arguments for a batch, padded to the longest."""

    @abstractmethod
    def loss_terms(self, batch: Batch) -> int:
        """Count the terms that the mean loss averages over."""

    def loss(self, outputs: ModelOutput, batch: Batch) -> Tensor:
        """Return the mean loss of a batch; by default the model's own."""
        loss: Tensor = outputs.loss
        return loss

    def configure(self, model: PreTrainedModel, features: list[Feature]) -> None:  # noqa: B027 (optional)
        """Set what the model must know of the task before it is trained; by default nothing.

        Args:
            features: of the training split.

        Raises:
            UserError: settings contradict each other.
        """

    @abstractmethod
    def predict(
        self, model: PreTrainedModel, batch: Batch, outputs: ModelOutput, features: list[Feature]
    ) -> list[Prediction]:
        """Predict one plain value per feature, from the model's outputs or by generating with it."""

    @abstractmethod
    def answers(
        self, predictions: list[Prediction], features: list[Feature], rows: list[Row]
    ) -> tuple[Sequence[object], Sequence[object]]:
        """Build predictions and references for the metric, from what `predict` gave for all features."""

    def trivial(
        self, train: list[Feature], features: list[Feature], rows: list[Row]
    ) -> list[Prediction] | None:
        """Predict one plain value per feature, as `predict`, without a model; by default none is named.

        A baseline that is no better has not learned the task, which then is in no verdict.

        Args:
            train: features of the training split, for majorities and frequencies.
        """
        return None

    def length(self, feature: Feature) -> int:
        """Return the positions of the longest stack; batches are sized by it."""
        return len(feature["input_ids"])

    def masks(self, batch: Batch) -> dict[str, Tensor]:
        """Map each stack to its mask of real tokens, (B, S)."""
        return {"encoder": batch["attention_mask"]}

    def inputs(self, feature: Feature) -> dict[str, list[int]]:
        """Map each stack to the ids that it reads, without padding: one row of `collate`."""
        return {"encoder": feature["input_ids"]}

    def parts(self, feature: Feature) -> dict[str, list[str]]:
        """Map each stack to the part of the input (question, context) of each position; by default one."""
        return {stack: ["text"] * len(ids) for stack, ids in self.inputs(feature).items()}


TaskClass: TypeAlias = type[Task]  # below, `Task` is the attribute of a module


class TaskModule(Protocol):
    """A file `tasks/<name>.py`."""

    @property
    def TITLE(self) -> str:
        """Its name in tables; of the paper's tasks that in the paper."""

    @property
    def METRIC(self) -> str:
        """A member of `metrics`."""

    @property
    def HUB(self) -> tuple[str, str | None]:
        """Data set on the hub, and its configuration."""

    @property
    def FOLDERS(self) -> tuple[str, ...]:
        """Its names in a data folder; the first that exists is read."""

    @property
    def CORPUS(self) -> str:
        """A member of `data.corpora`."""

    @property
    def COLUMNS(self) -> tuple[str, ...]:
        """The columns that a row must have."""

    @property
    def CONTIGUOUS(self) -> bool:
        """Whether a part of a split is its beginning (running text) or a random choice."""

    @property
    def BACKBONE(self) -> str:
        """The member of `moe.backbones` that it fine-tunes."""

    @property
    def HEAD(self) -> str:
        """The head of that backbone."""

    @property
    def MODEL_OPTIONS(self) -> Mapping[str, object]:
        """Options of the Hugging Face configuration that the head needs."""

    @property
    def Config(self) -> type[Any]:
        """The class of its own options: frozen, all with defaults."""

    @property
    def Task(self) -> TaskClass:
        """Encoding, batches, predictions and answers."""

    def problem(self, row: Row) -> str | None:
        """Say what is wrong with a row that has all columns, or that it has a `Gap`; None if neither."""

    def texts(self, row: Row) -> list[str]:
        """Return the strings of a row that a tokenizer is trained on."""

    def groups(self, rows: Iterable[Row], options: Any) -> Iterator[str]:
        """Yield for each row of the training split, in its order, the name of the group that it belongs to.

        Rows of a group are never parted between `train` and `dev`. Of running text a group is consecutive.

        Args:
            options: the `Config` of the task.
        """


def load(name: str) -> TaskModule:
    """Import a task.

    Raises:
        UserError: no task has that name.
    """
    return cast(TaskModule, plugins.load("tasks", name))
