"""What `select` chooses, for models that nobody would write down: hypothesis makes their paths."""

import re

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_initkit.structure._selection import select

names = st.sampled_from(["a", "b", "ab", "block", "head_1"])
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
models = st.lists(paths, min_size=1, max_size=8, unique=True).map(
    lambda several: {path: keras.layers.Identity(name=path.rpartition("/")[2]) for path in several}
)


def parts_of(choice, layers):
    """By segments: a path, the name of a layer, or a run of segments that something lies below."""
    wanted, found = choice.split("/"), []
    for path in layers:
        segments = path.split("/")
        starts = [i for i in range(len(segments)) if segments[i : i + len(wanted)] == wanted]
        inside = any(i + len(wanted) < len(segments) for i in starts)
        if path == choice or inside or segments[-1:] == wanted:
            found.append(path)
    return found


@settings(max_examples=200, deadline=None)
@given(models, paths)
def test_a_name_or_path_chooses_the_layer_or_what_lies_below_it(layers, choice):
    expected = parts_of(choice, layers)
    if not expected:
        with pytest.raises(ValueError, match=r"^layers: got .*, which matches no layer"):
            select(layers, choice)
    else:
        assert list(select(layers, choice)) == expected


@settings(max_examples=100, deadline=None)
@given(models, st.data())
def test_a_list_joins_its_choices_in_the_order_of_the_model(layers, data):
    several = data.draw(st.lists(st.sampled_from(sorted(layers)), min_size=1, max_size=4))
    joined = {path for each in several for path in select(layers, each)}
    assert list(select(layers, several)) == [path for path in layers if path in joined]
    assert select(layers, [*several, *several]) == select(layers, tuple(reversed(several)))


@settings(max_examples=100, deadline=None)
@given(models, st.data())
def test_a_path_as_a_pattern_a_predicate_and_a_layer_mean_the_same_layer(layers, data):
    path = data.draw(st.sampled_from(sorted(layers)))
    by_pattern = select(layers, re.compile(f"^{re.escape(path)}$"))
    assert list(by_pattern) == [path]
    assert by_pattern == select(layers, layers[path]) == select(layers, lambda layer: layer is layers[path])
    assert select(layers, None) == layers
