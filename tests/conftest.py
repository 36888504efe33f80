import io
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

pytest.register_assert_rewrite("helpers")


@pytest.fixture(autouse=True)
def float32_policy():
    """Every test starts from Keras' default policy, whatever the one before has set."""
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def one_picture_for_all(request, monkeypatch):
    """The picture that a log gets at the end is drawn where a test is about it: it costs more than a small fit."""
    if request.path.parent.name == "callbacks" and "pictures" not in request.path.name:
        from keras_initkit.callbacks import _summary

        small_png = request.getfixturevalue("small_png")
        monkeypatch.setattr(_summary, "picture_of", lambda reports, model: small_png)


@pytest.fixture(scope="session")
def small_png():
    from matplotlib.figure import Figure

    file = io.BytesIO()
    Figure((0.1, 0.1)).savefig(file, format="png")
    return file.getvalue()


def pytest_terminal_summary(terminalreporter):
    """Says in how many ways training came out the same with the callback and without it."""
    passed = terminalreporter.stats.get("passed", [])
    number = sum("test_bit_identical.py::test_training_is_the_same" in report.nodeid for report in passed)
    if number:
        terminalreporter.write_line(
            f"observation changes nothing: {number} configurations on {keras.backend.backend()}"
        )
