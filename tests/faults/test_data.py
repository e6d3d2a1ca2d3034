"""Data that are wrong, huge, incomplete or damaged: one line that says where, or the right rows."""

import gzip
import json
import logging
import random
import resource
import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from command_line import CommandLine
from rows_by_hand import rows_of, write_jsonl

from repro.data import readers
from repro.data.features import report_special_tokens
from repro.data.rows import folder_fingerprint, load_rows, rows_fingerprint
from repro.data.tokenizers import pretrained_tokenizer
from repro.errors import UserError
from repro.moe.backbones.base import load as load_backbone
from repro.tasks.base import Feature, Row, Task, load

TASKS = ("arc", "cnn_dailymail", "soda", "squad", "sst2", "wikitext", "wmt19")
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv")
OPTIONS: dict[str, dict[str, Any]] = {"squad": {"stride": 8, "max_question_length": 20}}


def file_of(folder: Path, task: str, suffix: str, split: str = "train") -> Path:
    """The path of a split, whose folders are made."""
    path = folder / task / f"{split}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def content_of(rows: list[Row], suffix: str, folder: Path) -> bytes:
    """The bytes of a file of these rows."""
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "scratch", row_group_size=10)
        return (folder / "scratch").read_bytes()
    if suffix == ".csv":
        return pandas.DataFrame(rows).to_csv(index=False).encode()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    return gzip.compress(text) if suffix == ".jsonl.gz" else text


def read(folder: Path, task: str = "sst2", split: str = "train", limit: int | None = None) -> list[Row]:
    return load_rows(load(task), "folder:0", folder, split, limit).rows


def refusal(folder: Path, task: str = "sst2") -> str:
    """The one line by which the training split of a task is refused."""
    with pytest.raises(UserError) as caught:
        read(folder, task)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    assert "\r" not in problem
    return problem.removeprefix(f"{folder}/{task}/")


@cache
def task_of(name: str) -> Task:
    """A task with a small tokenizer of its backbone's kind."""
    module = load(name)
    texts = [text for row in rows_of(name, 40) for text in module.texts(row)]
    tokenizer = load_backbone(module.BACKBONE).train_tokenizer(texts, 400)
    return module.Task(module.Config(**OPTIONS.get(name, {})), tokenizer, 64)


# --- more than fits in memory ---------------------------------------------------------------------


class TestSize:
    @pytest.fixture(autouse=True)
    def limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(readers, "MAX_LINE", 2**20)

    @pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv"])
    def test_a_line_that_is_too_long_is_not_read(self, tmp_path: Path, suffix: str) -> None:
        path = file_of(tmp_path, "sst2", suffix)
        start = b"sentence,label\n" if suffix == ".csv" else b'{"sentence": "a", "label": 1}\n'
        content = start + b"a" * (40 * 2**20)
        path.write_bytes(gzip.compress(content, 1) if suffix == ".jsonl.gz" else content)
        del content
        tracemalloc.start()
        try:
            assert refusal(tmp_path) == f"train{suffix}: line 2: longer than 1 MiB"
            assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        finally:
            tracemalloc.stop()

    def test_a_cell_of_many_lines(self, tmp_path: Path) -> None:
        """As after a quote that is never closed."""
        text = 'sentence,label\nfine,1\n"good\n' + "film film,1\n" * 100_000
        file_of(tmp_path, "sst2", ".csv").write_text(text, encoding="utf-8")
        assert refusal(tmp_path) == "train.csv: line 3: not CSV (a row longer than 1 MiB)"

    def test_a_row_of_many_cells(self, tmp_path: Path) -> None:
        """Quotes that close and open in every line make one row of a whole file."""
        text = 'sentence,label\nfine,1\n"good\n' + 'film","film\n' * 100_000
        file_of(tmp_path, "sst2", ".csv").write_text(text, encoding="utf-8")
        assert refusal(tmp_path) == "train.csv: line 3: not CSV (a row longer than 1 MiB)"

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_too_many_columns(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str) -> None:
        monkeypatch.setattr(readers, "_MAX_COLUMNS", 100)
        rows = [{f"column {number}": 1 for number in range(101)}]
        file_of(tmp_path, "sst2", suffix).write_bytes(content_of(rows, suffix, tmp_path))
        assert refusal(tmp_path).endswith("more than 100 columns")

    def test_a_row_of_parquet(self, tmp_path: Path) -> None:
        rows = [{"sentence": "a", "label": 1}] * 20 + [{"sentence": "a" * (2**20 + 1), "label": 0}]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file_of(tmp_path, "sst2", ".parquet"))
        assert refusal(tmp_path) == "train.parquet: row 21: larger than 1 MiB"

    def test_a_row_group_that_says_so_is_not_unpacked(self, tmp_path: Path) -> None:
        rows = [{"sentence": "a" * (3 * 2**20), "label": 0}]
        path = file_of(tmp_path, "sst2", ".parquet")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        path.write_bytes(path.read_bytes().replace(b"a" * 100, b"b" * 100))  # nothing of it can be unpacked
        assert refusal(tmp_path).startswith("train.parquet: a row group of 1 rows and 3 MiB;")

    def test_a_text_that_stands_once_for_many_rows(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Kilobytes of Parquet that unpack to gigabytes."""
        monkeypatch.setattr(readers, "_MAX_BATCH", 2**26)
        texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, "int32"), ["a" * 900_000])
        path = file_of(tmp_path, "sst2", ".parquet")
        table = pyarrow.table({"sentence": texts, "label": [1] * 1000})
        pyarrow.parquet.write_table(table, path, store_schema=False)
        assert path.stat().st_size < 2**17
        limits = resource.getrlimit(resource.RLIMIT_DATA)
        assert refusal(tmp_path).startswith("train.parquet: its rows take more than 64 MiB, ")
        assert resource.getrlimit(resource.RLIMIT_DATA) == limits

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_what_is_just_short_enough(self, tmp_path: Path, suffix: str) -> None:
        rows = [{"sentence": "a" * (2**20 - 100), "label": 1}]
        file_of(tmp_path, "sst2", suffix).write_bytes(content_of(rows, suffix, tmp_path))
        assert read(tmp_path) == rows


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_part_is_chosen_without_the_rest_in_memory(tmp_path: Path, suffix: str) -> None:
    """The chosen rows are those of a fixed random choice among all, in their order."""
    rows = [{"sentence": f"{number} " + "film " * 50, "label": number % 2} for number in range(8000)]
    file_of(tmp_path, "sst2", suffix).write_bytes(content_of(rows, suffix, tmp_path))
    expected = [rows[index] for index in sorted(random.Random(0).sample(range(8000), 20))]
    assert read(tmp_path, limit=20) == expected  # imports what it needs
    tracemalloc.start()
    try:
        assert read(tmp_path, limit=20) == expected
        assert tracemalloc.get_traced_memory()[1] < 2**20  # of which Parquet has a batch
    finally:
        tracemalloc.stop()


# --- CSV ------------------------------------------------------------------------------------------

CSV = {
    "a field too many": (
        "sentence,label\ngood,film,1\n",
        "line 2: the header has 2 fields, this row 3; a field with commas stands in quotes",
    ),
    "only in a later row": (
        "sentence,label\nfine,1\n\ngood,film,1\n",
        "line 4: the header has 2 fields, this row 3",
    ),
    "behind a line break in quotes": ('sentence,label\n"a\nb",1\nc,d,1\n', "line 4: the header has 2 fields"),
    "a field too few": ("sentence,label\nfine,1\ngood\n", "line 3: the header has 2 fields, this row 1"),
    "a comma at the end": ("sentence,label\nfine,1,\n", "line 2: the header has 2 fields, this row 3"),
    "two columns of a name": (
        "sentence,label,sentence\na,1,b\n",
        "line 1: two columns are called 'sentence'",
    ),
    "no header": ("fine,1\ngood,0\n", "row 1: no column 'sentence'; it has fine, 1"),
    "nothing": ("\n\n", "no header, which names the columns"),
    "an open quote": ('sentence,label\nfine,1\n"good,1\nbad,0\n', "line 3: not CSV (unexpected end of data)"),
    "text behind a quote": ('sentence,label\n"good" film,1\n', "line 2: not CSV (',' expected after '\"')"),
    "a break in a name": ('"a\nb",label\nx,1\n', "row 1: no column 'sentence'; it has a\\nb, label"),
}


@pytest.mark.parametrize("name", CSV)
def test_a_wrong_csv(tmp_path: Path, name: str) -> None:
    content, problem = CSV[name]
    file_of(tmp_path, "sst2", ".csv").write_text(content, encoding="utf-8")
    assert refusal(tmp_path).startswith(f"train.csv: {problem}")


def test_csv_line_that_is_not_utf_8(tmp_path: Path) -> None:
    content = 'sentence,label\n"a\nb",1\ncafé,1\n'.encode("latin-1")
    file_of(tmp_path, "sst2", ".csv").write_bytes(content)
    assert refusal(tmp_path) == "train.csv: line 4: not UTF-8 (byte 3)"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_valid_csv(tmp_path: Path, end: str, mark: str) -> None:
    """As spreadsheets of any system write it; blank lines are none, an empty cell is text."""
    lines = [",sentence,label,idx", '0,"a ""b"", c",1,007', "", f'1,"d{end}e",0,', " ", '2,"",1,-3']
    path = file_of(tmp_path, "sst2", ".csv")
    path.write_bytes((mark + end.join(lines)).encode())
    assert read(tmp_path) == [
        {"Unnamed: 0": 0, "sentence": 'a "b", c', "label": 1, "idx": 7},
        {"Unnamed: 0": 1, "sentence": f"d{end}e", "label": 0, "idx": ""},
        {"Unnamed: 0": 2, "sentence": "", "label": 1, "idx": -3},
    ]


def test_two_columns_of_a_name_in_parquet(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(["a"]), pyarrow.array([1]), pyarrow.array(["b"])], ["sentence", "label", "sentence"]
    )
    pyarrow.parquet.write_table(table, file_of(tmp_path, "sst2", ".parquet"))
    assert refusal(tmp_path) == "train.parquet: two columns are called 'sentence'"


def test_the_schema_of_parquet_is_damaged(tmp_path: Path) -> None:
    """Arrow ends the process where it is asked for a column that does not fit its schema."""
    content = content_of(rows_of("sst2", 4), ".parquet", tmp_path)
    path = file_of(tmp_path, "sst2", ".parquet")
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    refusals = 0
    for place in range(start, start + 100):
        path.write_bytes(content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :])
        try:
            list(readers.file_reader(path)())
        except UserError:
            refusals += 1
    assert refusals > 10


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [r"\ud800", r"a \uDfff b", r"\ud83c x", r"\udfac\ud83c"])
def test_half_a_surrogate_pair(tmp_path: Path, text: str) -> None:
    lines = '{"sentence": "\\ud83c\\udfac", "label": 1}\n' + f'{{"sentence": "{text}", "label": 1}}\n'
    file_of(tmp_path, "sst2", ".jsonl").write_text(lines, encoding="utf-8")
    expected = "train.jsonl: line 2: not JSON (half of a surrogate pair, as \\ud83d, is no character: "
    assert refusal(tmp_path).startswith(expected)


def test_rows_of_wikitext_without_line_ends() -> None:
    """As a data folder of plain lines has them: their words do not grow together."""
    task = task_of("wikitext")
    bare, whole = (
        [{"text": f"the cat{end}"}, {"text": ""}, {"text": f"sat{end}"}, {"text": " "}] for end in ("", "\n")
    )
    assert task.encode(bare) == task.encode(whole)
    ids = [token for feature in task.encode(bare) for token in feature["input_ids"]]
    assert task.tokenizer.decode(ids) == "the cat\n\nsat\n \n"
    assert load("wikitext").texts(bare[0]) == load("wikitext").texts(whole[0]) == ["the cat\n"]


def with_text(name: str, text: str) -> Row:
    """A row of a task that says this text wherever it can."""
    rows: dict[str, Row] = {
        "sst2": {"sentence": f"a {text} b", "label": 1},
        "wmt19": {"translation": {"de": f"a {text} b", "en": f"c {text} d"}},
        "squad": {
            "context": f"a {text} b Ann c",
            "question": f"who {text} ?",
            "answers": {"text": ["Ann"], "answer_start": [len(f"a {text} b ")]},
        },
        "cnn_dailymail": {"article": f"a {text} b", "highlights": f"c {text} d"},
        "wikitext": {"text": f"a {text} b\n"},
        "soda": {"narrative": f"a {text} b", "dialogue": [f"c {text} d", f"e{text}", text]},
        "arc": {
            "question": f"a {text} b",
            "choices": {"text": [f"c {text} d", f"e{text}", text], "label": ["A", "B", "C"]},
            "answerKey": "B",
        },
    }
    return rows[name]


def special_ids(task: Task, features: list[Feature]) -> list[int]:
    """The special tokens of the vocabulary in features, in their order."""
    special = set(task.tokenizer.all_special_ids)
    ids = [token for feature in features for key in ("input_ids", "labels") for token in feature.get(key, [])]
    return [token for token in ids if token in special]


@pytest.mark.parametrize("name", TASKS)
def test_special_tokens_in_a_text_are_text(name: str) -> None:
    task = task_of(name)
    plain, *others = (
        special_ids(task, task.encode([with_text(name, text)]))
        for text in ("film", *task.tokenizer.all_special_tokens)
    )
    # For BERT a sign that it never saw is unknown, as "[" is here.
    unknown = task.tokenizer.unk_token_id if name in ("sst2", "squad") else None
    for found in others:
        assert [token for token in found if token != unknown] == [
            token for token in plain if token != unknown
        ]


def test_special_tokens_do_not_move_answers() -> None:
    task = task_of("squad")
    (feature,) = task.encode([with_text("squad", "[SEP]")])
    first, last = (feature["spans"][feature[side] - feature["first"]] for side in ("start", "end"))
    assert with_text("squad", "[SEP]")["context"][first[0] : last[1]] == "Ann"


def test_special_tokens_in_texts_for_fsmts_own_tokenizer(fsmt_folder: Path) -> None:
    """It is no Rust tokenizer, and has a vocabulary per language."""
    module = load("wmt19")
    task = module.Task(module.Config(), pretrained_tokenizer(fsmt_folder), 64)
    (feature,) = task.encode([with_text("wmt19", "</s><pad>")])
    unknown, end = task.tokenizer.unk_token_id, task.tokenizer.sep_token_id
    for key in ("input_ids", "labels"):
        assert feature[key][-1] == end
        assert {token for token in feature[key][:-1] if token in task.tokenizer.all_special_ids} <= {unknown}


def test_special_tokens_in_texts_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    rows = [with_text("soda", "film"), with_text("soda", "<|endoftext|>"), with_text("soda", "</s>")]
    report_special_tokens(load("soda"), rows, "train", task_of("soda").tokenizer)
    report_special_tokens(load("soda"), rows[:1], "validation", task_of("soda").tokenizer)
    found = "data: 1 rows of 'train' contain special tokens (<|endoftext|>) as text"
    assert caplog.messages == [f"{found}; they are encoded as plain text"]


# --- rows that lack a text ------------------------------------------------------------------------

LACKING: dict[str, tuple[Row, str]] = {
    "wmt19": ({"translation": {"de": "ja", "en": " "}}, "translation 'en' is empty"),
    "cnn_dailymail": ({"article": "", "highlights": "a", "id": "x"}, "article '' is not text"),
    "soda": (
        {"narrative": "a", "dialogue": ["b"], "speakers": ["A"]},
        "dialogue has 1 turns; a response needs a turn before it",
    ),
}


def lacking(name: str, size: int, places: list[int]) -> list[Row]:
    rows = rows_of(name, size)
    for place in places:
        rows[place] = LACKING[name][0]
    return rows


def put_on_the_hub(name: str, rows: list[Row], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make a data set of that name in the working directory: `datasets` prefers it to the hub's."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    place, configuration = load(name).HUB
    data = folder / place / "data"
    data.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data / "train-00000-of-00001.parquet")
    (folder / place / "README.md").write_text(
        f"---\nconfigs:\n- config_name: {configuration or 'default'}\n  data_files:\n"
        "  - split: train\n    path: data/train-*\n---\n",
        encoding="utf-8",
    )


class TestGaps:
    @pytest.mark.parametrize("source", ["folder", "hub"])
    @pytest.mark.parametrize("name", LACKING)
    def test_a_few_are_left_out_and_counted(
        self,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        tmp_path: Path,
        name: str,
        source: str,
    ) -> None:
        rows = lacking(name, 60, [0, 1, 40])
        if source == "folder":
            write_jsonl(file_of(tmp_path, name, ".jsonl"), rows)
            found = load_rows(load(name), "folder:0", tmp_path, "train", None)
            origin = f"{tmp_path}/{name}/train.jsonl"
        else:
            put_on_the_hub(name, rows, monkeypatch, tmp_path)
            found = load_rows(load(name), "hub", None, "train", None)
            origin = f"{load(name).HUB[0]} train"
        assert found.rows == [row for row in rows if row != LACKING[name][0]]
        assert found.skipped == 3
        told = f"{origin}: 3 of 60 rows are left out, the first for row 1: {LACKING[name][1]}"
        assert [record.getMessage() for record in caplog.records if record.name == "repro"] == [told]

    @pytest.mark.parametrize("limit", [1, 10, 56, 57, 60])
    @pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
    def test_a_choice_is_among_the_others(self, tmp_path: Path, suffix: str, limit: int) -> None:
        rows = lacking("wmt19", 60, [0, 1, 40])
        file_of(tmp_path, "wmt19", suffix).write_bytes(content_of(rows, suffix, tmp_path))
        whole = read(tmp_path, "wmt19")
        chosen = sorted(random.Random(0).sample(range(57), min(limit, 57)))
        assert read(tmp_path, "wmt19", limit=limit) == [whole[index] for index in chosen]

    @pytest.mark.parametrize("name", LACKING)
    def test_many_are_a_fault_of_the_data(self, tmp_path: Path, name: str) -> None:
        write_jsonl(file_of(tmp_path, name, ".jsonl"), lacking(name, 40, [5, 7, 9]))
        expected = f"row 6: {LACKING[name][1]}; 3 of 40 rows lack a text, and at most 5% may"
        assert refusal(tmp_path, name) == f"train.jsonl: {expected}"

    def test_said_once_and_kept_in_the_result(self, cli: CommandLine, tmp_path: Path) -> None:
        for split, size, places in (("train", 40, [3, 4]), ("validation", 8, [])):
            rows = lacking("wmt19", size, places)
            rows[2] = with_text("wmt19", "</s>")
            write_jsonl(file_of(tmp_path / "data", "wmt19", ".jsonl", split), rows)
        answer = cli.train("dense", tmp_path, "--data", tmp_path / "data", "--json", task="wmt19")
        data = answer.json()["data"]
        assert data["skipped"] == {"train": 2, "dev": 0, "validation": 0}
        assert data["counts"] == {"train": 12, "dev": 6, "validation": 8}
        notices = [line for line in answer.err.splitlines() if line.startswith("repro: ")]
        assert len(notices) == len(set(notices))
        assert notices[0].endswith(
            "train.jsonl: 2 of 40 rows are left out, the first for row 4: translation 'en' is empty"
        )
        assert notices[-1].startswith(
            "repro: data: 1 rows of 'validation' contain special tokens (</s>) as text"
        )

    def test_where_there_are_none(self, cli: CommandLine, tmp_path: Path) -> None:
        answer = cli.train("dense", tmp_path, "--json")
        assert set(answer.json()["data"]["skipped"].values()) == {0}
        assert "repro: " not in answer.err


# --- valid JSON of the wrong shape ----------------------------------------------------------------

SHAPES: list[Any] = [
    None,
    True,
    0,
    -1.5,
    1e308,
    "",
    "\n",
    "a\nb" * 100,
    [],
    [[]],
    {},
    {"": {}},
    ["a"],
    [None],
    {"de": "a"},
    {"text": "a", "answer_start": 0},
    {"text": ["a"], "answer_start": [True]},
    {"text": ["a"], "answer_start": [10**30]},
    {"text": [["a"]], "answer_start": [0]},
    {"a\nb": 1},
    [0] * 1000,
]


@pytest.mark.parametrize("name", TASKS)
def test_values_of_the_wrong_shape(tmp_path: Path, name: str) -> None:
    path = file_of(tmp_path, name, ".jsonl")
    for column in load(name).COLUMNS:
        for shape in SHAPES:
            write_jsonl(path, [*rows_of(name, 4), rows_of(name, 1)[0] | {column: shape}])
            outcome(tmp_path, name, ".jsonl")
    for shape in SHAPES[:-1] if name != "wikitext" else SHAPES[:9]:
        path.write_text(json.dumps(shape), encoding="utf-8")
        assert refusal(tmp_path, name).startswith("train.jsonl: row 1: ")


@pytest.mark.parametrize("depth", [300, 100_000])
def test_json_that_is_nested_too_deeply(tmp_path: Path, depth: int) -> None:
    line = f'{{"sentence": "a", "label": 1, "more": {"[" * depth}{"]" * depth}}}'
    file_of(tmp_path, "sst2", ".jsonl").write_text(line, encoding="utf-8")
    assert refusal(tmp_path).startswith("train.jsonl: line 1: not JSON (recursion limit exceeded")


# --- damages --------------------------------------------------------------------------------------

JUNK = [
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\r", b"\n", b'"', b",", b"{", b"[", b"[[[[[[", b"\\"),
    *(b"\\ud800", b"NaN", b"null", b"1e999", b"9" * 30, b"\xe2\x80\xa8", b"\xed\xa0\x80"),
    *(b"<|endoftext|>", b"[SEP]", b"</s>"),
]
CODES = ("utf-16", "utf-32", "latin-1", "cp1252", "utf-8-sig")


def flipped(content: bytes, chance: random.Random) -> bytes:
    bits = bytearray(content)
    for _ in range(chance.choice([1, 1, 3, 20])):
        bits[chance.randrange(len(bits))] ^= 1 << chance.randrange(8)
    return bytes(bits)


def shuffled(content: bytes, chance: random.Random) -> bytes:
    lines = content.split(b"\n")
    chance.shuffle(lines)
    return b"\n".join(lines)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Cut short, lose, double or put in a piece, flip bits, take other line ends or another encoding ..."""
    place = chance.randint(0, len(content))
    end = min(len(content), place + chance.choice([1, 10, 100, 1000]))
    junk = chance.choice(JUNK) * chance.choice([1, 1, 50, 3000])
    damages: list[Callable[[], bytes]] = [
        lambda: content[:place],
        lambda: content[:place] + content[end:],
        lambda: content[:end] + content[place:],
        lambda: content[:place] + junk + content[place:],
        lambda: flipped(content, chance),
        lambda: shuffled(content, chance),
        lambda: content.replace(b"\n", chance.choice([b"\r\n", b"\r", b"\n\n", b" \n"])),
        lambda: content.decode("utf-8", "replace").encode(chance.choice(CODES), "replace"),
        lambda: chance.randbytes(chance.randint(0, 300)),
    ]
    return chance.choice(damages)()


def outcome(folder: Path, name: str, suffix: str, limit: int | None = None) -> str:
    """Read a training split and encode it: "fine", or the line by which it is refused."""
    module, task = load(name), task_of(name)
    try:
        rows = read(folder, name, limit=limit)
        rows_fingerprint(rows)
        features = task.encode(rows)
    except UserError as error:
        (problem,) = error.problems
        assert not set("\n\r") & set(problem)
        assert len(problem) < 600
        assert f"train{suffix}: " in problem or "the tokenizer finds no token" in problem
        return problem
    assert json.loads(json.dumps(features)) == features
    assert module.texts(rows[0]) is not None
    if features:
        task.collate(features[:4])
    return "fine"


PLACES = [
    (name, suffix)
    for name in TASKS
    for suffix in SUFFIXES
    if suffix != ".csv" or name in ("sst2", "wikitext", "cnn_dailymail")
]


def check_damages(folder: Path, cases: int, seed: int) -> None:
    """Damage small files of every task and format."""
    logging.getLogger("repro").addHandler(logging.NullHandler())
    whole = {place: content_of(rows_of(place[0], 40), place[1], folder) for place in PLACES}
    outcomes = []
    for number in range(cases):
        chance = random.Random(f"{seed} {number}")
        name, suffix = chance.choice(PLACES)
        content = whole[name, suffix]
        if suffix == ".jsonl.gz" and chance.random() < 0.5:  # inside a file that can be unpacked
            content = gzip.compress(damaged(gzip.decompress(content), chance))
        else:
            content = damaged(content, chance)
        path = file_of(folder / str(number), name, suffix)
        path.write_bytes(content)
        file_of(folder / str(number), name, suffix, "validation").write_bytes(content)
        assert folder_fingerprint(folder / str(number), load(name))
        outcomes.append(outcome(folder / str(number), name, suffix, chance.choice([None, 10])))
        path.unlink()
    assert 0.1 < outcomes.count("fine") / cases < 0.5


def test_a_hundred_damages(tmp_path: Path) -> None:
    check_damages(tmp_path, cases=100, seed=19)


@pytest.mark.torture
def test_thousands_of_damages(tmp_path: Path) -> None:
    check_damages(tmp_path, cases=5000, seed=20)


def test_what_cannot_be_opened(cli: CommandLine, tmp_path: Path) -> None:
    """A folder in the place of a file, a name that is too long, a file that goes away."""
    (tmp_path / "sst2" / "train.jsonl").mkdir(parents=True)
    assert refusal(tmp_path).startswith(f"{tmp_path}/sst2: no split 'train' (train.jsonl, ")
    answer = cli("train", "--task", "sst2", "--gate", "dense", "--data", tmp_path / ("x" * 300))
    assert answer.status == 2
    assert len(answer.err.splitlines()) == 1
    with pytest.raises(UserError, match=r"^--data .*x: cannot be read \(File name too long\)$"):
        read(tmp_path / ("x" * 300))


def test_a_file_that_changes_while_it_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = file_of(tmp_path, "sst2", ".jsonl")
    write_jsonl(path, rows_of("sst2", 40))
    sample = random.Random.sample

    def shortened(self: random.Random, population: range, size: int) -> list[int]:
        write_jsonl(path, rows_of("sst2", 2))
        return sample(self, population, size)

    monkeypatch.setattr(random.Random, "sample", shortened)
    with pytest.raises(UserError, match=r"train\.jsonl: changed while it was read"):
        read(tmp_path, limit=10)
