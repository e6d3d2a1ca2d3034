"""What the user got wrong: one line for each problem, exit status 2, nothing created, nothing changed."""

import gzip
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from repro import plugins


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder; None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(answer: Any, *problems: str) -> list[str]:
    """The lines of an answer that must list exactly these problems, each given by a pattern."""
    assert answer.status == 2, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    lines: list[str] = answer.err.splitlines()
    assert len(lines) == len(problems), answer.err
    assert all(line.startswith("repro: ") for line in lines), answer.err
    for problem in problems:
        found = [line for line in lines if re.search(problem, line)]
        assert found, f"no line matches {problem!r}:\n{answer.err}"
    return lines


def finished(results: Path) -> Path:
    (folder,) = results.glob("*/runs/*")
    return folder


@dataclass(frozen=True)
class Case:
    """Options of `repro train`, in addition to or instead of those of a small run, and the answer."""

    name: str
    options: list[str]
    problems: list[str]
    gate: str = "adaptive"


def settings(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


WORDS = [
    Case(
        "task", ["--task", "sst-3"], [r"--task: unknown task 'sst-3'\. Did you mean 'sst2'\? Known: .*sst2"]
    ),
    Case("task far off", ["--task", "q"], [r"--task: unknown task 'q'\. Known: .*sst2"]),
    Case("gate", [], [r"--gate: unknown gate 'adaptiv'\. Did you mean 'adaptive'\?"], gate="adaptiv"),
    Case("gate top-two", [], [r"--gate: unknown gate 'top-two'\. Did you mean 'top-"], gate="top-two"),
    Case("gate top-0", [], [r"(?=.*gate)(?=.*at least 1).*0"], gate="top-0"),
    Case("private gate", [], [r"--gate: unknown gate '_softmax'"], gate="_softmax"),
    Case(
        "back-end",
        ["--experts-backend", "groupd"],
        [r"--experts-backend: .*unknown experts back-end 'groupd'\. Did you mean 'grouped'\?"],
    ),
    Case("scale", ["--scale", "mni"], [r"--scale: unknown scale 'mni'\. Did you mean 'mini'\?"]),
    Case(
        "key",
        settings("training.batchsize=3"),
        [r"--set training\.batchsize: unknown key .*Did you mean 'training\.batch_size'\?"],
    ),
    Case(
        "section",
        settings("trainng.warmup=0.1"),
        [r"--set trainng\.warmup: unknown key .*Did you mean 'training\.warmup'\?"],
    ),
    Case("section alone", settings("training=3"), [r"--set training: unknown key 'training'"]),
    Case("key of the gate", settings("gate.treshold=0.2"), [r"--set gate\.treshold: .*threshold"]),
    Case("no key", settings("=3"), [r"--set =3: expected KEY=VALUE"]),
    Case("no value", settings("training.warmup"), [r"--set training\.warmup: expected KEY=VALUE"]),
    Case(
        "twice",
        ["--threshold", "0.2", *settings("gate.threshold=0.3")],
        [r"gate\.threshold is given twice"],
    ),
    Case(
        "option of the model",
        settings("model.config.hidden_sise=3"),
        [r"model\.config.*unknown option 'hidden_sise'\. Did you mean 'hidden_size'\?"],
    ),
    Case("backbone", settings("model.backbone=brt"), [r"unknown backbone 'brt'\. Did you mean 'bert'\?"]),
    Case("option", ["--thresold", "0.1"], [r"No such option.*--thresold.*--threshold"]),
    Case(
        "curriculum",
        ["--curriculum", "cosin"],
        [r"--curriculum: .*random, cosine, count, length, got 'cosin'"],
    ),
    Case("precision", ["--precision", "fp16"], [r"--precision: .*auto, fp32, bf16, got 'fp16'"]),
    Case("source", settings("data.source=somewhere"), [r"data\.source"]),
]

POSITIONS = {"squad": 192, "wmt19": 128, "cnn_dailymail": 192, "wikitext": 128, "soda": 192}
"""Of the models of scale `mini`."""

VALUES = [
    Case("threshold above 1", ["--threshold", "1.5"], [r"--threshold: .*between 0 and 1, got 1\.5"]),
    Case("threshold below 0", ["--threshold", "-0.1"], [r"--threshold: .*between 0 and 1, got -0\.1"]),
    Case("threshold nan", ["--threshold", "nan"], [r"--threshold: .*between 0 and 1, got nan"]),
    Case("threshold word", ["--threshold", "low"], [r"'--threshold': .*number"]),
    Case(
        "threshold word set",
        settings("gate.threshold=low"),
        [r"--set gate\.threshold: .*a number, got 'low'"],
    ),
    Case(
        "threshold of top-2",
        ["--threshold", "0.1"],
        [r"--threshold: .*'top-2' has no option.*adaptive"],
        "top-2",
    ),
    Case(
        "threshold of dense",
        ["--threshold", "0.1"],
        [r"--threshold: .*'dense' has no option.*adaptive"],
        "dense",
    ),
    Case("seed word", ["--seed", "one"], [r"'--seed': .*integer"]),
    Case("seed below 0", ["--seed", "-1"], [r"'--seed': .*0"]),
    Case("seed too large", ["--seed", str(2**32)], [r"--seed.*: .*429496729[56]"]),
    Case("steps 0", ["--steps", "0"], [r"--steps: .*at least 1, got 0"]),
    Case("steps word", ["--steps", "many"], [r"'--steps': .*integer"]),
    Case("epochs 0", ["--epochs", "0"], [r"--epochs: .*greater than 0, got 0"]),
    Case("epochs inf", ["--epochs", "inf"], [r"--epochs: .*inf"]),
    Case(
        "steps and epochs",
        ["--steps", "3", "--epochs", "1"],
        [r"training\.steps, training\.epochs: give exactly one"],
    ),
    Case(
        "neither steps nor epochs",
        settings("training.epochs=none"),
        [r"training\.steps, training\.epochs: give exactly one"],
    ),
    Case(
        "rate 0", settings("training.learning_rate=0"), [r"training\.learning_rate: .*greater than 0, got 0"]
    ),
    Case("vocabulary none", settings("model.vocab_size=none"), [r"give a checkpoint or a vocab_size"]),
    Case("vocabulary word", settings("model.vocab_size=big"), [r"model\.vocab_size: .*whole number.*'big'"]),
    Case(
        "cosine with top-2",
        ["--curriculum", "cosine"],
        [r"--curriculum: 'cosine' .*random or length"],
        "top-2",
    ),
    Case(
        "count with dense", ["--curriculum", "count"], [r"--curriculum: 'count' .*random or length"], "dense"
    ),
    Case("experts of dense", settings("experts.init=upcycle"), [r"experts\.init has no effect"], "dense"),
    Case("back-end of dense", ["--experts-backend", "loop"], [r"--experts-backend: .*no effect"], "dense"),
    Case(
        "k of top-2",
        settings("gate.k=3"),
        [r"--set gate\.k: .*'top-2' fixes k = 2; use --gate top-k"],
        "top-2",
    ),
    Case("k word", settings("gate.k=two"), [r"--set gate\.k: .*'two'"], "top-k"),
    Case("k too large", settings("experts.count=4"), [r"5.*4 experts"], "top-5"),
    Case("one expert", settings("experts.count=1"), [r"at least 2 experts"]),
    Case("no layer left", settings("experts.every=9"), [r"experts\.every: .*9 leaves no layer"]),
    Case("too long", settings("data.max_length=500"), [r"data\.max_length: .*500.*128"]),
    Case("heads", settings("model.config.num_attention_heads=5"), [r"model\.config: .*heads"]),
    Case("size word", settings("model.config.hidden_size=big"), [r"model\.config: .*hidden_size"]),
    Case("size 0", settings("model.config.hidden_size=0"), [r"model\.config: .*"]),
    Case("activation", settings("model.config.hidden_act=swash"), [r"model\.config: .*swash"]),
    Case(
        "beams 0",
        ["--task", "wmt19", *settings("task.beams=0")],
        [r"--set task\.beams: .*at least 1, got 0"],
    ),
    Case(
        "option of no task",
        ["--task", "wmt19", *settings("task.nope=1")],
        [r"--set task\.nope: the task 'wmt19' has no option 'nope'; it has: direction, .*beams"],
    ),
    Case(
        "option of other tasks",
        settings("task.stride=1"),
        [r"--set task\.stride: the task 'sst2' has no option.*it has: none\. Tasks with 'stride': squad\."],
    ),
    Case(
        "options of a task at once",
        ["--task", "cnn_dailymail", *settings("task.beams=0", "task.direction=en-de")],
        [r"task\.beams: .*at least 1", r"task\.direction: .*no option 'direction'.*: wmt19\."],
    ),
    Case(
        "direction",
        ["--task", "wmt19", *settings("task.direction=fr-en")],
        [r"--set task\.direction: .*one of de-en, en-de, got 'fr-en'"],
    ),
    Case("task alone", settings("task=squad"), [r"--set task: "]),
    Case(
        "stride",
        ["--task", "squad", *settings("task.stride=125")],
        [r"data\.max_length: 160 leaves 125 tokens of context.*more than task\.stride = 125"],
    ),
    Case(
        "question",
        ["--task", "squad", *settings("task.max_question_length=400")],
        [r"data\.max_length: 160 leaves .*task\.max_question_length = 400"],
    ),
    Case(
        "both batch sizes",
        settings("training.batch_size=8", "training.batch_tokens=100"),
        [r"training\.batch_size, training\.batch_tokens: give exactly one"],
    ),
    Case(
        "no batch size",
        ["--task", "wmt19", *settings("training.batch_tokens=none")],
        [r"training\.batch_size, training\.batch_tokens: give exactly one"],
    ),
    Case(
        "batch tokens 0",
        settings("training.batch_tokens=0"),
        [r"training\.batch_tokens: .*at least 1, got 0"],
    ),
    *(
        Case(
            f"too long for {task}",
            ["--task", task, *settings("data.max_length=500")],
            [rf"data\.max_length.*500.* {positions} positions"],
        )
        for task, positions in POSITIONS.items()
    ),
    *(
        Case(
            f"target too long for {task}",
            ["--task", task, *settings("task.max_target_length=500")],
            [rf"task\.max_target_length.*500.* {positions} positions"],
        )
        for task, positions in POSITIONS.items()
        if task in ("wmt19", "cnn_dailymail")
    ),
    Case("not options", settings("model.config=3"), [r"model\.config"]),
    Case(
        "many at once",
        ["--threshold", "2", "--epochs", "1", "--steps", "3", *settings("experts.count=0", "data.max_len=9")],
        [
            r"--threshold: .*between 0 and 1, got 2",
            r"training\.steps, training\.epochs: give exactly one",
            r"--set experts\.count: .*at least 1, got 0",
            r"--set data\.max_len: unknown key .*'data\.max_length'",
        ],
    ),
    Case(
        "names at once",
        ["--task", "sst3", "--scale", "mni"],
        [r"--task: unknown task 'sst3'", r"--gate: unknown gate 'adptive'", r"--scale: unknown scale 'mni'"],
        "adptive",
    ),
]


@pytest.mark.parametrize("case", WORDS + VALUES, ids=lambda case: case.name)
def test_words_and_values(repro: Any, tmp_path: Path, case: Case) -> None:
    """On an empty results folder, without the settings of a small run: all is refused before work."""
    small = settings("data.train_samples=8", "data.validation_samples=4")
    answer = repro(
        *("train", "--task", "sst2", "--gate", case.gate, "--out", tmp_path), *small, *case.options
    )
    refused(answer, *case.problems)
    assert snapshot(tmp_path) == {}


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["train", "--gate", "dense"], r"--task"),
            (["train", "--task", "sst2"], r"--gate"),
            (["trian"], r"No such command 'trian'.*train"),
            (["train", "--task"], r"--task.*requires an argument"),
            (["train", "--task", "sst2", "--gate", "dense", "extra"], r"extra"),
            (["eval"], r"(?i)run"),
            (["list", "gate"], r"unknown list 'gate'\. Did you mean 'gates'\?"),
            (["eval", "x", "--split", "tset"], r"--split: unknown split 'tset'\. Did you mean 'test'\?"),
            (["eval", "x", "--gate-at-inference", "top-2"], r"--gate-at-inference: .*'top-2'.*'top-1'"),
        ],
    )
    def test_one_line(
        self, repro: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        refused(repro(*arguments), problem)
        assert snapshot(tmp_path) == {}

    def test_two_lines(self, repro: Any, tmp_path: Path) -> None:
        answer = repro("eval", "x", "--split", "tset", "--gate-at-inference", "sam", "--out", tmp_path)
        refused(answer, r"--split: unknown split 'tset'", r"--gate-at-inference: unknown gate 'sam'")


Damage = Callable[[Path], None]


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


def row(**columns: Any) -> str:
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
        lambda folder: (folder / "sst2").rename(folder / "squad") and None,
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
        r"train\.csv: .*utf-8",
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
    def test_damaged_folder(self, repro: Any, tmp_path: Path, data_folder: Path, name: str) -> None:
        damage, problem = DAMAGES[name]
        damage(data_folder)
        results = tmp_path / "results"
        results.mkdir()
        refused(repro.train("adaptive", results, "--data", data_folder), problem)
        assert snapshot(results) == {}

    def test_a_file_is_no_folder(self, repro: Any, tmp_path: Path, data_folder: Path) -> None:
        path = data_folder / "sst2" / "train.jsonl"
        refused(
            repro.train("dense", tmp_path / "results", "--data", path),
            r"--data .*train\.jsonl: no such folder",
        )

    def test_hub_without_network(self, repro: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        answer = repro.train("dense", tmp_path, "--data", "hub")
        refused(answer, r"--data hub: cannot load stanfordnlp/sst2 train .*--data DIR, or --data synthetic")
        assert snapshot(tmp_path) == {}

    def test_with_problems_of_options(self, repro: Any, tmp_path: Path) -> None:
        options = ("--data", tmp_path / "none", "--threshold", "7")
        refused(repro.train("adaptive", tmp_path, *options), r"no such folder", r"between 0 and 1")
        assert snapshot(tmp_path) == {}


QUESTION = {
    "context": "Ann met Ben .",
    "question": "Who met Ben ?",
    "answers": {"text": ["Ann"], "answer_start": [0]},
}
TALK = {"narrative": "Ann met Ben .", "dialogue": ["Hello !", "Hi ."]}


def answers(texts: Any, starts: Any) -> dict[str, Any]:
    return QUESTION | {"answers": {"text": texts, "answer_start": starts}}


# Task, a row, and what is wrong with it.
ROWS_OF_TASKS: list[tuple[str, dict[str, Any], str]] = [
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
]


class TestRows:
    @pytest.mark.parametrize(("task", "wrong", "problem"), ROWS_OF_TASKS)
    def test_of_every_task(
        self, repro: Any, tmp_path: Path, folder_of: Any, task: str, wrong: dict[str, Any], problem: str
    ) -> None:
        folder = folder_of(task)
        path = folder / task / "validation.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        lines[2] = json.dumps(wrong)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        answer = repro.train("dense", tmp_path / "results", "--data", folder, task=task)
        refused(answer, rf"validation\.jsonl: row 3: {problem}")
        assert not (tmp_path / "results").exists()

    @pytest.mark.parametrize("split", ["train", "validation"])
    @pytest.mark.parametrize("line", ["", " ", "\n"])
    def test_running_text_of_blank_lines(
        self, repro: Any, tmp_path: Path, folder_of: Any, split: str, line: str
    ) -> None:
        folder = folder_of("wikitext")
        path = folder / "wikitext" / f"{split}.jsonl"
        path.write_text(row(text=line) + "\n" if line else (row(text="") + "\n") * 9, encoding="utf-8")
        answer = repro.train("dense", tmp_path / "results", "--data", folder, task="wikitext")
        refused(answer, rf"data: the \d rows of '{split}' hold too little text for one example")
        assert not (tmp_path / "results").exists()

    @pytest.mark.parametrize("task", ["soda", "wikitext", "wmt19"])
    def test_no_folder_of_any_name(self, repro: Any, tmp_path: Path, data_folder: Path, task: str) -> None:
        answer = repro.train("dense", tmp_path / "results", "--data", data_folder, task=task)
        refused(answer, rf"--data .*: no folder '{task}' or '.*' in it; it has: sst2")


PRETRAINED = dict.fromkeys(
    [
        "model.vocab_size",
        "model.config.hidden_size",
        "model.config.intermediate_size",
        "model.config.initializer_range",
    ]
)


class TestModel:
    def refuse(self, repro: Any, results: Path, model: object, problem: str, **changes: object) -> None:
        refused(repro.train("dense", results, "--model", model, **PRETRAINED | changes), problem)
        assert snapshot(results) == {}

    @pytest.fixture
    def results(self, tmp_path: Path) -> Path:
        (tmp_path / "results").mkdir()
        return tmp_path / "results"

    @pytest.fixture
    def model(self, tmp_path: Path, bert_folder: Path) -> Path:
        """A copy that a test may damage."""
        shutil.copytree(bert_folder, tmp_path / "model")
        return tmp_path / "model"

    def test_another_family(self, repro: Any, results: Path, gpt2_folder: Path) -> None:
        self.refuse(repro, results, gpt2_folder, r"--model .*tiny-gpt2: it is a 'gpt2' model; .*'bert'")

    @pytest.mark.parametrize(
        ("task", "wanted", "found"),
        [
            (task, wanted, found)
            for task in plugins.names("tasks")
            for wanted in [plugins.constants("tasks", task)["BACKBONE"]]
            for found in ("bert", "gpt2", "bart", "fsmt")
            if found != wanted
        ],
    )
    def test_another_family_for_every_task(
        self, repro: Any, results: Path, request: pytest.FixtureRequest, task: str, wanted: str, found: str
    ) -> None:
        """Before a tokenizer of another kind is used for what it cannot do."""
        folder = request.getfixturevalue(f"{found}_folder")
        changes = {key: None for key in repro.small_by_task[task] if key.startswith("model.")}
        answer = repro.train("dense", results, "--model", folder, task=task, **changes)
        refused(answer, rf"--model .*tiny-{found}: it is a '{found}' model; .*'{wanted}'")
        assert snapshot(results) == {}

    def test_a_tokenizer_of_the_other_direction(self, repro: Any, results: Path, fsmt_folder: Path) -> None:
        changes = {key: None for key in repro.small_by_task["wmt19"] if key.startswith("model.")}
        changes |= {"task.direction": "en-de"}
        answer = repro.train("dense", results, "--model", fsmt_folder, task="wmt19", **changes)
        refused(answer, r"task\.direction.*en-de")
        assert snapshot(results) == {}

    def test_no_such_place(self, repro: Any, results: Path, tmp_path: Path) -> None:
        self.refuse(repro, results, tmp_path / "none", r"--model .*none: ")

    def test_unknown_on_the_hub(self, repro: Any, results: Path) -> None:
        self.refuse(repro, results, "nobody/nothing", r"--model nobody/nothing: ")

    def test_no_name_at_all(self, repro: Any, results: Path) -> None:
        self.refuse(repro, results, "a b/c:d", r"--model a b/c:d: ")

    def test_empty_folder(self, repro: Any, results: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        self.refuse(repro, results, tmp_path / "empty", r"--model .*empty: ")

    def test_without_configuration(self, repro: Any, results: Path, model: Path) -> None:
        (model / "config.json").unlink()
        self.refuse(repro, results, model, r"--model .*model: ")

    def test_broken_configuration(self, repro: Any, results: Path, model: Path) -> None:
        (model / "config.json").write_text("{", encoding="utf-8")
        self.refuse(repro, results, model, r"--model .*model: ")

    def test_without_weights(self, repro: Any, results: Path, model: Path) -> None:
        (model / "model.safetensors").unlink()
        self.refuse(repro, results, model, r"--model .*model: ")

    def test_broken_weights(self, repro: Any, results: Path, model: Path) -> None:
        content = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(content[: len(content) // 2])
        self.refuse(repro, results, model, r"--model .*model: ")

    def test_without_tokenizer(self, repro: Any, results: Path, model: Path) -> None:
        for path in model.glob("tokenizer*"):
            path.unlink()
        self.refuse(repro, results, model, r"--model .*model: .*tokenizer")

    def test_other_sizes_than_the_weights(self, repro: Any, results: Path, model: Path) -> None:
        changes = {"model.config.hidden_size": 64}
        self.refuse(repro, results, model, r"(--model .*model|model\.config).*", **changes)

    def test_longer_than_its_positions(self, repro: Any, results: Path, model: Path) -> None:
        self.refuse(repro, results, model, r"data\.max_length: .*65.*64", **{"data.max_length": 65})

    def test_unknown_option(self, repro: Any, results: Path, model: Path) -> None:
        changes = {"model.config.hidden_dropout": 0.1}
        self.refuse(
            repro, results, model, r"unknown option 'hidden_dropout'.*'hidden_dropout_prob'", **changes
        )

    def test_vocabulary(self, repro: Any, results: Path, model: Path) -> None:
        self.refuse(repro, results, model, r"model\.vocab_size: has no effect", **{"model.vocab_size": 300})


class TestResultsFolder:
    def test_below_a_file(self, repro: Any, tmp_path: Path) -> None:
        """Permissions do not stop every user; a file in the place of a folder does."""
        (tmp_path / "file").write_text("kept", encoding="utf-8")
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            refused(repro.train("dense", out), r"--out .*file.*: cannot be written")
        assert snapshot(tmp_path) == {"file": b"kept"}

    def test_another_configuration(self, repro: Any, trained: Any, tmp_path: Path) -> None:
        shutil.copytree(trained("dense").results, tmp_path, dirs_exist_ok=True)
        path = finished(tmp_path) / "config.json"
        other = json.loads(path.read_text(encoding="utf-8"))
        other["training"]["learning_rate"] = 0.5
        path.write_text(json.dumps(other), encoding="utf-8")
        before = snapshot(tmp_path)
        refused(
            repro.train("dense", tmp_path), r"holds a run with another configuration; .*--out, or --fresh"
        )
        assert snapshot(tmp_path) == before
        assert repro.train("dense", tmp_path, "--fresh").status == 0
        assert json.loads(path.read_text(encoding="utf-8")) == trained("dense").result["config"]

    @pytest.mark.parametrize("name", ["config.json", "result.json"])
    @pytest.mark.parametrize("content", ["{", "[]", ""])
    def test_broken_files(self, repro: Any, trained: Any, tmp_path: Path, name: str, content: str) -> None:
        shutil.copytree(trained("dense").results, tmp_path, dirs_exist_ok=True)
        (finished(tmp_path) / name).write_text(content, encoding="utf-8")
        before = snapshot(tmp_path)
        refused(repro.train("dense", tmp_path), re.escape(name))
        assert snapshot(tmp_path) == before

    def test_fresh_keeps_the_old_run_until_its_inputs_are_found(
        self, repro: Any, tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run on a data set of the hub, which cannot be had any more."""
        shutil.copytree(data_folder / "sst2", tmp_path / "stanfordnlp" / "sst2")
        monkeypatch.chdir(tmp_path)
        arguments = ("dense", tmp_path / "results", "--data", "hub")
        assert repro.train(*arguments).status == 0
        before = snapshot(tmp_path / "results")
        monkeypatch.chdir(data_folder)
        refused(repro.train(*arguments, "--fresh"), r"--data hub: cannot load")
        assert snapshot(tmp_path / "results") == before

    def test_list_with_a_broken_result(self, repro: Any, trained: Any, tmp_path: Path) -> None:
        shutil.copytree(trained("dense").results, tmp_path, dirs_exist_ok=True)
        (finished(tmp_path) / "result.json").write_text("{", encoding="utf-8")
        refused(repro("list", "runs", "--out", tmp_path), r"result\.json: cannot be read")


class TestEval:
    def test_unknown_run(self, repro: Any, trained: Any) -> None:
        run = trained("dense")
        near = run.folder.name[:-1]
        answer = repro("eval", near, "--out", run.results)
        refused(answer, rf"unknown run '{near}'\. Did you mean '{run.folder.name}'\?")

    def test_no_runs(self, repro: Any, tmp_path: Path) -> None:
        refused(repro("eval", "sst2-dense-s0-00000000", "--out", tmp_path), r"unknown run .*Known: none")
        assert snapshot(tmp_path) == {}

    def test_unfinished_run(self, repro: Any, trained: Any, tmp_path: Path) -> None:
        shutil.copytree(trained("dense").results, tmp_path, dirs_exist_ok=True)
        (finished(tmp_path) / "result.json").unlink()
        refused(repro("eval", finished(tmp_path).name, "--out", tmp_path), r"not a finished run")

    def test_dense_has_no_gate(self, repro: Any, trained: Any) -> None:
        answer = repro("eval", trained("dense").folder, "--gate-at-inference", "top-1")
        refused(answer, r"--gate-at-inference top-1: the run is dense")

    @pytest.mark.parametrize("missing", ["model", "model/model.safetensors", "model/tokenizer.json"])
    def test_model_gone(self, repro: Any, trained: Any, tmp_path: Path, missing: str) -> None:
        shutil.copytree(trained("adaptive").results, tmp_path, dirs_exist_ok=True)
        path = finished(tmp_path) / missing
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        refused(repro("eval", finished(tmp_path)), r"model")

    def test_data(self, repro: Any, trained: Any, tmp_path: Path, data_folder: Path) -> None:
        run = ("eval", trained("dense").folder)
        refused(repro(*run, "--data", tmp_path / "none"), r"--data .*none: no such folder")
        (data_folder / "sst2" / "test.jsonl").unlink()
        refused(repro(*run, "--data", data_folder, "--split", "test"), r"no split 'test'")
        assert repro(*run, "--data", data_folder).status == 0

    def test_inputs_unknown(self, repro: Any, tmp_path: Path, data_folder: Path) -> None:
        """A run folder that was copied without the file that says where its data lay."""
        assert repro.train("dense", tmp_path / "results", "--data", data_folder).status == 0
        run = finished(tmp_path / "results")
        (run / "places.json").unlink()
        refused(repro("eval", run), r"places\.json|--data")
