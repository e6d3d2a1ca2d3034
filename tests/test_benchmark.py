"""The layer benchmark: forced routings, all implementations compute the same, Table 1, the command."""

import csv
import json
from pathlib import Path

import pytest
import torch
from command_line import CommandLine
from factories import make_case, make_published
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.bench import cases
from repro.bench import layer as benchmark
from repro.bench.cases import SHARES, SIZES, Case, Size, fitting_experts, forced_routing
from repro.bench.layer import Layer, implementations, measure
from repro.report.tables import table1
from repro.results.bench import LayerTiming
from repro.results.published import Published

CPU = torch.device("cpu")


@pytest.fixture(params=["plain", "gated"])
def tiny(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setitem(SIZES, "tiny", Size(d_model=8, d_hidden=16, is_gated=request.param == "gated"))
    return Case(size="tiny", tokens=12, experts=4, precision="fp32")


@given(tokens=st.integers(1, 200), experts=st.integers(2, 9), share=st.sampled_from(SHARES))
@settings(max_examples=40, deadline=None)
def test_a_forced_routing_has_exactly_the_share(tokens: int, experts: int, share: float) -> None:
    routing = forced_routing(tokens, experts, share, torch.float32, CPU)
    one = round(share * tokens)
    assert torch.bincount(routing.count_T, minlength=3).tolist() == [0, one, tokens - one]
    assert int(routing.load_E.sum()) == 2 * tokens - one
    total_T = torch.zeros(tokens).index_add(0, routing.token_A, routing.weight_A)
    torch.testing.assert_close(total_T, torch.ones(tokens))


def test_tokens_keep_their_first_expert_when_the_share_changes() -> None:
    def experts_of(share: float) -> list[set[int]]:
        routing = forced_routing(50, 8, share, torch.float32, CPU)
        pairs = list(zip(routing.token_A.tolist(), routing.expert_A.tolist(), strict=True))
        return [{expert for token, expert in pairs if token == number} for number in range(50)]

    for less, more in zip(experts_of(0.8), experts_of(0.2), strict=True):
        assert less <= more


def test_tokens_of_a_layer_of_top_8_have_four_experts_or_eight() -> None:
    routings = [forced_routing(10, 16, share, torch.float32, CPU, k=8) for share in (0.3, 0.0)]
    assert torch.bincount(routings[0].count_T).tolist() == [0, 0, 0, 0, 3, 0, 0, 0, 7]
    assert routings[1].count_T.tolist() == [8] * 10
    assert routings[1].weight_A.tolist() == [0.125] * 80


def test_layers_of_pretrained_models() -> None:
    gated = {name: size for name, size in SIZES.items() if size.is_gated}
    assert {name: (size.d_model, size.d_hidden, size.experts) for name, size in gated.items()} == {
        "mixtral": (4096, 14336, 8),
        "olmoe": (2048, 1024, 64),
    }


@pytest.mark.parametrize(("gigabytes", "experts"), [(None, 8), (23, 8), (22, 4), (11, 2), (1, 2)])
def test_as_many_experts_as_memory_takes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gigabytes: int | None, experts: int
) -> None:
    # An expert of Mixtral has 3 * 4096 * 14336 = 176,160,768 numbers, 16 bytes each: 2.82 GB, 22.5 GB for 8.
    memory = None if gigabytes is None else gigabytes * 10**9
    monkeypatch.setattr(cases, "available_memory", lambda: memory)
    assert fitting_experts("mixtral") == experts
    assert (f"mixtral: {experts} of 8 experts" in caplog.text) is (experts < 8)


@pytest.mark.parametrize("share", SHARES)
def test_all_implementations_compute_the_same(tiny: Case, share: float) -> None:
    layers = implementations(tiny, CPU)
    assert set(layers) == set(benchmark.names())
    for parameter in layers["loop"].parameters:
        if parameter.ndim == 2:  # the experts of transformers have no biases
            torch.nn.init.zeros_(parameter)
    x_TD = torch.randn(12, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    routing = forced_routing(12, 4, share, torch.float32, CPU)

    def outcome(name: str) -> tuple[torch.Tensor, ...]:
        y_TD = layers[name].forward(x_TD, routing)
        matrices = [tensor for tensor in layers[name].parameters if tensor.ndim == 3]
        return y_TD.detach(), *torch.autograd.grad(y_TD.square().sum(), (x_TD, *matrices))

    expected = outcome("loop")
    for name in set(layers) - {"dense"}:
        torch.testing.assert_close(outcome(name), expected, rtol=1e-4, atol=1e-5, msg=name)


def test_dense_computes_as_many_rows_as_there_are_assignments(tiny: Case) -> None:
    routing = forced_routing(12, 4, 0.5, torch.float32, CPU)
    y_AD = implementations(tiny, CPU, ["dense"])["dense"].forward(torch.ones(12, 8), routing)
    assert y_AD.shape == (6 + 12, 8)


def test_what_would_copy_too_many_weights_is_left_out(monkeypatch: pytest.MonkeyPatch, tiny: Case) -> None:
    # Top-2 copies 2 * 12 matrices of 8 * 16 numbers of 4 bytes: 12,288 bytes; gated ones are twice as high.
    copied = 12_288 * (2 if SIZES["tiny"].is_gated else 1)
    monkeypatch.setattr(benchmark, "_COPIED_WEIGHTS", copied)
    assert "transformers-batched_mm" in implementations(tiny, CPU)
    monkeypatch.setattr(benchmark, "_COPIED_WEIGHTS", copied - 1)
    assert "transformers-batched_mm" not in implementations(tiny, CPU)


def test_what_would_allocate_too_many_gradients_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tiny: Case
) -> None:
    # The first matrix of 4 experts: 4 * 8 * 16 numbers, twice as many of gated ones.
    numbers = 512 * (2 if SIZES["tiny"].is_gated else 1)
    monkeypatch.setattr(benchmark, "_EAGER_WEIGHTS", numbers + 1)
    assert "transformers-eager" in implementations(tiny, CPU)
    monkeypatch.setattr(benchmark, "_EAGER_WEIGHTS", numbers)
    assert "transformers-eager" not in implementations(tiny, CPU)


def test_measure_times_every_implementation_in_every_round(
    monkeypatch: pytest.MonkeyPatch, tiny: Case
) -> None:
    timed: list[int] = []
    clock = iter(range(10_000))

    def fake(layer: Layer, *_: object) -> tuple[float, float]:
        timed.append(id(layer))
        tick = next(clock)
        return float(tick), 10.0 * tick

    monkeypatch.setattr(benchmark, "_time", fake)
    rounds: list[None] = []
    rows = measure(tiny, CPU, repeats=2, only=["loop", "grouped"], progress=lambda: rounds.append(None))
    assert len(rounds) == 3
    # Interleaved: within a round the implementations take turns.
    assert timed[0] != timed[1]
    assert timed[0::2] == [timed[0]] * 15
    assert [(row.implementation, row.share_top1) for row in rows[:2]] == [
        ("grouped", 1.0),
        ("loop", 1.0),
    ]
    # Two shares of five, two implementations: 10 ticks a round; the first round is not counted.
    assert rows[0].forward_seconds == (10 + 20) / 2
    assert rows[0].both_seconds == 150
    assert rows[-1].rows == 24
    assert rows[0].rows == 12


# --- the table ---------------------------------------------------------------------------------------


def timing(implementation: str, share: float, rows: int, forward: float, both: float) -> LayerTiming:
    return LayerTiming(
        implementation=implementation,
        share_top1=share,
        rows=rows,
        forward_seconds=forward,
        forward_spread=0.001,
        both_seconds=both,
        both_spread=None,
    )


OURS = [timing("grouped", 0.8, 120, 0.13, 0.36), timing("grouped", 0.0, 200, 0.2, 0.5)]
RIVALS = [
    timing("dense", 0.8, 120, 0.1, 0.3),
    timing("transformers-eager", 0.8, 120, 0.3, 0.9),
    timing("transformers-grouped_mm", 0.8, 120, 0.2, 0.72),
    timing("dense", 0.0, 200, 0.15, 0.4),
    timing("transformers-eager", 0.0, 200, 0.4, 1.0),
    timing("transformers-grouped_mm", 0.0, 200, 0.4, 1.0),
]


def publish(*timings: LayerTiming) -> Published:
    return make_published(bench=[make_case(rows=list(timings), environment__git_modified=True)])


def test_table_1_by_hand() -> None:
    row = table1.rows(publish(*OURS, *RIVALS))[0]
    assert tuple(row) == table1.COLUMNS
    assert row == {
        "Layer": "768/3072",
        "Experts": 16,
        "Tokens": 100,
        "Precision": "fp32",
        "Device": "cpu",
        "Implementation": "grouped",
        "Top-1 share": 0.8,
        "Computation": 0.6,  # 120 / 200
        "Time forward": 0.65,  # 130 / 200
        "Time": 0.72,  # 360 / 500
        "Time (paper)": 0.76,
        "Time - computation": 0.12,
        "ms forward": 130.0,
        "ms forward spread": 1.0,
        "ms": 360.0,
        "ms spread": None,
        "Against dense rows": 1.2,  # 360 / 300
        "Against best of transformers": 0.5,  # 360 / 720
        "Repeats": 3,
        "Processor": "a processor",
        "Code": "01234567+",
        "Command": "repro bench --sizes bert --tokens 100 --precision fp32 --experts 16 --repeats 3",
    }


def test_table_1_shows_the_back_end_of_training_alone() -> None:
    shown = table1.shown(publish(*OURS, *RIVALS))
    assert [(row["Top-1"], row["Time"], row["(paper)"]) for row in shown] == [(0.8, 0.72, 0.76), (0.0, 1, 1)]


def test_table_1_without_rivals_has_empty_cells() -> None:
    row = table1.rows(publish(*OURS))[0]
    assert row["Against dense rows"] is None
    assert row["Against best of transformers"] is None
    assert table1.rows(make_published()) == []


# --- the command -------------------------------------------------------------------------------------

QUICK = ("bench", "--tokens", "16", "--experts", "2", "--repeats", "2", "--only", "grouped,dense")


def test_bench_from_the_command_line(tmp_path: Path, cli: CommandLine) -> None:
    done = cli(*QUICK, "--precision", "fp32", "--out", tmp_path)
    assert done.status == 0, done.err
    assert "768/3072" in done.out
    assert max(map(len, done.out.splitlines()[:-1])) <= 80  # the last names the file
    with (tmp_path / "mini" / "table1.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["Implementation"], row["Top-1 share"]) for row in rows[:2]] == [
        ("grouped", "1.0"),
        ("dense", "1.0"),
    ]
    assert len(rows) == 10
    assert all(float(row["ms"]) > 0 for row in rows)
    assert {row["Computation"] for row in rows} == {"0.5", "0.5938", "0.75", "0.9062", "1.0"}
    # Another case joins, the same case replaces its rows.
    done = cli(*QUICK, "--precision", "bf16,fp32", "--out", tmp_path, "--json")
    assert done.status == 0, done.err
    assert len(done.json()["table"]) == 20
    kept = json.loads((tmp_path / "mini" / "bench.json").read_text(encoding="utf-8"))["cases"]
    assert [case["precision"] for case in kept] == ["bf16", "fp32"]
    assert kept[0]["environment"]["threads"] >= 1


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--sizes", "bart"], ["--sizes", "'bart'", "bert"]),
        (["--tokens", "0"], ["--tokens", "'0'"]),
        (
            ["--tokens", "many", "--precision", "fp16"],
            ["--tokens", "'many'", "--precision", "'fp16'", "bf16"],
        ),
        (["--only", "groupd"], ["--only", "'groupd'", "grouped"]),
        (["--sizes", ","], ["--sizes", "at least one"]),
        (["--sizes", "olmoe", "--experts", "4"], ["--experts: a token of the layer 'olmoe' has 8 of them"]),
        (["--scale", "smal"], ["'smal'", "small"]),
    ],
)
def test_wrong_arguments_of_bench(
    arguments: list[str], messages: list[str], tmp_path: Path, cli: CommandLine
) -> None:
    done = cli("bench", *arguments, "--out", tmp_path / "out")
    assert done.status == 2
    assert "Traceback" not in done.err
    for message in messages:
        assert message in done.err
    assert not (tmp_path / "out").exists()
