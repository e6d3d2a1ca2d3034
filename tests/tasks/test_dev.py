"""The dev split: whole groups of the training split, the same for every run; and what `repro eval` reads."""

import json
import random
import tracemalloc
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, Settings
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from rows_by_hand import FolderOf, RowsOf, write_jsonl, write_splits

from repro import plugins
from repro.data.dev import dev_cut, numbers_of
from repro.data.rows import load_rows, load_training
from repro.errors import UserError
from repro.tasks import arc, cnn_dailymail, soda, squad, sst2, wikitext, wmt19
from repro.tasks.base import Row, TaskModule, load

TASKS = plugins.names("tasks")
Groups = st.lists(st.integers(0, 6), min_size=1, max_size=40)


def cut(groups: list[str], samples: int, contiguous: bool = False) -> list[int]:
    """The numbers, from 1, of the rows that are chosen from rows of these groups."""
    chooser = dev_cut(samples, contiguous)
    for number, group in enumerate(groups, 1):
        chooser.add(number, group)
    return chooser.numbers()


# --- which rows ---------------------------------------------------------------------------------


def test_whole_groups_in_the_order_of_their_hashes() -> None:
    def rank(name: str) -> bytes:
        return blake2b(name.encode(), digest_size=8).digest()

    assert sorted("abcd", key=rank) == ["c", "a", "b", "d"]
    rows = [*"abacddb"]
    assert cut(rows, 1) == [4]
    assert cut(rows, 2) == [4]  # "a" would be parted
    assert cut(rows, 3) == [1, 3, 4]
    assert cut(rows, 4) == [1, 3, 4]
    assert cut(rows, 5) == cut(rows, 6) == [1, 2, 3, 4, 7]
    assert cut(rows, 7) == cut(rows, 100) == [1, 2, 3, 4, 5, 6, 7]
    assert cut([*"dcacc"], 2) == [2, 4, 5]  # the first group alone has more


@given(Groups, st.integers(1, 45), st.randoms())
def test_the_order_of_the_rows_has_no_part_in_the_choice(
    groups: list[int], samples: int, chance: random.Random
) -> None:
    names = [str(group) for group in groups]
    places = list(range(len(names)))
    chance.shuffle(places)
    mixed = cut([names[place] for place in places], samples)
    assert sorted(places[number - 1] + 1 for number in mixed) == cut(names, samples)


@given(Groups, st.integers(1, 45), st.booleans())
def test_groups_are_not_parted(groups: list[int], samples: int, contiguous: bool) -> None:
    names = [str(group) for group in (sorted(groups) if contiguous else groups)]
    chosen = cut(names, samples, contiguous)
    assert chosen == sorted(set(chosen))
    inside = {names[number - 1] for number in chosen}
    assert inside
    assert len(chosen) == sum(name in inside for name in names)
    assert len(chosen) <= samples or len(inside) == 1


def test_the_end_of_running_text() -> None:
    rows = [*"aabbbccdd"]
    assert cut(rows, 1, contiguous=True) == [8, 9]
    assert cut(rows, 3, contiguous=True) == [8, 9]
    assert cut(rows, 4, contiguous=True) == [6, 7, 8, 9]
    assert cut(rows, 6, contiguous=True) == [6, 7, 8, 9]
    assert cut(rows, 7, contiguous=True) == [3, 4, 5, 6, 7, 8, 9]
    assert cut(rows, 9, contiguous=True) == [*range(1, 10)]


@pytest.mark.parametrize("contiguous", [False, True])
def test_memory_does_not_grow_with_the_rows(contiguous: bool) -> None:
    chooser = dev_cut(100, contiguous)
    tracemalloc.start()
    try:
        for number in range(1, 100_001):
            chooser.add(number, f"group {number // 3}")
        assert tracemalloc.get_traced_memory()[1] < 200_000  # bytes; a list of the numbers takes 800,000
    finally:
        tracemalloc.stop()
    assert 95 < len(chooser.numbers()) <= 100


def test_numbers_of_rows_when_others_are_left_out() -> None:
    assert [*numbers_of(range(4), [])] == [1, 2, 3, 4]
    assert [*numbers_of(range(4), [1, 2, 5])] == [3, 4, 6, 7]
    assert [*numbers_of([0, 3], [2, 3])] == [1, 6]


# --- what belongs together ----------------------------------------------------------------------


def grouped(task: TaskModule, rows: list[Row], **options: Any) -> list[str]:
    return [*task.groups(iter(rows), task.Config(**options))]


def test_groups_by_a_column() -> None:
    assert grouped(squad, [{"context": "a"}, {"context": "b"}, {"context": "a"}]) == ["a", "b", "a"]
    assert grouped(soda, [{"narrative": "a"}, {"narrative": "b"}]) == ["a", "b"]
    assert grouped(cnn_dailymail, [{"article": "a"}, {"article": "a"}]) == ["a", "a"]
    assert grouped(arc, [{"question": "a"}, {"question": "b"}, {"question": "a"}]) == ["a", "b", "a"]
    pairs = [{"translation": {"de": "ja", "en": "yes"}}, {"translation": {"de": "ja", "en": "sure"}}]
    assert grouped(wmt19, pairs) == ["ja", "ja"]
    assert grouped(wmt19, pairs, direction="en-de") == ["yes", "sure"]


def test_articles_of_wikitext() -> None:
    lines = [
        "",
        " = Valkyria = \n",
        "",
        " a b \n",
        " = = Plot = = \n",
        "",
        " = Boats = \n",
        " = = = x = = = \n",
    ]
    assert grouped(wikitext, [{"text": line} for line in lines]) == [
        "line 0",
        *["article 1"] * 5,
        *["article 2"] * 2,
    ]
    assert grouped(wikitext, [{"text": "a = b"}, {"text": ""}]) == ["line 0", "line 1"]


def test_phrases_of_a_sentence() -> None:
    sentences = [
        "a fine film ",
        "the plot , a fine film aside , is dull . ",
        "fine",
        "film aside",
        "plot is",  # not as it stands there
        "refine",  # a part of no word
        "the plot is dull",
        "dull",
        "",
    ]
    found = grouped(sst2, [{"sentence": sentence, "label": 0} for sentence in sentences])
    long = "the plot , a fine film aside , is dull ."
    assert found == [long, long, long, long, "the plot is dull", "refine", "the plot is dull", long, ""]


# --- reading ------------------------------------------------------------------------------------


def training(
    folder: Path, name: str, limit: int | None, dev_samples: int, source: str = "folder:0"
) -> dict[str, list[Row]]:
    task = load(name)
    loaded = load_training(task, task.Config(), source, folder, limit, dev_samples)
    return {split: part.rows for split, part in loaded.items()}


def belonging_together(name: str, size: int, hand_made: RowsOf) -> list[Row]:
    """Rows of a task of which each is followed by another of its group."""
    if name == "wikitext":
        return hand_made(name, 2 * size)
    rows = []
    for number, row in enumerate(hand_made(name, size)):
        if name == "sst2":
            words = [f"film{number} {word}" for word in ("is fine", "is fine .")]
            rows += [row | {"sentence": words[1]}, row | {"sentence": words[0]}]
        else:
            rows += [row, row]
    return rows


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("limit", [None, 10])
def test_every_task_keeps_groups_together(
    hand_made: RowsOf, tmp_path: Path, name: str, limit: int | None
) -> None:
    task, rows = load(name), belonging_together(name, 20, hand_made)
    write_jsonl(tmp_path / task.FOLDERS[0] / "train.jsonl", rows)
    splits = training(tmp_path, name, limit, 9)
    names = dict(zip(map(json.dumps, rows), grouped(task, rows), strict=True))
    found = {split: [names[json.dumps(row)] for row in part] for split, part in splits.items()}
    assert 0 < len(splits["dev"]) <= 9
    assert len(splits["train"]) == (limit or len(rows) - len(splits["dev"]))
    if name != "wikitext":  # whose rows repeat
        assert not set(found["train"]) & set(found["dev"])
        inside = set(found["dev"])
        assert splits["dev"] == [row for row in rows if names[json.dumps(row)] in inside]
    # The limit and the number of the run have no part in the choice.
    assert splits["dev"] == training(tmp_path, name, 3, 9)["dev"]


def test_running_text(tmp_path: Path) -> None:
    """Articles of 4 lines, 3 of the first: train is the beginning, dev whole articles of the end."""
    rows = [{"text": f" = T{n} = \n" if n % 4 == 0 else f" line {n} \n"} for n in range(1, 24)]
    write_jsonl(tmp_path / "wikitext" / "train.jsonl", rows)
    assert training(tmp_path, "wikitext", None, 9) == {"train": rows[:15], "dev": rows[15:]}
    assert training(tmp_path, "wikitext", 6, 9) == {"train": rows[:6], "dev": rows[15:]}
    assert training(tmp_path, "wikitext", None, 1) == {"train": rows[:19], "dev": rows[19:]}


def test_rows_that_lack_a_text_are_in_neither(tmp_path: Path, hand_made: RowsOf) -> None:
    rows = hand_made("soda", 40)
    rows[7] = rows[7] | {"dialogue": ["a"]}
    write_jsonl(tmp_path / "soda" / "train.jsonl", rows)
    task = load("soda")
    loaded = load_training(task, task.Config(), "folder:0", tmp_path, None, 5)
    assert {split: part.skipped for split, part in loaded.items()} == {"train": 1, "dev": 0}
    assert len(loaded["train"].rows) == 34
    assert len(loaded["dev"].rows) == 5
    both = [*loaded["train"].rows, *loaded["dev"].rows]
    assert sorted(both, key=rows.index) == [row for row in rows if len(row["dialogue"]) > 1]


@pytest.mark.parametrize("name", TASKS)
def test_generated_splits_have_the_sizes_that_are_asked_for(name: str) -> None:
    task = load(name)
    loaded = load_training(task, task.Config(), "synthetic", None, 12, 5)
    assert {split: len(part.rows) for split, part in loaded.items()} == {"train": 12, "dev": 5}
    assert loaded["train"].rows == load_rows(task, "synthetic", None, "train", 12).rows


@pytest.mark.parametrize(("samples", "size"), [(8, 8), (20, 8), (1, 1)])
def test_nothing_is_left_to_train_on(tmp_path: Path, hand_made: RowsOf, samples: int, size: int) -> None:
    write_jsonl(tmp_path / "squad" / "train.jsonl", hand_made("squad", size))
    with pytest.raises(
        UserError, match=rf"data\.dev_samples = {samples} leaves none of {size} rows"
    ) as caught:
        training(tmp_path, "squad", None, samples)
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(str(tmp_path / "squad" / "train.jsonl"))


def test_one_group_cannot_be_parted(tmp_path: Path, hand_made: RowsOf) -> None:
    write_jsonl(tmp_path / "squad" / "train.jsonl", hand_made("squad", 1) * 8)
    with pytest.raises(UserError, match=r"leaves none of 8 rows to train on \(rows that belong together"):
        training(tmp_path, "squad", None, 2)


# --- runs ---------------------------------------------------------------------------------------


def test_the_dev_split_is_part_of_the_run_and_its_seed_is_not(
    cli: CommandLine, tmp_path: Path, data_folder: Path
) -> None:
    def run(seed: int, dev_samples: int) -> Any:
        settings: Settings = {"data.dev_samples": dev_samples, "training.steps": 1}
        where = ("--data", data_folder, "--seed", seed, "--json")
        return cli.train("dense", tmp_path / "results", *where, settings=settings).json()

    one, other_seed, smaller = run(0, 16), run(1, 16), run(0, 8)
    assert one["data"] == other_seed["data"]
    assert one["data"]["counts"] == {"train": 48, "dev": 16, "validation": 32}
    assert smaller["data"]["counts"] == {"train": 56, "dev": 8, "validation": 32}
    assert one["run_id"].split("-")[-1] != smaller["run_id"].split("-")[-1]
    assert len(set(one["data"]["fingerprints"].values())) == 3
    assert set(one["data"]["skipped"].values()) == {0}


@pytest.mark.parametrize("name", TASKS)
def test_every_split_can_be_evaluated(trained: Any, cli: CommandLine, name: str, folder_of: FolderOf) -> None:
    run = trained("adaptive", name)
    counts, fingerprints = run.result["data"]["counts"], run.result["data"]["fingerprints"]
    seen = {}
    for split in ("train", "dev", "validation", "test"):
        found = cli("eval", run.folder, "--split", split, "--json").json()
        seen[split] = found["data"]["fingerprint"]
        assert (found["split"], found["data"]["count"]) == (split, counts.get(split, counts["validation"]))
    assert len(set(seen.values())) == 4
    assert {split: seen[split] for split in fingerprints} == fingerprints
    dev = cli("eval", run.folder, "--split", "dev", "--json").json()
    assert dev["eval_loss"] == pytest.approx(run.result["dev_loss"], rel=1e-5)
    tested = cli("eval", run.folder, "--split", "test", "--data", folder_of(name), "--json").json()
    assert tested["data"]["count"] == 8


def test_no_test_split(trained: Any, cli: CommandLine, tmp_path: Path) -> None:
    data = write_splits(tmp_path / "data", "squad")
    (data / "squad" / "test.jsonl").unlink()
    answer = cli("eval", trained("adaptive", "squad").folder, "--split", "test", "--data", data)
    refused(answer, rf"{data}/squad: no split 'test' \(test\.jsonl, ")


def test_hidden_labels(trained: Any, cli: CommandLine, tmp_path: Path) -> None:
    data = write_splits(tmp_path / "data", "sst2")
    write_jsonl(data / "sst2" / "test.jsonl", [{"sentence": "a film", "label": -1}])
    answer = cli("eval", trained("adaptive", "sst2").folder, "--split", "test", "--data", data)
    refused(
        answer,
        r"test\.jsonl: row 1: label -1 is not 0 or 1; the hub hides the labels of 'test': give a folder",
    )


def test_an_unknown_split(trained: Any, cli: CommandLine) -> None:
    refused(cli("eval", trained("adaptive", "sst2").folder, "--split", "dve"), r"--split: .*'dev'")
