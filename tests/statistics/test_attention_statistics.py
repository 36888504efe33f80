"""Statistics of attention against closed forms."""

import numpy as np
import pytest

from keras_initkit.statistics._attention import (
    allowed_keys,
    cosine,
    entropies,
    largest_logits,
    softmax,
    weight_after,
    weight_on,
)


@pytest.mark.parametrize("keys", [2, 7, 64])
def test_even_weights_have_the_logarithm_of_their_number(keys):
    weights = softmax(np.zeros((2, 3, 4, keys)))
    found = entropies(weights, np.ones((1, 1, 1, keys), bool))
    np.testing.assert_allclose(found.by_head, np.log(keys), rtol=1e-14)
    assert found.uniform == pytest.approx(np.log(keys), rel=1e-14)


def test_a_single_key_has_no_entropy():
    weights = np.zeros((1, 1, 3, 5))
    weights[..., 2] = 1
    assert entropies(weights, np.ones(5, bool)).by_head.tolist() == [0.0]


def test_causal_attention_of_equal_scores():
    allowed = np.tril(np.ones((6, 6), bool))
    weights = softmax(np.full((1, 2, 6, 6), 3.0), allowed)
    found = entropies(weights, allowed)  # of queries with two keys and more
    np.testing.assert_allclose(found.by_head, np.log([2, 3, 4, 5, 6]).mean())
    assert found.uniform == pytest.approx(found.by_head[0])
    assert weight_after(weights, np.arange(6)) == 0


def test_gaussian_scores_lack_half_their_variance():
    rng = np.random.default_rng(0)
    logits = 0.1 * rng.standard_normal((4, 2, 64, 256))
    found = entropies(softmax(logits), np.ones((1, 1, 1, 256), bool))
    lacking = np.log(256) - found.by_head
    np.testing.assert_allclose(lacking, 0.1**2 / 2, rtol=0.02)


def test_weights_after_a_position_of_even_attention():
    weights = np.full((1, 1, 5, 5), 0.2)
    assert weight_after(weights, np.arange(5)) == pytest.approx((5 - 1) / (2 * 5))
    assert weight_after(weights[:, :, ::2], np.array([0, 2, 4])) == pytest.approx((4 + 2 + 0) / 15)


def test_weight_on_padding_counts_real_queries():
    weights = np.full((2, 3, 4, 4), 0.25)
    padded = np.array([[False] * 4, [False, False, True, True]])
    assert weight_on(weights, padded) == pytest.approx(0.25)
    assert weight_on(weights, padded, ~padded) == pytest.approx(2 * 0.5 / 6)
    assert weight_on(np.zeros((2, 3, 4, 4)), padded) == 0


def test_masks_of_every_kind():
    assert allowed_keys(np.array([0.0, -np.inf, -1e9, -1e4, -100.0, -3.0])).tolist() == [True, *[False] * 4, True]
    assert not allowed_keys(np.full(3, -1e9)).any()  # a query of padding
    assert largest_logits(np.array([[[[1.0, 7.0, -1e9]]]]), np.array([True, True, False])).tolist() == [7.0]
    assert softmax(np.zeros((2, 3)), np.array([[True, True, False], [False] * 3])).tolist() == [
        [0.5, 0.5, 0],
        [0, 0, 0],
    ]


def test_softmax_against_logits_far_out():
    weights = softmax(np.array([1e4, 1e4, -1e4]))
    assert weights.tolist() == [0.5, 0.5, 0.0]


def test_cosine_of_known_angles():
    angle = np.linspace(0, 3, 7)
    one = np.stack([np.ones(7), np.zeros(7)], -1)
    two = 5 * np.stack([np.cos(angle), np.sin(angle)], -1)
    assert cosine(one, two) == pytest.approx(np.cos(angle).mean())
    assert np.isnan(cosine(np.zeros((2, 3)), np.ones((2, 3))))


def test_nan_stays_nan():
    logits = np.zeros((1, 2, 3, 3))
    logits[0, 1, 2, 0] = np.nan
    weights = softmax(logits)
    assert np.isnan(weights[0, 1, 2]).all()
    assert np.isfinite(weights[0, 0]).all()
    by_head = entropies(weights, np.ones((1, 1, 3, 3), bool)).by_head
    assert (round(by_head[0], 6), np.isnan(by_head[1])) == (round(np.log(3), 6), True)
    assert np.isnan(weight_after(weights, np.arange(3)))
    assert np.isnan(weight_on(weights, np.ones((1, 3), bool)))
    nothing = softmax(np.zeros((1, 1, 1, 2)), np.array([False, False]))
    assert (nothing.tolist(), weight_after(nothing, np.array([0]))) == ([[[[0.0, 0.0]]]], 0.0)
