"""Rows, table and files of a comparison, made of runs with known numbers; nothing is trained."""

import csv
import json
import math

import numpy as np
import pytest

from keras_initkit.comparison._contestants import DEFAULT
from keras_initkit.comparison._result import Comparison, Run, geometric_mean

SETTINGS = {
    "activation": "relu",
    "depth": 2,
    "epochs": 2,
    "seeds": 3,
    "seed": 5,
    "data": "some/where/images.npz",
    "units": 128,
    "batch_size": 32,
    "learning_rate": 0.01,
}


def run(name="he_normal", seed=5, forward=(1.0, 0.5), backward=(2e-4, 1e-4), loss=0.25, accuracy=0.9):
    histogram = ([1, 2], [0.0, 0.5, 1.0])
    return Run(
        initializer=name,
        seed=seed,
        forward=list(forward),
        backward=list(backward),
        dead=0.25,
        saturated=0.0,
        train_loss=loss,
        train_accuracy=accuracy,
        test_loss=loss * 2,
        test_accuracy=accuracy - 0.1,
        history={"val_loss": [2 * loss, loss], "val_accuracy": [0.1, accuracy]},
        histograms=[histogram, histogram],
        activations=[{"mean": 0.5, "stddev": 0.25, "zeros": 0}] * 2,
    )


def comparison(runs, **settings):
    return Comparison({**SETTINGS, **settings}, 0.1, 360, runs)


def test_geometric_mean():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2)
    assert geometric_mean([1.0, 0.0]) == 0
    assert geometric_mean([1.0, math.inf]) == math.inf
    assert math.isnan(geometric_mean([1.0, math.nan]))


def test_rows_against_numpy():
    rng = np.random.default_rng(0)
    forward, backward = np.exp(rng.normal(size=(3, 2))), np.exp(rng.normal(size=(3, 2)))
    losses, accuracies = rng.uniform(0.1, 1, 3), rng.uniform(0.5, 0.9, 3)
    runs = [
        run(seed=5 + i, forward=forward[i], backward=backward[i], loss=losses[i], accuracy=accuracies[i])
        for i in range(3)
    ]
    (row,) = comparison(runs).rows()
    assert (row["initializer"], row["seeds"]) == ("he_normal", 3)
    for name, values in (("activation", forward), ("gradient", backward)):
        for where, column in (("first", 0), ("last", -1)):
            product = np.prod(values[:, column]) ** (1 / 3)
            assert row[f"{name}_variance_{where}"] == pytest.approx(product, rel=1e-12)
            spread = np.exp(np.std(np.log(values[:, column])))
            assert row[f"{name}_variance_{where}_spread"] == pytest.approx(spread, rel=1e-12)
    assert row["train_loss"] == pytest.approx(losses.mean(), rel=1e-12)
    assert row["train_loss_spread"] == pytest.approx(losses.std(), rel=1e-12)
    assert row["test_loss"] == pytest.approx(2 * losses.mean(), rel=1e-12)
    assert row["test_accuracy"] == pytest.approx(accuracies.mean() - 0.1, rel=1e-12)
    assert row["test_accuracy_spread"] == pytest.approx(accuracies.std(), rel=1e-12)
    assert (row["dead"], row["dead_spread"], row["saturated"]) == (0.25, 0.0, 0.0)


def test_the_gradient_runs_from_the_last_layer_to_the_first():
    (row,) = comparison([run(backward=(1e-9, 1e-4))], seeds=1).rows()
    assert (row["gradient_variance_first"], row["gradient_variance_last"]) == pytest.approx((1e-9, 1e-4))
    assert row["verdict"] == "signal healthy, gradient vanishes, learns"
    (row,) = comparison([run(backward=(1e-4, 1e-9))], seeds=1).rows()
    assert row["verdict"] == "signal healthy, gradient explodes, learns"


def test_rows_keep_the_order_of_the_runs():
    names = ["b", "a", "c"]
    assert [row["initializer"] for row in comparison([run(name) for name in names]).rows()] == names


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("loss", [0.25, 1.5e33, math.nan, math.inf])
@pytest.mark.filterwarnings("error")
def test_the_table_fits_80_columns(seeds, loss):
    worst = {"forward": (1.0, math.inf), "backward": (1.0, 1e-30), "loss": loss, "accuracy": 0.1}
    runs = [run(name, seed, **worst) for name in DEFAULT for seed in range(seeds)]
    text = str(comparison(runs, seeds=seeds))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for name in DEFAULT:
        assert f"\n{name} " in text
    for word in ("signal", "explodes,", "gradient", "does", "learn", "verdict", "accuracy"):
        assert word in text
    assert "images.npz" in text
    assert ("seed 5 to 7" in text) == (seeds == 3)


def test_a_long_name_leaves_the_verdict_its_column():
    text = str(comparison([run("keras_initkit>GatewiseOrthogonal", seed) for seed in (5, 6, 7)]))
    assert "verdict" in text
    assert "learns" in text
    assert "…" not in text


def test_table_numbers():
    text = str(comparison([run(loss=0.25)], seeds=1))
    for shown in ("1.0e+00", "5.0e-01", "2.0e-04", "1.0e-04", "25%", "0.25", "0.50", "90%", "80%", "by chance: 10%"):
        assert shown in text
    assert "±" not in text
    text = str(comparison([run(loss=loss) for loss in (0.25, 0.35)]))
    assert "0.30±0.05" in text


@pytest.mark.filterwarnings("error")
def test_saved_files_hold_the_rows(tmp_path):
    result = comparison([run("a"), run("b", forward=(math.inf, math.nan), loss=math.nan), run("c", forward=(0.0, 0.0))])
    directory = tmp_path / "new" / "directory"
    paths = result.save(directory)
    assert sorted(paths) == sorted(str(path) for path in directory.iterdir())
    rows = result.rows()
    with open(directory / "comparison.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert len(read) == 3
    for expected, found in zip(rows, read, strict=True):
        assert list(found) == list(expected)
        for column, value in expected.items():
            if isinstance(value, str):
                assert found[column] == value
            else:
                assert float(found[column]) == value or (math.isnan(value) and found[column] == "nan")

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    data = json.loads((directory / "comparison.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert data["settings"] == SETTINGS
    assert (data["chance"], data["test_examples"]) == (0.1, 360)
    assert data["rows"][0] == rows[0]
    assert data["rows"][1]["activation_variance_first"] == "Infinity"
    assert data["rows"][1]["activation_variance_last"] is None
    assert data["runs"][1]["train_loss"] is None
    assert data["runs"][0]["histograms"] == [[[1, 2], [0.0, 0.5, 1.0]]] * 2


def test_json_tells_the_infinities_apart(tmp_path):
    comparison([run(loss=-math.inf)]).save(tmp_path)
    assert '"-Infinity"' in (tmp_path / "comparison.json").read_text()


def test_saving_twice_replaces(tmp_path):
    comparison([run("a"), run("b")]).save(tmp_path)
    comparison([run("a")]).save(tmp_path)
    assert len((tmp_path / "comparison.csv").read_text().splitlines()) == 2


def test_figures_draw_the_runs():
    runs = [run("a", seed, forward=(seed, 2.0 * seed), backward=(1.0, 3.0)) for seed in (1, 4)]
    result = comparison(runs, seeds=2)
    forward, backward = result.plot_variance().axes[:2]
    np.testing.assert_allclose(forward.lines[0].get_ydata(), [1, 2])
    np.testing.assert_allclose(backward.lines[0].get_ydata(), [1 / 3, 1])
    loss, accuracy = result.plot_training().axes[:2]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [0.5, 0.25])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [0.1, 0.9])
    figure = result.plot_histograms()
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.texts] == ["0.25", "0.25"]  # of the first seed, two layers
    assert figure.get_suptitle().startswith("2 x Dense(128, relu) on images.npz: the standard deviation of activations")
