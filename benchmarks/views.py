"""Draws the pictures of docs/views.md: results in a notebook, light and dark, and a table in a terminal of 80 columns.

It takes chromium, pillow, nbclient and nbconvert. The notebook is executed and shown with JupyterLab's own style.

python benchmarks/views.py docs/images
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat
import numpy as np
from PIL import Image, ImageChops
from rich.console import Console
from rich.terminal_theme import MONOKAI

MODEL = """\
import keras
import numpy as np
import keras_initkit as ik

keras.utils.set_random_seed(0)
small = keras.initializers.RandomNormal(stddev=0.02)
hidden = [keras.layers.Dense(64, "relu", kernel_initializer=small, name=f"hidden_{i}") for i in range(6)]
model = keras.Sequential([keras.Input((32,)), *hidden, keras.layers.Dense(10, name="head")], name="small_weights")
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
x = np.random.default_rng(0).standard_normal((256, 32)).astype("float32")
y = x[:, :10].argmax(1)"""
CELLS = "ik.probe(model, x, y)", "ik.diagnose(model, x, y)", 'ik.initialize(model, "auto", seed=0)'
PAGE = """<meta charset="utf-8"><style>
body {{ margin: 12px; color: {foreground}; background: {background} }}
pre {{ font: 14px/1.25 "DejaVu Sans Mono", monospace; margin: 0 }}
{stylesheet}</style><pre>{code}</pre>"""


def main() -> None:
    """Writes all pictures into a folder."""
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as work:
        cells = [nbformat.v4.new_code_cell(code) for code in (MODEL, *CELLS)]
        notebook = nbformat.v4.new_notebook(cells=cells)
        nbclient.NotebookClient(notebook).execute()
        notebook.cells = notebook.cells[1:]  # what the model is stands on the page
        nbformat.write(notebook, Path(work, "results.ipynb"))
        for theme in ("light", "dark"):
            page = Path(work, f"{theme}.html")
            convert = ["jupyter-nbconvert", "--to", "html", "--theme", theme, "--output", page.name, "results.ipynb"]
            subprocess.run(convert, cwd=work, check=True)
            shoot(page, folder / f"notebook_{theme}.png", 820)
        page = Path(work, "terminal.html")
        page.write_text(terminal(), encoding="utf-8")
        shoot(page, folder / "terminal.png", 710)


def terminal() -> str:
    """Returns a page that shows what a terminal of 80 columns does."""
    names: dict = {}
    exec(MODEL, names)
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    console.print(">>> ik.probe(model, x, y).table()", highlight=False)
    console.print(names["ik"].probe(names["model"], names["x"], names["y"]).table())
    return console.export_html(theme=MONOKAI, code_format=PAGE)


def shoot(page: Path, path: Path, width: int) -> None:
    """Takes a picture of a page without its empty rows below, in a palette of 64 colors."""
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},2400"]
    subprocess.run(["chromium", *options, f"--screenshot={path}", page.as_uri()], check=True, capture_output=True)
    picture = Image.open(path).convert("RGB")
    empty = Image.new("RGB", picture.size, picture.getpixel((width - 1, picture.height - 1)))
    used = np.flatnonzero(np.asarray(ImageChops.difference(picture, empty)).any(axis=(1, 2)))
    picture = picture.crop((0, 0, width, min(int(used[-1]) + 13, picture.height)))
    picture.quantize(64).save(path, optimize=True)
    print(path, f"{os.path.getsize(path) / 1024:.0f} KB", picture.size)


if __name__ == "__main__":
    main()
