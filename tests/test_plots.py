import io
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from keras_initkit import plots


def rendered(figure):
    """The figure's pixels; drawing it also shows that its texts and limits can be drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="raw", dpi=50)
    return np.frombuffer(buffer.getvalue(), "uint8")


def labels(panel):
    return [text.get_text() for text in panel.get_legend().get_texts()]


def test_histograms_have_a_row_for_each_initializer_and_a_column_for_each_layer():
    rng = np.random.default_rng(0)
    samples = {name: [rng.normal(0, scale, 500) for _ in range(3)] for name, scale in (("a", 1.0), ("b", 0.01))}
    histograms = {}
    for name, layers in samples.items():
        pairs = [np.histogram(layer, 41) for layer in layers]
        histograms[name] = [(counts.tolist(), edges.tolist()) for counts, edges in pairs]
    figure = plots.activation_histograms(histograms, "caption")
    assert len(figure.axes) == 6
    assert "caption" in figure.get_suptitle()
    for row, (name, layers) in enumerate(samples.items()):
        panels = figure.axes[3 * row : 3 * row + 3]
        assert panels[0].get_ylabel() == name
        low, high = min(map(np.min, layers)), max(map(np.max, layers))
        for panel, values, (counts, edges) in zip(panels, layers, histograms[name], strict=True):
            drawn = panel.patches[0].get_data()
            np.testing.assert_array_equal(drawn.values, counts)
            np.testing.assert_array_equal(drawn.edges, edges)
            assert panel.get_xlim() == pytest.approx((low, high))
            shown = float(panel.texts[0].get_text().removeprefix("sd "))
            assert shown == pytest.approx(values.std(), rel=0.06)  # two digits, and a bin's width
    assert [panel.get_title() for panel in figure.axes[:3]] == ["layer 1", "layer 2", "layer 3"]
    assert rendered(figure).std() > 0


def test_a_layer_that_overflowed_says_so_and_leaves_the_others_their_range():
    empty = ([0, 0], [0.0, 0.5, 1.0])
    full = ([3, 5], [10.0, 11.0, 12.0])
    figure = plots.activation_histograms({"a": [full, empty], "b": [empty, empty]})
    assert [panel.texts[0].get_text() for panel in figure.axes] == ["sd 4.8e-01", *["not finite"] * 3]
    assert figure.axes[0].get_xlim() == (10.0, 12.0)
    assert rendered(figure).std() > 0


def test_a_bar_of_zeros_does_not_hide_the_rest():
    figure = plots.activation_histograms({"relu": [([900, 60, 40], [0.0, 1.0, 2.0, 3.0])]})
    assert figure.axes[0].get_ylim() == pytest.approx((0, 72))


def test_variance_lines_are_geometric_means_with_a_band():
    forward = {"a": np.array([[1.0, 0.5, 0.25], [4.0, 0.5, 1.0]]), "b": np.array([[1.0, 1, 1], [1, 1, 1]])}
    backward = {"a": forward["a"] * 1e-6, "b": forward["b"]}
    figure = plots.variance_by_layer(forward, backward, "caption")
    assert len(figure.axes) == 2
    for panel, series in zip(figure.axes, (forward, backward), strict=True):
        assert panel.get_yscale() == "log"
        assert panel.get_xlim() == (0.5, 3.5)
        for line, values in zip(panel.lines, series.values(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_allclose(line.get_ydata(), np.sqrt(values[0] * values[1]))
        # 1 and 4 lie a factor 2 from their geometric mean of 2: the band runs from 1 to 4.
        band = panel.collections[0].get_paths()[0].vertices
        at_first = band[band[:, 0] == 1, 1]
        scale = series["a"][0, 0]
        assert (at_first.min(), at_first.max()) == pytest.approx((scale, 4 * scale))
    assert labels(figure.axes[1]) == ["a", "b"]
    assert rendered(figure).std() > 0


def test_one_seed_has_no_band():
    figure = plots.variance_by_layer({"a": np.array([[1.0, 0.5]])}, {"a": np.array([[1.0, 0.5]])})
    assert not figure.axes[0].collections


def test_the_legend_names_what_has_no_point():
    ones = np.ones((2, 4))
    part = np.array([[1.0, 1, 0, 0], [1, 1, 1, 0]])
    forward = {"zero": 0 * ones, "fades": part, "over": np.where(part > 0, 1, np.nan), "fine": ones, "half": 0 * ones}
    backward = {"zero": 0 * ones, "fades": ones, "over": ones * np.inf, "fine": ones, "half": ones}
    figure = plots.variance_by_layer(forward, backward)
    assert labels(figure.axes[1]) == [
        "zero (0)",
        "fades\n(forward 0 in 2 of 4)",
        "over\n(forward not finite in 2 of 4)\n(backward not finite)",
        "fine",
        "half\n(forward 0)",
    ]
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), [1, 1, np.nan, np.nan])
    assert rendered(figure).std() > 0


def test_nothing_to_draw_says_so():
    zeros = {"zeros": np.zeros((1, 2))}
    figure = plots.variance_by_layer(zeros, zeros)
    assert [[text.get_text() for text in panel.texts] for panel in figure.axes] == [["nothing above 0 and finite"]] * 2
    assert rendered(figure).std() > 0


def test_training_curves_are_means_with_a_band():
    loss = {"a": np.array([[2.0, 1.0], [4.0, 1.0]]), "b": np.array([[3.0, 2.0], [3.0, 2.0]])}
    accuracy = {name: 1 / values for name, values in loss.items()}
    figure = plots.training_curves(loss, accuracy, "caption")
    for panel, series in zip(figure.axes, (loss, accuracy), strict=True):
        for line, values in zip(panel.lines, series.values(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2])
            np.testing.assert_allclose(line.get_ydata(), values.mean(axis=0))
    assert figure.axes[0].get_yscale() == "linear"
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert sorted({*band[band[:, 0] == 1, 1]}) == [2.0, 4.0]
    assert labels(figure.axes[1]) == ["a", "b"]


def test_losses_that_exploded_leave_room_for_the_others():
    loss = {"a": np.array([[2.0, 1.0]]), "b": np.array([[3e9, np.inf]]), "c": np.array([[np.nan, np.nan]])}
    figure = plots.training_curves(loss, {name: np.full((1, 2), 0.1) for name in loss})
    assert figure.axes[0].get_yscale() == "log"
    assert labels(figure.axes[1]) == ["a", "b (loss not finite)", "c (loss not finite)"]
    assert rendered(figure).std() > 0


def test_one_epoch_has_one_tick():
    figure = plots.training_curves({"a": np.array([[2.0]])}, {"a": np.array([[0.5]])})
    figure.canvas.draw()
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == [1]


def test_twenty_lines_can_be_told_apart():
    series = {f"line {i}": np.array([[1.0 + i]]) for i in range(20)}
    lines = plots.training_curves(series, series).axes[0].lines
    assert len({(to_rgba(line.get_color()), line.get_marker(), line.get_linestyle()) for line in lines}) == 20


def named(number):
    return [f"block_{i}/dense_{i}" for i in range(number)]


def by_depth(number, **changes):
    """A figure of so many layers whose variances are 1, with these of them changed, forward and backward."""
    values = [1.0] * number
    for place, value in changes.pop("forward", {}).items():
        values[place] = value
    histogram = ([1, 5, 2], [-1.0, 0.0, 1.0, 2.0])
    series = ({"outputs": values, "predicted outputs": [1.0] * number}, {"gradients": changes.pop("backward", values)})
    changes.setdefault("histograms", [histogram] * number)
    return plots.signal_by_depth(named(number), changes.pop("histograms"), *series, **changes)


@pytest.mark.parametrize("number", [1, 3, 10, 12, 60, 200])
@pytest.mark.filterwarnings("error")
def test_depth_has_at_most_ten_histograms_and_no_labels_on_top_of_each_other(number):
    figure = by_depth(number, bands=((0.1, 10.0), None), caption="caption")
    *histograms, forward, backward = figure.axes
    assert len(histograms) == min(number, 10)
    assert histograms[0].get_title().endswith("dense_0")
    assert histograms[-1].get_title().endswith(f"dense_{number - 1}")
    assert rendered(figure).std() > 0
    np.testing.assert_array_equal(forward.lines[0].get_xdata(), np.arange(1, number + 1))
    assert figure.get_suptitle() == "caption"
    boxes = [label.get_window_extent() for label in backward.get_xticklabels()]
    assert len(boxes) == number if number < 40 else 24 <= len(boxes) <= 48
    assert all(before.x1 <= after.x0 for before, after in itertools.pairwise(boxes))
    for title in (panel.title for panel in histograms):
        others = [panel.title.get_window_extent() for panel in histograms if panel.title is not title]
        assert not any(title.get_window_extent().overlaps(other) for other in others)
    assert forward.get_legend().get_window_extent().x1 <= figure.bbox.x1


def test_depth_marks_and_names_what_has_no_place_on_the_axis():
    figure = by_depth(6, forward={2: np.nan, 3: np.inf, 5: 0.0, 1: None}, backward=[0.0] * 3 + [1.0] * 3)
    *_, forward, backward = figure.axes
    np.testing.assert_array_equal(forward.lines[0].get_ydata(), [1, np.nan, np.nan, np.nan, 1, np.nan])
    marks = {line.get_label(): list(line.get_xdata()) for panel in (forward, backward) for line in panel.lines}
    assert marks["variance not finite"] == [3, 4]
    assert marks["variance 0"] == [1, 2, 3]
    assert [list(line.get_xdata()) for line in forward.lines if line.get_label() == "variance 0"] == [[6]]
    note = forward.get_title(loc="right")
    assert note == "variance not finite: block_2/dense_2 and 1 more; variance 0: block_5/dense_5"
    assert backward.get_title(loc="right") == "variance 0: block_0/dense_0 and 2 more"
    assert rendered(figure).std() > 0


def test_depth_draws_the_healthy_band():
    figure = by_depth(3, bands=((0.2, 20.0), (0.3, 30.0)))
    for panel, (low, high) in zip(figure.axes[-2:], ((0.2, 20.0), (0.3, 30.0)), strict=True):
        (band,) = panel.patches
        assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((low, high))


def test_depth_tells_prediction_from_measurement():
    panel = by_depth(3).axes[-2]
    measured, predicted = panel.lines
    assert (measured.get_linestyle(), predicted.get_linestyle()) == ("-", "--")
    assert measured.get_color() != predicted.get_color()


def test_histograms_share_a_range_unless_it_would_hide_them():
    wide, narrow = ([1, 5, 2], [-1.0, 0.0, 1.0, 2.0]), ([1, 5, 2], [-0.1, 0.0, 0.1, 0.2])
    tiny = ([1, 5, 2], [-1e-3, 0.0, 1e-3, 2e-3])
    figure = by_depth(2, histograms=[wide, narrow])
    assert [panel.get_xlim() for panel in figure.axes[:2]] == [(-1.0, 2.0)] * 2
    figure = by_depth(2, histograms=[wide, tiny])
    assert [panel.get_xlim() for panel in figure.axes[:2]] == [(-1.0, 2.0), (-1e-3, 2e-3)]
    assert [part.get_suptitle() for part in figure.subfigs] == [
        "activations, each layer in its own range",
        "",
    ]


@pytest.mark.filterwarnings("error")
def test_depth_without_anything_to_draw():
    figure = plots.signal_by_depth([], [], {}, {})
    assert rendered(figure).std() > 0
    figure = by_depth(2, forward={0: 0.0, 1: np.nan}, backward=[None, None], histograms=[None, None])
    forward, backward = figure.axes
    assert [text.get_text() for text in backward.texts] == ["nothing above 0 and finite"]
    assert not forward.texts  # the prediction is drawn
    assert rendered(figure).std() > 0


def test_the_ends_of_a_narrow_range_can_be_told_apart():
    panel, *_ = by_depth(1, histograms=[([1, 2], [0.0998, 0.1, 0.1002])]).axes
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0.0998", "0.1002"]


@pytest.mark.parametrize(
    ("edges", "label"),
    [([0.099999991, 0.1, 0.10000014], "0.1 ± 7e-08"), ([-1e-30, 0, 1e-30], "0 ± 1e-30")],
)
def test_ends_that_would_overlap_are_one_label(edges, label):
    panel, *_ = by_depth(1, histograms=[([1, 2], edges)]).axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == [label]


@pytest.mark.filterwarnings("error")
def test_names_are_no_formulas():
    names = ["$x_1$", r"$\nonsense{$", "$unclosed"]
    figure = plots.signal_by_depth(names, [([1, 2], [0.0, 1.0, 2.0])] * 3, {"outputs": [np.nan] * 3}, {}, caption="$x")
    assert rendered(figure).std() > 0
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == names
