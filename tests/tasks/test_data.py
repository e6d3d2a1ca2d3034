"""Rows from data folders in every format and from the hub's layout, and every way they can be wrong."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import datasets
import huggingface_hub.constants
import pandas
import pytest

from repro.data.rows import folder_fingerprint, load_rows, rows_fingerprint
from repro.errors import UserError
from repro.tasks import sst2
from repro.tasks.base import Row

Rows = list[Row]

ROWS = [
    {"idx": index, "sentence": sentence, "label": label}
    for index, (sentence, label) in enumerate(
        [
            ("a gripping , moving film ", 1),
            ("dull , dull , dull", 0),
            ('he said " hello " , and left', 1),
            ("caf\u00e9 scenes \u2013 na\u00efve \U0001f3ac", 1),
            ("null", 0),
            ("not \\ bad", 1),
        ]
    )
]


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_gzip(path: Path, rows: Rows) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def write_parquet(path: Path, rows: Rows) -> None:
    pandas.DataFrame(rows).to_parquet(path)


def write_csv(path: Path, rows: Rows) -> None:
    pandas.DataFrame(rows).to_csv(path, index=False)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    ".jsonl": write_jsonl,
    ".jsonl.gz": write_gzip,
    ".parquet": write_parquet,
    ".csv": write_csv,
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The task's folder inside a data folder."""
    (tmp_path / "sst2").mkdir()
    return tmp_path / "sst2"


def from_folder(folder: Path, split: str = "train", limit: int | None = None) -> Rows:
    return load_rows(sst2, "folder:0", folder, split, limit).rows


def problem_of(load: Callable[[], object], match: str) -> str:
    """The one line of the user's error that `load` raises; `match` is found in it."""
    with pytest.raises(UserError, match=match) as caught:
        load()
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    assert "\r" not in str(caught.value)
    return str(caught.value)


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_rows(place: Path, suffix: str) -> None:
    WRITERS[suffix](place / f"train{suffix}", ROWS)
    found = from_folder(place.parent)
    assert found == ROWS
    assert all(type(row["label"]) is int and type(row["sentence"]) is str for row in found)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_each_split_has_its_file(place: Path, split: str) -> None:
    for number, name in enumerate(("train", "validation", "test")):
        write_jsonl(place / f"{name}.jsonl", ROWS[number : number + 1])
    assert from_folder(place.parent, split) == [ROWS[("train", "validation", "test").index(split)]]


def test_lines_may_end_as_on_windows(place: Path) -> None:
    text = "".join(json.dumps(row) + "\r\n" for row in ROWS)
    (place / "train.jsonl").write_bytes(text.encode())
    assert from_folder(place.parent) == ROWS


def test_further_columns_are_kept(place: Path) -> None:
    rows = [row | {"source": "mine"} for row in ROWS]
    write_jsonl(place / "train.jsonl", rows)
    assert from_folder(place.parent) == rows


def test_synthetic_splits_differ() -> None:
    splits = {
        split: load_rows(sst2, "synthetic", None, split, 20).rows for split in ("train", "validation", "test")
    }
    assert all(len(rows) == 20 for rows in splits.values())
    sentences = [{row["sentence"] for row in rows} for rows in splits.values()]
    assert not sentences[0] & sentences[1] and not sentences[0] & sentences[2]
    assert splits["train"] == load_rows(sst2, "synthetic", None, "train", 20).rows


# --- limit --------------------------------------------------------------------------------------


def test_a_limit_chooses_a_fixed_subset_in_order(place: Path) -> None:
    rows = [{"sentence": f"film {index}", "label": index % 2} for index in range(200)]
    write_jsonl(place / "train.jsonl", rows)
    found = from_folder(place.parent, limit=20)
    numbers = [int(row["sentence"].split()[1]) for row in found]
    assert len(set(numbers)) == 20
    assert numbers == sorted(numbers)
    assert found == [rows[number] for number in numbers]
    assert numbers != list(range(20))  # a choice, not the head of the file
    assert from_folder(place.parent, limit=20) == found


@pytest.mark.parametrize("limit", [None, 6, 7, 1000])
def test_a_limit_that_is_no_limit(place: Path, limit: int | None) -> None:
    write_jsonl(place / "train.jsonl", ROWS)
    assert from_folder(place.parent, limit=limit) == ROWS


# --- fingerprints -------------------------------------------------------------------------------


def fill(folder: Path, rows: Rows, suffix: str = ".jsonl") -> Path:
    (folder / "sst2").mkdir(parents=True)
    WRITERS[suffix](folder / "sst2" / f"train{suffix}", rows)
    WRITERS[suffix](folder / "sst2" / f"validation{suffix}", ROWS[:2])
    return folder


def test_the_fingerprint_names_the_content_not_the_place(tmp_path: Path) -> None:
    here = folder_fingerprint(fill(tmp_path / "here", ROWS), sst2)
    assert re.fullmatch(r"[0-9a-f]{16}", here)
    assert folder_fingerprint(fill(tmp_path / "there" / "deep", ROWS), sst2) == here
    assert folder_fingerprint(fill(tmp_path / "changed", ROWS[:-1]), sst2) != here
    turned = [*ROWS[:-1], ROWS[-1] | {"label": 0}]
    assert folder_fingerprint(fill(tmp_path / "label", turned), sst2) != here
    assert folder_fingerprint(fill(tmp_path / "format", ROWS, ".csv"), sst2) != here


def test_swapped_splits_have_another_fingerprint(tmp_path: Path) -> None:
    here, there = fill(tmp_path / "here", ROWS), fill(tmp_path / "there", ROWS)
    train, validation = there / "sst2" / "train.jsonl", there / "sst2" / "validation.jsonl"
    content = train.read_bytes()
    train.write_bytes(validation.read_bytes())
    validation.write_bytes(content)
    assert folder_fingerprint(here, sst2) != folder_fingerprint(there, sst2)


def test_the_same_bytes_in_another_format_have_another_fingerprint(tmp_path: Path) -> None:
    folder = fill(tmp_path, ROWS)
    before = folder_fingerprint(folder, sst2)
    (folder / "sst2" / "train.jsonl").rename(folder / "sst2" / "train.csv")
    assert folder_fingerprint(folder, sst2) != before


def test_the_fingerprint_needs_both_splits(place: Path) -> None:
    write_jsonl(place / "train.jsonl", ROWS)
    problem_of(lambda: folder_fingerprint(place.parent, sst2), "no split 'validation'")


def test_the_fingerprint_of_rows() -> None:
    one = rows_fingerprint(ROWS)
    assert re.fullmatch(r"[0-9a-f]{16}", one)
    assert rows_fingerprint([dict(reversed(row.items())) for row in ROWS]) == one
    assert rows_fingerprint(ROWS[::-1]) != one
    assert rows_fingerprint(ROWS[:-1]) != one


# --- what can be wrong with a folder ------------------------------------------------------------


def test_folder_missing(tmp_path: Path) -> None:
    problem_of(
        lambda: from_folder(tmp_path / "nothing"), r"^--data \S*nothing: no such folder\. Give a folder"
    )


def test_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    problem_of(lambda: from_folder(tmp_path / "file"), r"^--data \S*file: no such folder")


def test_task_folder_missing(tmp_path: Path) -> None:
    problem_of(lambda: from_folder(tmp_path), r"no folder 'sst2' in it; it has: none$")
    (tmp_path / "squad").mkdir()
    (tmp_path / "SST-2").mkdir()
    problem_of(lambda: from_folder(tmp_path), r"no folder 'sst2' in it; it has: SST-2, squad$")


def test_split_missing(place: Path) -> None:
    write_jsonl(place / "train.jsonl", ROWS)
    message = r"sst2: no split 'test' \(test\.jsonl, test\.jsonl\.gz, test\.parquet, test\.csv\)$"
    problem_of(lambda: from_folder(place.parent, "test"), message)


# --- what can be wrong with a row ---------------------------------------------------------------


@pytest.mark.parametrize("suffix", WRITERS)
def test_column_missing(place: Path, suffix: str) -> None:
    rows = [{"text": row["sentence"], "label": row["label"]} for row in ROWS]
    WRITERS[suffix](place / f"train{suffix}", rows)
    problem_of(
        lambda: from_folder(place.parent),
        rf"train{re.escape(suffix)}: row 1: no column 'sentence'; it has text, label$",
    )


def test_column_missing_in_one_row(place: Path) -> None:
    write_jsonl(place / "train.jsonl", [*ROWS[:3], {"sentence": "no label"}])
    problem_of(lambda: from_folder(place.parent), r"train\.jsonl: row 4: no column 'label'; it has sentence$")
    write_jsonl(place / "train.jsonl", [{}])
    problem_of(lambda: from_folder(place.parent), r"row 1: no column 'sentence'; it has none$")


@pytest.mark.parametrize("suffix", WRITERS)
def test_label_out_of_range(place: Path, suffix: str) -> None:
    WRITERS[suffix](place / f"train{suffix}", [*ROWS[:2], ROWS[2] | {"label": 2}])
    problem_of(lambda: from_folder(place.parent), r"row 3: label 2 is not 0 or 1$")


@pytest.mark.parametrize("label", ["positive", "1", True, None, 0.5, [1], {"a": 1}])
def test_label_that_is_no_whole_number(place: Path, label: object) -> None:
    write_jsonl(place / "train.jsonl", [ROWS[0], ROWS[1] | {"label": label}])
    problem_of(lambda: from_folder(place.parent), rf"row 2: label {re.escape(repr(label))} is not 0 or 1$")


def test_label_of_text_in_a_csv(place: Path) -> None:
    write_csv(place / "train.csv", [row | {"label": "positive"} for row in ROWS])
    problem_of(lambda: from_folder(place.parent), r"train\.csv: row 1: label 'positive' is not 0 or 1$")


def test_a_missing_label_in_a_csv_is_named_with_its_row(place: Path) -> None:
    (place / "train.csv").write_text("sentence,label\nfine,1\nno label,\n", encoding="utf-8")
    problem_of(lambda: from_folder(place.parent), r"train\.csv: row 2: label (''|nan|None) is not 0 or 1$")


@pytest.mark.parametrize("sentence", [None, 7, ["a", "b"]])
def test_sentence_that_is_no_text(place: Path, sentence: object) -> None:
    write_jsonl(place / "train.jsonl", [ROWS[0] | {"sentence": sentence}])
    problem_of(lambda: from_folder(place.parent), r"row 1: sentence .* is not text$")


def test_a_problem_with_a_line_break_is_still_one_line(place: Path) -> None:
    write_jsonl(place / "train.jsonl", [ROWS[0] | {"label": "a\nb"}])
    problem_of(lambda: from_folder(place.parent), r"row 1: label 'a\\nb' is not 0 or 1$")


# --- what can be wrong with a file --------------------------------------------------------------


def test_broken_json_is_named_with_its_line(place: Path) -> None:
    path = place / "train.jsonl"
    path.write_text('{"sentence": "a", "label": 1}\n{"sentence": "b", "label"\n', encoding="utf-8")
    problem_of(lambda: from_folder(place.parent), rf"^{re.escape(str(path))}: line 2: not JSON \(")


def test_a_line_cut_short_is_named(place: Path) -> None:
    path = place / "train.jsonl"
    write_jsonl(path, ROWS)
    path.write_bytes(path.read_bytes()[:-10])
    problem_of(lambda: from_folder(place.parent), r"train\.jsonl: line 6: not JSON")


@pytest.mark.parametrize("line", ['["a", 1]', '"text"', "17", "null"])
def test_a_json_line_that_is_no_object(place: Path, line: str) -> None:
    (place / "train.jsonl").write_text(f'{{"sentence": "a", "label": 1}}\n{line}\n', encoding="utf-8")
    message = r"train\.jsonl: row 2: expected a JSON object with sentence, label$"
    problem_of(lambda: from_folder(place.parent), message)


def test_not_utf_8_is_named_with_its_line(place: Path) -> None:
    latin = '{"sentence": "caf\u00e9", "label": 1}\n'.encode("latin-1")
    (place / "train.jsonl").write_bytes(b'{"sentence": "a", "label": 1}\n' * 2 + latin)
    # {"sentence": "caf is 17 bytes, so the first byte that is wrong is number 17, from 0.
    problem_of(lambda: from_folder(place.parent), r"train\.jsonl: line 3: not UTF-8 \(byte 17\)$")


def test_not_utf_8_in_a_csv(place: Path) -> None:
    (place / "train.csv").write_bytes("sentence,label\ncaf\u00e9,1\n".encode("latin-1"))
    problem_of(lambda: from_folder(place.parent), r"train\.csv: line 2: not UTF-8 \(byte 3\)$")


def test_gzip_that_is_none(place: Path) -> None:
    write_jsonl(place / "train.jsonl.gz", ROWS)
    problem_of(lambda: from_folder(place.parent), r"train\.jsonl\.gz: cannot be read after line 0 \(")


def test_gzip_cut_short(place: Path) -> None:
    path = place / "train.jsonl.gz"
    write_gzip(path, ROWS)
    path.write_bytes(path.read_bytes()[:-12])
    problem_of(lambda: from_folder(place.parent), r"train\.jsonl\.gz: cannot be read after line \d+ \(")


def test_gzip_with_a_damaged_body(place: Path) -> None:
    path = place / "train.jsonl.gz"
    write_gzip(path, ROWS)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20] = bytes(255 - byte for byte in content[middle : middle + 20])
    path.write_bytes(content)
    problem_of(lambda: from_folder(place.parent), r"train\.jsonl\.gz: ")


def test_gzip_with_a_damaged_first_block(place: Path) -> None:
    path = place / "train.jsonl.gz"
    # A gzip header of 10 bytes, then a block of the reserved type 3: no such compressed stream exists.
    path.write_bytes(gzip.compress(b"{}")[:10] + b"\xff" * 20)
    problem_of(lambda: from_folder(place.parent), r"train\.jsonl\.gz: cannot be read after line 0 \(")


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PAR1" + b"\x00" * 40 + b"PAR1"])
def test_broken_parquet(place: Path, content: bytes) -> None:
    (place / "train.parquet").write_bytes(content)
    problem_of(lambda: from_folder(place.parent), r"train\.parquet: not a Parquet file \(")


def test_broken_csv(place: Path) -> None:
    (place / "train.csv").write_text("sentence,label\na,1\nb,1,2,3\n", encoding="utf-8")
    message = (
        r"train\.csv: line 3: the header has 2 fields, this row 4; a field with commas stands in quotes$"
    )
    problem_of(lambda: from_folder(place.parent), message)


@pytest.mark.parametrize("suffix", WRITERS)
def test_empty_split(place: Path, suffix: str) -> None:
    path = place / f"train{suffix}"
    columns = pandas.DataFrame(ROWS)[:0]
    if suffix == ".parquet":
        columns.to_parquet(path)
    elif suffix == ".csv":
        columns.to_csv(path, index=False)
    else:
        WRITERS[suffix](path, [])
    problem_of(lambda: from_folder(place.parent), rf"train{re.escape(suffix)}: the split is empty$")


def test_csv_without_a_header(place: Path) -> None:
    (place / "train.csv").touch()
    problem_of(lambda: from_folder(place.parent), r"train\.csv: no header, which names the columns$")


# --- the hub, as a local directory in its layout ------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """`stanfordnlp/sst2/data` in the working directory: `datasets` prefers it to the hub's.

    The cache of `datasets` lies beside it; what is not there fails at once, without network.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "stanfordnlp" / "sst2" / "data"


def from_hub(split: str, limit: int | None = None) -> Rows:
    return load_rows(sst2, "hub", None, split, limit).rows


def test_the_hubs_layout(hub: Path) -> None:
    hub.mkdir(parents=True)
    write_parquet(hub / "train-00000-of-00001.parquet", ROWS)
    write_parquet(hub / "validation-00000-of-00001.parquet", ROWS[:2])
    assert from_hub("train") == ROWS
    assert from_hub("validation") == ROWS[:2]
    assert from_hub("train", limit=3) == [row for row in ROWS if row in from_hub("train", limit=3)]
    assert len(from_hub("train", limit=3)) == 3


def test_a_split_in_several_files(hub: Path) -> None:
    hub.mkdir(parents=True)
    write_parquet(hub / "train-00000-of-00002.parquet", ROWS[:4])
    write_parquet(hub / "train-00001-of-00002.parquet", ROWS[4:])
    assert from_hub("train") == ROWS


def test_hub_rows_are_checked(hub: Path) -> None:
    hub.mkdir(parents=True)
    # The hub's test split has no labels: -1 stands for that.
    write_parquet(hub / "test-00000-of-00001.parquet", [row | {"label": -1} for row in ROWS])
    message = (
        r"^stanfordnlp/sst2 test: row 1: label -1 is not 0 or 1; .*: give a folder that has them with --data$"
    )
    problem_of(lambda: from_hub("test"), message)


WAY_OUT = r"\. Give a folder with --data DIR, or --data synthetic\.$"


@pytest.mark.usefixtures("hub")
def test_hub_data_set_that_cannot_be_reached() -> None:
    problem_of(
        lambda: from_hub("train"), r"^--data hub: cannot load stanfordnlp/sst2 train \(\w+: .*\)" + WAY_OUT
    )


def test_hub_split_missing(hub: Path) -> None:
    hub.mkdir(parents=True)
    write_parquet(hub / "train-00000-of-00001.parquet", ROWS)
    problem_of(
        lambda: from_hub("validation"),
        r"^--data hub: cannot load stanfordnlp/sst2 validation \(.*\)" + WAY_OUT,
    )


def test_hub_file_broken(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "train-00000-of-00001.parquet").write_bytes(b"rubbish")
    problem_of(lambda: from_hub("train"), r"^--data hub: cannot load stanfordnlp/sst2 train \(.*\)" + WAY_OUT)
