"""What the callback logs for the tab leads to the judgement of the reports."""

import json
import math
import warnings

import keras
import numpy as np
import pytest
from helpers import events
from keras import layers as L

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.callbacks._layers_record import TAG
from keras_initkit.capture import probe
from keras_initkit.report._health import signal_decades


def convolutional():
    x = inputs = keras.Input((8, 8, 3))
    for i, filters in enumerate((8, 16)):
        x = L.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{i}")(x)
        x = L.ReLU(name=f"relu_{i}")(L.BatchNormalization(name=f"norm_{i}")(x))
        x = L.AveragePooling2D(2, name=f"pool_{i}")(x)
    x = L.Dense(16, "relu", name="wide")(L.Flatten()(x))
    return keras.Model(inputs, L.Dense(4, "softmax", name="head")(x))


def begins_at_zero():
    inputs = keras.Input((8, 8, 3))
    x = L.Dense(16, "relu", name="first")(L.Flatten()(inputs))
    x = L.Dense(16, "relu", name="second")(x)
    return keras.Model(inputs, L.Dense(4, kernel_initializer="zeros", name="head")(x))


def train(model, directory):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 8, 8, 3)).astype("float32"), rng.integers(0, 4, 48)
    is_softmax = model.layers[-1].activation is keras.activations.softmax
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=not is_softmax))
    stats = LayerStatsCallback(directory, "batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[stats])
    return stats


def read(directory):
    """Scalars by step, and the records, as they stand in the log."""
    (path,) = [str(each) for each in (directory / "train").iterdir()]
    scalars, records = {}, []
    for event in events(path):
        for value in event.summary.value:
            if value.tag == TAG:
                records.append(json.loads(value.tensor.string_val[0]))
                assert value.metadata.plugin_data.plugin_name == "keras_initkit_layers"
            elif value.tensor.float_val:
                scalars.setdefault(event.step, {})[value.tag] = value.tensor.float_val[0]
    return scalars, records


@pytest.mark.parametrize("make", [convolutional, begins_at_zero])
def test_decades_of_the_log_are_those_of_the_reports(make, tmp_path):
    keras.utils.set_random_seed(0)
    stats = train(make(), tmp_path)
    scalars, records = read(tmp_path)
    record = records[-1]
    assert [layer for layer, _ in record["layers"]] == stats.reports[0].layers
    statistics = {"forward": "activation_variance", "backward": "activation_gradient_variance"}
    judged = 0
    for report in stats.reports:
        for expected, (way, statistic) in zip(signal_decades(report), statistics.items(), strict=True):
            found = {}
            for (layer, _), entry in zip(record["layers"], record["signal"][way], strict=True):
                if entry is None:
                    continue
                here, there = (scalars[report.step][f"{statistic}/{each}"] for each in (layer, entry[0]))
                if here == 0 and report.step in record["zero_gradient_steps"]:
                    continue
                found[layer] = math.log10(here) - math.log10(there) + entry[1]
            assert found == pytest.approx(expected, abs=1e-5)
            judged += len(found)
    assert judged >= 12
    assert record["zero_gradient_steps"] == ([0] if make is begins_at_zero else [])


def test_the_last_record_holds_all_findings(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Flatten()])
    for i in range(6):
        model.add(
            L.Dense(16, "tanh", kernel_initializer=keras.initializers.RandomNormal(stddev=1e-3), name=f"thin_{i}")
        )
    model.add(L.Dense(4))
    stats = train(model, tmp_path)
    _, records = read(tmp_path)
    assert records[0]["measured"] == 1
    assert records[-1]["measured"] == len(stats.reports) == 6
    assert records[-1]["statistics"] == list(stats.statistics)
    assert records[-1]["findings"] == [json.loads(json.dumps(each.to_dict())) for each in stats.findings]
    assert "vanishing_activation" in {each["kind"] for each in records[-1]["findings"]}


@pytest.mark.parametrize("before", [True, False])
def test_predictions_of_a_probe_go_to_the_log(before, tmp_path):
    keras.utils.set_random_seed(0)
    model = begins_at_zero()
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    report = probe(model, x)
    stats = LayerStatsCallback(tmp_path, "batch", on_finding="ignore")
    model.compile("sgd", "mse")
    if before:
        stats.log_predictions(report)
    model.fit(x, np.ones((32, 4)), batch_size=32, verbose=0, callbacks=[stats])
    if not before:
        assert read(tmp_path)[1][-1]["theory"] == {}
        stats.log_predictions(report)
    record = read(tmp_path)[1][-1]
    place = [layer for layer, _ in record["layers"]].index("second")
    for statistic, kind in (("activation_variance", "output"), ("activation_gradient_variance", "output_gradient")):
        (row,) = [row for row in report.rows if row.tap[:2] == (kind, "second")]
        assert record["theory"][statistic][place] == row.predicted.variance
    with pytest.raises(ValueError, match=r"report: got .* expected a report of `probe` that holds predictions"):
        stats.log_predictions(stats.reports[0])
