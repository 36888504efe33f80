"""The documentation builds without a warning, and the tutorial prints what stands in it."""

import contextlib
import io
import pathlib
import re
import shutil

import keras
import pytest
from helpers import run_python

DOCS = pathlib.Path(__file__).parents[1] / "docs"
NUMBER = re.compile(r"(\d+(?:\.(\d+))?)(?:e([-+]?\d+))?(%?)")

pytestmark = [
    pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not beside the tests"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the pages' draws are those of TensorFlow"),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LayerStatsCallback")  # of the fault that it shows
def test_tutorial_prints_what_it_shows(tmp_path, monkeypatch):
    """To 5 % or a unit of the last digit, percentages to two: other processors round sums otherwise."""
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == text.count("```python")
    namespace = {}
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        assert_alike(printed.getvalue(), shown)
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == sorted(re.findall(r"\(images/(.*?\.png)\)", text))
    assert all((DOCS / "images" / name).exists() for name in pictures)
    assert list((tmp_path / "logs" / "tutorial" / "train").glob("events.out.tfevents.*"))


def assert_alike(printed, shown):
    assert NUMBER.sub("0", printed).split() == NUMBER.sub("0", shown).split()
    for got, expected in zip(NUMBER.finditer(printed), NUMBER.finditer(shown), strict=True):
        _, decimals, exponent, percent = expected.groups()
        unit = 10.0 ** (int(exponent or 0) - len(decimals or ""))
        slack = 2 if percent else 1.01 * unit if decimals or exponent else 0
        number, shown_number = (float(match[0].removesuffix("%")) for match in (got, expected))
        assert number == pytest.approx(shown_number, rel=0.05, abs=slack), f"{got[0]}, shown as {expected[0]}"


def test_pages_build_without_a_warning(tmp_path):
    """Without the gallery's runs; a public name without a place in the API pages is a warning."""
    pytest.importorskip("sphinx_gallery")
    options = ["-q", "-W", "--keep-going", "-D", "plot_gallery=0", "-d", "trees"]
    # sphinx-gallery writes its pages beside the sources: a copy keeps the checkout clean.
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "gallery"))
    shutil.copytree(DOCS.parent / "examples", tmp_path / "examples")
    run_python("-m", "sphinx", *options, "docs", "html", cwd=tmp_path)
    assert (tmp_path / "html" / "gallery" / "index.html").exists()
