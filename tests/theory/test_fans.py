import keras
import numpy as np
import pytest

from keras_initkit.theory import Fans, compute_fans


@pytest.mark.parametrize(
    ("shape", "axes", "fans"),
    [
        ((2048, 128), {}, (2048, 128)),
        ((5, 64, 32), {}, (320, 160)),
        ((3, 3, 64, 32), {}, (576, 288)),
        ((2, 3, 5, 7, 11), {}, (210, 330)),
        ((), {}, (1, 1)),
        ((128,), {}, (128, 128)),
        ((256, 8, 32), {"in_axes": 0, "out_axes": (1, 2)}, (256, 256)),
        ((8, 32, 256), {"in_axes": (0, 1), "out_axes": 2}, (256, 256)),
        ((3, 3, 64, 1), {"in_axes": (), "out_axes": -1, "batch_axes": 2}, (9, 9)),
        ((16, 64, 32), {"batch_axes": 0}, (64, 32)),
        ((4, 0), {}, (4, 0)),
    ],
)
def test_fans(shape, axes, fans):
    assert compute_fans(shape, **axes) == Fans(*fans)


@pytest.mark.parametrize("shape", [(), (7,), (7, 3), (5, 7, 3), (3, 5, 7, 2)])
def test_default_axes_read_a_kernel_as_keras_does(shape):
    """Keras' own fans, read off the limit of its uniform initializers."""
    fan_in, fan_out = compute_fans(shape)
    for mode, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
        draws = [
            np.abs(keras.initializers.VarianceScaling(1.0, mode, "uniform", seed=seed)(shape)).max()
            for seed in range(400)
        ]
        # Of n uniform draws the largest lies within 12 / n of the limit, except with probability e^-12.
        draws_in_all = 400 * max(int(np.prod(shape)), 1)
        assert np.sqrt(3 / fan) * (1 - 12 / draws_in_all) <= max(draws) <= np.sqrt(3 / fan) * (1 + 1e-6)


def test_the_fan_is_the_number_of_terms():
    """A convolution of ones over ones counts the terms of each output; of its gradient, those of each input."""
    kernel = keras.ops.ones((3, 3, 4, 6))
    image = keras.ops.ones((1, 9, 9, 4))
    fan_in = keras.ops.conv(image, kernel, padding="same")[0, 4, 4, 0]
    assert float(fan_in) == compute_fans(kernel.shape).fan_in
    fan_out = keras.ops.conv_transpose(
        keras.ops.ones((1, 9, 9, 6)), kernel, strides=1, padding="same"
    )[0, 4, 4, 0]  # fmt: skip
    assert float(fan_out) == compute_fans(kernel.shape).fan_out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_axes": 2}, r"in_axes: got axis 2 for a kernel of shape \(3, 4\), expected an axis from -2 to 1"),
        ({"in_axes": "a"}, r"in_axes: got 'a', expected an integer or a sequence of integers"),
        ({"in_axes": 0, "out_axes": -2}, r"out_axes: axis 0 of a kernel of shape \(3, 4\) is in in_axes already"),
        ({"batch_axes": 1}, r"batch_axes: axis 1 of .* is in out_axes already; give each axis one role"),
        ({"shape": (3, -1)}, r"shape: got \(3, -1\), expected a sequence of integers of at least 0"),
    ],
)
def test_bad_axes(arguments, message):
    with pytest.raises(ValueError, match=message):
        compute_fans(**{"shape": (3, 4), **arguments})


@pytest.mark.parametrize("shape", [(2.7, 3.2), "35", (None, 5), None, 5, (3, True), {3: 4}])
def test_what_is_no_shape(shape):
    with pytest.raises(ValueError, match=r"shape: got (?s:.*)expected a sequence of integers of at least 0"):
        compute_fans(shape)


@pytest.mark.parametrize("axes", [False, None, 0.0, "0", [None], {0: 1}])
@pytest.mark.parametrize("role", ["in_axes", "out_axes", "batch_axes"])
def test_what_are_no_axes(role, axes):
    with pytest.raises(ValueError, match=f"{role}: got .*expected an integer or a sequence of integers"):
        compute_fans((2, 3, 4), **{role: axes})


def test_axes_of_a_vector():
    with pytest.raises(
        ValueError, match=r"batch_axes: got axis 9 for a kernel of shape \(7,\), expected an axis from -1"
    ):
        compute_fans((7,), batch_axes=9)
    assert compute_fans((7,), batch_axes=0) == (1, 1)  # seven kernels of one element
    assert compute_fans(np.array([7, 3]), np.int64(0), range(1, 2)) == (7, 3)
