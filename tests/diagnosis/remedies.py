"""What tests of remedies share: how the code of a remedy is taken out and run, and which kinds were."""

import re

import keras
import numpy as np

import keras_initkit

EXECUTED = set()


def executes(*kinds):
    """Marks a test that runs the remedies of some kinds."""

    def note(test):
        EXECUTED.update(kinds)
        return test

    return note


def codes(finding):
    """Returns the pieces of code in a remedy: what stands between backticks, or all lines but the first."""
    first, _, lines = finding.remedy.partition("\n")
    return [lines] if lines else re.findall(r"`([^`]+)`", first)


def run_remedy(finding, which=0, **names):
    """Runs a piece of a remedy's code with the names that a user's program has, and returns all names after it."""
    scope = {"np": np, "keras": keras, "keras_initkit": keras_initkit, **names}
    exec(codes(finding)[which], scope)
    return scope


def find(kind, findings):
    """Returns the first finding of a kind, which nothing else causes."""
    found = next(each for each in findings if each.kind == kind)
    assert not found.consequence_of, f"{kind} is caused by {found.consequence_of}"
    return found
