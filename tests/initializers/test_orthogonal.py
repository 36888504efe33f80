"""Orthogonal families against float64 linear algebra and real convolutions."""

import itertools

import keras
import numpy as np
import pytest
from helpers import values
from scipy import stats

from keras_initkit.initializers import ConvOrthogonal, DeltaOrthogonal, GatewiseOrthogonal, ScaledOrthogonal

# Rounding of a float32 QR of matrices as small as these; of a cast to half precision, for rows of norm 1.
TOLERANCE = {"float32": 5e-6, "float64": 5e-6, "float16": 2e-3, "bfloat16": 1.5e-2}


def assert_orthogonal(matrix, scale=1.0, tolerance=5e-6):
    rows, columns = matrix.shape
    gram = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    np.testing.assert_allclose(gram, scale**2 * np.eye(min(rows, columns)), atol=tolerance * scale**2)


@pytest.mark.parametrize("shape", [(64, 64), (48, 20), (20, 48), (1, 7), (7, 1)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_scaled_orthogonal(shape, dtype):
    kernel = values(ScaledOrthogonal("relu", seed=0)(shape, dtype))
    assert_orthogonal(kernel, np.sqrt(2), TOLERANCE[dtype])


def test_float64_is_orthogonal_to_float64_rounding():
    if keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless told so")
    kernel = keras.ops.convert_to_numpy(ScaledOrthogonal("relu", seed=0)((64, 48), "float64"))
    np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(48), atol=1e-13)


def test_scaled_orthogonal_axes():
    kernel = values(ScaledOrthogonal(out_axes=(1, 2), seed=0)((24, 4, 3)))  # queries: 4 heads of 3
    assert_orthogonal(kernel.reshape(24, 12))
    kernel = values(ScaledOrthogonal(out_axes=0, seed=0)((12, 4, 5)))
    assert_orthogonal(kernel.reshape(12, 20).T)
    kernel = values(ScaledOrthogonal(seed=0)((3, 3, 4, 8)))  # as Keras reads a convolution
    assert_orthogonal(kernel.reshape(36, 8))


def test_backward_gain():
    kernel = values(ScaledOrthogonal("tanh", "backward", seed=0)((16, 16)))
    assert_orthogonal(kernel, 1.4674136)


def test_uniform_among_orthogonal_matrices():
    """Haar: an element of an n x n one is Beta distributed, the angles of its eigenvalues are uniform.

    Without the sign fix the angles are not, and LAPACK's diagonal elements are skewed.
    """
    n, draws = 3, 1500
    initializer = ScaledOrthogonal(seed=keras.random.SeedGenerator(0))
    matrices = np.stack([values(initializer((n, n))) for _ in range(draws)])
    beta = stats.beta((n - 1) / 2, (n - 1) / 2, loc=-1, scale=2)
    for i, j in ((0, 0), (1, 1), (2, 2), (0, 2), (2, 0)):
        assert stats.kstest(matrices[:, i, j], beta.cdf).pvalue > 1e-4, (i, j)
    determinants = np.linalg.det(matrices) > 0  # rotations and reflections alike
    assert abs(determinants.mean() - 0.5) < 5 * 0.5 / np.sqrt(draws)


@pytest.mark.parametrize("gates", [3, 4])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_gate_is_orthogonal(gates, dtype):
    units = 12
    kernel = values(GatewiseOrthogonal(gates, seed=0)((units, gates * units), dtype))
    blocks = [kernel[:, g * units : (g + 1) * units] for g in range(gates)]
    for block in blocks:
        np.testing.assert_allclose(np.linalg.svd(block, compute_uv=False), 1, atol=TOLERANCE[dtype])
    assert all(np.abs(a - b).max() > 0.1 for a, b in itertools.pairwise(blocks))


def test_gates_of_a_convolutional_kernel_and_gain():
    kernel = values(GatewiseOrthogonal(4, gain=0.5, seed=0)((3, 3, 2, 40)))
    for gate in range(4):
        assert_orthogonal(kernel[..., gate * 10 : (gate + 1) * 10].reshape(18, 10), 0.5)


def test_in_a_keras_lstm():
    layer = keras.layers.LSTM(8, recurrent_initializer=GatewiseOrthogonal(4, seed=0))
    layer.build((None, 5, 3))
    assert_orthogonal(values(layer.cell.recurrent_kernel)[:, 8:16])


def transfer(kernel, size):
    """Matrices (inputs, outputs) that circular convolution with the kernel multiplies each frequency by."""
    field = tuple(range(kernel.ndim - 2))
    return np.fft.fftn(kernel, s=[size] * len(field), axes=field)


SHAPES = [(3, 4, 4), (5, 3, 7), (3, 3, 5, 5), (2, 4, 3, 6), (3, 3, 6, 4), (3, 2, 2, 3, 5), (1, 1, 3, 3)]
SHAPES += [(3, 3, 1, 1), (3, 3, 1, 4)]
# Half precision is a cast of the same draw: an odd and an even field are enough.
CASTS = [(shape, dtype) for dtype in ("float16", "bfloat16") for shape in ((5, 3, 7), (2, 4, 3, 6))]


@pytest.mark.parametrize(("shape", "dtype"), [(shape, "float32") for shape in SHAPES] + CASTS)
def test_convolution_is_an_orthogonal_map(shape, dtype):
    kernel = values(ConvOrthogonal(gain=1.5, seed=0)(shape, dtype))
    singular = np.linalg.svd(transfer(kernel, 8), compute_uv=False)
    # A cast's error adds up over the taps of a frequency.
    taps = np.prod(shape[:-2])
    np.testing.assert_allclose(singular, 1.5, atol=1.5 * TOLERANCE[dtype] * np.sqrt(taps))


@pytest.mark.parametrize("initializer", [DeltaOrthogonal, ConvOrthogonal])
def test_convolution_keeps_the_norm_of_an_image(initializer):
    """A real convolution layer over a circularly padded image; more outputs than inputs."""
    image = np.random.default_rng(0).normal(size=(1, 9, 9, 6)).astype("float32")
    layer = keras.layers.Conv2D(10, 3, use_bias=False, kernel_initializer=initializer(seed=0))
    output = values(layer(np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")))
    assert output.shape == (1, 9, 9, 10)
    np.testing.assert_allclose(np.linalg.norm(output), np.linalg.norm(image), rtol=1e-5)


def test_every_tap_of_a_convolution_is_in_use_and_its_mass_is_central():
    draws = [values(ConvOrthogonal(seed=seed)((3, 3, 16, 16))) for seed in range(5)]
    mass = np.mean([np.sum(kernel**2, axis=(2, 3)) for kernel in draws], axis=0) / 16
    assert mass.sum() == pytest.approx(1, rel=1e-5)
    assert mass.min() > 0.01
    # A projection of half the rank splits the mass in two halves: binomial taps (1, 2, 1) / 4 along each axis.
    np.testing.assert_allclose(mass, np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]), atol=0.03)
    assert values(ConvOrthogonal(seed=0)((3, 3, 1, 1)))[1, 1] ** 2 == pytest.approx(1)


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 5, 4, 8), (3, 3, 3, 8, 4), (2, 4, 3, 3)])
def test_delta_orthogonal(shape):
    kernel = values(DeltaOrthogonal(gain=2.0, seed=0)(shape))
    centre = tuple((size - 1) // 2 for size in shape[:-2])
    assert_orthogonal(kernel[centre], 2.0)
    kernel[centre] = 0
    assert not kernel.any()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_delta_orthogonal_acts_on_each_pixel(size):
    image = np.random.default_rng(0).normal(size=(1, 5, 5, 4)).astype("float32")
    layer = keras.layers.Conv2D(4, size, padding="same", kernel_initializer=DeltaOrthogonal(seed=0))
    norms = np.linalg.norm(values(layer(image)), axis=-1)
    np.testing.assert_allclose(norms, np.linalg.norm(image, axis=-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScaledOrthogonal("relu", "sideways"), "direction: got 'sideways', expected one of 'forward', 'backw"),
        (lambda: ScaledOrthogonal("rleu"), "activation: Keras knows none called 'rleu'. Did you mean .*'relu'"),
        (lambda: ScaledOrthogonal(out_axes="last"), "out_axes: got 'last', expected an integer or a sequence"),
        (lambda: ScaledOrthogonal(out_axes=2)((3, 4)), "out_axes: got 2 for a kernel of shape"),
        (lambda: ScaledOrthogonal(out_axes=(0, 1))((3, 4)), "at least one axis left for the inputs"),
        (lambda: ScaledOrthogonal(out_axes=(1, -1))((3, 4)), "expected different axes"),
        (lambda: ScaledOrthogonal()((3,)), r"shape: got \(3,\) of rank 1, expected rank 2 to 16: a kernel"),
        (lambda: DeltaOrthogonal(gain=0), "gain: got 0, expected a finite number above 0"),
        (lambda: DeltaOrthogonal(gain=float("nan")), "gain: got nan"),
        (lambda: ConvOrthogonal(gain="relu"), "gain: got 'relu', expected a finite number"),
        (lambda: ConvOrthogonal()((3, 4)), r"shape: got \(3, 4\) of rank 2, expected rank 3 to 5: a convolution"),
        (lambda: ConvOrthogonal(seed=1.5), "seed: got 1.5, expected an integer"),
        (lambda: GatewiseOrthogonal(gates=0), "gates: got 0, expected a positive integer"),
        (lambda: GatewiseOrthogonal(gates=True), "gates: got True"),
        (lambda: GatewiseOrthogonal(4)((8, 30)), r"last axis does not divide into 4 gates. Expected gates \* units"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
