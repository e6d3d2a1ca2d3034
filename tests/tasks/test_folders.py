"""Every task reads its rows from every format, from each of its folder names, and from the hub's layout."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import huggingface_hub.constants
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from command_line import CommandLine, Settings
from rows_by_hand import FolderOf, RowsOf

from repro import plugins
from repro.data.rows import folder_fingerprint, load_rows, rows_fingerprint
from repro.errors import UserError
from repro.tasks.base import Row, TaskModule, load

Rows = list[Row]
TASKS = plugins.names("tasks")
FLAT = ("sst2", "cnn_dailymail", "wikitext")
"""Tasks whose columns a CSV file can hold."""


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_gzip(path: Path, rows: Rows) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def write_parquet(path: Path, rows: Rows) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_csv(path: Path, rows: Rows) -> None:
    pandas.DataFrame(rows).to_csv(path, index=False)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    ".jsonl": write_jsonl,
    ".jsonl.gz": write_gzip,
    ".parquet": write_parquet,
    ".csv": write_csv,
}
PLACES = [(task, suffix) for task in TASKS for suffix in WRITERS if suffix != ".csv" or task in FLAT]


def columns(task: TaskModule, rows: Rows) -> Rows:
    return [{name: row[name] for name in task.COLUMNS} for row in rows]


@pytest.mark.parametrize(("name", "suffix"), PLACES)
def test_every_format_gives_the_same_rows(hand_made: RowsOf, tmp_path: Path, name: str, suffix: str) -> None:
    task, rows = load(name), hand_made(name, 8)
    place = tmp_path / name
    place.mkdir()
    WRITERS[suffix](place / f"train{suffix}", rows)
    found = load_rows(task, "folder:0", tmp_path, "train", None).rows
    # Columns that no task reads may change their type: a CSV file does not know that an id is text.
    assert columns(task, found) == columns(task, rows)
    if suffix != ".csv":
        assert found == rows


@pytest.mark.parametrize("name", [name for name in TASKS if name not in FLAT])
def test_nested_columns_are_no_csv(hand_made: RowsOf, tmp_path: Path, name: str) -> None:
    task, rows = load(name), hand_made(name, 8)
    (tmp_path / name).mkdir()
    write_csv(tmp_path / name / "train.csv", rows)
    with pytest.raises(UserError, match=r"train\.csv: row 1: .* is not (an object|a list)"):
        load_rows(task, "folder:0", tmp_path, "train", None)


@pytest.mark.parametrize(
    ("task", "folder"),
    [(name, folder) for name in TASKS for folder in load(name).FOLDERS],
)
def test_each_name_of_a_folder(hand_made: RowsOf, tmp_path: Path, task: str, folder: str) -> None:
    module = load(task)
    (tmp_path / folder).mkdir()
    for split, size in (("train", 8), ("validation", 4)):
        write_jsonl(tmp_path / folder / f"{split}.jsonl", hand_made(task, size))
    assert load_rows(module, "folder:0", tmp_path, "validation", None).rows == hand_made(task, 4)
    there = folder_fingerprint(tmp_path, module)
    (tmp_path / folder).rename(tmp_path / module.FOLDERS[0])
    assert folder_fingerprint(tmp_path, module) == there


def test_names_of_folders() -> None:
    assert {name: load(name).FOLDERS for name in TASKS} == {
        "arc": ("arc",),
        "cnn_dailymail": ("cnn_dailymail",),
        "soda": ("soda", "commonsense_dialogues"),
        "squad": ("squad",),
        "sst2": ("sst2",),
        "wikitext": ("wikitext", "wikitext103", "wikitext2"),
        "wmt19": ("wmt19", "wmt19_de_en"),
    }


@pytest.mark.parametrize("name", ["soda", "wikitext", "wmt19"])
def test_the_first_name_wins(hand_made: RowsOf, tmp_path: Path, name: str) -> None:
    task = load(name)
    for size, folder in enumerate(reversed(task.FOLDERS), 4):
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / "train.jsonl", hand_made(name, size))
    found = load_rows(task, "folder:0", tmp_path, "train", None).rows
    assert len(found) == 3 + len(task.FOLDERS)


@pytest.mark.parametrize("name", ["soda", "wikitext", "wmt19"])
def test_no_folder_of_any_name(tmp_path: Path, name: str) -> None:
    task = load(name)
    (tmp_path / "other").mkdir()
    names = " or ".join(repr(folder) for folder in task.FOLDERS)
    with pytest.raises(UserError, match=f"no folder {names} in it; it has: other$"):
        load_rows(task, "folder:0", tmp_path, "train", None)


@pytest.mark.parametrize("name", TASKS)
def test_a_limit_takes_running_text_from_its_beginning(hand_made: RowsOf, tmp_path: Path, name: str) -> None:
    task, rows = load(name), hand_made(name, 60)
    (tmp_path / name).mkdir()
    write_jsonl(tmp_path / name / "train.jsonl", rows)
    found = load_rows(task, "folder:0", tmp_path, "train", 12).rows
    assert len(found) == 12
    assert (found == rows[:12]) == task.CONTIGUOUS == (name == "wikitext")
    assert all(row in rows for row in found)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_blank_lines_of_running_text_stay(tmp_path: Path, suffix: str) -> None:
    lines = ["", " = A = \n", "", "", ' he said " so " , \n', "null", "12 \n", ""]
    rows = [{"text": line} for line in lines]
    (tmp_path / "wikitext").mkdir()
    WRITERS[suffix](tmp_path / "wikitext" / f"train{suffix}", rows)
    assert load_rows(load("wikitext"), "folder:0", tmp_path, "train", None).rows == rows


# --- the hub, as a local directory in its layout ------------------------------------------------

# Where the data sets keep their splits; a configuration is declared in the card, README.md.
HUB_FILES = {
    "sst2": "data/{}-00000-of-00001.parquet",
    "squad": "plain_text/{}-00000-of-00001.parquet",
    "wmt19": "de-en/{}-00000-of-00001.parquet",
    "cnn_dailymail": "3.0.0/{}-00000-of-00001.parquet",
    "wikitext": "wikitext-103-raw-v1/{}-00000-of-00001.parquet",
    "soda": "{}.parquet",
    "arc": "ARC-Challenge/{}-00000-of-00001.parquet",
}
OTHERS = {
    "wmt19": ["cs-en"],
    "cnn_dailymail": ["1.0.0"],
    "wikitext": ["wikitext-2-raw-v1", "wikitext-2-v1"],
    "arc": ["ARC-Easy"],
}
"""Further configurations that lie beside the right one, with other rows."""
SPELLING = {"soda": {"validation": "valid"}}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working directory: `datasets` prefers a folder there to a data set of that name on the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


# What the cards of these say of columns that are no plain values.
FEATURES = {
    "squad": """\
dataset_info:
  config_name: plain_text
  features:
  - name: id
    dtype: string
  - name: title
    dtype: string
  - name: context
    dtype: string
  - name: question
    dtype: string
  - name: answers
    sequence:
    - name: text
      dtype: string
    - name: answer_start
      dtype: int32
""",
    "arc": """\
dataset_info:
- config_name: ARC-Challenge
  features:
  - name: id
    dtype: string
  - name: question
    dtype: string
  - name: choices
    sequence:
    - name: text
      dtype: string
    - name: label
      dtype: string
  - name: answerKey
    dtype: string
""",
    "wmt19": """\
dataset_info:
- config_name: de-en
  features:
  - name: translation
    dtype:
      translation:
        languages:
        - de
        - en
""",
}


def card(name: str, configurations: list[str], splits: list[str]) -> str:
    """The data set's README.md, which declares where each configuration has its files."""
    lines = ["---", FEATURES.get(name, "").rstrip("\n"), "configs:"]
    for configuration in configurations:
        pattern = HUB_FILES[name].replace(configurations[0], configuration)
        lines += [f"- config_name: {configuration}", "  data_files:"]
        for split in splits:
            files = pattern.format(split).replace("00000-of-00001", "*")
            lines += [f"  - split: {split}", f"    path: {files}"]
    return "\n".join([*(line for line in lines if line), "---", f"# {name}", ""])


def fill(hub: Path, name: str, rows: dict[str, Rows]) -> None:
    """The data set of a task, with further configurations that have other rows."""
    place, configuration = load(name).HUB
    configurations = [configuration, *OTHERS.get(name, [])]
    folder = hub / place
    folder.mkdir(parents=True)
    if configuration or name in FEATURES:
        text = card(name, [entry or "plain_text" for entry in configurations], list(rows))
        (folder / "README.md").write_text(text, encoding="utf-8")
    for split, content in rows.items():
        for entry in configurations:
            pattern = HUB_FILES[name]
            if configuration and entry:
                pattern = pattern.replace(configuration, entry)
            path = folder / pattern.format(SPELLING.get(name, {}).get(split, split))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_parquet(path, content if entry == configuration else content[:1])


@pytest.mark.parametrize("name", TASKS)
def test_the_hubs_layout(hand_made: RowsOf, hub: Path, name: str) -> None:
    task, rows = load(name), {"train": hand_made(name, 8), "validation": hand_made(name, 4)}
    fill(hub, name, rows)
    for split, expected in rows.items():
        found = load_rows(task, "hub", None, split, None).rows
        assert found == expected
        assert rows_fingerprint(found) == rows_fingerprint(expected)


@pytest.mark.parametrize("name", TASKS)
def test_a_run_on_the_hub(
    cli: CommandLine, folder_of: FolderOf, hand_made: RowsOf, hub: Path, name: str
) -> None:
    """The same run as on a folder with the same rows, but for where they came from."""
    limits: Settings = {"data.train_samples": None, "data.validation_samples": None, "training.steps": 2}
    fill(hub, name, {"train": hand_made(name, 24), "validation": hand_made(name, 8)})
    # The folder of data is made in the same place, under the task's own name.
    found, expected = (
        cli.train(
            "dense", hub / f"results-{source}", "--data", data, "--json", task=name, settings=limits
        ).json()
        for source, data in (("hub", "hub"), ("folder", folder_of(name)))
    )
    assert found["data"]["source"] == "hub"
    assert found["data"] == expected["data"] | {"source": "hub"}
    assert (found["eval_loss"], found["metrics"]) == (expected["eval_loss"], expected["metrics"])


def test_names_on_the_hub() -> None:
    """As their pages spell them."""
    assert {name: load(name).HUB for name in TASKS} == {
        "arc": ("allenai/ai2_arc", "ARC-Challenge"),
        "cnn_dailymail": ("abisee/cnn_dailymail", "3.0.0"),
        "soda": ("allenai/soda", None),
        "squad": ("rajpurkar/squad", None),
        "sst2": ("stanfordnlp/sst2", None),
        "wikitext": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
        "wmt19": ("wmt/wmt19", "de-en"),
    }
