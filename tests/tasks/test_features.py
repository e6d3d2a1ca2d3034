"""The cache of encoded features: read instead of encoded, never stale, never in the way."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from repro.data import features as caching
from repro.data.features import TASK_SOURCES, cached_features
from repro.data.rows import rows_fingerprint
from repro.data.tokenizers import pretrained_tokenizer
from repro.moe.backbones import fsmt
from repro.tasks import sst2, wmt19
from repro.tasks.base import Feature, Row, Task

ROWS = [
    {"translation": {"de": f"Seit {year} schläft die Katze .", "en": f"The cat sleeps since {year} ."}}
    for year in range(1900, 1908)
]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where features are kept; not there yet."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each encoding was of, in order."""
    calls: list[int] = []
    encode = wmt19.Task.encode

    def counting(self: wmt19.Task, rows: list[Row]) -> list[Feature]:
        calls.append(len(rows))
        return encode(self, rows)

    monkeypatch.setattr(wmt19.Task, "encode", counting)
    return calls


def tokenizer(vocab_size: int = 330) -> Any:
    texts = [text for row in ROWS for text in wmt19.texts(row)]
    return fsmt.train_tokenizer(texts, vocab_size)


def task(max_length: int = 64, vocab_size: int = 330, **options: Any) -> wmt19.Task:
    return wmt19.Task(wmt19.Config(**options), tokenizer(vocab_size), max_length)


def features(made: Task, rows: list[Row] = ROWS) -> list[Feature]:
    return cached_features(made, rows, rows_fingerprint(rows))


def entries(cache: Path) -> int:
    """Files, and whatever else was left there."""
    return len(list(cache.iterdir()))


def test_encoded_once_then_read(cache: Path, counted: list[int]) -> None:
    made = task()
    first = features(made)
    assert counted == [8]
    again, elsewhere = features(made), features(task(), [dict(row) for row in ROWS])
    assert counted == [8]
    assert again == elsewhere == first == made.encode(ROWS)
    assert entries(cache) == 1


def test_rows_without_features_are_cached_too(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def encode_nothing(self: wmt19.Task, rows: list[Row]) -> list[Feature]:
        calls.append(len(rows))
        return []

    monkeypatch.setattr(wmt19.Task, "encode", encode_nothing)
    assert features(task()) == features(task()) == []
    assert len(calls) == entries(cache) == 1


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"max_length": 4}, ROWS),
        ({"direction": "en-de"}, ROWS),
        ({"max_target_length": 4}, ROWS),
        ({"vocab_size": 280}, ROWS),
        ({}, ROWS[:-1]),
        ({}, ROWS[::-1]),
        ({}, [*ROWS[:-1], {"translation": {"de": "ja", "en": "yes"}}]),
    ],
)
def test_whatever_changes_is_a_new_entry(
    cache: Path, counted: list[int], change: dict[str, Any], rows: list[Row]
) -> None:
    before = features(task())
    after = features(task(**change), rows)
    assert counted == [8, len(rows)]
    assert after == task(**change).encode(rows)
    assert after != before
    assert entries(cache) == 2
    assert features(task()) == before


def test_another_code_or_library_is_a_new_entry(
    cache: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    features(task())
    sources = tmp_path / "sources"
    shutil.copytree(TASK_SOURCES, sources)
    monkeypatch.setattr(caching, "TASK_SOURCES", sources)
    features(task())
    assert counted == [8]
    for number, source in enumerate(("wmt19.py", "base.py", "shared/text.py"), 2):
        with (sources / source).open("a", encoding="utf-8") as stream:
            stream.write("\n")
        features(task())
        assert counted == [8] * number
    monkeypatch.setattr(caching, "version", lambda name: f"{name} of tomorrow")
    features(task())
    assert counted == [8] * 5
    assert entries(cache) == 5


def test_a_task_is_not_another_one_with_the_same_rows(cache: Path) -> None:
    other = type("Task", (wmt19.Task,), {"__module__": "repro.tasks.other"})
    features(task())
    features(other(wmt19.Config(), tokenizer(), 64))
    assert entries(cache) == 2


def file_of(cache: Path) -> Path:
    """The features of the only entry."""
    (entry,) = cache.iterdir()
    return entry / "features.jsonl"


BREAKS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half a line": lambda content: content[: len(content) // 2],
    "without its last line": lambda content: content[: content.rindex(b"\n", 0, -1) + 1],
    "without a feature": lambda content: content.split(b"\n", 1)[1],
    "not text": lambda content: b"\xff\xfe" + content,
    "not ours": lambda content: b"null\n",
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_file_is_written_again(cache: Path, counted: list[int], name: str) -> None:
    first = features(task())
    path = file_of(cache)
    whole = path.read_bytes()
    path.write_bytes(BREAKS[name](whole))
    assert features(task()) == first
    assert counted == [8, 8]
    assert path.read_bytes() == whole
    assert features(task()) == first
    assert counted == [8, 8]


def test_without_a_cache_everything_works(
    counted: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder cannot be made below a file, even by root."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "file"))
    assert features(task()) == features(task())
    assert counted == [8, 8]


def test_the_tokenizer_is_left_as_if_it_had_encoded_nothing() -> None:
    """It is saved with the trained model, whose files name it when another run starts from it."""
    made = task(max_length=6)
    states = [made.tokenizer.backend_tokenizer.to_str()]
    for _ in range(2):
        features(made)
        states.append(made.tokenizer.backend_tokenizer.to_str())
    assert states[0] == states[1] == states[2]


def test_a_tokenizer_is_known_wherever_it_lies(counted: list[int], tmp_path: Path) -> None:
    for place in ("here", "there"):
        tokenizer().save_pretrained(tmp_path / place)
        features(wmt19.Task(wmt19.Config(), pretrained_tokenizer(tmp_path / place), 64))
    assert counted == [8]


def test_fsmts_own_tokenizer(counted: list[int], fsmt_folder: Path, tmp_path: Path) -> None:
    """It is no Rust tokenizer; its vocabularies and merges name it, the target's too."""

    def encoded_with(folder: Path) -> list[Feature]:
        return features(wmt19.Task(wmt19.Config(), pretrained_tokenizer(folder), 64))

    first = encoded_with(fsmt_folder)
    assert encoded_with(fsmt_folder) == first
    assert counted == [8]
    changed = tmp_path / "changed"
    shutil.copytree(fsmt_folder, changed)
    path = changed / "vocab-tgt.json"
    vocabulary = json.loads(path.read_text(encoding="utf-8"))
    vocabulary |= {"<unk>": vocabulary["<pad>"], "<pad>": vocabulary["<unk>"]}
    path.write_text(json.dumps(vocabulary), encoding="utf-8")
    encoded_with(changed)
    assert counted == [8, 8]


def test_a_second_run_encodes_nothing(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs on the same data share their features, whatever the gate and the seed; so does a repeated one."""
    first = cli.train("dense", tmp_path / "first", "--json").json()

    def refuse(self: sst2.Task, rows: list[Row]) -> list[Feature]:
        raise AssertionError("encoded again")

    monkeypatch.setattr(sst2.Task, "encode", refuse)
    again = cli.train("dense", tmp_path / "again", "--json").json()
    for key in ("metric", "eval_loss", "tokens", "data"):
        assert again[key] == first[key]
    for path in (tmp_path / "first").glob("*/runs/*/model/*"):
        assert (tmp_path / "again" / path.relative_to(tmp_path / "first")).read_bytes() == path.read_bytes()
    assert cli.train("top-2", tmp_path / "other", "--seed", 1).status == 0
