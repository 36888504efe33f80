"""What the sources derive by hand, predicted by `predict` and measured by `probe`, side by side."""

import keras
import numpy as np
import pytest

import keras_initkit as ik
from keras_initkit.statistics._tap import Tap

pytestmark = pytest.mark.one_backend

L = keras.layers


def dense_stack(widths, initializers, activation=None):
    layers = [
        L.Dense(width, activation, use_bias=False, kernel_initializer=initializer, name=f"layer_{i + 1}")
        for i, (width, initializer) in enumerate(zip(widths[1:], initializers, strict=True))
    ]
    return keras.Sequential([keras.Input((widths[0],)), *layers])


def by_layer(report, kind, of):
    rows = {row.tap.layer: row for row in report.rows if row.tap.kind == kind}
    return [of(rows[f"layer_{i + 1}"]) if f"layer_{i + 1}" in rows else None for i in range(len(rows))]


class TestAHundredLinearLayersOfWidth512:
    depth, width = 100, 512

    def report(self, stddev):
        initializers = [keras.initializers.RandomNormal(stddev=stddev, seed=seed) for seed in range(self.depth)]
        model = dense_stack([self.width] * (self.depth + 1), initializers)
        x = np.random.default_rng(0).standard_normal((1, self.width)).astype("float32")
        return ik.probe(model, x)

    def test_stddev_1_overflows_first_at_layer_29(self):
        report = self.report(1.0)
        largest = float(np.finfo("float32").max)
        finite = by_layer(report, "output", lambda row: row.moments.nonfinite == 0)
        assert finite.index(False) + 1 == 29
        # A standard deviation of 512^(29/2) = 1.9e39 does not fit; 512^14 = 8.5e37 does, with its extremes.
        predicted = by_layer(report, "output", lambda row: row.predicted.variance**0.5)
        assert [deviation > largest for deviation in predicted].index(True) + 1 == 29
        assert np.log(predicted[:28]) == pytest.approx(np.arange(1, 29) * np.log(512) / 2, abs=28 * 5 * 512**-1)
        assert any(note.startswith("NaN or infinity first appears in the output of layer_29") for note in report.notes)

    def test_stddev_001_vanishes(self):
        report = self.report(0.01)
        measured = np.array(by_layer(report, "output", lambda row: row.moments.stddev))
        predicted = np.array(by_layer(report, "output", lambda row: row.predicted.variance**0.5))
        # sqrt(512) / 100 a layer. Normal float32 numbers end at 1.2e-38, layer 59; what is smaller is flushed to zero
        # or loses digits, and below 1.4e-45, layer 70, there is nothing.
        assert np.log(predicted) == pytest.approx(np.arange(1, 101) * np.log(512**0.5 / 100), abs=0.5)
        assert np.log(measured[:55]) == pytest.approx(np.log(predicted[:55]), abs=5 * (2 * 55 / 512) ** 0.5)
        assert (measured[75:] == 0).all()

    def test_stddev_of_1_over_sqrt_512_stays_flat(self):
        report = self.report(512**-0.5)
        measured = np.array(by_layer(report, "output", lambda row: row.moments.variance))
        gradients = np.array(by_layer(report, "output_gradient", lambda row: row.moments.variance))
        predicted = np.array(by_layer(report, "output", lambda row: row.predicted.variance))
        assert predicted == pytest.approx(1, abs=0.1)
        # The logarithm of the variance walks at random, with a variance of 2 / width a layer for linear layers.
        assert abs(np.log(measured)).max() < 4 * (2 * self.depth / self.width) ** 0.5
        assert abs(np.log(gradients)).max() < 4 * (2 * self.depth / self.width) ** 0.5


class TestGlorotAndBengio:
    """Equations 5, 6 and 8 of Glorot and Bengio 2010, for tanh where it is its tangent."""

    widths = (600, 400, 500, 300, 450, 350)
    batch = 32

    def measured(self, bound, seeds=6):
        """Logarithms of the variances of s, dCost/ds and dCost/dW by layer, a row for each seed."""
        rows = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            initializers = [
                keras.initializers.RandomUniform(-bound(n, m), bound(n, m), seed=10 * seed + i)
                for i, (n, m) in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True))
            ]
            model = dense_stack(self.widths, initializers, "tanh")
            x = (0.05 * rng.standard_normal((self.batch, self.widths[0]))).astype("float32")
            report = ik.probe(model, x, seed=seed)
            kinds = ("pre_activation", "pre_activation_gradient", "weight_gradient")
            rows.append([by_layer(report, kind, lambda row: np.log(row.moments.variance)) for kind in kinds])
        return np.array(rows), report

    @pytest.mark.parametrize("name", ["standard", "normalized"])
    def test_equations(self, name):
        bound = {"standard": lambda n, m: n**-0.5, "normalized": lambda n, m: (6 / (n + m)) ** 0.5}[name]
        measured, report = self.measured(bound)
        n_in, n_out = np.array(self.widths[:-1]), np.array(self.widths[1:])
        variance = np.array([bound(n, m) ** 2 / 3 for n, m in zip(n_in, n_out, strict=True)])
        forward = 0.05**2 * np.cumprod(n_in * variance)  # eq. 5
        # eq. 6: the cotangent has variance 1, and dCost/ds of layer i has passed the kernels after it.
        backward = np.cumprod(np.append(1.0, (n_out * variance)[:0:-1]))[::-1]
        inputs = np.append(0.05**2, forward[:-1])
        weights = self.batch * inputs * backward  # eq. 8, for a sum over the batch
        expected = np.log(np.array([forward, backward, weights]))
        # Each kernel adds up to 2 / width (kurtosis aside) to the variance of a logarithm, the batch's inputs theirs.
        fluctuation = np.sqrt(np.cumsum(4 / n_out) + 2 / (self.batch * n_in[0]))
        tolerance = 4 * fluctuation.max() / len(measured) ** 0.5
        assert measured.mean(axis=0) == pytest.approx(expected, abs=tolerance)
        for kind, values in zip(("pre_activation", "pre_activation_gradient"), expected, strict=False):
            predicted = by_layer(report, kind, lambda row: np.log(row.predicted.variance))
            assert predicted == pytest.approx(values, abs=0.05)

    def test_standard_initialization_loses_two_thirds_a_layer(self):
        measured, _ = self.measured(lambda n, m: n**-0.5, seeds=2)
        steps = np.diff(measured[:, 0].mean(axis=0))
        assert steps == pytest.approx(np.log(1 / 3), abs=4 * (4 / 300 / 2) ** 0.5)


def test_a_tap_of_a_report_is_found_by_name():
    model = dense_stack([8, 4], [keras.initializers.GlorotUniform(seed=0)])
    moments = ik.probe(model, np.ones((2, 8), "float32")).moments
    assert moments[Tap("output", "layer_1", 0)].count == 8
