"""Each kind has a remedy that some test runs as it is printed, or is named here."""

import importlib
from typing import get_args

import pytest
from remedies import EXECUTED

from keras_initkit.diagnosis._finding import FindingKind

# What no code can do. Of other kinds a part is such an instruction: labels that are all equal or of an odd shape, data
# that are constant, gradients cut off on the way to queries and keys, logits that grow in training, a log of 0.
INSTRUCTIONS = {"frozen_weights": "what cuts the gradient off stands in the model's code"}


@pytest.mark.one_backend
def test_the_remedy_of_every_kind_is_run_by_a_test():
    for part in ("attention", "rate", "signal", "task"):
        importlib.import_module(f"test_{part}_remedies")
    importlib.import_module("test_remedies")
    assert set(get_args(FindingKind)) == EXECUTED | set(INSTRUCTIONS)
    assert EXECUTED.isdisjoint(INSTRUCTIONS)
