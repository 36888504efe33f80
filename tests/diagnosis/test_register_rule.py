"""Rules of users: through diagnose and LayerStatsCallback, in their order, and what is refused."""

import warnings

import keras
import numpy as np
import pytest

from keras_initkit import diagnose, probe
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.diagnosis import KINDS, Evidence, Finding, ModelContext, register_rule
from keras_initkit.diagnosis._rule_registry import RULES

X = np.random.default_rng(0).standard_normal((40, 8)).astype("float32")


@pytest.fixture(autouse=True)
def rules_kept():
    rules, kinds = dict(RULES), list(KINDS)
    yield
    RULES.clear()
    RULES.update(rules)
    KINDS[:] = kinds


def model_with(bias=50.0):
    keras.utils.set_random_seed(0)
    shifted = keras.layers.Dense(8, bias_initializer=keras.initializers.Constant(bias), name="shifted")
    small = keras.initializers.RandomNormal(stddev=1e-3)  # the shift ends there, whatever the backend draws
    model = keras.Sequential([keras.Input((8,)), shifted, keras.layers.Dense(2, kernel_initializer=small, name="head")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def find_shifted_mean(evidence):
    assert isinstance(evidence, Evidence)
    assert evidence.model is None or isinstance(evidence.model, ModelContext)
    for layer, reading in evidence.last.items():
        if reading.output is not None and reading.output.mean > 10:
            step = evidence.reports[-1].step
            yield Finding("shifted_mean", layer, step, "warning", {"mean": reading.output.mean}, "Center it.")


def test_a_users_rule_finds_through_diagnose():
    register_rule("shifted_mean", find_shifted_mean)
    assert KINDS[-1] == "shifted_mean"
    model = model_with()
    for found in (diagnose(model, X), diagnose(probe(model, X)), diagnose(probe(model, X), model=model)):
        (finding,) = [each for each in found if each.kind == "shifted_mean"]
        assert (finding.layer, finding.step) == ("shifted", 0)
        assert str(finding) == (
            "warning: shifted_mean in shifted at step 0 (confidence 1.00)\n"
            f"  mean {finding.evidence['mean']:.3g}\n  Center it."
        )
    assert "shifted_mean" not in {finding.kind for finding in diagnose(model_with(0.0), X)}


def test_a_users_rule_finds_through_the_callback():
    register_rule("shifted_mean", judges="run")(find_shifted_mean)
    callback = LayerStatsCallback(None, "batch")
    with pytest.warns(UserWarning, match=r"(?s)^LayerStatsCallback: .*warning: shifted_mean in shifted at step 0"):
        model_with().fit(X, np.zeros(40), batch_size=20, verbose=0, callbacks=[callback])
    assert [(each.kind, each.layer) for each in callback.findings if each.kind == "shifted_mean"] == [
        ("shifted_mean", "shifted")
    ]
    assert "shifted_mean" in {each.kind for each in diagnose(callback)}
    assert "shifted_mean" not in {each.kind for each in diagnose(model_with(), X)}  # one report is no run
    register_rule("shifted_mean", find_shifted_mean, judges="report", replace=True)
    assert "shifted_mean" not in {each.kind for each in diagnose(callback)}
    assert "shifted_mean" in {each.kind for each in diagnose(model_with(), X)}


def test_causes_of_a_users_rule():
    register_rule("shifted_mean", find_shifted_mean, causes=["unscaled_input"])
    (finding,) = [each for each in diagnose(model_with(), 100 * X) if each.kind == "shifted_mean"]
    assert finding.consequence_of == "unscaled_input"


def test_a_rule_that_yields_something_else():
    register_rule("mine", lambda evidence: [Finding("nonfinite", "a", 0, "error", {}, "")])
    with pytest.raises(
        ValueError, match=r"rule 'mine': it yielded <Finding error: nonfinite in a.*expected a Finding of its"
    ):
        diagnose(model_with(), X)
    register_rule("mine", lambda evidence: [3], replace=True)
    with pytest.raises(ValueError, match=r"rule 'mine': it yielded 3, expected a Finding of its kind"):
        diagnose(model_with(), X)
    register_rule("mine", lambda evidence: None, replace=True)
    with pytest.raises(ValueError, match=r"rule 'mine': it returned None, expected findings that it yields"):
        diagnose(model_with(), X)
    register_rule("mine", lambda evidence: [3], replace=True)
    callback = LayerStatsCallback(None, "batch")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model_with().fit(X, np.zeros(40), batch_size=20, verbose=0, callbacks=[callback])
    assert any("it yielded 3" in str(each.message) for each in caught)  # and training went on
    assert len(callback.reports) == 2


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3,), {}, r"^kind: got 3, expected a name"),
        (("two words",), {}, r"^kind: got 'two words', expected a name"),
        (
            ("dead_units", find_shifted_mean),
            {},
            r"^kind: got 'dead_units', which has a rule already\. Pass replace=True",
        ),
        (("mine", 3), {}, r"^function: got 3, expected a function of Evidence"),
        (("mine", find_shifted_mean), {"causes": "dead_units"}, r"^causes: got 'dead_units', expected a sequence"),
        (
            ("mine", find_shifted_mean),
            {"causes": ["sorrow"]},
            r"^causes: got \['sorrow'\], expected a sequence of kinds",
        ),
        (("mine", find_shifted_mean), {"causes": None}, r"^causes: got None, expected a sequence"),
        (("mine", find_shifted_mean), {"causes": [[]]}, r"^causes: got \[\[\]\], expected a sequence"),
        (
            ("mine", find_shifted_mean),
            {"judges": "all"},
            r"^judges: got 'all', expected one of 'report', 'run', 'both'",
        ),
        (("mine", find_shifted_mean), {"direction": "up"}, r"^direction: got 'up', expected one of 'forward'"),
    ],
)
def test_wrong_use(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        register_rule(*arguments, **options)
    assert "mine" not in KINDS
