import keras
import pytest

from keras_initkit.structure._variables import VariableMap


@pytest.fixture
def pair():
    return keras.Variable([1.0], name="a"), keras.Variable([1.0], name="a")


def test_keys_are_found_by_identity(pair):
    first, second = pair  # equal values, equal paths
    assert first.path == second.path
    mapping = VariableMap([(first, 1), (second, 2)])
    assert (mapping[first], mapping[second], len(mapping)) == (1, 2, 2)
    assert first in mapping
    assert keras.Variable([1.0], name="a") not in mapping
    assert [variable is key for variable, key in zip(mapping, pair, strict=True)] == [True, True]
    assert list(mapping.values()) == [1, 2]


def test_first_of_two_values_counts(pair):
    assert VariableMap([(pair[0], 1), (pair[0], 2)])[pair[0]] == 1


def test_missing_key_names_the_variable(pair):
    with pytest.raises(KeyError, match="a"):
        VariableMap()[pair[0]]


def test_equality_and_text(pair):
    assert VariableMap([(pair[0], 1)]) == VariableMap([(pair[0], 1)])
    assert VariableMap([(pair[0], 1)]) != VariableMap([(pair[1], 1)])
    assert VariableMap() != {}
    assert repr(VariableMap([(pair[0], 1)])) == "{<a>: 1}"
