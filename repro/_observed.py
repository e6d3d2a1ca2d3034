"""What an analysis keeps of forward passes: totals by layer, counts by stack, a few tokens in full."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from repro._subwords import BYTE_LEVEL, LabelledText, raw_text, token_strings, words_of
from repro._tally import StackTally, TokenSequence
from repro.routing import LayerRouting, RoutingTape, add_counts
from repro.tasks._base import Feature, Task

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
        """Those of one forward pass."""
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


class Observer:
    """Gathers an analysis, sequence by sequence.

    Args:
        size: number of sequences.
        stacks_L: the stack of each MoE layer.
        marks: how the vocabulary marks words, see `_subwords.marking`.
    """

    def __init__(self, task: Task, size: int, stacks_L: list[str], marks: str) -> None:
        self._task = task
        self._marks = marks
        self._stacks_L = stacks_L
        self._middle = len(stacks_L) // 2
        self._layers: list[LayerTotals | None] = [None] * len(stacks_L)
        self._tallies = {stack: StackTally(stacks_L.count(stack)) for stack in dict.fromkeys(stacks_L)}
        self._activations: dict[tuple[int, int], list[Any]] = {}
        self._picks: dict[int, list[int]] = {}
        for number in range(ACTIVATIONS):
            self._picks.setdefault(number * size // ACTIVATIONS, []).append(number)
        shown = min(SAMPLES, size)
        self._shown = {number * size // shown for number in range(shown)}
        self._samples: dict[int, dict[str, Any]] = {}

    def count_layers(self, layers: Sequence[LayerTotals]) -> None:
        """Add the layers of one forward pass."""
        for number, totals in enumerate(layers):
            before = self._layers[number]
            self._layers[number] = totals if before is None else before + totals

    def count(self, feature: Feature, counts_LS: Sequence[Sequence[int]], label: LabelledText | None) -> None:
        """Add the tokens of one sequence.

        Args:
            counts_LS: experts of each position, by layer; padding may follow the positions.
        """
        parts = self._task.parts(feature)
        for stack, ids in self._task.inputs(feature).items():
            if stack not in self._tallies:
                continue
            tokens = token_strings(self._task.tokenizer, ids, stack)
            places, words = words_of(tokens, self._marks)
            categories: list[str | None] = [None] * len(ids)
            if label is not None:
                raws = [None if token is None else raw_text(token, self._marks) for token in tokens]
                categories = label.categories(raws)
            mine = [counts for counts, of in zip(counts_LS, self._stacks_L, strict=True) if of == stack]
            flags = [tuple(int(counts[place] >= 2) for counts in mine) for place in range(len(ids))]
            self._tallies[stack].add(
                TokenSequence(
                    ids=ids,
                    words_S=places,
                    words=words,
                    parts_S=parts[stack],
                    categories_S=categories,
                    flags_S=flags,
                )
            )

    def wants(self, index: int) -> bool:
        """Whether this sequence is among those that are kept in full, or has a token that is."""
        return index in self._picks or index in self._shown

    def look(self, index: int, feature: Feature, tape: RoutingTape, row: int) -> None:
        """Keep tokens of one sequence in full.

        Args:
            row: the sequence's place in the batch.
        """
        inputs = self._task.inputs(feature)
        if index in self._picks:
            self._look_closely(index, inputs[self._stacks_L[self._middle]], tape, row)
        if index not in self._shown:
            return
        sample: dict[str, Any] = {
            stack: {"tokens": self._texts(ids[:SHOWN], stack), "cut": len(ids) > SHOWN, "layers": {}}
            for stack, ids in inputs.items()
            if stack in self._tallies
        }
        for number, entry in enumerate(tape.entries):
            part = sample[self._stacks_L[number]]
            part["layers"][str(number)] = _experts(entry, row, len(part["tokens"]))
        self._samples[index] = sample

    def _look_closely(self, index: int, ids: Sequence[int], tape: RoutingTape, row: int) -> None:
        """The probabilities of some tokens of a sequence in the middle layer, spread over its places."""
        tokens = token_strings(self._task.tokenizer, ids, self._stacks_L[self._middle])
        real = [place for place, token in enumerate(tokens) if token is not None]
        probs_SE = _sequence(tape.entries[self._middle], row)
        texts = self._texts(ids, self._stacks_L[self._middle])
        for number in self._picks[index] if real else ():
            place = real[number * 7919 % len(real)]
            probabilities = [round(value, 4) for value in probs_SE[place].tolist()]
            self._activations[index, place] = [texts[place].strip(), probabilities]

    def _texts(self, ids: Sequence[int], stack: str) -> list[str]:
        """Tokens as they are read: with their white space, special ones by their names."""
        names = self._task.tokenizer.convert_ids_to_tokens(list(ids))
        tokens = token_strings(self._task.tokenizer, ids, stack)
        places, _ = words_of(tokens, self._marks)
        found = []
        for number, token in enumerate(tokens):
            if token is None:
                found.append(f" {names[number]}")
                continue
            text = raw_text(token, self._marks).decode("utf-8", "replace")
            # Byte-level tokens hold their own white space; elsewhere a space stands before each word.
            fresh = number == 0 or places[number] != places[number - 1]
            found.append(f" {text}" if fresh and self._marks != BYTE_LEVEL else text)
        return found

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Stack -> `tokens`, `cut` and `layers`: layer -> for each token `[expert, probability]` pairs."""
        return [self._samples[index] for index in sorted(self._samples)]

    def plain(self) -> dict[str, Any]:
        """Plain data; see docs/results.md for the keys."""
        layers = []
        for number, totals in enumerate(self._layers):
            assert totals is not None, "every layer sees every batch"
            tokens = sum(totals.count_K)
            layers.append(
                {
                    "layer": number,
                    "stack": self._stacks_L[number],
                    "tokens": tokens,
                    "by_count": totals.count_K,
                    "load": totals.load_E,
                    "mass": [round(mass / tokens, 5) if tokens else None for mass in totals.mass_E],
                    "clear": totals.clear,
                }
            )
        tokens_kept = [self._activations[key] for key in sorted(self._activations)]
        return {
            "layers": layers,
            "stacks": {stack: tally.plain() for stack, tally in self._tallies.items()},
            "activations": {"layer": self._middle, "tokens": tokens_kept},
        }


def _flat(entry: LayerRouting, row: int, place: int) -> int:
    """Where a position of a sequence stands among the layer's tokens."""
    return place * entry.shape[1] + row if entry.time_major else row * entry.shape[1] + place


def _sequence(entry: LayerRouting, row: int) -> Tensor:
    """Gate probabilities of one sequence, (S, E), padding included."""
    probs_TE = entry.routing.probs_TE
    shaped = probs_TE.view(*entry.shape, probs_TE.shape[1])
    return (shaped[:, row] if entry.time_major else shaped[row]).cpu()


def _experts(entry: LayerRouting, row: int, size: int) -> list[list[list[float]]]:
    """`[expert, probability]` pairs of each of the first `size` positions, the best first."""
    positions = {_flat(entry, row, place): place for place in range(size)}
    probs_SE = _sequence(entry, row)
    chosen: list[list[list[float]]] = [[] for _ in range(size)]
    routing = entry.routing
    for token, expert in zip(routing.token_A.tolist(), routing.expert_A.tolist(), strict=True):
        if token in positions:
            place = positions[token]
            chosen[place].append([expert, round(float(probs_SE[place, expert]), 3)])
    return [sorted(pairs, key=lambda pair: (-pair[1], pair[0])) for pairs in chosen]
