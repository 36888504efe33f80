"""What holds of the fans of every shape: drawn by hypothesis."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_initkit.theory import Fans, compute_fans

ROLES = ("in_axes", "out_axes", "batch_axes", "field")


@st.composite
def kernels(draw):
    """A shape, the role of each of its axes, and the axes by role."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=2, max_size=6))
    roles = draw(st.lists(st.sampled_from(ROLES), min_size=len(sizes), max_size=len(sizes)))
    return sizes, roles


def axes_of(roles):
    return {role: [axis for axis, each in enumerate(roles) if each == role] for role in ROLES[:3]}


def product(sizes, roles, *wanted):
    return float(math.prod(size for size, role in zip(sizes, roles, strict=True) if role in wanted))


@given(kernels())
def test_fans_are_products_over_roles(kernel):
    sizes, roles = kernel
    fans = compute_fans(sizes, **axes_of(roles))
    assert fans == Fans(product(sizes, roles, "in_axes", "field"), product(sizes, roles, "out_axes", "field"))


@given(kernels(), st.data())
def test_the_order_of_axes_does_not_matter(kernel, data):
    sizes, roles = kernel
    order = data.draw(st.permutations(range(len(sizes))))
    permuted = [sizes[axis] for axis in order], [roles[axis] for axis in order]
    assert compute_fans(permuted[0], **axes_of(permuted[1])) == compute_fans(sizes, **axes_of(roles))


@given(kernels(), st.data())
def test_axes_may_be_named_in_any_order_and_from_the_end(kernel, data):
    sizes, roles = kernel
    axes = {
        role: [axis - len(sizes) * data.draw(st.booleans()) for axis in data.draw(st.permutations(each))]
        for role, each in axes_of(roles).items()
    }
    assert compute_fans(tuple(sizes), **axes) == compute_fans(sizes, **axes_of(roles))


@given(kernels())
def test_inputs_and_outputs_change_places_with_their_axes(kernel):
    sizes, roles = kernel
    axes = axes_of(roles)
    swapped = {"in_axes": axes["out_axes"], "out_axes": axes["in_axes"], "batch_axes": axes["batch_axes"]}
    assert compute_fans(sizes, **swapped) == compute_fans(sizes, **axes)[::-1]


@given(kernels(), st.integers(1, 9))
def test_kernels_side_by_side_have_the_fans_of_one(kernel, copies):
    sizes, roles = kernel
    more = axes_of([*roles, "batch_axes"])
    assert compute_fans([*sizes, copies], **more) == compute_fans(sizes, **axes_of(roles))


@given(kernels(), st.integers(0, 9))
def test_the_field_multiplies_both_fans(kernel, taps):
    sizes, roles = kernel
    one = compute_fans(sizes, **axes_of(roles))
    assert compute_fans([*sizes, taps], **axes_of([*roles, "field"])) == (taps * one.fan_in, taps * one.fan_out)


@given(st.lists(st.integers(0, 9), max_size=1))
def test_each_element_of_a_vector_counts_for_both(sizes):
    assert compute_fans(sizes) == (math.prod(sizes),) * 2


@settings(max_examples=50)
@given(kernels(), st.data())
def test_an_axis_has_one_role(kernel, data):
    sizes, _ = kernel
    axis = data.draw(st.integers(0, len(sizes) - 1))
    first, second = data.draw(st.permutations(ROLES[:3]))[:2]
    axes = {"in_axes": (), "out_axes": (), "batch_axes": (), first: axis, second: [axis - len(sizes)]}
    with pytest.raises(ValueError, match="give each axis one role"):
        compute_fans(sizes, **axes)
