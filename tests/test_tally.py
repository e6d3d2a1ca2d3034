"""Counts of two-expert tokens, worked out by hand."""

from repro._tally import MINIMUM, StackTally, TokenSequence, thinned


def sequence(**changes: object) -> TokenSequence:
    """[CLS] un ##fun ##ny film [SEP]: the middle subword gets two experts in the second layer alone."""
    values: dict[str, object] = {
        "ids": [1, 10, 11, 12, 13, 2],
        "words_S": [None, 0, 0, 0, 1, None],
        "words": ["unfunny", "film"],
        "parts_S": ["text"] * 6,
        "categories_S": [None, "negative", "negative", "negative", "content", None],
        "flags_S": [(1, 1), (0, 0), (0, 1), (0, 0), (0, 0), (1, 1)],
    }
    return TokenSequence(**(values | changes))  # type: ignore[arg-type]


def test_a_word_got_two_experts_if_one_of_its_subwords_did() -> None:
    tally = StackTally(2)
    for _ in range(MINIMUM):
        tally.add(sequence())
    plain = tally.plain()
    assert plain["words"]["rows"] == [["unfunny", 5, [0, 5], 15, [0, 5]], ["film", 5, [0, 0], 5, [0, 0]]]
    assert plain["words"]["all"] == [10, [0, 5]]
    assert plain["words"]["types"] == 2


def test_special_tokens_are_not_counted() -> None:
    tally = StackTally(2)
    tally.add(sequence())
    plain = tally.plain()
    assert plain["all"] == [4, [0, 1]]
    assert plain["parts"] == {"text": [4, [0, 1]]}
    assert plain["categories"] == {"negative": [3, [0, 1]], "content": [1, [0, 0]]}


def test_rare_words_are_left_out() -> None:
    tally = StackTally(2)
    for _ in range(MINIMUM - 1):
        tally.add(sequence())
    assert tally.plain()["words"]["rows"] == []


def test_positions_and_lengths() -> None:
    """Place 2 of 6 is in the fourth tenth; six tokens are in the bin from 5 to 8."""
    tally = StackTally(2)
    tally.add(sequence())
    plain = tally.plain()
    assert [entry[0] for entry in plain["positions"]] == [0, 1, 0, 1, 0, 1, 1, 0, 0, 0]
    assert [entry[1][1] for entry in plain["positions"]] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert plain["lengths"] == {"5-8": [4, [0, 1]]}


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
            flags_S=[(0,)] * 20 + [(1,)],
        )
    )
    assert tally.plain()["frequency"] == {"ranks 1-10": [20, [0]], "ranks 11-100": [1, [1]]}


def test_thinned_means_over_neighbouring_steps() -> None:
    rows = [
        {"step": step, "share_by_count_per_layer": [[0.0, 1 - share, share], None]}
        for step, share in ((1, 0.1), (2, 0.3), (3, 0.5), (4, 0.7))
    ]
    assert thinned(rows, 2) == {"steps": [2, 4], "share_two": [[0.2, None], [0.6, None]]}
    assert thinned(rows, 50)["steps"] == [1, 2, 3, 4]
    assert thinned([], 50) == {"steps": [], "share_two": []}
