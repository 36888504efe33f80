"""What on_finding does, in real fits of a model with a known fault, and of one without."""

import copy
import pickle
import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import read_events
from tensorboard.util import tensor_util

from keras_initkit.callbacks import LayerStatsCallback, _run_diagnosis, _summary
from keras_initkit.diagnosis import Finding

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 16)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")


def model_with(initializer="he_normal", rate=0.01):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, "relu", name="first")])
    model.add(keras.layers.Dense(32, "relu", kernel_initializer=initializer, name="second"))
    model.add(keras.layers.Dense(2, name="out"))
    model.compile(keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fit(callback, initializer="he_normal", rate=0.01, x=X, verbose=0):
    """The messages of the callback."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model_with(initializer, rate).fit(x, Y, batch_size=10, shuffle=False, verbose=verbose, callbacks=[callback])
    return [str(w.message) for w in caught if "LayerStatsCallback" in str(w.message)]


def texts(log_dir):
    log = read_events(log_dir / "train")
    read = {tag: log.Tensors(tag) for tag in log.PluginTagToContent("text")}
    return {
        tag: [(event.step, tensor_util.make_ndarray(event.tensor_proto).item().decode()) for event in events]
        for tag, events in read.items()
    }


def test_a_sound_model_has_none(tmp_path):
    callback = LayerStatsCallback(tmp_path, "batch")
    assert fit(callback) == []
    assert [finding for finding in callback.findings if finding.severity == "error"] == []
    assert _summary.FINDINGS not in texts(tmp_path)


def test_a_fault_is_told_once(tmp_path):
    callback = LayerStatsCallback(tmp_path, "batch")
    message, *others = fit(callback, "zeros")
    assert len(callback.reports) == 12
    assert callback.findings[0].kind == "symmetric_units"
    assert callback.findings[0].layer == "second"
    keys = [(finding.kind, finding.layer) for finding in callback.findings]
    assert len(set(keys)) == len(keys)
    assert message.startswith(f"LayerStatsCallback: {callback.findings[0]}")
    assert not any("error: symmetric_units in second" in other for other in others)
    written = texts(tmp_path)
    assert written[_summary.FINDINGS][0][0] == 0
    for text in (written[_summary.FINDINGS][0][1], written[_summary.TEXT][0][1]):
        assert "#### error: symmetric_units in `second`\n\nstep 0, confidence 1.00\n" in text


def test_stop_ends_training_at_once_and_cleanly(tmp_path):
    callback = LayerStatsCallback(tmp_path, "batch", on_finding="stop")
    message = fit(callback, "zeros")[0]
    assert "Training stops here" in message
    assert [report.step for report in callback.reports] == [0]
    assert {_summary.TEXT, _summary.FINDINGS} == set(texts(tmp_path))  # the run was ended, not broken off
    sound = LayerStatsCallback(None, "batch", on_finding="stop")
    fit(sound)
    assert len(sound.reports) == 12


def test_stop_at_a_value_that_is_not_finite():
    x = X.copy()
    x[105] = np.nan  # the eleventh batch, of which the schedule of diagnoses has none
    callback = LayerStatsCallback(None, "batch", on_finding="stop")
    fit(callback, x=x)
    assert [report.step for report in callback.reports] == list(range(11))
    assert "nonfinite" in {finding.kind for finding in callback.findings}


def test_ignore_says_and_finds_nothing():
    callback = LayerStatsCallback(None, "batch", on_finding="ignore")
    assert fit(callback, "zeros") == []
    assert callback.findings == []


def test_a_function_gets_each_finding():
    seen = []
    callback = LayerStatsCallback(None, "batch", on_finding=seen.append)
    assert fit(callback, "zeros") == []
    assert seen == callback.findings
    assert seen


def test_the_message_has_lines_of_its_own(capsys):
    fit(LayerStatsCallback(None), "zeros", verbose=1)
    assert capsys.readouterr().out.startswith("\n")  # what told of it came before the first bar
    fit(LayerStatsCallback(None), "zeros", verbose=0)
    assert capsys.readouterr().out == ""


def test_a_rule_that_fails_costs_a_warning(monkeypatch):
    def fail(reports, structure, task):
        raise ZeroDivisionError("in a rule")

    monkeypatch.setattr(_run_diagnosis, "diagnose_reports", fail)
    callback = LayerStatsCallback(None, "batch", on_finding="stop")
    (message,) = fit(callback, "zeros")
    assert "the diagnosis failed (ZeroDivisionError: in a rule); training and measuring go on" in message
    assert len(callback.reports) == 12


def test_a_callback_that_goes_on_to_another_model_looks_at_that_one():
    callback = LayerStatsCallback(None, "batch")
    assert fit(callback) == []
    dead = keras.initializers.Constant(-100.0)
    for step in (12, 24):  # each with layers that the models before do not have, and a fault of the same name
        layers = [keras.Input((16,)), keras.layers.Dense(32, "relu", name=f"from_{step}")]
        layers += [keras.layers.Dense(32, "relu", bias_initializer=dead, name="dead"), keras.layers.Dense(2)]
        other = keras.Sequential(layers)
        other.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        with pytest.warns(UserWarning, match=f"^LayerStatsCallback: error: dead_units in dead at step {step} "):
            other.fit(X, Y, batch_size=10, verbose=0, callbacks=[callback])
    assert pickle.loads(pickle.dumps(callback)).findings == callback.findings
    assert [finding.step for finding in callback.findings if finding.kind == "dead_units"] == [12, 24]


def test_findings_of_another_run_are_forgotten():
    callback = LayerStatsCallback(None, "batch")
    fit(callback, "zeros")
    assert copy.deepcopy(callback).findings == callback.findings
    callback.start_run(None)
    assert callback.findings == []


def test_what_follows_from_what_was_told_before_is_told_in_one_line(recwarn):
    def finding(kind, layer, **fields):
        return Finding(kind, layer, 3, "error", {"figure": 1.0}, "Change it.", **fields)

    dead = [finding("dead_units", f"d{i}", consequence_of="symmetric_units", caused_in="a") for i in range(8)]
    _run_diagnosis.report_findings(dead, "warn", bar=False)
    said = "+ 8 that follow from symmetric_units in a: dead_units in d0, d1, d2, d3, d4, 3 more"
    assert str(recwarn.pop(UserWarning).message) == f"LayerStatsCallback: {said}"
    _run_diagnosis.report_findings([replace(dead[0], severity="info")], "warn", bar=False)
    assert not recwarn.list


def test_a_finding_as_markdown():
    cause = Finding(
        "wrong_fans",
        "b*_<i>|`x",
        1200,
        "warning",
        {"ratio": 1e-4, "healthy": "near 1"},
        "Draw it again: `a = 1`; `b = 2`. Normalization keeps `it`.",
        confidence=0.999,
        message="The [kernel] of b*_<i> is `x_y` too *small*.",
    )
    dead = [
        Finding("dead_units", f"d{i}", 3, "error", {}, "Else.", consequence_of="wrong_fans", caused_in=cause.layer)
        for i in range(7)
    ]
    lost = Finding("rank_collapse", "e", 3, "info", {}, "Do this:\nc = 3\nd = 4", consequence_of="dead_units")
    text = _summary.list_findings([cause, *dead, replace(lost, caused_in="other")])
    assert (
        text
        == r"""#### warning: wrong_fans in `b*_<i>¦'x`

step 1,200, confidence 0.99

The \[kernel\] of b\*\_&lt;i> is `x_y` too \*small\*.

- ratio: 0.0001
- healthy: near 1

Draw it again:

`````python
a = 1
b = 2
`````

Normalization keeps `it`.

What follows from it and goes away with it:

- dead_units in `d0`, `d1`, `d2`, `d3`, `d4` and 2 more

#### info: rank_collapse in `e`

step 3, confidence 1.00, caused by dead_units in other

Do this:

`````python
c = 3
d = 4
`````"""
    )


@pytest.mark.parametrize("number", [1, 11, 100])
def test_how_often_a_run_is_judged(number):
    from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats

    def report(values=(1.0,)):
        return SignalReport.of_step(0, 0, [TensorStats(Tap("output", "a"), Moments.of(values))])

    diagnosis, due = _run_diagnosis.RunDiagnosis(keep=10), []
    for i in range(number):
        due += [i] * diagnosis.add(report([np.nan] if i >= 52 else [1.0]))
    expected = [*range(11), 13, 16, 20, 25, 32, 40, 50, 52, 63, 79]  # of ten a decade, and where NaN begins
    assert due == [i for i in expected if i < number]
