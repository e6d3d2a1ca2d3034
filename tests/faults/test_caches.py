"""Caches that are damaged, full, not writable or not there: made again or done without, in one line."""

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import evaluate
import pytest
from command_line import CommandLine
from rows_by_hand import SENTENCES, rows_of

from repro.data.cache import read_entry, write_entry
from repro.data.features import cached_features
from repro.data.rows import rows_fingerprint
from repro.data.tokenizers import trained_tokenizer
from repro.errors import UserError
from repro.metrics.base import load
from repro.moe.backbones import bert
from repro.tasks import sst2
from repro.tasks.base import Feature, Row

TEXTS = [sentence for sentence, _ in SENTENCES]
ROWS = rows_of("sst2", 8)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache, empty."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made instead of read, in order."""
    calls: list[str] = []
    train, encode = bert.train_tokenizer, sst2.Task.encode

    def training(*arguments: Any) -> Any:
        calls.append("tokenizer")
        return train(*arguments)

    def encoding(self: sst2.Task, rows: list[Row]) -> list[Feature]:
        calls.append("features")
        return encode(self, rows)

    monkeypatch.setattr(bert, "train_tokenizer", training)
    monkeypatch.setattr(sst2.Task, "encode", encoding)
    return calls


def prepare() -> tuple[dict[str, int], list[Feature]]:
    """Get a tokenizer and the features of some rows, as a run does."""
    tokenizer = trained_tokenizer("bert", TEXTS, 200)
    task = sst2.Task(sst2.Config(), tokenizer, 32)
    return tokenizer.get_vocab(), cached_features(task, ROWS, rows_fingerprint(ROWS))


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def notices(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "repro"]


# --- damages --------------------------------------------------------------------------------------


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "first half": lambda path: cut(path, 0.5),
    "without its last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a bit at the start": lambda path: flip(path, 0),
    "a bit in the middle": lambda path: flip(path, 0.5),
    "a bit near the end": lambda path: flip(path, 0.9),
    "null": lambda path: path.write_bytes(b"null"),
    "another object": lambda path: path.write_bytes(b"{}\n"),
    "another array": lambda path: path.write_bytes(b"[[], {}]"),
    "not text": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()),
    "doubled": lambda path: path.write_bytes(path.read_bytes() * 2),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "gone": lambda path: path.unlink(),
    "a folder": replace_by_folder,
}


def test_every_damage_of_every_file_is_mended_once(root: Path, made: list[str]) -> None:
    expected = prepare()
    whole = files(root)
    assert sorted({Path(name).name for name in whole}) == [
        "features.jsonl",
        "manifest.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for name in whole:
        kind = Path(name).parts[0]
        for damage in DAMAGES.values():
            damage(root / name)
            made.clear()
            assert prepare() == expected
            assert made == [kind.removesuffix("s") if kind == "tokenizers" else kind]
            assert files(root) == whole
    made.clear()
    assert prepare() == expected
    assert made == []


@pytest.mark.parametrize("kind", ["tokenizers", "features"])
def test_a_file_more_or_an_entry_that_is_a_file(root: Path, made: list[str], kind: str) -> None:
    expected = prepare()
    whole = files(root)
    (entry,) = (root / kind).iterdir()
    (entry / "added_tokens.json").write_text('{"film": 0}', encoding="utf-8")
    assert prepare() == expected
    assert files(root) == whole
    shutil.rmtree(entry)
    entry.write_text("")
    assert prepare() == expected
    assert files(root) == whole
    assert len(made) == 4


def test_entries_of_before_there_were_digests(root: Path, made: list[str]) -> None:
    expected = prepare()
    for manifest in root.glob("*/*/manifest.json"):
        manifest.unlink()
    assert prepare() == expected
    assert made == ["tokenizer", "features"] * 2


# --- a cache that cannot be used ------------------------------------------------------------------


@pytest.mark.parametrize("rest", ["", "deep/er"])
def test_below_a_file(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    made: list[str],
    rest: str,
) -> None:
    (tmp_path / "file").touch()
    expected = prepare()
    made.clear()
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "file" / rest))
    caplog.clear()
    assert prepare() == prepare() == expected
    assert made == ["tokenizer", "features"] * 2
    (told,) = set(notices(caplog))
    assert told.startswith(f"{tmp_path / 'file' / rest}: cannot be written (")
    assert told.endswith("; name another folder with REPRO_CACHE")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(root: Path, made: list[str], caplog: pytest.LogCaptureFixture) -> None:
    root.mkdir()
    root.chmod(0o500)
    prepare()
    assert made == ["tokenizer", "features"]
    assert notices(caplog)[0].startswith(f"{root}: cannot be written (Permission denied)")


def test_a_read_only_cache_is_read(
    monkeypatch: pytest.MonkeyPatch, root: Path, made: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    expected = prepare()

    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert prepare() == expected
    assert made == ["tokenizer", "features"]
    assert notices(caplog) == []
    assert root.is_dir()


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond a size: writing ends as on a full disk, with another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk(root: Path, made: list[str], caplog: pytest.LogCaptureFixture) -> None:
    def save(folder: Path) -> None:
        (folder / "a").write_bytes(b"a" * 5000)

    with full_disk(4096):
        write_entry("features", "key", save)
    assert read_entry("features", "key", Path.exists) is None
    assert not list((root / "features").iterdir())  # nothing is left
    assert notices(caplog)[0].startswith(f"{root}: cannot be written (File too large)")
    write_entry("features", "key", save)
    assert read_entry("features", "key", Path.exists)


def test_a_full_disk_for_what_is_written_in_rust(
    monkeypatch: pytest.MonkeyPatch, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It gives a bare `Exception`; and where there is no room for scratch either, one line."""
    trained = bert.train_tokenizer(TEXTS, 200)
    with full_disk(4096):
        write_entry("tokenizers", "key", trained.save_pretrained)
        assert notices(caplog)[0].startswith(f"{root}: cannot be written (")
        with pytest.raises(UserError, match=r"^temporary folder: cannot be written \(.*TMPDIR$"):
            trained_tokenizer("bert", TEXTS, 200)


def test_no_home(monkeypatch: pytest.MonkeyPatch, made: list[str], caplog: pytest.LogCaptureFixture) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("REPRO_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    prepare()
    assert made == ["tokenizer", "features"]
    assert notices(caplog)[0].startswith("cache: cannot be written (Could not determine home directory.)")


def test_a_run_without_a_cache_is_the_same_run(
    monkeypatch: pytest.MonkeyPatch, cli: CommandLine, tmp_path: Path
) -> None:
    with_cache = cli.train("dense", tmp_path / "with", "--json").json()
    (tmp_path / "file").touch()
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "file" / "cache"))
    answer = cli.train("dense", tmp_path / "without", "--json")
    without = answer.json()
    for key in ("run_id", "metric", "eval_loss", "tokens", "data"):
        assert without[key] == with_cache[key]
    told = [line for line in answer.err.splitlines() if line.startswith("repro: ")]
    assert [line.split(": cannot")[0] for line in told] == [f"repro: {tmp_path}/file/cache"]
    for path in (tmp_path / "with").glob("*/runs/*/model/*"):
        other = tmp_path / "without" / path.relative_to(tmp_path / "with")
        assert other.read_bytes() == path.read_bytes()


# --- others at work -------------------------------------------------------------------------------


def test_another_process_is_faster(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    def save(text: str) -> Callable[[Path], object]:
        return lambda folder: (folder / "a").write_text(text)

    def slowly(folder: Path) -> None:
        save("second")(folder)
        write_entry("features", "key", save("first"))

    write_entry("features", "key", slowly)
    assert read_entry("features", "key", lambda folder: (folder / "a").read_text()) in ("first", "second")
    assert notices(caplog) == []
    assert len(list((root / "features").iterdir())) == 1


def test_what_a_kill_left_is_removed_after_a_day(root: Path) -> None:
    for name in (".tmp-old", ".tmp-new"):
        (root / "features" / name / "new").mkdir(parents=True)
    day_before = (root / "features" / ".tmp-new").stat().st_mtime - 25 * 3600
    os.utime(root / "features" / ".tmp-old", (day_before, day_before))
    write_entry("features", "key", lambda folder: (folder / "a").write_text("a"))
    assert {path.name for path in (root / "features").iterdir()} == {".tmp-new", "key"}


# --- caches of libraries --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["accuracy", "perplexity"])
def test_metrics_need_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """`evaluate` would keep examples in a folder, even those that stay in memory."""
    (tmp_path / "file").touch()
    for module in (evaluate.config, evaluate.module.config):
        monkeypatch.setattr(module, "HF_METRICS_CACHE", str(tmp_path / "file" / "cache"))
    reference = {"accuracy": 1, "perplexity": {"tokens": 1, "words": 1}}[name]
    assert load(name).Metric().compute(predictions=[1], references=[reference])[name]
