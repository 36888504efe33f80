"""A report as a collection of layers: by name, by place, and how a part is judged."""

import numpy as np
import pytest

from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats


def row(layer, deviation, kind="output", name="", shape=(2, 1)):
    call = None if kind.startswith("weight") else 0
    return TensorStats(Tap(kind, layer, call, name), Moments.of((-deviation, deviation)), "Dense", shape)


def report(outputs=(1.0, 0.5, 1e-4, 1.0), gradients=(1e-3, 1.0, 1.0, 1.0), zero_kernel=None):
    rows = []
    for i, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
        rows += [row(f"block/dense_{i}", output), row(f"block/dense_{i}", gradient, "output_gradient")]
        rows.append(row(f"block/dense_{i}", float(i != zero_kernel), "weight", "kernel"))
    return SignalReport(tuple(rows), 7, 2, "net")


def test_layers_by_name_place_and_slice():
    whole = report()
    assert len(whole) == 4
    assert list(whole) == whole.layers == [f"block/dense_{i}" for i in range(4)]
    assert "block/dense_1" in whole
    assert "dense_1" not in whole
    part = whole["block/dense_1"]
    assert (part.step, part.epoch, part.model) == (7, 2, "net")
    assert part.rows == whole.rows[3:6]
    assert whole[-1].layers == ["block/dense_3"]
    assert whole[1:3].layers == ["block/dense_1", "block/dense_2"]
    assert bool(SignalReport(()))  # a report, though of nothing
    with pytest.raises(KeyError, match=r"'block/dense_7' is no measured layer.*Did you mean 'block/dense_"):
        whole["block/dense_7"]
    with pytest.raises(IndexError):
        whole[4]


def test_a_part_is_judged_as_in_the_whole():
    whole = report()
    assert whole.healthy == {f"block/dense_{i}": i in (1, 3) for i in range(4)}
    for layer, healthy in whole.healthy.items():
        assert whole[layer].healthy == {layer: healthy}
        assert whole[1:][layer].healthy == {layer: healthy} if layer != "block/dense_0" else True
    assert str(whole["block/dense_2"]).splitlines()[-1].startswith("- ! outside")
    assert whole["block/dense_2"].statistic("activation_variance") == {"block/dense_2": pytest.approx(1e-8)}
    held = report(gradients=(0.0, 1.0, 1.0, 1.0), zero_kernel=1)  # which keeps the gradient from the layer before it
    assert held["block/dense_0"].healthy == {"block/dense_0": True}


def test_a_repr_is_one_line_that_says_what_is_not_healthy():
    assert repr(report()) == (
        "<SignalReport of net, epoch 2, step 7: 4 layers, not healthy: block/dense_0, block/dense_2>"
    )
    assert repr(SignalReport(())) == "<SignalReport: 0 layers>"
    many = report(np.logspace(0, -12, 9), np.ones(9))
    assert repr(many).endswith("not healthy: block/dense_2, block/dense_3, block/dense_4 and 3 more>")
    assert len(repr(many.rows[0])) < 500
