"""Every initializer of ours, in several forms, under the conformance kit."""

import inspect

import keras

from keras_initkit import initializers as ours
from keras_initkit.testing import failed_checks, parametrize_with_checks
from keras_initkit.testing.declarations._declare import TABLE

EVERY = [
    ours.ActivationScaling(),
    ours.ActivationScaling("tanh", "fan_out", "uniform"),
    ours.ActivationScaling("elu", "fan_avg", "untruncated_normal", "compromise"),
    ours.ActivationScaling("elu", direction="backward", in_axes=[0, 1], out_axes=2),
    ours.StandardUniform(seed=3),
    ours.StandardUniform(in_axes=-1, out_axes=-2),  # as a transposed convolution has them
    ours.RandomWalk(),
    ours.RandomWalk("linear"),
    ours.DepthScaling(),
    ours.DepthScaling(6, "wang", distribution="uniform"),
    ours.DepthScaling(rule="small", width=2500, distribution="truncated_normal"),
    ours.Critical(),
    ours.Critical("tanh", sigma_b=0.05, distribution="truncated_normal"),
    ours.Critical("tanh", q=1.0),
    ours.CriticalBias(),
    ours.CriticalBias("tanh", sigma_b=0.3),
    ours.Siren(),
    ours.Siren(first=True),
    ours.ScaledOrthogonal(),
    ours.ScaledOrthogonal("gelu", "backward", out_axes=(1, 2)),
    ours.DeltaOrthogonal(),
    ours.DeltaOrthogonal(gain=0.5, seed=3),
    ours.ConvOrthogonal(),
    ours.ConvOrthogonal(gain=2.0),
    ours.GatewiseOrthogonal(),
    ours.GatewiseOrthogonal(gates=3, gain=2.0),
    ours.Dirac(),
    ours.Dirac(groups=3),
    ours.Hadamard(),
    ours.Sparse(),
    ours.Sparse(sparsity=0.9, stddev=0.1),
    ours.ICNR(),
    ours.ICNR(3, ours.DeltaOrthogonal()),
    ours.ICNR(2, "ones"),
    ours.BilinearUpsampling(),
    ours.PriorProbabilityBias(),
    ours.PriorProbabilityBias([0.2, 0.5, 1e-4]),
    ours.PriorProbabilityBias([900, 90, 10], "softmax"),
    ours.UnitForgetGateBias(2.0),
    ours.ChronoBias(),
    ours.ChronoBias(max_steps=784),
]
# On a second backend one of each class.
ONE_EACH = list({type(initializer): initializer for initializer in reversed(EVERY)}.values())
INITIALIZERS = EVERY if keras.backend.backend() == "tensorflow" else ONE_EACH


@parametrize_with_checks(INITIALIZERS)
def test_conforms(initializer, check):
    check(initializer)


def test_every_public_class_is_here_and_known_to_the_kit():
    public = {value for name in ours.__all__ if inspect.isclass(value := getattr(ours, name))}
    assert public == {type(initializer) for initializer in INITIALIZERS}
    assert public <= set(TABLE)


def test_the_only_declared_deviation_is_that_of_the_initializer_inside():
    assert {kind.__name__ for kind in {type(i) for i in INITIALIZERS} if TABLE[kind].deviations} == {"ICNR"}
    assert set(failed_checks(ours.ICNR())) == {"clone_safety"}
    assert failed_checks(ours.ICNR(2, ours.ActivationScaling())) == {}
