"""The documentation: pages, API, and the gallery that runs the examples. `sphinx-build -W docs docs/_build/html`."""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import building  # noqa: E402

import keras_initkit  # noqa: E402

project = "keras-initkit"
copyright = "the keras-initkit authors"
version = release = keras_initkit.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
default_role = "code"  # docstrings write `name`
autodoc_member_order = "bysource"
maximum_signature_line_length = 150
html_math_renderer = "mathml"
html_theme = "alabaster"
html_static_path = ["_static"]  # its custom.css is the theme's own hook
html_theme_options = {
    "page_width": "1240px",
    "body_max_width": "auto",
    "code_font_size": "0.78em",
    "sidebar_width": "230px",
    "description": "Weight initializers and signal instrumentation for Keras 3",
}
sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "ignore_pattern": r"^(?!plot_)",
    "within_subsection_order": "building.ReadingOrder",
    "image_scrapers": ("building.saved_figures",),
    "reset_argv": "building.arguments",
    "capture_repr": (),
    "download_all_examples": False,
    "write_computation_times": False,
}


def setup(app):
    """Sphinx calls it."""
    app.connect("autodoc-process-docstring", building.as_sphinx_reads, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", building.as_python)
    app.add_html_math_renderer("mathml", (building.math_as_markup, None), (building.math_as_markup, None))
    app.connect("autodoc-skip-member", building.is_noise)
    app.connect("env-check-consistency", building.undocumented)
