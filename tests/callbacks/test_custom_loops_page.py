"""The loops of docs/custom_loops.md, as they are printed."""

import contextlib
import io
import pathlib
import re

import keras
import pytest
from helpers import events

from keras_initkit.callbacks import LayerStatsCallback

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "custom_loops.md"
TITLES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the tests")


def code_under(title):
    section = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return code


def test_the_loop_of_this_backend(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    namespace = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code_under(TITLES[keras.backend.backend()]), namespace)
    assert len(re.findall(r"^epoch \d: loss \d", printed.getvalue(), re.MULTILINE)) == 2
    step = namespace["train_step"]
    assert [report.step for report in step.reports] == [0, 10, 20, 30]  # of 2 times 16
    assert step.findings == []
    tags = {value.tag for event in events(tmp_path / "logs" / "train") for value in event.summary.value}
    names = [layer.name for layer in namespace["model"].layers]
    assert {f"weight_gradient_variance/{name}" for name in names} < tags


def test_the_callback_around_train_on_batch(tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((8, 4)), rng.standard_normal((8, 2))) for _ in range(11)]
    namespace = {"keras": keras, "LayerStatsCallback": LayerStatsCallback, "model": model, "batches": batches}
    exec(code_under("Loops around `train_on_batch`"), namespace)
    (callback,) = namespace["callbacks"].callbacks
    assert [report.step for report in callback.reports] == [0, 10]
