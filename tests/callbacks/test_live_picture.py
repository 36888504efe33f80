"""`display=True`: a picture in a notebook, in a real kernel and out of one."""

import warnings

import keras
import numpy as np
import pytest

from keras_initkit import watch
from keras_initkit.callbacks import LayerStatsCallback, _live_picture

pytestmark = pytest.mark.one_backend
X, Y = np.random.default_rng(0).standard_normal((60, 6)).astype("float32"), np.arange(60) % 3
CODE = """
import keras, numpy as np
from keras_initkit.callbacks import LayerStatsCallback, _live_picture
_live_picture._PAUSE = _live_picture._SECONDS = 0.0
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
x, y = np.random.default_rng(0).standard_normal((60, 6)), np.arange(60) % 3
stats = LayerStatsCallback(None, display=True, on_finding="ignore")
model.fit(x, y, epochs=2, verbose=0, callbacks=[stats])
"""


def fit(callback, epochs=3):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, epochs=epochs, verbose=0, callbacks=[callback])
    return [str(each.message) for each in caught if "LayerStatsCallback" in str(each.message)]


@pytest.fixture
def notebook(monkeypatch):
    """A shell with a kernel; returns what it was told to show: whether it replaces a picture, and the picture."""
    shell_module = pytest.importorskip("IPython.core.interactiveshell")
    shell_module.InteractiveShell.clear_instance()
    shell = shell_module.InteractiveShell.instance()
    shell.kernel = object()
    shown = []

    def publish(data, metadata=None, *, transient=None, update=False, **_):
        shown.append((update, transient["display_id"], data["image/png"]))

    monkeypatch.setattr(shell.display_pub, "publish", publish)
    monkeypatch.setattr(_live_picture, "_PAUSE", 0.0)
    monkeypatch.setattr(_live_picture, "_SECONDS", 0.0)
    yield shown
    shell_module.InteractiveShell.clear_instance()


def test_each_measured_step_replaces_the_picture_and_each_fit_begins_another(notebook):
    callback = LayerStatsCallback(None, display=True, on_finding="ignore")
    assert fit(callback) == []
    assert [update for update, *_ in notebook] == [False, True, True, True]  # three epochs, and the end
    assert len({name for _, name, _ in notebook}) == 1
    fit(callback, epochs=1)
    assert [update for update, *_ in notebook[4:]] == [False, True]
    assert len({name for _, name, _ in notebook}) == 2


def test_a_picture_is_not_drawn_more_often_than_it_may(notebook, monkeypatch):
    monkeypatch.setattr(_live_picture, "_SECONDS", 1e6)
    fit(LayerStatsCallback(None, display=True, on_finding="ignore"))
    assert [update for update, *_ in notebook] == [False, True]  # the first step, and the end


def test_an_error_while_drawing_is_one_warning(notebook, monkeypatch):
    def fail(*args):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("keras_initkit.callbacks._summary.draw_picture", fail)
    callback = LayerStatsCallback(None, display=True, on_finding="ignore")
    (message,) = fit(callback)
    assert message == (
        "LayerStatsCallback: the live picture could not be drawn (RuntimeError: no fonts); it is not shown any more, "
        "and training goes on."
    )
    assert len(callback.reports) == 3


def test_outside_a_notebook_one_line_says_that_nothing_is_shown():
    callback = LayerStatsCallback(None, display=True, on_finding="ignore")
    (message,) = fit(callback)
    assert message == (
        "LayerStatsCallback: display=True draws in notebooks only; nothing is shown here, and training goes on."
    )
    assert fit(LayerStatsCallback(None, on_finding="ignore")) == []
    assert len(callback.reports) == 3


def test_a_step_that_is_written_by_hand(notebook):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, name="out")])
    with watch(
        lambda x: model(x), model, None, "batch", display=True, on_finding="ignore", statistics=["dead_units"]
    ) as step:
        step(X)
        step(X)
    assert [update for update, *_ in notebook] == [False, True, True]


def test_in_a_real_kernel():
    """The notebook ends with one picture, the last."""
    client, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(CODE), nbformat.v4.new_code_cell("stats.plot()")]
    )
    client.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    pictures = [each for each in notebook.cells[0].outputs if each.output_type == "display_data"]
    assert [set(each.data) for each in pictures] == [{"image/png", "text/plain"}]
