"""Structured kernels through the layers that they are for."""

import keras
import numpy as np
import pytest
from helpers import values
from scipy import linalg, stats

from keras_initkit.initializers import ICNR, BilinearUpsampling, Dirac, Hadamard, Sparse


def image(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


LAYERS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_dirac_is_the_identity(dimensions, size):
    x = image(2, *[6] * dimensions, 3)
    layer = LAYERS[dimensions](3, size, padding="same", kernel_initializer=Dirac())
    np.testing.assert_array_equal(values(layer(x)), x)


def test_dirac_of_other_channel_counts():
    x = image(1, 5, 5, 3)
    more = values(keras.layers.Conv2D(5, 3, padding="same", kernel_initializer=Dirac())(x))
    np.testing.assert_array_equal(more, np.concatenate([x, np.zeros((1, 5, 5, 2))], axis=-1))
    fewer = values(keras.layers.Conv2D(2, 3, padding="same", kernel_initializer=Dirac())(x))
    np.testing.assert_array_equal(fewer, x[..., :2])


def test_dirac_with_groups():
    x = image(1, 5, 5, 6)
    layer = keras.layers.Conv2D(6, 3, groups=3, padding="same", kernel_initializer=Dirac(groups=3))
    np.testing.assert_array_equal(values(layer(x)), x)
    kernel = values(Dirac(groups=2)((3, 3, 2, 6)))[1, 1]  # 3 outputs of a group of 2 inputs: the third is silent
    np.testing.assert_array_equal(kernel, [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]])


@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 8), (3, 5), (1, 6), (5, 16)])
def test_hadamard(shape):
    inputs, outputs = shape
    kernel = values(Hadamard()(shape))
    if inputs >= outputs:
        np.testing.assert_array_equal(kernel, np.eye(inputs, outputs))
        return
    size = 2 ** int(np.ceil(np.log2(outputs)))
    np.testing.assert_allclose(kernel, linalg.hadamard(size)[:inputs, :outputs] / np.sqrt(size), rtol=1e-6)
    if size == outputs:
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(inputs), atol=1e-6)


def test_hadamard_of_a_convolution_is_at_its_centre():
    kernel = values(Hadamard()((3, 5, 2, 4)))
    np.testing.assert_array_equal(kernel[1, 2], values(Hadamard()((2, 4))))
    assert np.count_nonzero(kernel) == 8


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_sparse_counts(dtype):
    kernel = values(Sparse(nonzero=7, seed=0)((60, 40), dtype))
    assert (np.count_nonzero(kernel, axis=0) == 7).all()
    kernel = values(Sparse(sparsity=0.85, seed=0)((3, 3, 10, 12), dtype)).reshape(90, 12)
    assert (np.count_nonzero(kernel, axis=0) == 90 - 77).all()  # ceil(0.85 * 90) zeros, as in PyTorch
    assert (np.count_nonzero(values(Sparse()((100, 4), dtype)), axis=0) == 15).all()
    assert (np.count_nonzero(values(Sparse(nonzero=9)((4, 3), dtype)), axis=0) == 4).all()


def test_sparse_distribution():
    kernel = values(Sparse(nonzero=10, stddev=0.3, seed=0)((200, 2000)))
    weights = kernel[kernel != 0]
    assert weights.size == 20_000
    assert weights.std() == pytest.approx(0.3, rel=5 / np.sqrt(2 * weights.size))
    assert stats.kstest(weights, stats.norm(0, 0.3).cdf).pvalue > 1e-4
    # Every input is as likely as any other, and units choose theirs independently.
    assert stats.chisquare(np.count_nonzero(kernel, axis=1)).pvalue > 1e-4
    shared = np.count_nonzero((kernel[:, ::2] != 0) & (kernel[:, 1::2] != 0), axis=0)
    assert shared.mean() == pytest.approx(10 * 10 / 200, abs=5 * np.sqrt(0.5 / 1000))


def depth_to_space(x, scale):
    """TensorFlow's order: position inside the block first, then the channel."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, scale, scale, channels // scale**2)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * scale, width * scale, -1)


@pytest.mark.parametrize("scale", [2, 3])
def test_icnr_is_a_nearest_neighbour_resize(scale):
    x = image(1, 5, 6, 3)
    layer = keras.layers.Conv2D(2 * scale**2, 3, padding="same", kernel_initializer=ICNR(scale))
    tensor = layer(x)
    output, kernel = values(tensor), values(layer.kernel)
    large = depth_to_space(output, scale)
    # The copies of the kernel are equal; sums of their 27 terms may round apart where a processor's vectors end.
    np.testing.assert_array_equal(kernel, np.tile(kernel[..., :2], scale**2))
    bound = 27 * 2.0**-24 * np.abs(x).max() * np.abs(kernel).sum(axis=(0, 1, 2)).max()
    small = output[..., :2].repeat(scale, axis=1).repeat(scale, axis=2)
    np.testing.assert_allclose(large, small, rtol=0, atol=2 * bound)
    if hasattr(keras.ops, "depth_to_space"):
        np.testing.assert_array_equal(values(keras.ops.depth_to_space(tensor, scale)), large)
    assert np.abs(large).max() > 1000 * bound


def test_icnr_draws_by_its_own_initializer():
    kernel = values(ICNR(2, keras.initializers.HeNormal(seed=0))((3, 3, 40, 400)))
    part = kernel[..., :100]
    np.testing.assert_array_equal(part, values(keras.initializers.HeNormal(seed=0)((3, 3, 40, 100))))
    assert part.std() == pytest.approx(np.sqrt(2 / 360), rel=0.02)


@pytest.mark.parametrize(("dimensions", "copies"), [(1, 2), (3, 8)])
def test_icnr_in_other_dimensions(dimensions, copies):
    kernel = values(ICNR(2)((3,) * dimensions + (2, copies * 3)))
    for copy in range(1, copies):
        np.testing.assert_array_equal(kernel[..., copy * 3 : copy * 3 + 3], kernel[..., :3])


TRANSPOSED = {1: keras.layers.Conv1DTranspose, 2: keras.layers.Conv2DTranspose, 3: keras.layers.Conv3DTranspose}


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_bilinear_upsampling_interpolates(dimensions, factor):
    if dimensions == 3 and factor == 4:
        pytest.skip("as the others, and slow")
    n = 5
    x = image(1, *[n] * dimensions, 2)
    size = 2 * factor - factor % 2
    layer = TRANSPOSED[dimensions](2, size, strides=factor, padding="same", kernel_initializer=BilinearUpsampling())
    output = values(layer(x))
    expected = x.astype("float64")
    positions = (np.arange(n * factor) + 0.5) / factor - 0.5  # centres of pixels
    for axis in range(1, dimensions + 1):
        expected = np.apply_along_axis(lambda line: np.interp(positions, np.arange(n), line), axis, expected)
    inside = (slice(None), *[slice(factor, -factor)] * dimensions)  # a transposed convolution pads with zeros
    np.testing.assert_allclose(output[inside], expected[inside], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dirac(groups=0), "groups: got 0, expected a positive integer"),
        (lambda: Dirac(groups=2)((3, 4, 5)), r"groups: got 2 for a kernel of shape \(3, 4, 5\), expected a divisor of"),
        (lambda: Dirac()((4, 4)), r"shape: got \(4, 4\) of rank 2, expected rank 3 to 5: a convolution kernel"),
        (lambda: Hadamard()((4,)), r"shape: got \(4,\) of rank 1, expected rank 2 to 5: a Dense or"),
        (lambda: Sparse(sparsity=1.0), "sparsity: got 1.0, expected a finite number above 0 and below 1"),
        (lambda: Sparse(sparsity="much"), "sparsity: got 'much'"),
        (lambda: Sparse(nonzero=3, sparsity=0.5), "nonzero, sparsity: got 3 and 0.5, expected one of them"),
        (lambda: Sparse(nonzero=0), "nonzero: got 0, expected a positive integer"),
        (lambda: Sparse(stddev=-1), "stddev: got -1, expected a finite number above 0"),
        (lambda: ICNR(0), "scale: got 0, expected a positive integer"),
        (lambda: ICNR(2, None), "initializer: got None"),
        (lambda: ICNR(2, "henormal"), "henormal"),
        (lambda: ICNR(2)((3, 3, 4, 6)), "whose 6 outputs are no multiple of 4"),
        (lambda: BilinearUpsampling()((4, 4, 3, 2)), "with 2 inputs and 3 outputs, expected equal numbers"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
