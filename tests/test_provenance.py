"""The state of the code that a result names."""

import subprocess
from pathlib import Path

import pytest

from repro import provenance


class Repository:
    """A git repository with a package `repro`, `experiments/` and a file beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "repro"
        for name in ("repro/config.py", "repro/moe/layer.py", "experiments/mini.toml", "README.md"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("first\n", encoding="utf-8")
        self.git("init", "--quiet")
        self.git("add", ".")
        author = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")
        self.git(*author, "commit", "--quiet", "--message", "first")

    def git(self, *arguments: str) -> str:
        """Run git in the repository and return what it prints."""
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # of a hook that runs these tests
        monkeypatch.delenv(name, raising=False)
    return Repository(tmp_path)


def test_as_committed(repository: Repository) -> None:
    assert provenance.git_commit(repository.package) == repository.git("rev-parse", "HEAD")
    assert provenance.git_modified(repository.package) is False


@pytest.mark.parametrize("name", ["repro/config.py", "repro/moe/layer.py", "experiments/mini.toml"])
def test_an_edited_file(repository: Repository, name: str) -> None:
    (repository.folder / name).write_text("second\n", encoding="utf-8")
    assert provenance.git_modified(repository.package) is True
    repository.git("add", name)
    assert provenance.git_modified(repository.package) is True
    repository.git("reset", "--quiet", "--hard")
    assert provenance.git_modified(repository.package) is False


@pytest.mark.parametrize("name", ["repro/config.py", "experiments/mini.toml"])
def test_a_deleted_file(repository: Repository, name: str) -> None:
    (repository.folder / name).unlink()
    assert provenance.git_modified(repository.package) is True


def test_other_files_do_not_count(repository: Repository) -> None:
    """Neither those beside the package, nor those that git does not know, as results are."""
    (repository.folder / "README.md").write_text("second\n", encoding="utf-8")
    (repository.folder / "experiments" / "mine.toml").write_text("first\n", encoding="utf-8")
    assert provenance.git_modified(repository.package) is False


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_commit(tmp_path) is None
    assert provenance.git_modified(tmp_path) is None


def test_fingerprints_depend_on_order_and_content() -> None:
    one, other = (provenance.fingerprint_text(texts) for texts in (["a", "b"], ["b", "a"]))
    assert one != other
    assert len(one) == 16
    assert provenance.fingerprint_text(["ab"]) != one


def test_files_are_named_by_content_not_by_place(tmp_path: Path) -> None:
    paths = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        for name, text in (("a.json", "1"), ("b.json", "2")):
            (tmp_path / folder / name).write_text(text, encoding="utf-8")
        paths.append([tmp_path / folder / "b.json", tmp_path / folder / "a.json"])
    assert provenance.fingerprint_files(paths[0]) == provenance.fingerprint_files(reversed(paths[1]))
    paths[1][0].write_text("1", encoding="utf-8")
    assert provenance.fingerprint_files(paths[0]) != provenance.fingerprint_files(paths[1])
