"""Contract of the gates: the rules that decide how many experts, and which, each token is given.

A file `gates/<name>.py` is a gate. The module satisfies `GateModule`, its class `Gate` derives from the one
here.

The docstring of its class says, under these words:

* Source: the paper (title, authors, year, link), with the section and equation of each formula. A number
  that was not read in the paper itself is marked as second-hand; without a number none was seen.
* Defaults: where the default options come from; "ours" if from no paper.
* Differences: what is otherwise than in the source, and why.

"Adaptive Gating" alone is "Adaptive Gating in Mixture-of-Experts based Language Models" (Li et al., 2023,
https://arxiv.org/abs/2310.07188), the paper that this project replicates.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar, cast

from torch import Tensor, nn

from repro import plugins
from repro.moe.routing import Routing

ConfigT = TypeVar("ConfigT")


class Gate(nn.Module, ABC, Generic[ConfigT]):
    """The gate of one MoE layer.

    It decides in fp32, never routes padding, and breaks ties by the lowest expert index. It keeps nothing
    between calls that is not a registered buffer, and calling it changes nothing. A `Router`
    (`gates/shared/softmax.py`) anywhere in it is fitted to the norm before the layer, so that the spread of
    its logits holds behind pretrained norms too.

    Raises:
        ValueError: the options do not fit the number of experts.
    """

    adaptive: ClassVar[bool]
    """Whether tokens of one batch can differ in their number of experts."""
    encoders_only: ClassVar[str | None] = None
    """Why it cannot stand in a decoder; None if it can."""
    whole_batches: ClassVar[str | None] = None
    """Why it cannot decide for the part of a batch that one of several processes has; None if it can."""
    needs_token_ids: ClassVar[bool] = False
    """Whether it routes by the ids of the tokens."""
    needs_frequencies: ClassVar[bool] = False
    """Whether it routes by how often token ids stand in the training split (`learn_frequencies`)."""
    needs_attention: ClassVar[bool] = False
    """Whether it routes by attention. Its `forward` then has a further argument `attention_T`: the largest
    weight with which each token attends to one position, in the self-attention of the same block, mean over
    heads (`repro.moe.attention`); fp32 in (0, 1], anything for padding, None where it is not known."""
    macs_per_token: int
    """Multiply-adds of the gate itself for a token, experts that are no FFNs included; by default those of
    a linear router over the experts."""

    def __init__(self, config: ConfigT, d_model: int, num_experts: int) -> None:
        super().__init__()
        self.config = config
        self.macs_per_token = d_model * num_experts

    @abstractmethod
    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True.

        The auxiliary loss of the routing is multiplied by the gate's own coefficient; the weighted output of
        experts that are no FFNs is its `extra_TD`.

        Args:
            x_TD: input of the layer.
            mask_T: True for real tokens, False for padding.
            force_top1: give every token its best expert alone (top-1 gating at inference).
            ids_T: token ids, int64; None where they are unknown, and to gates that do not need them.
        """

    def learn_frequencies(self, counts_V: Tensor) -> None:
        """Keep in buffers what follows from the frequencies of the token ids; by default nothing.

        Called once for a gate that `needs_frequencies`, between conversion and training; a saved model brings
        its buffers. Before that the gate has to route, too: a fresh layer is measured.

        Args:
            counts_V: occurrences of each id in what the stack reads of the training split, int64; ids beyond
                its end do not occur.
        """

    def update_state(self, routing: Routing) -> None:
        """Move the buffers by the routing of one training batch; by default there are none.

        The trainer has it called once, after the backward pass of the batch, so that a forward pass repeated
        by gradient checkpointing decides as the first one did. With several processes the routing is of a
        part of the batch: sums over it come from `moe.processes`, so that they all have the same state.
        """


GateClass: TypeAlias = type[Gate[Any]]


class GateModule(Protocol):
    """A file `gates/<name>.py`."""

    @property
    def Config(self) -> type[Any]:
        """The class of its own options: a frozen dataclass, all with defaults."""

    @property
    def Gate(self) -> GateClass | None:
        """The gate; None for `dense`, which has no MoE layers."""


def load(name: str) -> GateModule:
    """Import a gate.

    Raises:
        UserError: no gate has that name.
    """
    return cast(GateModule, plugins.load("gates", name))


def is_adaptive(name: str) -> bool:
    """Return whether tokens of one batch can differ in their number of experts under this gate.

    Raises:
        UserError: no gate has that name.
    """
    gate_class = load(name).Gate
    return gate_class is not None and gate_class.adaptive
