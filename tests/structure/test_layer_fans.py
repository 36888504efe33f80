"""The fans of every kind of layer, against what the layers really do on the active backend.

The layers, the linear maps in them and the gradients are those of benchmarks/layer_fans.py. Two checks of each:

- exact: with every kernel and every input 1, an output is the number of terms that it sums, and so is a
  gradient under a cotangent of 1. Away from borders their means are fan_in and fan_out, written out below.
- the acceptance: kernels of variance 1 / fan keep unit variance to 10 %. Layers of few weights (separable and depthwise
  convolutions) or few positions away from borders (strided in three dimensions) are drawn 12 times, others 4 times: of
  the mean square a standard error of 3 %, in three strided dimensions of 6 %.
"""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_initkit.structure import kernels, layer_fans

pytestmark = pytest.mark.one_backend

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "layer_fans.py"
spec = importlib.util.spec_from_file_location("layer_fans_benchmark", BENCHMARK)
benchmark = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)
CASES = {case.name: case for case in benchmark.CASES}

# Products over the kernels in the way, where there are several.
FANS = {
    "Dense 64->48": (64, 48),
    "EinsumDense abc,cde->abde": (64, 6 * 8),
    "EinsumDense abc,bcd->abd": (64, 48),
    "MultiHeadAttention query": (64, 4 * 24),
    "MultiHeadAttention key": (64, 4 * 24),
    "MultiHeadAttention value": (64, 4 * 24),
    "MultiHeadAttention attention_output": (4 * 24, 64),
    "GroupQueryAttention query": (64, 4 * 24),
    "GroupQueryAttention key": (64, 2 * 24),
    "GroupQueryAttention value": (64, 2 * 24),
    "GroupQueryAttention attention_output": (4 * 24, 64),
    "Conv1D k5": (5 * 64, 5 * 48),
    "Conv1D k4, stride 3": (4 * 64, 4 / 3 * 48),
    "Conv2D k3": (9 * 32, 9 * 24),
    "Conv2D k3, groups 8": (9 * 32 / 8, 9 * 48 / 8),
    "Conv2D k3, stride 2": (9 * 32, 9 / 4 * 24),
    "Conv2D k3, dilation 2": (9 * 32, 9 * 24),
    "Conv3D k3": (27 * 16, 27 * 12),
    "Conv3D k3, stride 2": (27 * 16, 27 / 8 * 12),
    "DepthwiseConv1D k5": (5, 5),
    "DepthwiseConv2D k3": (9, 9),
    "DepthwiseConv2D k3, multiplier 3, stride 2": (9, 9 / 4 * 3),
    "SeparableConv1D k5": (5 * 64, 5 * 48),
    "SeparableConv2D k3, stride 2": (9 * 32, 9 / 4 * 48),
    "Conv1DTranspose k5": (5 * 64, 5 * 48),
    "Conv1DTranspose k2, stride 3": (2 / 3 * 64, 2 * 48),
    "Conv2DTranspose k3, 64->16": (9 * 64, 9 * 16),
    "Conv2DTranspose k3, stride 2": (9 / 4 * 32, 9 * 32),
    "Conv2DTranspose k4, stride 2": (16 / 4 * 32, 16 * 32),
    "Conv3DTranspose k3, 16->8": (27 * 16, 27 * 8),
    "SimpleRNN input": (64, 48),
    "SimpleRNN recurrent": (48, 48),
    "LSTM input": (64, 48),
    "LSTM recurrent": (48, 48),
    "GRU input": (64, 48),
    "GRU recurrent": (48, 48),
    "Bidirectional LSTM input": (64, 48),
    "Bidirectional LSTM recurrent": (48, 48),
    "ConvLSTM1D k3 input": (3 * 32, 3 * 32),
    "ConvLSTM1D k3 recurrent": (3 * 32, 3 * 32),
    "ConvLSTM2D k3, stride 2 input": (9 * 16, 9 / 4 * 16),
    "ConvLSTM2D k3, stride 2 recurrent": (9 * 16, 9 * 16),
    "ConvLSTM3D k3 input": (27 * 8, 27 * 8),
    "ConvLSTM3D k3 recurrent": (27 * 8, 27 * 8),
    "TimeDistributed Dense": (64, 48),
    "Embedding": (1, 64),
    "nested models, a Dense used twice": (256**3, 256**3),
}


@pytest.fixture(autouse=True)
def _fixed_random(monkeypatch):
    monkeypatch.setattr(benchmark, "RANDOM", np.random.default_rng(1))


@pytest.mark.parametrize("name", CASES)
def test_fans_count_the_terms(name):
    case, (fan_in, fan_out) = CASES[name], FANS[name]
    layer = case.make(lambda: "ones")
    for function in case.maps(layer):
        ones = keras.ops.ones(case.shape, dtype="int32" if case.vocabulary else "float32")
        np.testing.assert_allclose(np.mean(benchmark.interior(function(ones), case.out_crop)), fan_in, rtol=1e-5)
        if not case.vocabulary:
            back = benchmark.gradient(function, ones, keras.ops.ones_like)
            np.testing.assert_allclose(np.mean(benchmark.interior(back, case.in_crop)), fan_out, rtol=1e-5)
    if name.startswith("Separable"):
        depthwise, pointwise = layer_fans(layer).values()
        assert depthwise.fan_in * pointwise.fan_in == fan_in
        assert depthwise.fan_out * pointwise.fan_out == fan_out
    elif not name.startswith("nested"):
        measured = [k for k in kernels(layer) if (k.role == "recurrent") == name.endswith("recurrent")]
        assert measured
        assert all(k.fans == pytest.approx((fan_in, fan_out), rel=1e-12) for k in measured)


FEW = ("Separable", "Depthwise", "Conv3D")


@pytest.mark.parametrize("name", CASES)
def test_unit_variance_is_kept(name):
    draws = 12 if any(few in name for few in FEW) else 4
    assert 0.9 < benchmark.measure(CASES[name], ours=True, mode="fan_in", draws=draws) < 1.1
    if not CASES[name].vocabulary:
        assert 0.9 < benchmark.measure(CASES[name], ours=True, mode="fan_out", draws=draws) < 1.1
