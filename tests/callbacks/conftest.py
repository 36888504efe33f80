"""What the tests of this folder share."""

import io

import pytest
from matplotlib.figure import Figure

from keras_initkit.callbacks import summary


@pytest.fixture(autouse=True)
def one_picture_for_all(request, monkeypatch, small_png):
    """The picture that a log gets at the end is drawn where a test is about it: it costs more than a small fit."""
    if "pictures" not in request.module.__name__:
        monkeypatch.setattr(summary, "picture_of", lambda reports, model: small_png)


@pytest.fixture(scope="session")
def small_png():
    file = io.BytesIO()
    Figure((0.1, 0.1)).savefig(file, format="png")
    return file.getvalue()
