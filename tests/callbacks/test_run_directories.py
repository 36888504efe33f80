"""Where runs are written to: the time in `log_dir`, copies of a callback, trials of a search, and `fit` in a loop."""

import copy
import pathlib
import pickle
import re
import warnings

import keras
import numpy as np
import pytest
from helpers import events, mlp, read_events, run_python

from keras_initkit.callbacks import LayerStatsCallback, TensorBoardSink, _pacing, _run_directory, _summary

pytestmark = pytest.mark.one_backend

X = np.random.default_rng(0).standard_normal((24, 6)).astype("float32")
Y = np.arange(24) % 3


def new_model(rate=0.01, loss="sparse_categorical_crossentropy"):
    model = mlp()
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


def fit(callback, model=None, epochs=1):
    model = new_model() if model is None else model
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "LayerStatsCallback")
        model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=[callback])
    return callback


def stats(log_dir, **options):
    return LayerStatsCallback(log_dir, "batch", on_finding="ignore", **options)


def steps(directory):
    return [event.step for event in read_events(pathlib.Path(directory) / "train").Scalars("update_ratio/z")]


def runs(directory):
    """The measured steps of each run below a directory, by its name."""
    return {str(path.parent.relative_to(directory)): steps(path.parent) for path in directory.rglob("train")}


# The time


@pytest.fixture
def noon(monkeypatch):
    """A clock that stands."""
    monkeypatch.setattr(_run_directory.time, "strftime", lambda form: {"%Y%m%d-%H%M%S": "20260102-120000"}[form])


def test_the_time_is_that_when_training_begins(tmp_path):
    callback = stats(tmp_path / "{time}")
    assert callback.run_dir is None
    assert list(tmp_path.iterdir()) == []
    fit(callback)
    (made,) = tmp_path.iterdir()
    assert callback.run_dir == str(made)
    assert re.fullmatch(r"\d{8}-\d{6}", made.name)
    assert callback.log_dir == str(tmp_path / "{time}")


def test_runs_of_one_second(tmp_path, noon):
    for _ in range(3):
        fit(stats(tmp_path / "logs" / "{time}" / "layers"))
    assert runs(tmp_path / "logs") == {f"20260102-120000{suffix}/layers": [0, 1, 2] for suffix in ("", "-1", "-2")}


def test_a_training_that_goes_on_stays_in_its_directory(tmp_path, noon):
    model = new_model()
    callback = fit(stats(tmp_path / "{time}"), model)
    fit(callback, model)
    fit(callback)  # another model
    callback.start_run(tmp_path / "{time}")
    fit(callback)
    assert runs(tmp_path) == {
        "20260102-120000": [0, 1, 2, 3, 4, 5],
        "20260102-120000-1": [0, 1, 2],
        "20260102-120000-2": [0, 1, 2],
    }


@pytest.mark.parametrize("name", ["logs/{date}", "logs/{}", "{time:%H}", "a{", "{time}}"])
def test_other_braces_are_refused(name):
    with pytest.raises(ValueError, match=r"log_dir: got .*, expected no braces but those of '\{time\}'"):
        LayerStatsCallback(name)
    with pytest.raises(ValueError, match=r"log_dir: got .*, expected no braces"):
        LayerStatsCallback(None).start_run(name)


def test_a_file_in_the_way_of_the_time(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(OSError, match=r"cannot write the log to .*Choose another `log_dir`"):
        fit(stats(tmp_path / "logs" / "{time}"))


def test_a_sink_has_the_time_too(tmp_path, noon):
    sinks = [TensorBoardSink(tmp_path / "{time}") for _ in range(2)]
    for sink in sinks:
        sink.log({"a": 1.0}, 0)
        sink.log({"a": 2.0}, 1)
    found = {path.name: [e.value for e in read_events(path).Scalars("a")] for path in tmp_path.iterdir()}
    assert found == {"20260102-120000": [1.0, 2.0], "20260102-120000-1": [1.0, 2.0]}


# Copies, and searches


def test_a_copy_has_a_run_of_its_own(tmp_path):
    original = stats(tmp_path)
    before = copy.deepcopy(original)
    fit(original)
    after = pickle.loads(pickle.dumps(original))
    for callback in (before, after, copy.copy(original)):
        fit(callback, epochs=2)
        assert [report.step for report in callback.reports] == [0, 1, 2, 3, 4, 5]
    fit(original, original.model)
    assert runs(tmp_path) == {".": list(range(6)), **{f"run-{number}": list(range(6)) for number in (1, 2, 3)}}
    assert before.run_dir == str(tmp_path / "run-1")
    assert [report.step for report in original.reports] == list(range(6))


def test_a_copy_that_goes_on_with_the_model_goes_on_with_the_run(tmp_path):
    model = new_model()
    callback = fit(stats(tmp_path), model)
    fit(pickle.loads(pickle.dumps(callback)), model)
    assert runs(tmp_path) == {".": list(range(6))}


def test_one_callback_on_one_model_after_the_other(tmp_path):
    callback, models = stats(tmp_path), [new_model() for _ in range(3)]
    for model in models:
        fit(callback, model)
    fit(callback, models[-1])
    assert runs(tmp_path) == {".": [0, 1, 2], "run-1": [0, 1, 2], "run-2": [0, 1, 2, 3, 4, 5]}
    assert [report.step for report in callback.reports] == [0, 1, 2, 3, 4, 5]  # of the last run


def test_a_copy_that_is_started_anew_is_none(tmp_path):
    callback = copy.deepcopy(stats(tmp_path / "a"))
    for name in ("b", "c"):
        callback.start_run(tmp_path / name)
        fit(callback)
    assert runs(tmp_path) == {"b": [0, 1, 2], "c": [0, 1, 2]}


@pytest.mark.parametrize("name", ["logs", "logs/{time}"])
def test_trials_of_keras_tuner(tmp_path, name):
    tuner = pytest.importorskip("keras_tuner")

    def build(hp):
        return new_model(hp.Choice("rate", [0.01, 0.1, 0.3]))

    search = tuner.RandomSearch(
        build, "loss", max_trials=3, executions_per_trial=2, directory=tmp_path / "trials", overwrite=True
    )
    search.search(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[stats(tmp_path / name)])
    found = runs(tmp_path / "logs")
    assert len(found) == 6
    assert set(map(tuple, found.values())) == {tuple(range(6))}
    if name == "logs":
        assert set(found) == {f"run-{number}" for number in range(1, 7)}


def categorical_model(X, y, rate):
    return new_model(rate, "categorical_crossentropy")


def search(log_dir, processes):
    from sklearn.model_selection import GridSearchCV

    estimator = keras.wrappers.SKLearnClassifier(categorical_model, model_kwargs={"rate": 0.1})
    rates = {"model_kwargs": [{"rate": 0.01}, {"rate": 0.1}]}
    grid = GridSearchCV(estimator, rates, cv=2, n_jobs=processes, error_score="raise")
    grid.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[stats(log_dir)])


@pytest.mark.skipif(not hasattr(keras, "wrappers"), reason="came with Keras 3.8")
@pytest.mark.parametrize(
    ("processes", "name"), [(1, "logs"), pytest.param(2, "logs", marks=pytest.mark.slow), (1, "logs/{time}")]
)
def test_fits_of_a_search_by_scikit_learn(tmp_path, processes, name):
    """Two parameters in two folds of 3 batches, and the best one on all data: 6 batches."""
    pytest.importorskip("sklearn")
    if processes == 1:
        search(tmp_path / name, processes)
    else:
        code = "import sys\nfrom test_run_directories import *\nsearch(sys.argv[1], int(sys.argv[2]))"
        run_python("-c", code, tmp_path / name, processes)
    found = runs(tmp_path / "logs")
    assert sorted(map(len, found.values())) == [6, 6, 6, 6, 12]
    assert all(each == list(range(len(each))) for each in found.values())
    if name == "logs":
        # The callback itself trains the first model, or in several processes, where copies train all, the last.
        assert set(found) == {".", *(f"run-{number}" for number in range(1, 5))}


# `fit` in a loop


def test_fits_in_a_loop_share_one_file_and_few_pictures(tmp_path, monkeypatch):
    drawn, real = [], _summary.draw_picture
    monkeypatch.setattr(_summary, "draw_picture", lambda *args: drawn.append(len(args[0])) or real(*args))
    keras.utils.set_random_seed(0)  # a unit that dies later would be a new chart
    model, callback = new_model(), stats(tmp_path)
    for _ in range(5):
        fit(callback, model)
    (path,) = (tmp_path / "train").iterdir()
    assert steps(tmp_path) == list(range(15))
    versions = [event for event in events(path) if event.file_version]
    assert len(versions) == 1
    layouts = [v for event in events(path) for v in event.summary.value if v.tag == "custom_scalars__config__"]
    assert len(layouts) == 1
    assert drawn[0] == 3  # at the end of the first
    assert len(drawn) < 5


def test_a_picture_that_waits_is_written_when_python_exits(tmp_path):
    code = """
        import sys
        from test_run_directories import *

        model, callback = new_model(), stats(pathlib.Path(sys.argv[1]))
        for _ in range(3):
            fit(callback, model)
    """
    run_python("-c", code, tmp_path)
    log = read_events(tmp_path / "train")
    for tag in (_summary.PICTURE, _summary.TEXT):
        found = [event.step for event in log.Tensors(tag)]
        assert (found[0], found[-1]) == (2, 8)


def test_pictures_take_a_fiftieth_of_the_time(monkeypatch):
    now, written = [0.0], []
    monkeypatch.setattr(_pacing.time, "monotonic", lambda: now[0])
    picture = _pacing.Deferred()

    def draw():
        written.append(now[0])
        now[0] += 1.0

    for _ in range(200):
        picture.run(draw)
        now[0] += 1.0
    assert written == [0.0, 51.0, 102.0, 153.0]
    del picture
    assert written[4:] == [now[0] - 1.0]


def test_another_file_of_the_run_ends_the_sharing(tmp_path):
    """Readers go by name, and would not come back to the first one."""
    model, callback = new_model(), stats(tmp_path)
    fit(callback, model)
    fit(stats(tmp_path), model)
    fit(callback, model)
    assert len(list((tmp_path / "train").iterdir())) == 3
    assert steps(tmp_path) == list(range(9))
