"""How the kit is called and what it says."""

import keras
import numpy as np
import pytest
from helpers import run_python
from scipy import stats

from keras_initkit.testing import (
    CHECKS,
    ConformanceError,
    Orthogonal,
    check_initializer,
    failed_checks,
    parametrize_with_checks,
)
from keras_initkit.testing._subject import to_numpy


def test_an_unknown_class_needs_an_expectation():
    class Unknown(keras.initializers.Initializer):
        pass

    with pytest.raises(ValueError, match=r"expected: got None for Unknown, which is not known. Pass a function"):
        check_initializer(Unknown())


def test_a_subclass_is_not_its_parent():
    class Mine(keras.initializers.HeNormal):
        pass

    with pytest.raises(ValueError, match="got None for Mine"):
        check_initializer(Mine())


def test_an_unknown_deviation_is_refused():
    with pytest.raises(ValueError, match="deviations: got sttdev, expected names among configuration, shapes"):
        check_initializer(keras.initializers.Zeros(), deviations={"sttdev": "typing error"})


def test_an_expectation_overrides_what_is_known_and_the_error_says_all():
    with pytest.raises(
        ConformanceError,
        match=r"^RandomNormal\(stddev=0.5\), stddev: got a standard deviation of 0\.\d+ for shape \(256, 512\), "
        r"expected 0.51 \+- 0.001 \(standard error\), ratio 0\.9\d+; 0.88 is",
    ):
        check_initializer(keras.initializers.RandomNormal(stddev=0.5), lambda shape: stats.norm(0, 0.51))


def test_deviations_are_left_out_and_an_empty_mapping_leaves_out_none():
    check_initializer(keras.initializers.Identity())
    with pytest.raises(ConformanceError, match=r"Identity, configuration: .* missing \['gain'\]"):
        check_initializer(keras.initializers.Identity(), deviations={})


def test_a_predicate_may_return_false_or_raise():
    with pytest.raises(ConformanceError, match=r"Zeros, structure: got values of shape .* does not accept"):
        check_initializer(keras.initializers.Zeros(), lambda shape: lambda values: (values == 1).all())
    with pytest.raises(ConformanceError, match=r"Ones, structure: for shape .*: got a Gram matrix up to 6 from"):
        check_initializer(keras.initializers.Ones(), lambda shape: Orthogonal())


def test_the_verdict_is_the_same_whatever_the_seed_and_the_generator_is_not_advanced():
    generator = keras.random.SeedGenerator(5)
    before = to_numpy(generator.state.value)
    for seed in (None, 3, generator):
        check_initializer(keras.initializers.RandomNormal(seed=seed))
    np.testing.assert_array_equal(to_numpy(generator.state.value), before)


def test_checks_do_not_stop_at_errors_of_other_kinds():
    @keras.saving.register_keras_serializable("tests")
    class Broken(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None):
            raise KeyError("no such table")

    failed = failed_checks(Broken(), lambda shape: stats.norm())
    assert "got KeyError('no such table'), expected no error here" in str(failed["mean"])


def test_ids_name_the_initializer_and_the_check():
    initializers = [keras.initializers.HeNormal(seed=3), keras.initializers.RandomNormal(stddev=1.0)]
    mark = parametrize_with_checks(initializers).mark
    ids = [case.id for case in mark.args[1]]
    assert ids == [f"{name}-{check}" for name in ("HeNormal", "RandomNormal(stddev=1.0)") for check in CHECKS]
    assert [case.marks[0].kwargs["reason"][:24] for case in mark.args[1] if case.marks][:1] == [
        "Keras draws in the dtype"
    ]


@pytest.mark.parametrize("matrix", [np.eye(4, 6), np.eye(6, 4), np.eye(6, 4).reshape(2, 3, 4)])
def test_orthogonal_predicate_takes_rows_or_columns_and_flattens(matrix):
    Orthogonal()(matrix)
    with pytest.raises(AssertionError, match=r"expected 0\.0004 at most"):
        Orthogonal(gain=2.0)(matrix)


def test_orthogonal_predicate_sees_each_block():
    blocks = np.hstack([np.eye(3), np.eye(3)])
    Orthogonal(blocks=2)(blocks)
    with pytest.raises(AssertionError, match="block 2 of 2"):
        Orthogonal(blocks=2)(np.hstack([np.eye(3), np.full((3, 3), np.nan)]))


def test_the_package_itself_does_not_load_the_kit_nor_the_kit_pytest():
    code = (
        "import sys, keras_initkit; assert 'keras_initkit.testing' not in sys.modules;"
        "import keras_initkit.testing; assert 'pytest' not in sys.modules"
    )
    run_python("-c", code)
