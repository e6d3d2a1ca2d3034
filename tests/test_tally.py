"""Counts of two-expert tokens, worked out by hand."""

from dataclasses import replace

from factories import make_routing

from repro.analysis.tally import MINIMUM, StackTally, TokenSequence, thinned
from repro.results.analysis import Counts, TrainingShares, WordCounts
from repro.results.records import RoutingRecord


def sequence() -> TokenSequence:
    """[CLS] un ##fun ##ny film [SEP]: the middle subword gets two experts in the second layer alone."""
    return TokenSequence(
        ids=[1, 10, 11, 12, 13, 2],
        words_S=[None, 0, 0, 0, 1, None],
        words=["unfunny", "film"],
        parts_S=["text"] * 6,
        categories_S=[None, "negative", "negative", "negative", "content", None],
        flags_SL=[(1, 1), (0, 0), (0, 1), (0, 0), (0, 0), (1, 1)],
    )


def test_a_word_got_two_experts_if_one_of_its_subwords_did() -> None:
    tally = StackTally(2)
    for _ in range(MINIMUM):
        tally.add(sequence())
    words = tally.analysis().words
    assert words.rows == [
        WordCounts("unfunny", 5, [0, 5], 15, [0, 5], tokens_G=[15], tokens_multi_G=[5]),
        WordCounts("film", 5, [0, 0], 5, [0, 0], tokens_G=[5], tokens_multi_G=[0]),
    ]
    assert words.all == Counts(10, [0, 5], [10], [5])
    assert words.types == 2


def test_special_tokens_are_not_counted() -> None:
    tally = StackTally(2)
    tally.add(sequence())
    stack = tally.analysis()
    assert stack.all == Counts(4, [0, 1], [4], [1])
    assert stack.parts == {"text": Counts(4, [0, 1], [4], [1])}
    assert stack.categories == {
        "negative": Counts(3, [0, 1], [3], [1]),
        "content": Counts(1, [0, 0], [1], [0]),
    }


def test_tokens_are_counted_by_group_of_sequences() -> None:
    """Of three groups the first has one sequence, the last two; 4 tokens each, one pair with two experts."""
    tally = StackTally(2, groups=3)
    for group in (0, 2, 2):
        tally.add(replace(sequence(), group=group))
    stack = tally.analysis()
    assert stack.all == Counts(12, [0, 3], [4, 0, 8], [1, 0, 2])
    assert stack.categories["negative"] == Counts(9, [0, 3], [3, 0, 6], [1, 0, 2])


def test_rare_words_are_left_out() -> None:
    tally = StackTally(2)
    for _ in range(MINIMUM - 1):
        tally.add(sequence())
    assert tally.analysis().words.rows == []


def test_positions_and_lengths() -> None:
    """Place 2 of 6 is in the fourth tenth; six tokens are in the bin from 5 to 8."""
    tally = StackTally(2)
    tally.add(sequence())
    stack = tally.analysis()
    assert [counts.tokens for counts in stack.positions] == [0, 1, 0, 1, 0, 1, 1, 0, 0, 0]
    assert [counts.multi_L[1] for counts in stack.positions] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert stack.lengths == {"5-8": Counts(4, [0, 1], [4], [1])}


def test_frequency_bands_by_rank_of_the_token() -> None:
    """Eleven types: the ten most frequent in the first band, the rarest in the second."""
    tally = StackTally(1)
    ids = [*range(10), *range(10), 99]
    tally.add(
        TokenSequence(
            ids=ids,
            words_S=list(range(21)),
            words=[str(number) for number in ids],
            parts_S=["text"] * 21,
            categories_S=[None] * 21,
            flags_SL=[(0,)] * 20 + [(1,)],
        )
    )
    assert tally.analysis().frequency == {
        "ranks 1-10": Counts(20, [0], [20], [0]),
        "ranks 11-100": Counts(1, [1], [1], [1]),
    }


def test_analysis_is_a_snapshot() -> None:
    tally = StackTally(2)
    tally.add(sequence())
    before = tally.analysis()
    tally.add(sequence())
    assert before.all == Counts(4, [0, 1], [4], [1])


def test_thinned_means_over_neighbouring_steps() -> None:
    shares = {1: 0.1, 2: 0.3, 3: 0.5, 4: 0.7}
    records = [record(step, [[0.0, 1 - share, share], None]) for step, share in shares.items()]
    assert thinned(records, 2) == TrainingShares(steps=[2, 4], share_two=[[0.2, None], [0.6, None]])
    assert thinned(records, 50).steps == [1, 2, 3, 4]
    assert thinned([], 50) == TrainingShares(steps=[], share_two=[])


def record(step: int, share_by_count_per_layer: list[list[float] | None]) -> RoutingRecord:
    routing = make_routing(0.5, share_by_count_per_layer=share_by_count_per_layer)
    return RoutingRecord.model_validate({"step": step} | routing.to_json())
