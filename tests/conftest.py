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


def pytest_terminal_summary(terminalreporter):
    """Says in how many ways training came out the same with the callback and without it."""
    passed = terminalreporter.stats.get("passed", [])
    number = sum("test_bit_identical.py::test_training_is_the_same" in report.nodeid for report in passed)
    if number:
        terminalreporter.write_line(
            f"observation changes nothing: {number} configurations on {keras.backend.backend()}"
        )
