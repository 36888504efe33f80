"""The kit catches every mutant, by the check that is meant for it, and passes what is correct."""

import keras
import pytest
from mutants import MUTANTS, Correct, CorrectGates, CorrectUniform, he_truncated, he_uniform

from keras_initkit.testing import CHECKS, ConformanceError, check_initializer, failed_checks

BACKEND = keras.backend.backend()


@pytest.mark.parametrize("seed", [None, 3, "generator"])
@pytest.mark.parametrize(
    ("kind", "expected"), [(Correct, he_truncated), (CorrectGates, None)], ids=["truncated", "gates"]
)
def test_the_correct_ones_pass(kind, expected, seed):
    seed = keras.random.SeedGenerator(3) if seed == "generator" else seed
    assert failed_checks(kind(seed=seed), expected) == {}
    check_initializer(kind(seed=seed), expected)


def test_the_correct_uniform_passes():
    registered = keras.saving.register_keras_serializable("mutants")(CorrectUniform)
    assert failed_checks(registered(), he_uniform) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_the_check_meant_for_it(name):
    initializer, expected, check, also = MUTANTS[name]
    if BACKEND == "torch" and check == "retracing":
        pytest.skip("the torch backend traces nothing")
    failed = failed_checks(initializer, expected)
    assert check in failed
    assert set(failed) <= {check} | also
    with pytest.raises(ConformanceError, match=rf"^{name}.*, {next(iter(failed))}: "):
        check_initializer(initializer, expected)


def test_there_are_25_mutants_or_more_and_each_check_catches_one():
    assert len(MUTANTS) >= 25
    assert {each.check for each in MUTANTS.values()} == set(CHECKS)
