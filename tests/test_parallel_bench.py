"""The layer with its experts spread over processes: the formula by hand, the table, the command."""

import csv
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from command_line import CommandLine
from factories import make_environment, make_published

from repro.bench import prediction
from repro.bench.cases import PRECISIONS, SIZES, Case, Size
from repro.bench.prediction import SETTINGS, assumed_model, busiest, fit, predict, rows_between
from repro.errors import UserError
from repro.report.tables import parallel
from repro.results.bench import Bench
from repro.results.parallel import ParallelCase, ParallelTiming, SpreadModel

MODEL = SpreadModel(experts_seconds=2.0, seconds_per_row=0.5, exchange_seconds=0.25, seconds_per_byte=0.125)


def test_the_formula_by_hand() -> None:
    # 2 + 0.5 * 10 + 4 * (0.25 + 0.125 * 6)
    assert MODEL.predict(10, 6) == 2 + 5 + 4
    assert (MODEL.constant, MODEL.computing(10), MODEL.sending(6)) == (3, 5, 3)


def test_the_busiest_process_by_hand() -> None:
    rows_NN = torch.tensor([[5, 1, 2], [0, 7, 3], [4, 0, 1]])
    # Computed: 9, 8, 6. Sent to others: 3, 3, 4; received from others: 4, 1, 5.
    assert busiest(rows_NN) == (9, 5)


@pytest.mark.parametrize(
    ("seconds", "start", "slope"),
    [
        ([3.0, 5.0, 7.0], 1.0, 2.0),
        # Below 0 at the start: the line through 0 instead, (1 * 1 + 2 * 3 + 3 * 5) / (1 + 4 + 9).
        ([1.0, 3.0, 5.0], 0.0, 22 / 14),
        # Falling: their mean.
        ([5.0, 4.0, 3.0], 4.0, 0.0),
    ],
)
def test_a_line_by_hand(seconds: list[float], start: float, slope: float) -> None:
    assert fit([1, 2, 3], seconds) == pytest.approx((start, slope))


@pytest.mark.parametrize("setting", SETTINGS)
def test_rows_go_where_experts_are(setting: tuple[float, bool]) -> None:
    share, mixed = setting
    rows_NN = rows_between(Case(size="bert", tokens=40, experts=8, precision="fp32"), 4, share, mixed)
    two = 80 - round(40 * share)
    assert rows_NN.sum(1).tolist() == ([40, 40, 80, 80] if mixed else [two] * 4)
    # Every token's experts differ, and half of all are drawn of a quarter of them.
    assert bool((rows_NN > 0).all())


def test_the_paper_s_machine_by_hand() -> None:
    """BERT-Base's layer: two of the 16 experts on each GPU."""
    model = assumed_model("bert", "bf16")
    matrices = 2 * 768 * 3072
    assert model.experts_seconds == pytest.approx(3 * (2 * matrices * 2) / 1555e9)
    # A row is multiplied three times, once forward and twice backward, with two operations a number.
    assert model.seconds_per_row == pytest.approx(2 * 3 * matrices / 156e12)
    assert model.exchange_seconds == 30e-6
    assert model.seconds_per_byte == pytest.approx(1 / 200e9 + 4 / 1555e9)
    assert assumed_model("bert", "fp32").experts_seconds == pytest.approx(2 * model.experts_seconds)


def test_every_figure_has_its_source() -> None:
    figures = prediction.assumed()
    for name, value in figures.items():
        for figure in value.values() if name == "flops" else [value]:
            if isinstance(figure, dict):
                assert set(figure) == {"value", "unit", "source"}
    assert set(figures["flops"]) == set(PRECISIONS)
    assert {layer["size"] for layer in figures["layers"]} == {"bert", "gpt2", "fsmt"}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict one layer alone."""
    figures = prediction.assumed() | {"layers": [{"size": "bert", "tokens": [32]}]}
    monkeypatch.setattr(prediction, "assumed", lambda: figures)


@pytest.mark.usefixtures("few")
def test_a_prediction() -> None:
    half, full = predict()
    assert (half.precision, full.precision) == ("bf16", "fp32")
    assert (half.processes, half.environment, half.repeats) == (8, None, 0)
    top2 = half.top2
    assert (top2.rows, top2.seconds) == (8 * 64, None)
    assert top2.predicted_seconds == half.model.predict(top2.busiest_rows, top2.busiest_bytes)
    # Bytes of a number: two and four.
    assert full.top2.busiest_bytes == 2 * top2.busiest_bytes
    # A mixed batch has as many rows as one of half the shares, and its busiest sender sends as with top-2.
    even, mixed = (row for row in half.rows if row.share_top1 == 0.5)
    assert mixed.rows == even.rows
    assert mixed.busiest_bytes > even.busiest_bytes


# --- the table ---------------------------------------------------------------------------------------


def make_parallel(**changes: object) -> ParallelCase:
    """Two processes; the layer of `MODEL` at two shares."""
    rows = [
        ParallelTiming(
            share_top1=share,
            mixed=False,
            rows=count,
            busiest_rows=busy,
            busiest_bytes=sent,
            seconds=seconds,
            spread=None,
            predicted_seconds=MODEL.predict(busy, sent),
        )
        for share, count, busy, sent, seconds in ((0.8, 12, 8, 4, 10.0), (0.0, 20, 12, 8, 12.5))
    ]
    values: dict[str, object] = {
        "size": "bert",
        "d_model": 768,
        "d_hidden": 3072,
        "experts": 16,
        "tokens": 5,
        "precision": "fp32",
        "processes": 2,
        "device": "cpu",
        "repeats": 3,
        "environment": make_environment(),
        "beside": 0.125,
        "model": MODEL,
        "rows": rows,
    }
    return ParallelCase.model_validate(values | changes)


def test_the_table_by_hand() -> None:
    published = make_published(parallel=[make_parallel()])
    row, base = parallel.rows(published)
    assert tuple(row) == parallel.COLUMNS
    # Predicted: 2 + 4 + 4 * (0.25 + 0.5) = 9, of 2 + 6 + 4 * (0.25 + 1) = 13.
    assert row == {
        "Layer": "768/3072",
        "Experts": 16,
        "Tokens": 5,
        "Precision": "fp32",
        "Processes": 2,
        "Device": "cpu",
        "Top-1 share": 0.8,
        "Processes are": "alike",
        "Computation": 0.6,
        "Busiest over mean": 1.333,  # 8 of 6
        "Time": 0.8,
        "Time predicted": 0.6923,
        "Time (paper)": 0.76,
        "ms": 10_000.0,
        "ms spread": None,
        "ms predicted": 9000.0,
        "Predicted over measured": 0.9,
        "Share constant": 0.3333,  # 2 + 4 * 0.25 of 9
        "Share of rows": 0.3333,  # 0.5 * 6
        "Share of waiting": 0.1111,  # 0.5 * 2
        "Share of bytes": 0.2222,  # 4 * 0.125 * 4
        "Repeats": 3,
        "Busy beside": 0.12,
        "Processor": "a processor",
        "Code": "01234567",
    }
    assert (base["Time"], base["Time predicted"]) == (1, 1)
    assert parallel.notes(published) == []


def test_what_is_only_predicted_comes_last_and_is_named() -> None:
    measured = make_parallel()
    unmeasured = [row.model_copy(update={"seconds": None}) for row in measured.rows]
    predicted = make_parallel(device="a GPU, predicted", environment=None, repeats=0, rows=unmeasured)
    published = make_published(parallel=[predicted, measured])
    shown = parallel.shown(published)
    assert [row["Device"] for row in shown] == ["2 x cpu", "2 x cpu", "2 x a GPU", "2 x a GPU"]
    assert [row["Time"] for row in shown] == [0.8, 1.0, None, None]
    assert len(parallel.notes(published)) == 1


def test_a_case_needs_what_it_is_relative_to() -> None:
    whole = Bench(cases=[], parallel=[make_parallel()]).model_dump_json()
    text = whole.replace('"share_top1":0.0', '"share_top1":0.5')
    with pytest.raises(UserError, match="two experts for every token"):
        Bench.parse(text, "bench.json")


# --- the command -------------------------------------------------------------------------------------

QUICK = ("bench", "--tokens", "8", "--experts", "2", "--repeats", "2", "--precision", "fp32")


@pytest.mark.usefixtures("few")
def test_two_processes_from_the_command_line(tmp_path: Path, cli: CommandLine) -> None:
    done = cli(*QUICK, "--parallel", "2", "--out", tmp_path)
    assert done.status == 0, done.err
    assert max(map(len, done.out.splitlines()[:-2])) <= 80  # the last names the file
    with (tmp_path / "mini" / "parallel.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    measured = [row for row in rows if row["Device"] == "cpu"]
    assert [(row["Top-1 share"], row["Processes are"]) for row in measured] == [
        (str(share), "mixed" if mixed else "alike") for share, mixed in SETTINGS
    ]
    assert all(float(row["ms"]) > 0 and float(row["ms predicted"]) > 0 for row in measured)
    assert len(rows) == 3 * len(SETTINGS)  # and two predicted cases
    (case,) = (case for case in Bench.read(tmp_path / "mini" / "bench.json").parallel if case.environment)
    assert (case.processes, case.repeats, case.tokens) == (2, 2, 8)
    assert case.environment is not None
    assert case.environment.processes == 2
    assert case.top2.rows == 2 * 2 * 8
    # `parallel.csv` follows from what is saved.
    table = (tmp_path / "mini" / "parallel.csv").read_text(encoding="utf-8")
    again = cli("report", "--scale", "mini", "--out", tmp_path)
    assert again.status == 0, again.err
    assert (tmp_path / "mini" / "parallel.csv").read_text(encoding="utf-8") == table


def test_interrupted(tmp_path: Path, cli: CommandLine) -> None:
    """Ctrl-C reaches all processes of the group; nothing is left, and one line says so."""
    command = cli.start_fresh(*QUICK, "--repeats", "100000", "--parallel", "2", "--out", tmp_path)
    deadline = time.monotonic() + 120
    while len(members(command.pid)) < 3:
        assert time.monotonic() < deadline
        assert command.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(command.pid, signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "repro: interrupted"
    assert "Traceback" not in err
    assert members(command.pid) == set()


def members(group: int) -> set[int]:
    """Processes of a group that have not ended, helpers of `multiprocessing` left out."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            state, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            arguments = (entry / "cmdline").read_text()
        except (OSError, ValueError):
            continue
        if int(own) == group and state != "Z" and "resource_tracker" not in arguments:
            found.add(int(entry.name))
    return found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--parallel", "3"],
            "--parallel: expected numbers that divide the 16 experts (2, 4, 8, 16), got '3'",
        ),
        (["--parallel", "2,1"], "that divide the 16 experts (2, 4, 8, 16), got '1'"),
        (["--parallel", "two"], "that divide the 16 experts (2, 4, 8, 16), got 'two'"),
        (["--parallel", "9" * 5000], "that divide the 16 experts (2, 4, 8, 16), got"),
        (["--parallel", ","], "--parallel: give at least one number of processes"),
        (["--parallel", "2", "--only", "grouped"], "--only: has no effect with --parallel"),
        (["--parallel", "2", "--task", "sst2"], "--parallel: has no effect with --task"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, tmp_path: Path, cli: CommandLine) -> None:
    done = cli("bench", *arguments, "--out", tmp_path / "out")
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_process_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: CommandLine) -> None:
    """A size that only the parent knows: its processes do not find it, and the reason is one line."""
    monkeypatch.setitem(SIZES, "tiny", Size(d_model=8, d_hidden=16))
    done = cli(*QUICK, "--sizes", "tiny", "--parallel", "2", "--out", tmp_path)
    assert done.status == 2
    assert done.err.splitlines()[-1] == "repro: --parallel 2: KeyError: 'tiny'"
    assert "Traceback" not in done.err
