import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest
from hypothesis import settings

# The same examples in every run: what one run finds is an `@example` for all.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

pytest.register_assert_rewrite("helpers")


def pytest_collection_finish():
    """Keeps what the imports made out of every later search for garbage, of which `clear_session` makes many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_draws(request):
    """A module's random generators begin anew for each test: which ran before depends on the process."""
    import numpy as np

    for value in vars(request.module).values():
        if isinstance(value, np.random.Generator):
            value.bit_generator.state = type(value.bit_generator)(value.bit_generator.seed_seq).state


@pytest.fixture(autouse=True)
def float32_policy():
    """Every test starts from Keras' default policy, whatever the one before has set."""
    yield
    import keras  # here: of pytest-xdist's processes the first runs no test, and all others wait for it

    keras.config.set_dtype_policy("float32")


def pytest_terminal_summary(terminalreporter):
    """Says in how many ways training came out the same with the callback and without it."""
    passed = terminalreporter.stats.get("passed", [])
    backends = [value for report in passed for name, value in report.user_properties if name == "the same on"]
    for backend in sorted(set(backends)):
        number = backends.count(backend)
        terminalreporter.write_line(f"observation changes nothing: {number} configurations on {backend}")
