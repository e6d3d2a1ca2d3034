"""Data that cannot be used: one line that names the file and the row, and nothing created."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CommandLine
from refusals import contents, refused
from rows_by_hand import FolderOf

from repro.tasks.base import Row

Damage = Callable[[Path], object]


def replace_line(split: str, number: int, text: str) -> Damage:
    """Put another text in the place of one line of a split."""

    def damage(folder: Path) -> None:
        path = folder / "sst2" / f"{split}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        lines[number - 1] = text
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return damage


def replace_file(split: str, name: str, content: bytes) -> Damage:
    """Put a file of another name and content in the place of a split."""

    def damage(folder: Path) -> None:
        (folder / "sst2" / f"{split}.jsonl").unlink()
        (folder / "sst2" / name).write_bytes(content)

    return damage


def row(**columns: object) -> str:
    return json.dumps(columns)


ROWS = b"".join(row(sentence=f"a fine film {n}", label=n % 2).encode() + b"\n" for n in range(500))
BROKEN_GZIP = bytearray(gzip.compress(ROWS, mtime=0))
BROKEN_GZIP[40:60] = b"\xff" * 20

DAMAGES: dict[str, tuple[Damage, str]] = {
    "folder missing": (shutil.rmtree, r"--data .*data: no such folder"),
    "task's folder missing": (
        lambda folder: shutil.rmtree(folder / "sst2"),
        r"--data .*: no folder 'sst2' in it; it has: none",
    ),
    "another task's folder": (
        lambda folder: (folder / "sst2").rename(folder / "squad"),
        r"--data .*: no folder 'sst2' in it; it has: squad",
    ),
    "split missing": (
        lambda folder: (folder / "sst2" / "validation.jsonl").unlink(),
        r"sst2: no split 'validation'",
    ),
    "column missing": (
        replace_line("train", 3, row(sentence="x")),
        r"train\.jsonl: (row|line) 3: no column 'label'; it has sentence",
    ),
    "other columns": (
        replace_line("train", 1, row(text="x", label=1)),
        r"train\.jsonl: (row|line) 1: no column 'sentence'; it has text, label",
    ),
    "label out of range": (
        replace_line("train", 64, row(sentence="x", label=2)),
        r"train\.jsonl: (row|line) 64: label 2 is not 0 or 1",
    ),
    "hidden label": (
        replace_line("validation", 5, row(sentence="x", label=-1)),
        r"validation\.jsonl: (row|line) 5: label -1 is not 0 or 1",
    ),
    "label as text": (replace_line("train", 2, row(sentence="x", label="1")), r"2: label '1' is not 0 or 1"),
    "no label": (replace_line("train", 2, row(sentence="x", label=None)), r"2: label None is not 0 or 1"),
    "labels": (replace_line("train", 2, row(sentence="x", label=[1])), r"2: label \[1\] is not 0 or 1"),
    "no sentence": (replace_line("train", 2, row(sentence=None, label=1)), r"2: sentence None is not text"),
    "not an object": (
        replace_line("train", 2, "[1, 2]"),
        r"train\.jsonl: (row|line) 2: expected a JSON object",
    ),
    "broken JSON": (
        replace_line("validation", 7, '{"sentence": "x", "label"'),
        r"validation\.jsonl: line 7: not JSON",
    ),
    "blank line": (replace_line("train", 9, ""), r"train\.jsonl: line 9: not JSON"),
    "not UTF-8": (
        replace_file(
            "train", "train.jsonl", ROWS[: ROWS.index(b"\n") + 1] + b'{"sentence": "caf\xe9", "label": 1}\n'
        ),
        r"train\.jsonl: line 2: not UTF-8",
    ),
    "empty split": (
        replace_file("validation", "validation.jsonl", b""),
        r"validation\.jsonl: the split is empty",
    ),
    "empty csv": (replace_file("validation", "validation.csv", b""), r"validation\.csv: "),
    "csv without rows": (
        replace_file("validation", "validation.csv", b"sentence,label\n"),
        r"validation\.csv: the split is empty",
    ),
    "csv with broken quotes": (
        replace_file("train", "train.csv", b'sentence,label\n"x,1\ny,0\n'),
        r"train\.csv: ",
    ),
    "csv not UTF-8": (
        replace_file("train", "train.csv", b"sentence,label\ncaf\xe9,1\n"),
        r"train\.csv: line 2: not UTF-8",
    ),
    "csv with another label": (
        replace_file("train", "train.csv", b"sentence,label\nx,1\ny,2\n"),
        r"train\.csv: (row|line) 2: label 2 is not 0 or 1",
    ),
    "not parquet": (replace_file("train", "train.parquet", ROWS), r"train\.parquet: not a Parquet file"),
    "not gzip": (replace_file("train", "train.jsonl.gz", ROWS), r"train\.jsonl\.gz: cannot be read"),
    "gzip cut short": (
        replace_file("train", "train.jsonl.gz", gzip.compress(ROWS)[:-200]),
        r"train\.jsonl\.gz: cannot be read",
    ),
    "gzip with wrong bytes": (
        replace_file("train", "train.jsonl.gz", bytes(BROKEN_GZIP)),
        r"train\.jsonl\.gz: ",
    ),
}


class TestData:
    @pytest.mark.parametrize("name", sorted(DAMAGES))
    def test_damaged_folder(self, cli: CommandLine, tmp_path: Path, data_folder: Path, name: str) -> None:
        damage, problem = DAMAGES[name]
        damage(data_folder)
        results = tmp_path / "results"
        results.mkdir()
        refused(cli.train("adaptive", results, "--data", data_folder), problem)
        assert contents(results) == {}

    def test_a_file_is_no_folder(self, cli: CommandLine, tmp_path: Path, data_folder: Path) -> None:
        path = data_folder / "sst2" / "train.jsonl"
        refused(
            cli.train("dense", tmp_path / "results", "--data", path),
            r"--data .*train\.jsonl: no such folder",
        )

    def test_hub_without_network(
        self, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        answer = cli.train("dense", tmp_path, "--data", "hub")
        refused(answer, r"--data hub: cannot load stanfordnlp/sst2 train .*--data DIR, or --data synthetic")
        assert contents(tmp_path) == {}

    def test_with_problems_of_options(self, cli: CommandLine, tmp_path: Path) -> None:
        options = ("--data", tmp_path / "none", "--threshold", "7")
        refused(cli.train("adaptive", tmp_path, *options), r"no such folder", r"between 0 and 1")
        assert contents(tmp_path) == {}


QUESTION: Row = {
    "context": "Ann met Ben .",
    "question": "Who met Ben ?",
    "answers": {"text": ["Ann"], "answer_start": [0]},
}
TALK: Row = {"narrative": "Ann met Ben .", "dialogue": ["Hello !", "Hi ."]}


def answers(texts: object, starts: object) -> Row:
    return QUESTION | {"answers": {"text": texts, "answer_start": starts}}


def choice(texts: object = ("a", "b", "c"), labels: object = ("A", "B", "C"), key: object = "A") -> Row:
    columns = {"text": texts, "label": labels}
    return {"question": "a ?", "choices": columns, "answerKey": key}


# Task, a row, and what is wrong with it.
ROWS_OF_TASKS: list[tuple[str, Row, str]] = [
    ("squad", answers(["Ben"], [0]), r"answer 'Ben' is not at position 0 of the context"),
    ("squad", answers(["Ann", "Ben"], [0, 9]), r"answer 'Ben' is not at position 9 of the context"),
    ("squad", answers(["Ann", "Ben"], [0]), r"answers is not an object with equally long lists"),
    ("squad", answers([], []), r"answers has no answer"),
    ("squad", answers(["Ann"], ["0"]), r"answers has a text or answer_start of the wrong type"),
    ("squad", QUESTION | {"answers": "Ann"}, r"answers is not an object with equally long lists"),
    ("squad", QUESTION | {"context": ""}, r"context '' is not text"),
    ("squad", QUESTION | {"question": None}, r"question 'None' is not text"),
    ("squad", {"context": "a", "question": "b"}, r"no column 'answers'; it has context, question"),
    ("wmt19", {"translation": "ja"}, r"translation is not an object with the texts 'de' and 'en'"),
    ("wmt19", {"translation": {"de": "ja", "fr": "oui"}}, r"translation is not an object with the texts"),
    ("wmt19", {"translation": {"de": "ja", "en": None}}, r"translation is not an object with the texts"),
    ("wmt19", {"translation": {"de": "ja", "en": " "}}, r"translation 'en' is empty"),
    ("wmt19", {"de": "ja", "en": "yes"}, r"no column 'translation'; it has de, en"),
    ("cnn_dailymail", {"article": "", "highlights": "a"}, r"article '' is not text"),
    ("cnn_dailymail", {"article": "a", "highlights": " \n"}, r"highlights .* is not text"),
    ("cnn_dailymail", {"article": "a", "summary": "a"}, r"no column 'highlights'; it has article, summary"),
    ("wikitext", {"text": None}, r"text None is not text"),
    ("wikitext", {"text": ["a"]}, r"text \['a'\] is not text"),
    ("wikitext", {"page": "a"}, r"no column 'text'; it has page"),
    ("soda", TALK | {"dialogue": ["Hello !"]}, r"dialogue has 1 turns; a response needs a turn before it"),
    ("soda", TALK | {"dialogue": []}, r"dialogue has 0 turns"),
    ("soda", TALK | {"dialogue": "Hello !"}, r"dialogue is not a list of texts"),
    ("soda", TALK | {"dialogue": ["Hello !", 3]}, r"dialogue is not a list of texts"),
    ("soda", TALK | {"narrative": None}, r"narrative None is not text"),
    ("soda", {"dialogue": ["a", "b"]}, r"no column 'narrative'; it has dialogue"),
    ("arc", choice(key="E"), r"answerKey 'E' is none of the labels \['A', 'B', 'C'\]"),
    ("arc", choice(key=1), r"answerKey 1 is none of the labels"),
    ("arc", choice(key=""), r"answerKey '' is none of the labels"),
    ("arc", choice(labels=["1", "2", "3"]), r"answerKey 'A' is none of the labels"),
    ("arc", choice(labels=["A", "B", "A"]), r"choices has a label twice: \['A', 'B', 'A'\]"),
    ("arc", choice(labels=["A", "B"]), r"choices is not an object with equally long lists 'text'"),
    ("arc", choice(labels=[1, 2, 3]), r"choices has a text or a label that is not text"),
    ("arc", choice(texts=["a", "b", None]), r"choices has a text or a label that is not text"),
    ("arc", choice(texts=["a"], labels=["A"]), r"choices has 1 texts; there must be two to choose from"),
    ("arc", choice() | {"choices": ["a", "b"]}, r"choices is not an object"),
    ("arc", choice(texts=["a", " ", "c"]), r"choice 'B' is empty; 1 of 8 rows lack a text, and at most 5%"),
    ("arc", choice() | {"question": " "}, r"question is empty; 1 of 8 rows lack a text"),
    ("arc", choice() | {"question": None}, r"question None is not text"),
    ("arc", {"question": "a", "answerKey": "A"}, r"no column 'choices'; it has question, answerKey"),
]


class TestRows:
    @pytest.mark.parametrize(("task", "wrong", "problem"), ROWS_OF_TASKS)
    def test_of_every_task(
        self, cli: CommandLine, tmp_path: Path, folder_of: FolderOf, task: str, wrong: Row, problem: str
    ) -> None:
        folder = folder_of(task)
        path = folder / task / "validation.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        lines[2] = json.dumps(wrong)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        answer = cli.train("dense", tmp_path / "results", "--data", folder, task=task)
        refused(answer, rf"validation\.jsonl: row 3: {problem}")
        assert not (tmp_path / "results").exists()

    @pytest.mark.parametrize("split", ["train", "validation"])
    @pytest.mark.parametrize("line", ["", " ", "\n"])
    def test_running_text_of_blank_lines(
        self, cli: CommandLine, tmp_path: Path, folder_of: FolderOf, split: str, line: str
    ) -> None:
        folder = folder_of("wikitext")
        path = folder / "wikitext" / f"{split}.jsonl"
        path.write_text((row(text=line) + "\n") * 9, encoding="utf-8")
        answer = cli.train("dense", tmp_path / "results", "--data", folder, task="wikitext")
        refused(answer, rf"data: the \d rows of '{split}' hold too little text for one example")
        assert not (tmp_path / "results").exists()

    @pytest.mark.parametrize("task", ["soda", "wikitext", "wmt19"])
    def test_no_folder_of_any_name(
        self, cli: CommandLine, tmp_path: Path, data_folder: Path, task: str
    ) -> None:
        answer = cli.train("dense", tmp_path / "results", "--data", data_folder, task=task)
        refused(answer, rf"--data .*: no folder '{task}' or '.*' in it; it has: sst2")
