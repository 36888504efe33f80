"""The heat maps of a run: what each cell shows."""

import itertools
import math

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import pytest
from matplotlib.patches import PathPatch

from keras_initkit.plots import signal_over_training, statistic_over_training


def panels(layers, steps, forward, backward, title=""):
    figure = signal_over_training(layers, steps, forward, backward, healthy=1.0, title=title)
    figure.draw_without_rendering()
    return figure, [axes for axes in figure.axes if axes.get_title(loc="left")]


def shown(panel):
    """Logarithms that are coloured; NaN where the cell has a mark or nothing."""
    return panel.images[0].get_array().filled(np.nan)


def marks(panel):
    """Boxes (left, right, top, bottom) by hatch."""
    found = {}
    for patch in panel.findobj(PathPatch):
        corners = patch.get_path().vertices.reshape(-1, 5, 2)
        found[patch.get_hatch()] = [(*c[:, 0][[0, 1]], *c[:, 1][[0, 2]]) for c in corners]
    return found


def test_each_cell_is_its_decades():
    forward = [[0.0, 2.0, -4.0], [None, -math.inf, math.nan]]
    backward = [[-3.0, 1.0, math.inf], [None, None, None]]
    figure, (left, right) = panels(["first", "<second>_$x"], [0, 10, 500], forward, backward, "a run")
    np.testing.assert_allclose(shown(left), [[0, 2, -4], [np.nan] * 3])
    np.testing.assert_allclose(shown(right), [[-3, 1, np.nan], [np.nan] * 3])
    assert marks(left) == {
        "////": [(0.5, 1.5, 0.5, 1.5)],
        "xxxx": [(1.5, 2.5, 0.5, 1.5)],
        "....": [(-0.5, 0.5, 0.5, 1.5)],
    }
    assert marks(right) == {"xxxx": [(1.5, 2.5, -0.5, 0.5)], "....": [(-0.5, 2.5, 0.5, 1.5)]}
    assert left.images[0].get_clim() == right.images[0].get_clim() == (-4, 4)
    assert [text.get_text() for text in left.get_yticklabels()] == ["first", "<second>_$x"]
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first layer on top
    assert [text.get_text() for text in left.get_xticklabels()] == ["0", "10", "500"]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"not finite", "zero", "not measured"}
    assert " ".join(figure.get_suptitle().split()) == (
        "a run: activations are not finite in <second>_$x at step 500; gradients are not finite in first at step 500"
    )


def test_white_is_as_it_should_be_and_the_healthy_border_shows():
    _, (left, _) = panels(["a"], [0, 1], [[0.0, 0.01]], [[0.0, 0.0]])
    assert left.images[0].get_clim() == (-3, 3)
    colors = left.images[0].get_cmap()((np.array([-3, -1.05, -0.95, 0, 0.95, 1.05, 3]) + 3) / 6)[:, :3]
    assert colors[3] == pytest.approx(1, abs=0.01)
    assert np.abs(np.diff(colors, axis=0)).sum(axis=1)[[1, 4]].min() > 0.01  # at the borders
    assert (colors[:3, 2] > colors[:3, 0]).all()  # blue is smaller
    assert (colors[4:, 0] > colors[4:, 2]).all()  # red is larger


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([[0.0, -0.5]], "activations stay within 3.2x at all 2 measured steps"),
        ([[0.0, -5.0]], "activations fall 5 decades in a at step 10"),
        ([[3.0, 0.0]], "activations grow 3 decades in a at step 0, but not at the end"),
    ],
)
def test_the_title_says_what_is_worst_and_when(cells, words):
    figure, _ = panels(["a"], [0, 10], cells, [[None, None]])
    assert figure.get_suptitle() == words


def test_layers_that_are_not_judged_are_gray():
    others = [[None, 7.0]], [[None, None]]
    figure = signal_over_training(["a"], [0, 1], [[0.5, None]], [[0.5, 0.5]], healthy=1.0, not_judged=others)
    judged, gray = figure.axes[0].images
    np.testing.assert_allclose(judged.get_array().filled(np.nan), [[0.5, np.nan]])
    np.testing.assert_allclose(gray.get_array().filled(np.nan), [[np.nan, 7.0]])
    red, green, blue, _ = gray.get_cmap()(gray.norm(7.0))
    assert red == green == blue < 0.7
    assert gray.get_clim() == (-3, 3)  # of the judged layers
    assert len(figure.axes[1].images) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gray: not judged"]


def test_a_statistic_is_one_map():
    figure = statistic_over_training("ratio", ["a", "b"], [0, 5], [[1e-4, 1.0], [None, 0.0]], title="run")
    panel = figure.axes[0]
    np.testing.assert_allclose(shown(panel), [[-4, 0], [np.nan, np.nan]])
    assert marks(panel) == {"////": [(0.5, 1.5, 0.5, 1.5)], "....": [(-0.5, 0.5, 0.5, 1.5)]}
    assert figure.get_suptitle() == "run: ratio largest, 1, in a at step 5"
    figure = statistic_over_training("dead", ["a"], [0, 5], [[0.0, 0.5]], limits=(0, 1))
    assert figure.axes[0].images[0].get_clim() == (0, 1)
    np.testing.assert_allclose(shown(figure.axes[0]), [[0, 0.5]])


def test_maps_need_a_pair_of_axes():
    with pytest.raises(ValueError, match="ax: got 3, expected a pair of Matplotlib axes, forward and backward, or one"):
        signal_over_training(["a"], [0], [[0.0]], [[0.0]], healthy=1.0, ax=3)
    figure = mpl.figure.Figure()
    pair = figure.subplots(1, 2)
    assert signal_over_training(["a"], [0], [[0.0]], [[0.0]], healthy=1.0, ax=pair) is figure
    assert len(pair[1].images) == 1


def test_many_steps_share_columns():
    steps, rng = range(0, 5000, 5), np.random.default_rng(0)
    decades = rng.uniform(-3, 3, len(steps))
    broken = decades.copy()
    broken[777], broken[778] = np.inf, -np.inf
    _, (left, right) = panels(["a"], steps, [decades], [broken])
    columns = shown(left)[0]
    assert len(columns) == 400
    starts = [math.floor(len(steps) * i / 400) for i in range(401)]
    means = [decades[a:b].mean() for a, b in itertools.pairwise(starts)]
    np.testing.assert_allclose(columns, means)
    column = next(i for i, (a, b) in enumerate(itertools.pairwise(starts)) if a <= 777 < b)
    assert marks(right)["xxxx"] == [(column - 0.5, column + 0.5, -0.5, 0.5)]
    assert left.get_xticklabels()[-1].get_text() == f"{5 * starts[-2]:,}"


def test_hundreds_of_layers_are_named_now_and_then():
    names = [f"{'block/' * 20}dense_{i}" for i in range(200)]
    _, (left, _) = panels(names, [0], [[1.0]] * 200, [[1.0]] * 200)
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert len(labels) == 50
    assert labels[:2] == ["dense_0", "dense_4"]


@pytest.mark.parametrize("cells", [[[None]], [[math.nan]], [[-math.inf]]], ids=["none", "nan", "zero"])
def test_nothing_that_can_be_coloured(cells):
    figure, (left, _) = panels(["a"], [0], cells, cells)
    assert left.images or [text.get_text() for text in left.texts] == ["not measured"]
    figure.canvas.draw()


def test_no_layer_at_all():
    figure, _ = panels([], [0], [], [])
    figure.canvas.draw()


def test_nothing_is_shown_and_no_setting_changed():
    before = dict(mpl.rcParams)
    panels(["a"], [0], [[1.0]], [[1.0]])
    assert dict(mpl.rcParams) == before
