"""The heat maps of a run: what each cell shows."""

import itertools
import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.patches import PathPatch

from keras_initkit.plots import variance_over_training


def panels(*arguments):
    figure = variance_over_training(*arguments)
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


def test_each_cell_is_the_logarithm_of_its_variance():
    forward = [[1.0, 100.0, 1e-4], [None, 0.0, math.nan]]
    backward = [[1e-30, 1e-20, math.inf], [None, None, None]]
    figure, (left, right) = panels(["first", "<second>_$x"], [0, 10, 500], forward, backward, "a run")
    np.testing.assert_allclose(shown(left), [[0, 2, -4], [np.nan] * 3])
    np.testing.assert_allclose(shown(right), [[-30, -20, np.nan], [np.nan] * 3])
    assert marks(left) == {"////": [(0.5, 1.5, 0.5, 1.5)], "xxxx": [(1.5, 2.5, 0.5, 1.5)]}
    assert marks(right) == {"xxxx": [(1.5, 2.5, -0.5, 0.5)]}
    assert left.images[0].get_clim() == (-4, 2)
    assert [text.get_text() for text in left.get_yticklabels()] == ["first", "<second>_$x"]
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first layer on top
    assert [text.get_text() for text in left.get_xticklabels()] == ["0", "10", "500"]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"not finite", "zero", "not measured"}


def test_noise_does_not_fill_the_range_of_colours():
    _, (left, _) = panels(["a"], [0, 1], [[1.0, 1.1]], [[1.0, 1.0]])
    low, high = left.images[0].get_clim()
    assert high - low == pytest.approx(2)
    assert low + high == pytest.approx(np.log10(1.1))


def test_many_steps_share_columns():
    steps, rng = range(0, 5000, 5), np.random.default_rng(0)
    variances = 10 ** rng.uniform(-3, 3, len(steps))
    broken = variances.copy()
    broken[777], broken[778] = np.inf, 0.0
    _, (left, right) = panels(["a"], steps, [variances], [broken])
    columns = shown(left)[0]
    assert len(columns) == 400
    starts = [math.floor(len(steps) * i / 400) for i in range(401)]
    means = [np.log10(variances[a:b]).mean() for a, b in itertools.pairwise(starts)]
    np.testing.assert_allclose(columns, means)
    column = next(i for i, (a, b) in enumerate(itertools.pairwise(starts)) if a <= 777 < b)
    assert marks(right)["xxxx"] == [(column - 0.5, column + 0.5, -0.5, 0.5)]
    assert left.get_xticklabels()[-1].get_text() == f"{5 * starts[-2]:,}"


def test_hundreds_of_layers_are_named_now_and_then():
    names = [f"{'block/' * 20}dense_{i}" for i in range(200)]
    _, (left, _) = panels(names, [0], [[1.0]] * 200, [[1.0]] * 200)
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert len(labels) == 50
    assert labels[1].endswith("dense_4")
    assert max(map(len, labels)) == 30


@pytest.mark.parametrize("cells", [[[None]], [[math.nan]], [[0.0]]], ids=["none", "nan", "zero"])
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
