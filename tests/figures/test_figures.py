"""Figures from analyses and results made by hand: what is drawn, not how it looks."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from factories import compare_gates, compare_variants, make_analysis, make_case, make_published, make_result
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro import plugins
from repro.errors import UserError
from repro.report.figures import base, curves, figure1, figure2, gates, load, pareto, table1
from repro.report.figures.base import FigureModule
from repro.report.style import as_png, as_svg
from repro.results.published import Published

# mypy checks signatures and types of each module against the protocol.
FIGURES: dict[str, FigureModule] = {
    "curves": curves,
    "figure1": figure1,
    "figure2": figure2,
    "gates": gates,
    "load": load,
    "pareto": pareto,
    "table1": table1,
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
    assert figure.TITLE
    assert "\n" not in figure.TITLE


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
    assert labels(figure)[0][1] == "Perplexity per token (lower is better)"


def test_values_that_are_missing_are_left_out() -> None:
    broken = compare_gates(make_result(gate="top-1", metric__value=None))
    assert pareto.draw(broken) is None
    assert curves.draw(compare_gates(make_result(gate="dense", flops__per_token=None))) is None


def test_table_1() -> None:
    (axes,) = drawn(table1.draw(make_published(bench=[make_case()])))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("computation", "time")
    assert axes.get_title() == "768/3072, 16 experts\n100 tokens, fp32"
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


def test_table_1_of_three_cases_has_equal_axes_and_an_empty_place() -> None:
    cases = [make_case(), make_case(precision="bf16"), make_case(tokens=200)]
    figure = table1.draw(make_published(bench=cases))
    assert figure is not None
    assert [axes.axison for axes in figure.axes] == [True, True, True, False]
    assert [axes.get_title().splitlines()[1:] for axes in figure.axes] == [
        ["100 tokens, fp32"],
        ["100 tokens, bf16"],
        ["200 tokens, fp32"],
        [],
    ]
    assert {axes.get_ylim() for axes in figure.axes[:3]} == {(0.45, 1.05)}
    colours = [[line.get_color() for line in axes.lines] for axes in figure.axes[:3]]
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
