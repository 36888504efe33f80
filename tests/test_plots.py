import io
import itertools
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from keras_initkit import plots


def rendered(figure):
    """The figure's pixels; drawing it also shows that its texts and limits can be drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="raw", dpi=50)
    return np.frombuffer(buffer.getvalue(), "uint8")


def texts(panel):
    return [text.get_text() for text in panel.texts]


def histogram(values, name="layer", bins=50):
    counts, edges = np.histogram(values[np.isfinite(values)], bins)
    return plots.LayerHistogram(name, counts, edges, values.mean(), values.std(), int((values == 0).sum()))


def overlapping(figure, artists):
    boxes = [artist.get_window_extent() for artist in artists if artist.get_text()]
    return [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


NOTHING = plots.LayerHistogram("lost", (0, 0), (0.0, 0.5, 1.0), np.nan, np.nan)
RNG = np.random.default_rng(0)


# A comparison's figures.


def test_histograms_have_a_panel_for_each_initializer_and_layers_in_their_own_deviation():
    samples = {
        name: [RNG.normal(1, scale / (i + 1), 500) for i in range(3)] for name, scale in (("a", 1.0), ("b", 0.01))
    }
    figure = plots.activation_histograms(
        {name: [histogram(x) for x in each] for name, each in samples.items()}, "caption"
    )
    assert len(figure.axes) == 2
    assert "caption: the standard deviation of activations changes most from " in figure.get_suptitle()
    for panel, (name, layers) in zip(figure.axes, samples.items(), strict=True):
        assert panel.get_ylabel() == name
        assert [float(text) for text in texts(panel)] == [pytest.approx(values.std(), rel=0.05) for values in layers]
        for place, (patch, values) in enumerate(zip(panel.patches, layers, strict=True)):
            drawn, (counts, edges) = patch.get_data(), np.histogram(values, 50)
            assert (drawn.edges >= place).all()
            assert (drawn.edges <= place + 1).all()
            inside = np.abs((edges - values.mean()) / values.std()) <= 4
            assert drawn.values * counts.max() == pytest.approx(counts[inside[:-1] & inside[1:]])
    assert rendered(figure).std() > 0


def test_at_most_eight_initializers_and_ten_layers_have_histograms():
    each = [histogram(RNG.normal(size=100)) for _ in range(50)]
    figure = plots.activation_histograms({f"name {i}": each for i in range(11)})
    assert len(figure.axes) == 8
    assert len(figure.axes[0].patches) == 10
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()][::9] == ["1", "50"]
    assert figure.get_supxlabel().count("name") == 3


def test_a_layer_without_a_histogram_says_why():
    full, zeros = histogram(RNG.normal(size=100)), histogram(np.zeros(10))
    figure = plots.activation_histograms({"a": [full, NOTHING], "b": [zeros, NOTHING]})
    assert [texts(panel)[-1] for panel in figure.axes] == ["not finite"] * 2
    assert texts(figure.axes[1])[0] == "all 0"
    assert rendered(figure).std() > 0


def test_zeros_are_said_and_not_drawn():
    values = np.maximum(RNG.normal(size=1000), 0)
    panel = plots.activation_histograms({"relu": [histogram(values)]}).axes[0]
    assert panel.get_ylabel() == f"relu\n{(values == 0).mean():.0%} are 0"
    drawn = panel.patches[0].get_data().values
    expected = np.histogram(values[values > 0], np.linspace(0, values.max(), 51))[0]
    assert drawn == pytest.approx(expected[: len(drawn)] / expected.max())


def test_variance_lines_are_geometric_means_from_where_the_signal_enters():
    forward = {"a": np.array([[1.0, 0.5, 0.25], [4.0, 0.5, 1.0]]), "b": np.array([[7.0, 7, 7], [7, 7, 7]])}
    backward = {"a": forward["a"] * 1e-6, "b": forward["b"]}
    figure = plots.variance_by_layer(forward, backward, "caption", healthy=1.0)
    for panel, series, entry in zip(figure.axes, (forward, backward), (0, -1), strict=True):
        assert panel.get_yscale() == "log"
        assert panel.get_xlim() == (0.5, 3.5)
        lines = {line.get_label(): line for line in panel.lines}
        for name, values in series.items():
            ratio = values / values[:, [entry]]
            np.testing.assert_array_equal(lines[name].get_xdata(), [1, 2, 3])
            np.testing.assert_allclose(lines[name].get_ydata(), np.sqrt(ratio[0] * ratio[1]))
    # 1/4 and 1/4 at the last layer; at the second 1/2 and 1/8, which is a factor 2 from their mean of 1/4.
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    at_second = band[band[:, 0] == 2, 1]
    assert (at_second.min(), at_second.max()) == pytest.approx((1 / 8, 1 / 2))
    assert figure.get_suptitle() == "caption: the signal stays healthy from every initializer"
    heights = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    assert heights.keys() == {"a", "b"}
    assert heights["b"] > heights["a"]
    assert rendered(figure).std() > 0


def test_variance_names_what_has_no_point():
    ones = np.ones((2, 4))
    part = np.array([[1.0, 1, 0, 0], [1, 1, 1, 0]])
    forward = {"zero": 0 * ones, "fades": part, "over": np.where(part > 0, 1, np.nan), "fine": ones, "half": 0 * ones}
    backward = {"zero": 0 * ones, "fades": ones, "over": ones * np.inf, "fine": ones, "half": ones}
    figure = plots.variance_by_layer(forward, backward, healthy=1.0)
    assert figure.get_supxlabel().split("\n")[-4:] == [
        "zero: forward 0, backward 0.",
        "fades: forward 0 in 2 of 4.",
        "over: forward not finite in 2 of 4, backward not finite.",
        "half: forward 0.",
    ]
    assert figure.get_suptitle() == "the signal stays healthy only from fine"
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_array_equal(lines["fades"], [1, 1, np.nan, np.nan])
    assert rendered(figure).std() > 0


def test_nothing_to_draw_says_so():
    zeros = {"zeros": np.zeros((1, 2))}
    figure = plots.variance_by_layer(zeros, zeros, healthy=1.0)
    assert [texts(panel) for panel in figure.axes] == [["nothing above 0 and finite"]] * 2
    assert rendered(figure).std() > 0


def test_at_most_six_lines_have_a_color_and_a_name():
    series = {f"line {i}": np.array([[1.0, 2.0**-i]]) for i in range(20)}
    for figure, panel in (
        (curves := plots.training_curves(series, series), curves.axes[1]),
        (variances := plots.variance_by_layer(series, series, healthy=1.0), variances.axes[0]),
    ):
        rendered(figure)
        named = [text for text in panel.texts if text.get_text().startswith("line")]
        assert len(named) == 6
        assert not overlapping(figure, named)
        colors = {line.get_label(): to_rgba(line.get_color()) for line in panel.lines}
        assert {text.get_text(): to_rgba(text.get_color()) for text in named}.items() <= colors.items()
        assert len(set(colors.values())) == 7
        assert figure.get_supxlabel().count("line") == 14


def test_training_curves_are_means_with_a_band():
    loss = {"a": np.array([[2.0, 1.0], [4.0, 1.0]]), "b": np.array([[3.0, 2.0], [3.0, 2.0]])}
    accuracy = {name: 1 / values for name, values in loss.items()}
    figure = plots.training_curves(loss, accuracy, "caption")
    for panel, series in zip(figure.axes, (loss, accuracy), strict=True):
        for line in panel.lines:
            np.testing.assert_array_equal(line.get_xdata(), [1, 2])
            np.testing.assert_allclose(line.get_ydata(), series[line.get_label()].mean(axis=0))
    assert figure.axes[0].get_yscale() == "linear"
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert sorted({*band[band[:, 0] == 1, 1]}) == [2.0, 4.0]
    assert figure.get_suptitle() == "caption: a reaches 100% test accuracy in 2 epochs, b 50%"
    assert set(texts(figure.axes[1])) == {"a", "b"}
    assert rendered(figure).std() > 0


def test_losses_that_exploded_leave_room_for_the_others():
    loss = {"a": np.array([[2.0, 1.0]]), "b": np.array([[3e9, np.inf]]), "c": np.array([[np.nan, np.nan]])}
    figure = plots.training_curves(loss, {name: np.full((1, 2), 0.1) for name in loss})
    assert figure.axes[0].get_yscale() == "log"
    assert figure.get_supxlabel() == "Loss not finite: b, c."
    assert rendered(figure).std() > 0


def test_one_epoch_has_one_tick():
    figure = plots.training_curves({"a": np.array([[2.0]])}, {"a": np.array([[0.5]])})
    figure.canvas.draw()
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == [1]


# A report's figure.


def named(number):
    return [f"dense_{i}" for i in range(number)]


def by_depth(number, forward=None, backward=None, **options):
    """A figure of so many layers whose signal is level, with these of them changed."""
    values = [0.0] * number
    for place, value in (forward or {}).items():
        values[place] = value
    lines = ({"measured": values, "theory": [0.0] * number}, {"measured": backward or values})
    options.setdefault("histograms", {"measured": [histogram(RNG.normal(size=50), name) for name in named(number)]})
    return plots.signal_by_depth(named(number), *lines, options.pop("histograms"), healthy=1.0, **options)


@pytest.mark.parametrize("number", [1, 3, 5, 8, 12, 60, 200])
@pytest.mark.filterwarnings("error")
def test_depth_has_at_most_eight_histograms_and_no_labels_on_top_of_each_other(number):
    figure = by_depth(number, title="model")
    *histograms, forward, backward = [panel for panel in figure.axes if panel.axison]
    assert len(histograms) == min(number, 8)
    assert histograms[0].get_title() == "dense_0"
    assert histograms[-1].get_title() == f"dense_{number - 1}"
    assert rendered(figure).std() > 0
    np.testing.assert_array_equal(forward.lines[0].get_xdata(), np.arange(number))
    over = f" over {number} layers" if number > 1 else ""
    assert figure.get_suptitle() == f"model: the signal stays within 1.1x{over}, forward and backward"
    labels = backward.get_xticklabels()
    assert len(labels) == number if number <= 32 else 20 <= len(labels) <= 32
    assert not overlapping(figure, labels)
    assert not overlapping(figure, [panel.title for panel in histograms])
    assert not overlapping(figure, forward.texts)
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in forward.texts)


def test_depth_draws_factors_and_marks_and_names_what_has_no_place_on_the_axis():
    figure = by_depth(6, {2: np.nan, 3: np.inf, 5: -np.inf, 1: None, 4: -2.0}, [-np.inf] * 3 + [0.0] * 3)
    forward, backward = [panel for panel in figure.axes if panel.get_ylabel()]
    assert forward.lines[0].get_xydata().tolist() == [[0, 1.0], [4, pytest.approx(0.01)]]
    marks = {line.get_label(): list(line.get_xdata()) for panel in (forward, backward) for line in panel.lines}
    assert marks["measured not finite"] == [2, 3]
    assert [list(line.get_xdata()) for line in forward.lines if line.get_label() == "measured 0"] == [[5]]
    assert marks["measured 0"] == [0, 1, 2]
    assert forward.get_title(loc="right") == "not finite: dense_2, dense_3; 0: dense_5; 1 outside"
    assert backward.get_title(loc="right") == "0: dense_0, dense_1 and 1 more"
    assert figure.get_suptitle() == (
        "Activations are not finite in dense_2 and 1 more; gradients become 0 in dense_0 and 2 more"
    )
    assert rendered(figure).std() > 0


def test_depth_says_where_the_signal_goes_and_what_is_outside():
    figure = by_depth(3, {1: -2.0, 2: -6.0}, [-1.5, 0.5, 0.0])
    assert " ".join(figure.get_suptitle().split()) == (
        "Activations fall 6 decades from dense_0 to dense_2; gradients fall 32-fold from dense_2 to dense_0"
    )
    forward, backward = [panel for panel in figure.axes if panel.get_ylabel()]
    assert forward.get_title(loc="right") == "outside: dense_2, dense_1"
    assert backward.get_title(loc="right") == "outside: dense_0"
    (band,) = forward.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.1, 10))
    assert to_rgba(band.get_facecolor()) == to_rgba("white")
    red = [line for line in forward.lines if to_rgba(line.get_color()) == to_rgba("#D55E00")]
    assert [list(line.get_xdata()) for line in red] == [[1, 2]]


def test_depth_tells_prediction_from_measurement():
    measured, _, predicted = next(p for p in by_depth(3).axes if p.get_ylabel()).lines
    assert (measured.get_linestyle(), predicted.get_linestyle()) == ("-", "--")
    assert measured.get_color() != predicted.get_color()


def test_before_and_after_are_two_rows_and_two_lines():
    lines = {"before": [0.0, -3.0], "after": [0.0, 0.1]}
    rows = {name: [histogram(RNG.normal(size=50), layer) for layer in named(2)] for name in lines}
    figure = plots.signal_by_depth(named(2), lines, lines, rows, healthy=1.0, title="model")
    assert [panel.get_ylabel() for panel in figure.axes[:4]] == ["before", "", "after", ""]
    assert figure.get_suptitle().split("\n") == [
        "model",
        "before: activations fall 3 decades from dense_0 to dense_1; gradients fall 3 decades from",
        "dense_0 to dense_1",
        "after: the signal stays within 1.3x over 2 layers, forward and backward",
    ]
    assert set(texts(figure.axes[-2])) == {"before", "after"}


def test_a_panel_of_the_picture_has_the_measured_deviation_and_the_zeros():
    values = np.maximum(RNG.normal(size=1000), 0)
    figure = by_depth(1, histograms={"measured": [histogram(values, "dense_0")]})
    assert texts(figure.axes[0]) == [f"sd {values.std():.2g}\n{(values == 0).mean():.0%} are 0"]
    figure = by_depth(2, histograms={"measured": [NOTHING, histogram(np.full(9, 0.25))]})
    assert [texts(panel) for panel in figure.axes[:2]] == [["not finite"], ["all 0.25"]]


@pytest.mark.filterwarnings("error")
def test_depth_without_anything_to_draw():
    figure = plots.signal_by_depth([], {}, {}, healthy=1.0)
    assert rendered(figure).std() > 0
    figure = by_depth(2, backward=[None, None], histograms=None)
    assert texts(figure.axes[1]) == ["nothing was measured"]
    assert rendered(figure).std() > 0


@pytest.mark.filterwarnings("error")
def test_names_are_no_formulas():
    names = ["$x_1$", r"$\nonsense{$", "$unclosed"]
    each = [histogram(RNG.normal(size=50), name) for name in names]
    figure = plots.signal_by_depth(names, {"$m$": [np.nan] * 3}, {}, {"$m$": each}, healthy=1.0, title="$x")
    assert rendered(figure).std() > 0
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == names


@pytest.mark.filterwarnings("error")
def test_axes_that_are_given_are_drawn_into():
    figure = Figure()
    one, two = figure.subplots(2)
    lines = {"measured": [0.0, -2.0]}
    assert plots.signal_by_depth(named(2), lines, lines, healthy=1.0, ax=one) is figure
    assert [line.get_label() for line in one.lines if len(line.get_xdata()) == 2] == ["forward", "backward"]
    assert not two.lines
    assert plots.signal_by_depth(named(2), lines, lines, healthy=1.0, ax=(one, two)) is figure
    assert two.lines
    with pytest.raises(ValueError, match="ax: got 3, expected Matplotlib axes, or a pair of them"):
        plots.signal_by_depth(named(2), lines, lines, healthy=1.0, ax=3)
    with pytest.raises(ValueError, match="ax: got 3, expected Matplotlib axes"):
        plots.statistic_by_layer("x", named(1), {"measured": [1.0]}, ax=3)


def test_a_statistic_has_a_logarithmic_axis_where_it_spans_decades():
    figure = plots.statistic_by_layer("v", named(3), {"before": [1.0, 1e-3, 0.0], "after": [1.0, None, 2.0]}, title="m")
    (panel,) = figure.axes
    assert panel.get_yscale() == "log"
    assert {line.get_label(): line.get_xydata().tolist() for line in panel.lines} == {
        "before": [[0, 1.0], [1, 1e-3]],
        "after": [[0, 1.0], [2, 2.0]],
    }
    assert figure.get_suptitle() == "m: v before largest, 1, in dense_0; after largest, 2, in dense_2"
    (panel,) = plots.statistic_by_layer("f", named(2), {"measured": [0.0, 0.5]}, limits=(0, 1)).axes
    assert panel.get_yscale() == "linear"
    assert panel.get_ylim() == pytest.approx((-0.02, 1.02))


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([f"block_{i}_{part}" for i in range(20) for part in ("expand", "bn", "relu")], r"block_\d+"),
        ([f"backbone/layer_{i}/{part}" for i in range(12) for part in "abcdefg"], r"layer_\d+"),
        (
            [f"layer_{i}/a_long_self_attention/{part}" for i in range(8) for part in "qkv"],
            r"layer_\d+",
        ),  # alike at the end
        ([f"dense_{i}" for i in range(60)], r"dense_\d+"),
    ],
)
def test_names_of_many_layers_are_those_of_their_blocks(names, shown):
    figure = plots.statistic_by_layer("v", names, {"measured": [1.0] * len(names)})
    rendered(figure)
    labels = figure.axes[0].get_xticklabels()
    assert 8 <= len(labels) <= 32
    assert all(re.fullmatch(shown, label.get_text()) for label in labels)
    assert not overlapping(figure, labels)


def test_a_figure_shows_itself_in_a_notebook_without_pyplot():
    assert by_depth(2)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", ["transformer_block_{}_attention_output_dense", "層" * 30 + "{}", "a" * 90 + "{}"])
def test_long_names_stay_apart_and_collide_with_nothing(name):
    names = [name.format(i) for i in range(12)]
    lost = {"measured": [0.0] * 3 + [-9.0] * 9}
    each = [histogram(RNG.normal(size=50), name) for name in names]
    figure = plots.signal_by_depth(names, lost, lost, {"measured": each}, healthy=1.0)
    rendered(figure)
    *histograms, forward, backward = [panel for panel in figure.axes if panel.axison]
    labels = [label.get_text() for label in backward.get_xticklabels()]
    assert len(set(labels)) == 12
    assert len({panel.get_title() for panel in histograms}) == 8
    assert not overlapping(figure, [panel.title for panel in histograms])
    for panel in (forward, backward):
        assert panel.get_title(loc="right").startswith("outside: ")
        assert not overlapping(figure, [panel._left_title, panel._right_title])


def test_a_name_of_several_lines_stands_on_one():
    figure = plots.signal_by_depth(["a\nb\tc"], {"measured": [0.0]}, {}, healthy=1.0)
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["a b c"]
