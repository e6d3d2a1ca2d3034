"""What an analysis keeps of forward passes: totals by layer, counts by stack, a few tokens in full."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from repro.analysis.tally import GROUPS, StackTally, TokenSequence
from repro.analysis.words import LabelledText, WordMarks, raw_text, token_strings, words_of
from repro.moe.routing import LayerRouting, RoutingTape
from repro.moe.totals import add_counts
from repro.results.analysis import (
    Activations,
    LayerAnalysis,
    SampleStack,
    StackAnalysis,
    TokenActivation,
    TokenExpert,
)
from repro.tasks.base import TEMPLATE, Feature, Task

CLEAR = 2.0
"""A token has a clear top-1 expert if its best probability is at least this many times the second.

The paper calls a distribution "significantly biased" towards the top-1 expert, at least 55 % of all
tokens, and gives no number (3.1, Figure 1). Twice the second is the factor that one sees at a glance
in a bar chart; with the threshold's own measure it is a gap (p1 - p2) / (p1 + p2) of 1/3 or more."""
ACTIVATIONS = 64
"""Tokens whose probabilities over all experts are kept, of the middle layer (Figure 1)."""
SAMPLES = 6
"""Sequences of `tokens.html`."""
SHOWN = 120
"""Positions of such a sequence that are shown."""


@dataclass
class LayerTotals:
    """Sums over the real tokens of one layer, special tokens included, as the layer computes them."""

    count_K: list[int]
    """Tokens by number of experts."""
    load_E: list[int]
    """Assignments of each expert."""
    mass_E: list[float]
    """Sum of the gate probabilities of each expert."""
    clear: int
    """Tokens with a clear top-1 expert, see `CLEAR`."""

    @staticmethod
    def of(entry: LayerRouting) -> "LayerTotals":
        """Sum one forward pass."""
        routing = entry.routing
        probs_TE = routing.probs_TE[routing.mask_T].float()
        best_TK = probs_TE.topk(min(2, probs_TE.shape[1]), dim=1).values
        second_T = best_TK[:, 1] if best_TK.shape[1] > 1 else best_TK[:, 0] * 0
        return LayerTotals(
            count_K=routing.count_T[routing.mask_T].bincount().tolist(),
            load_E=routing.load_E.tolist(),
            mass_E=probs_TE.double().sum(0).tolist(),
            clear=int((best_TK[:, 0] >= CLEAR * second_T).sum()),
        )

    def __add__(self, other: "LayerTotals") -> "LayerTotals":
        return LayerTotals(
            count_K=add_counts(self.count_K, other.count_K),
            load_E=add_counts(self.load_E, other.load_E),
            mass_E=[a + b for a, b in zip(self.mass_E, other.mass_E, strict=True)],
            clear=self.clear + other.clear,
        )

    def analysis(self, layer: int, stack: str) -> LayerAnalysis:
        """Return the entry of `analysis.json` for this layer."""
        tokens = sum(self.count_K)
        return LayerAnalysis(
            layer=layer,
            stack=stack,
            tokens=tokens,
            by_count=self.count_K,
            load=self.load_E,
            mass=[round(mass / tokens, 5) if tokens else None for mass in self.mass_E],
            clear=self.clear,
        )


class Observer:
    """Gathers an analysis, batch by batch and sequence by sequence.

    Args:
        size: number of sequences.
        stack_L: the stack of each MoE layer.
        marks: how the vocabulary marks words.
    """

    def __init__(self, task: Task, size: int, stack_L: Sequence[str], marks: WordMarks) -> None:
        self._task = task
        self._marks = marks
        self._stack_L = stack_L
        self._middle = len(stack_L) // 2
        self._totals: dict[int, LayerTotals] = {}
        self._groups, self._size = min(GROUPS, size), size
        self._tallies = {
            stack: StackTally(stack_L.count(stack), self._groups) for stack in dict.fromkeys(stack_L)
        }
        self._activations: dict[tuple[int, int], TokenActivation] = {}
        self._numbers: dict[int, list[int]] = {}
        """Sequence -> numbers of the tokens whose probabilities are taken from it."""
        for number in range(ACTIVATIONS):
            self._numbers.setdefault(number * size // ACTIVATIONS, []).append(number)
        shown = min(SAMPLES, size)
        self._shown = {number * size // shown for number in range(shown)}
        self._samples: dict[int, dict[str, SampleStack]] = {}

    def count_layers(self, tape: RoutingTape) -> None:
        """Add the layers of one forward pass."""
        for layer, entry in enumerate(tape.entries):
            totals = LayerTotals.of(entry)
            self._totals[layer] = self._totals[layer] + totals if layer in self._totals else totals

    def count_tokens(
        self,
        index: int,
        feature: Feature,
        counts_LS: Sequence[Sequence[int]],
        label: LabelledText | None,
    ) -> None:
        """Add the tokens of one sequence.

        Args:
            index: number of the sequence.
            counts_LS: experts of each position, by layer; padding may follow the positions.
            label: the text that the sequence is from; None where there are no labels.
        """
        parts = self._task.parts(feature)
        for stack, ids in self._task.inputs(feature).items():
            if stack not in self._tallies:
                continue
            tokens = token_strings(self._task.tokenizer, ids, stack)
            word_S, words = words_of(tokens, self._marks)
            categories_S: list[str | None] = [None] * len(ids)
            if label is not None:
                # What a task puts around the texts parts them, as special tokens do.
                raws = [
                    None if token is None or part == TEMPLATE else raw_text(token, self._marks)
                    for token, part in zip(tokens, parts[stack], strict=True)
                ]
                categories_S = label.categories(raws)
            counts = [counts_S for counts_S, of in zip(counts_LS, self._stack_L, strict=True) if of == stack]
            self._tallies[stack].add(
                TokenSequence(
                    ids=ids,
                    words_S=word_S,
                    words=words,
                    parts_S=parts[stack],
                    categories_S=categories_S,
                    flags_SL=[
                        tuple(int(counts_S[place] >= 2) for counts_S in counts) for place in range(len(ids))
                    ],
                    group=index * self._groups // self._size,
                )
            )

    def is_sampled(self, index: int) -> bool:
        """Whether this sequence, or a token of it, is kept in full."""
        return index in self._numbers or index in self._shown

    def sample(self, index: int, feature: Feature, tape: RoutingTape, row: int) -> None:
        """Keep tokens of one sequence in full.

        Args:
            index: number of the sequence.
            row: its row in the batch.
        """
        inputs = self._task.inputs(feature)
        if index in self._numbers:
            self._sample_activations(index, inputs[self._stack_L[self._middle]], tape, row)
        if index in self._shown:
            self._samples[index] = {
                stack: self._sample_stack(stack, ids, tape, row)
                for stack, ids in inputs.items()
                if stack in self._tallies
            }

    def _sample_stack(self, stack: str, ids: Sequence[int], tape: RoutingTape, row: int) -> SampleStack:
        """Keep the experts of the first tokens of a sequence, in every layer of a stack."""
        tokens = self._texts(ids[:SHOWN], stack)
        return SampleStack(
            tokens=tokens,
            cut=len(ids) > SHOWN,
            layers={
                str(layer): _experts(entry, row, len(tokens))
                for layer, entry in enumerate(tape.entries)
                if self._stack_L[layer] == stack
            },
        )

    def _sample_activations(self, index: int, ids: Sequence[int], tape: RoutingTape, row: int) -> None:
        """Keep the probabilities of some tokens of a sequence in the middle layer, spread over its places."""
        stack = self._stack_L[self._middle]
        tokens = token_strings(self._task.tokenizer, ids, stack)
        real = [place for place, token in enumerate(tokens) if token is not None]
        probs_SE = _sequence_probs(tape.entries[self._middle], row)
        texts = self._texts(ids, stack)
        for number in self._numbers[index] if real else ():
            place = real[number * 7919 % len(real)]
            probabilities = [round(value, 4) for value in probs_SE[place].tolist()]
            self._activations[index, place] = TokenActivation(texts[place].strip(), probabilities)

    def _texts(self, ids: Sequence[int], stack: str) -> list[str]:
        """Return tokens as they are read: with their white space, special ones by their names."""
        names = self._task.tokenizer.convert_ids_to_tokens(list(ids))
        tokens = token_strings(self._task.tokenizer, ids, stack)
        word_S, _ = words_of(tokens, self._marks)
        texts = []
        for place, token in enumerate(tokens):
            if token is None:
                texts.append(f" {names[place]}")
                continue
            text = raw_text(token, self._marks).decode("utf-8", "replace")
            # Byte-level tokens hold their own white space; elsewhere a space stands before each word.
            begins = place == 0 or word_S[place] != word_S[place - 1]
            texts.append(f" {text}" if begins and self._marks is not WordMarks.BYTE_LEVEL else text)
        return texts

    def layers(self) -> list[LayerAnalysis]:
        """Return the totals of each layer, in the order of computation."""
        return [self._totals[layer].analysis(layer, stack) for layer, stack in enumerate(self._stack_L)]

    def stacks(self) -> dict[str, StackAnalysis]:
        """Return the token counts of each stack."""
        return {stack: tally.analysis() for stack, tally in self._tallies.items()}

    def activations(self) -> Activations:
        """Return the tokens whose probabilities were kept, in the order of the data."""
        return Activations(
            layer=self._middle, tokens=[self._activations[key] for key in sorted(self._activations)]
        )

    def samples(self) -> list[dict[str, SampleStack]]:
        """Return the sequences of `tokens.html`, in the order of the data."""
        return [self._samples[index] for index in sorted(self._samples)]


def _flat(entry: LayerRouting, row: int, place: int) -> int:
    """Return the index of a position of a sequence among the layer's tokens."""
    return place * entry.shape[1] + row if entry.time_major else row * entry.shape[1] + place


def _sequence_probs(entry: LayerRouting, row: int) -> Tensor:
    """Return the gate probabilities of one sequence, (S, E), padding included."""
    probs_TE = entry.routing.probs_TE
    shaped = probs_TE.view(*entry.shape, probs_TE.shape[1])
    return (shaped[:, row] if entry.time_major else shaped[row]).cpu()


def _experts(entry: LayerRouting, row: int, size: int) -> list[list[TokenExpert]]:
    """Return the experts of each of the first `size` positions of a sequence, the most probable first."""
    place_by_token = {_flat(entry, row, place): place for place in range(size)}
    probs_SE = _sequence_probs(entry, row)
    experts_S: list[list[TokenExpert]] = [[] for _ in range(size)]
    routing = entry.routing
    for token, expert in zip(routing.token_A.tolist(), routing.expert_A.tolist(), strict=True):
        if token in place_by_token:
            place = place_by_token[token]
            experts_S[place].append(TokenExpert(expert, round(float(probs_SE[place, expert]), 3)))
    return [sorted(experts, key=lambda one: (-one.probability, one.expert)) for experts in experts_S]
