"""Figures from analyses and results made by hand: what is drawn, not how it looks."""

import io
import math

import matplotlib as mpl
import numpy as np
import pytest
from factories import (
    compare_gates,
    compare_variants,
    make_analysis,
    make_case,
    make_published,
    make_result,
    make_routing,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro import plugins
from repro.errors import UserError
from repro.report import forest
from repro.report.claims.definition import claims as all_claims
from repro.report.claims.verdicts import judged
from repro.report.figures import (
    base,
    claims,
    claims_quality,
    claims_time,
    claims_tokens,
    curves,
    figure1,
    figure2,
    gates,
    load,
    pareto,
    table1,
    table3,
)
from repro.report.figures.base import FigureModule
from repro.report.page import VERDICTS
from repro.report.schemes import scheme_rows
from repro.report.style import WIDE, as_png, as_svg, reach
from repro.results.published import Published
from repro.results.run import RunResult

# mypy checks signatures and types of each module against the protocol.
FIGURES: dict[str, FigureModule] = {
    "claims": claims,
    "claims_quality": claims_quality,
    "claims_time": claims_time,
    "claims_tokens": claims_tokens,
    "curves": curves,
    "figure1": figure1,
    "figure2": figure2,
    "gates": gates,
    "load": load,
    "pareto": pareto,
    "table1": table1,
    "table3": table3,
}


def drawn(figure: Figure | None) -> list[Axes]:
    """The axes of a figure that must be there."""
    assert figure is not None
    return figure.axes


def labels(figure: Figure | None) -> list[tuple[str, str]]:
    return [(axes.get_xlabel(), axes.get_ylabel()) for axes in drawn(figure)]


def images(figure: Figure | None) -> int:
    return sum(len(axes.images) for axes in drawn(figure))


def pixels(axes: Axes) -> list[list[float]]:
    """The values of a heat map."""
    values = axes.images[0].get_array()
    assert values is not None
    rows: list[list[float]] = values.tolist()
    return rows


def points(line: Line2D) -> list[list[float]]:
    xy: list[list[float]] = np.asarray(line.get_xydata()).tolist()
    return xy


def test_all_members_are_here() -> None:
    assert set(plugins.names("figures")) == set(FIGURES)
    assert len({figure.FILE for figure in FIGURES.values()}) == len(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_member_satisfies_the_contract(name: str) -> None:
    figure = base.load(name)
    assert figure is FIGURES[name]
    assert isinstance(figure, FigureModule)
    assert figure.FILE.isidentifier()
    for words in (figure.TITLE, figure.SEE):
        assert words
        assert "\n" not in words
    assert figure.SEE.endswith(".")


def test_a_figure_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"unknown figure 'figure11'\. Did you mean 'figure1'"):
        base.load("figure11")


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(
    "published",
    [
        make_published(),
        make_published(make_result(gate="top-2")),
        compare_variants("schemes", {"dense": ["gone"]}),
    ],
    ids=["nothing", "a run of no study", "a missing run"],
)
def test_nothing_measured_is_no_figure(name: str, published: Published) -> None:
    assert FIGURES[name].draw(published) is None


def test_figure_1() -> None:
    """550 of 1000 tokens have a clear top-1; of the two, the more certain stands on top."""
    figure = figure1.draw(make_published(analyses=[make_analysis("sst2"), make_analysis("wikitext")]))
    assert images(figure) == 2
    assert labels(figure)[:2] == [("expert", "token")] * 2
    first = drawn(figure)[0]
    assert first.get_title() == "Sentiment analysis\nadaptive, 55% clear"
    assert pixels(first)[0] == [0.7, 0.1, 0.1, 0.1]


def test_figure_1_prefers_the_classical_gate() -> None:
    figure = figure1.draw(make_published(analyses=[make_analysis(), make_analysis(gate="top-2")]))
    assert "top-2" in drawn(figure)[0].get_title()
    without = make_analysis(activations={"layer": 1, "tokens": []})
    assert figure1.draw(make_published(analyses=[without])) is None


def test_figure_2() -> None:
    """One stack of two layers: shares of 20 and 40 %; over training the mean of the layers there are."""
    figure = figure2.draw(make_published(analyses=[make_analysis(), make_analysis(seed=1)]))
    assert labels(figure) == [("layer", "two experts (%)"), ("step", "two experts (%)")]
    (layers, printed), (training,) = (axes.lines for axes in drawn(figure))
    assert np.asarray(printed.get_ydata()) == pytest.approx([11.3, 11.3])  # paper, section 4.4
    assert points(layers) == [[1, 20], [2, 40]]
    assert points(training) == [[10, 40], [20, 20]]
    assert layers.get_label() == "encoder"


def test_figure_2_bands_go_from_the_lowest_seed_to_the_highest() -> None:
    """Of the other seed one layer has 40 %, the other 80 %."""
    layers = make_analysis().layers
    other = [
        layer.model_copy(update={"by_count": [0, 1000 - share, share]})
        for layer, share in zip(layers, (400, 800), strict=True)
    ]
    figure = figure2.draw(make_published(analyses=[make_analysis(), make_analysis(seed=1, layers=other)]))
    axes = drawn(figure)[0]
    assert points(axes.lines[0]) == [[1, 30], [2, 60]]
    (band,) = axes.collections
    assert band.get_datalim(axes.transData).intervaly.tolist() == [20, 80]


def test_figure_2_without_records_of_training() -> None:
    figure = figure2.draw(make_published(analyses=[make_analysis(training={"steps": [], "share_two": []})]))
    assert [len(axes.lines) for axes in drawn(figure)] == [2, 0]


def test_load() -> None:
    """In the second layer one expert has everything: 4 times an even load, the others are dead."""
    figure = load.draw(make_published(analyses=[make_analysis()]))
    assert images(figure) == 1
    assert labels(figure)[0] == ("expert", "layer")
    axes = drawn(figure)[0]
    assert pixels(axes) == [[1, 1, 1, 1], [4, 0, 0, 0]]
    (dead,) = axes.lines
    assert points(dead) == [[1, 1], [2, 1], [3, 1]]
    assert [text.get_text() for text in axes.texts] == ["CV 0.00", "CV 1.73"]


def test_load_of_a_layer_that_saw_nothing() -> None:
    assert load.relative_load([0, 0]) == [0.0, 0.0]
    assert load.variation([]) == 0.0


def test_curves() -> None:
    """200 FLOPs a step: 4 a token, 50 tokens. Two seeds make one line."""
    slow = [[0, 0.0, 1.0], [10, 7.0, 0.85], [20, 12.0, 0.7]]
    figure = curves.draw(
        compare_gates(
            make_result(gate="top-2"),
            make_result(gate="top-2", seed=1, curve=slow),
            make_result(gate="dense"),
        )
    )
    assert labels(figure) == [
        ("training time (s)", "evaluation loss"),
        ("forward FLOPs", "evaluation loss"),
    ]
    seconds, flops = drawn(figure)
    assert [line.get_label() for line in seconds.lines] == ["top-2", "dense"]
    assert np.asarray(seconds.lines[0].get_xdata()).tolist() == [0, 6, 11]
    assert np.asarray(seconds.lines[0].get_ydata()) == pytest.approx([1, 0.8, 0.6])
    assert np.asarray(flops.lines[0].get_xdata()).tolist() == [0, 2000, 4000]


def test_pareto() -> None:
    figure = pareto.draw(
        compare_gates(make_result(gate="top-2"), make_result(gate="dense", flops__per_token=2.0))
    )
    assert labels(figure)[0] == ("FLOPs per token", "Accuracy")
    assert [container.get_label() for container in drawn(figure)[0].containers] == ["top-2", "dense"]


def test_pareto_of_two_seeds_is_their_mean_and_interval() -> None:
    """Half of a 95 % interval of two values that are 0.02 apart: 12.706 x 0.01."""
    runs = [make_result(seed=seed, metric__value=value) for seed, value in ((0, 0.74), (1, 0.76))]
    point = pareto.mean_point(runs)
    assert point is not None
    assert (point.flops, point.quality, point.half) == pytest.approx((4.0, 0.75, 0.12706), rel=1e-4)
    assert point.metric == runs[0].metric


def test_a_lower_perplexity_is_better() -> None:
    figure = pareto.draw(compare_gates(make_result("wikitext", "top-2")))
    assert labels(figure)[0][1] == "Perplexity per token\n(lower is better)"


def test_values_that_are_missing_are_left_out() -> None:
    broken = compare_gates(make_result(gate="top-1", metric__value=None))
    assert pareto.draw(broken) is None
    assert curves.draw(compare_gates(make_result(gate="dense", flops__per_token=None))) is None


def test_table_1() -> None:
    (axes,) = drawn(table1.draw(make_published(bench=[make_case()])))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("computation", "time")
    assert axes.get_title() == "768/3072, fp32\n100 tokens"
    lines = {line.get_label(): line for line in axes.lines}
    assert {name: points(line) for name, line in lines.items()} == {
        "time = computation": [[0.5, 0.5], [1, 1]],
        "grouped": [[0.6, 0.72], [0.75, 0.9], [1, 1]],
        "transformers-eager": [[0.6, 0.9], [1, 1]],
        "dense": [[0.6, 0.6], [1, 1]],
        "paper": [[0.5, 0.67], [0.6, 0.76], [0.75, 0.92], [0.9, 0.97]],
    }
    styles = {name: line.get_linestyle() for name, line in lines.items()}
    assert (styles["grouped"], styles["transformers-eager"], styles["dense"]) == ("-", "--", ":")
    assert styles["paper"] == "None"


def test_table_1_is_a_grid_of_layers_by_tokens_with_equal_axes() -> None:
    """Of two precisions and two numbers of tokens one was not measured."""
    cases = [make_case(), make_case(precision="bf16"), make_case(tokens=200)]
    figure = table1.draw(make_published(bench=cases))
    assert figure is not None
    assert [axes.axison for axes in figure.axes] == [True, False, True, True]
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == [
        "768/3072, bf16\n100 tokens",
        "768/3072, fp32\n100 tokens",
        "768/3072, fp32\n200 tokens",
    ]
    # A label for each column, below its last panel, and for each row.
    assert [axes.get_xlabel() for axes in shown] == ["", "computation", "computation"]
    assert [axes.get_ylabel() for axes in shown] == ["time", "time", ""]
    assert {axes.get_ylim() for axes in shown} == {(0.45, 1.05)}
    colours = [[line.get_color() for line in axes.lines] for axes in shown]
    assert colours[0] == colours[1] == colours[2]
    assert as_png(figure).startswith(b"\x89PNG")


def test_equal_figures_are_equal_files() -> None:
    contents = []
    for _ in range(2):
        figure = figure2.draw(make_published(analyses=[make_analysis()]))
        assert figure is not None
        contents.append((as_svg(figure), as_png(figure)))
    assert contents[0] == contents[1]
    assert contents[0][1].startswith(b"\x89PNG")
    assert b"<dc:date>" not in contents[0][0]


@pytest.mark.parametrize("loss", [4.60515, 2e7])
def test_nothing_above_an_axis_stands_in_the_way_of_its_title(loss: float) -> None:
    """Neither an offset of losses that are nearly equal nor a power of ten of huge ones."""
    curve = [[0, 0.0, loss], [10, 5.0, loss * (1 + 1e-7)], [20, 10.0, loss * (1 + 2e-7)]]
    figure = curves.draw(compare_gates(make_result(gate="dense", curve=curve)))
    assert figure is not None
    as_svg(figure)
    assert [axes.yaxis.get_offset_text().get_text() for axes in figure.axes] == ["", ""]


def test_a_layout_before_the_drawing_gives_the_file_that_matplotlib_gives() -> None:
    """Matplotlib itself draws twice."""
    one, other = (load.draw(make_published(analyses=[make_analysis()])) for _ in range(2))
    assert one is not None
    assert other is not None
    stream = io.BytesIO()
    with mpl.rc_context(
        {"svg.hashsalt": "repro", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}
    ):
        other.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    assert as_svg(one) == stream.getvalue()


def test_many_sizes_of_table_1_take_the_width_of_a_page() -> None:
    """Three columns instead of a tower; experts are named only where they differ."""
    cases = [make_case(tokens=tokens) for tokens in (64, 256, 1024)] + [make_case(experts=8, tokens=64)]
    figure = table1.draw(make_published(bench=cases))
    assert figure is not None
    assert figure.get_figwidth() == WIDE
    assert figure.get_figheight() < 4
    assert figure.axes[0].get_title() == "768/3072 x 8, fp32\n64 tokens"


def test_gates_of_several_tasks_stand_side_by_side() -> None:
    runs = [make_result(task, "top-2") for task in ("sst2", "wikitext")]
    figure = gates.draw(compare_gates(*runs, study="gates"))
    assert figure is not None
    assert figure.get_figwidth() == WIDE
    first, second = (axes.get_position() for axes in figure.axes[:2])
    assert first.y0 == second.y0


# --- Table 3 ------------------------------------------------------------------------------------------


def compared(seed: int, step: int, value: float, task: str = "sst2", gate: str = "adaptive") -> RunResult:
    """A run that gets to the baseline's loss after so many of 20 steps."""
    curve = [[0, 0.0, 1.0], [step, float(step), 0.5]]
    return make_result(task, gate, seed, curve=curve, metric__value=value)


def test_table_3_by_hand() -> None:
    """12 and 18 of 20 steps: the root of 0.6 x 0.9; accuracies of 0.4 and 0.5 are 10 % below 0.5."""
    runs = [compared(seed, 20, 0.5, gate="top-2") for seed in (0, 1)]
    runs += [compared(0, 12, 0.4), compared(1, 18, 0.5)]
    published = compare_gates(*runs)
    (row,) = [row for row in scheme_rows(published) if row.scheme == "adaptive"]
    mark = table3.time(row)
    assert (mark.value, mark.paper) == pytest.approx((0.54**0.5, 0.77))
    assert mark.low is not None
    assert mark.high is not None
    # Logs are ln(1.5) / 2 from their mean on either side: half width 12.706 x ln(1.5) / 2.
    assert math.log(mark.high / mark.low) == pytest.approx(12.706 * math.log(1.5), rel=1e-3)
    mark = table3.quality(row)
    assert mark.value == pytest.approx(-10)
    assert mark.paper == pytest.approx(100 * (0.919 - 0.918) / 0.918)
    # Differences of -0.1 and 0 are 0.05 from their mean: 12.706 x 0.05, over 0.5, in percent.
    assert (mark.low, mark.high) == pytest.approx((-137.06, 117.06), rel=1e-3)
    left, right = drawn(table3.draw(published))
    assert left.get_xlabel() == "time, ratio to top-2"
    assert right.get_xlabel() == "quality, % better"
    assert [text.get_text() for text in left.get_yticklabels()] == ["Sentiment\nanalysis"]
    assert [0.77, 0.2] in [points(line)[0] for line in left.lines]  # the paper's, a little lower
    # An interval of two seeds does not squeeze the rest.
    assert left.get_xlim()[1] - left.get_xlim()[0] < 1


def test_a_lower_perplexity_is_to_the_right_in_table_3() -> None:
    runs = [compared(0, 20, 10.0, "wikitext", "top-2"), compared(0, 20, 8.0, "wikitext")]
    (row,) = [row for row in scheme_rows(compare_gates(*runs)) if row.scheme == "adaptive"]
    mark = table3.quality(row)
    assert mark.value == pytest.approx(20)
    assert (mark.low, mark.high) == (None, None)
    assert mark.paper == pytest.approx(100 * (17.8 - 17.5) / 17.8)


def test_a_bound_and_what_is_off_the_axis_have_arrows() -> None:
    """Adaptive never gets there; top-1 is 60 % worse."""
    never = [[0, 0.0, 1.0], [40, 40.0, 0.6]]
    runs = [
        compared(0, 20, 0.5, gate="top-2"),
        compared(0, 20, 0.2, gate="top-1"),
        make_result(curve=never, metric__value=0.5),
    ]
    figure = table3.draw(compare_gates(*runs))
    left, right = drawn(figure)
    assert [text.get_text() for text in left.texts] == ["→"]
    assert [text.get_text() for text in right.texts] == ["←"]
    assert right.get_xlim()[0] > 2 * table3.FARTHEST["quality"][0]
    assert figure is not None
    assert as_png(figure).startswith(b"\x89PNG")


# --- claims -------------------------------------------------------------------------------------------


def test_the_main_claims_are_few_and_of_this_paper() -> None:
    main = [claim for claim in all_claims() if claim.headline]
    assert 5 <= len(main) <= 8
    assert "AdaMoE" not in {claim.subject for claim in main}


def test_every_claim_is_on_one_sheet() -> None:
    runs = [compared(seed, 20, 0.5, gate=gate) for gate in ("top-2", "adaptive") for seed in (0, 1)]
    published = compare_gates(*runs)
    words = [
        text.get_text()
        for module in (claims_time, claims_quality, claims_tokens)
        for axes in drawn(module.draw(published))
        for text in axes.texts
    ]
    shown = " ".join(words)
    for claim in all_claims():
        assert claim.text.split(":")[-1][:30].strip() in shown
    assert sum(word in VERDICTS for word in words) == len(all_claims())


def test_a_claim_is_drawn_by_hand() -> None:
    """Shares of 20 % and 30 %: 25 +- 5 x 12.706 / 1.96; the claim holds between 11.3 % and 25.6 %."""
    runs = [
        make_result("sst2", "adaptive", seed, routing=make_routing(share))
        for seed, share in ((0, 0.2), (1, 0.3))
    ]
    one = next(one for one in judged(compare_gates(*runs)) if one.claim.measure == "share")
    where = forest.place(one)
    assert (where.value, where.paper) == pytest.approx((25, 19.7))
    assert (where.low, where.high) == pytest.approx((-7.41, 57.41), abs=0.01)
    assert (where.above, where.below) == pytest.approx((11.3, 25.6))
    (axes,) = drawn(forest.forest(compare_gates(*runs), lambda claim: claim.measure == "share"))
    assert axes.get_xlabel() == "share of the tokens (%)"
    # Values, limits and the paper's number are 25.6 - 11.3 apart: ends are cut at so much beyond them.
    margin = 0.06 * 3 * 14.3
    assert axes.get_xlim() == pytest.approx((11.3 - 14.3 - margin, 25.6 + 14.3 + margin))
    markers = [line.get_marker() for line in axes.lines]
    assert {"<", ">", "*", "D"} <= set(markers)
    assert [text.get_text() for text in axes.texts][-1] == "open"


def test_counted_claims_are_drawn_as_shares_of_the_items() -> None:
    """The paper: 4 of 6 tasks; here one is measured, and open: 0 to 6 of 6."""
    runs = [compared(0, 20, 0.5, gate=gate) for gate in ("top-2", "top-1")]
    one = next(one for one in judged(compare_gates(*runs)) if one.claim.text.startswith("Top-1 takes longer"))
    where = forest.place(one)
    assert (where.value, where.low, where.high) == (0, 0, 1)
    assert (where.paper, where.above) == pytest.approx((4 / 6, 4 / 6))


def test_limits_of_an_axis_by_hand() -> None:
    """Ends are shown up to as far beyond the anchors as these are apart."""
    assert reach([1.0, 2.0], []) == pytest.approx((0.94, 2.06))
    assert reach([1.0, 2.0], [-50.0, 2.5]) == pytest.approx((-0.15, 2.65))
    assert reach([0.0], []) == pytest.approx((-0.06, 0.06))
