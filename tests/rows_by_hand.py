"""Rows written by hand, in the column schemas of the data sets on the hub, and data folders of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from repro.tasks.base import Row, load

RowsOf = Callable[[str, int], list[Row]]
"""Task and number -> rows."""
FolderOf = Callable[[str], Path]
"""Task -> a data folder with rows of it."""

SENTENCES = [
    ("a warm and funny film", 1),
    ("the plot is dull and the cast is bored", 0),
    ("superb from start to end", 1),
    ("nobody could call this film good", 0),
    ("an honest , moving story", 1),
    ("a tired script", 0),
    ("clever , bold and never too long", 1),
    ("two hours of nothing", 0),
]
_SCENES = [
    ("Katze", "cat", "schläft", "sleeps", "Haus", "house"),
    ("Köchin", "cook", "lacht", "laughs", "Garten", "garden"),
    ("Hund", "dog", "bellt", "barks", "Café", "café"),
    ("Nachbar", "neighbour", "liest", "reads", "Dorf", "village"),
]


def rows_of(task: str, size: int) -> list[Row]:
    """Make rows in the column schema of a task's data set; but for those of SST-2 all are different."""
    return [_row(task, number) for number in range(size)]


def _row(task: str, number: int) -> Row:
    german, english, tut, does, ort, place = _SCENES[number % len(_SCENES)]
    sentence, label = SENTENCES[number % len(SENTENCES)]
    year = f"{1900 + number}"
    story = f"In {year} the {english} came to the {place} , where it {does} all day ."
    rows: dict[str, Row] = {
        "sst2": {"idx": number, "sentence": f"{sentence} ", "label": label},
        "wmt19": {
            "translation": {
                "de": f"Seit {year} {tut} die {german} im {ort} .",
                "en": f"Since {year} the {english} {does} in the {place} .",
            }
        },
        "squad": {
            "id": year,
            "title": english,
            "context": f"Nobody knows why . {story}",
            "question": f"When did the {english} come ?",
            "answers": {"text": [year, f"In {year}"], "answer_start": [22, 19]},
        },
        "cnn_dailymail": {
            "article": f"{story} Nobody knows why . The people of the {place} like it .",
            "highlights": f"A {english} in the {place} .\nIt {does} since {year} .",
            "id": year,
        },
        "wikitext": {
            "text": ["", f" = {english} {year} = \n", "", f" {story} <unk> – naïve \n"][number % 4],
        },
        "soda": {
            "narrative": story,
            "dialogue": [f"What is in the {place} ?", f"A {english} .", f"It {does} ."],
            "speakers": ["Ann", "Ben", "Ben"],
        },
        "arc": _multiple_choice(number, story, [place, f"the {english}", does, year, "the people"]),
    }
    return rows[task]


def _multiple_choice(number: int, story: str, texts: list[str]) -> Row:
    """Make a row with three, four or five choices, labelled with letters or numbers, as in the real set."""
    labels = ["ABC", "1234", "ABCDE", "ABCD"][number % 4]
    return {
        "id": f"made-{number}",
        "question": f"{story} What was it , naïve or not ?",
        "choices": {"text": texts[: len(labels)], "label": [*labels]},
        "answerKey": labels[number % len(labels)],
    }


def write_jsonl(path: Path, rows: Sequence[Row]) -> None:
    """Write one JSON object a line; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_splits(data: Path, task: str, train: int = 24, validation: int = 8, test: int = 8) -> Path:
    """Write rows of a task into a data folder, below the first of the task's folder names."""
    for split, size in (("train", train), ("validation", validation), ("test", test)):
        write_jsonl(data / load(task).FOLDERS[0] / f"{split}.jsonl", rows_of(task, size))
    return data
