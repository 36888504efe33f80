"""What the build needs beside its settings; sphinx-gallery looks these up by name, for settings must be picklable."""

import importlib
import inspect
import pathlib
import pkgutil
import re
import sys

import keras_initkit
from keras_initkit.examples import NAMES

SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:", "Warns:")


class ReadingOrder:
    """Sorts the gallery's scripts as `NAMES` has them."""

    def __init__(self, directory):
        pass

    def __call__(self, file):
        """The script's place."""
        return NAMES.index(pathlib.Path(file).stem.removeprefix("plot_"))


def saved_figures(block, block_vars, gallery_conf):
    """The pictures that an example has saved in this cell, as they are."""
    from sphinx_gallery.scrapers import figure_rst

    example = block_vars["example_globals"].get("example")
    if example is None:
        return ""
    # Examples save under names of their own; the next number tells how many the cells before have shown.
    iterator = block_vars["image_path_iterator"]
    paths = []
    for saved in example.saved[len(iterator) :]:
        paths.append(next(iterator))
        pathlib.Path(paths[-1]).write_bytes(pathlib.Path(saved).read_bytes())
    return figure_rst(paths, gallery_conf["src_dir"])


def arguments(gallery_conf, script_vars):
    """The command line of every example: what it writes goes into the build's own folder."""
    return ["--out", str(pathlib.Path(gallery_conf["src_dir"], "_build", "reproduced"))]


def as_sphinx_reads(app, what, name, obj, options, lines):
    """Turns what Keras' docstrings hold beside reStructuredText into it: `$...$`, fences, headings, indented lines."""
    lines[:] = [re.sub(r"\$([^$`]+)\$", r":math:`\1`", line) for line in lines]
    sections = [i for i, line in enumerate(lines) if line in SECTIONS]
    for i in reversed(range(1, min(sections, default=len(lines)))):
        if lines[i].startswith("    ") and not lines[i - 1].strip() and not lines[i - 2].startswith(".. "):
            lines[i:i] = [".. code-block:: text", ""]
    # Napoleon would take what stands before a colon for the type of the returned value, and passes over an example
    # that is not indented.
    for i, line in enumerate(lines):
        if line == "Returns:":
            lines[i : i + 2] = ["", f":returns: {lines[i + 1].strip()}"]
        elif line == "Example:":
            lines[i : i + 1] = [".. rubric:: Example", ""]
    lines[:] = _without_fences(lines)


def _without_fences(lines):
    """The lines, with each Markdown block of code as a directive."""
    indent = None
    for line in lines:
        if line.startswith("```"):
            indent = "    " if indent is None else None
            yield from [f".. code-block:: {line[3:]}", ""] if indent else [""]
        else:
            yield (indent or "") + line


def as_python(app, what, name, obj, options, signature, annotation):
    """Writes defaults such as `<factory>` or `<function f>` as Python: Sphinx would split types at their commas."""
    signature = signature and re.sub(r"<(?:function )?(\w+)[^<>]*>", r"\1", signature.replace("<factory>", "..."))
    return signature, annotation


def is_noise(app, what, name, obj, skip, options):
    """Fields of a named tuple say no more than its own docstring."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def math_as_markup(translator, node):
    """MathML, which browsers draw themselves: no script from elsewhere, so pages can be read offline."""
    from docutils.nodes import SkipNode, math_block
    from docutils.utils.math.latex2mathml import tex2mathml

    block = isinstance(node, math_block)
    formula = tex2mathml(node.astext().strip(), as_block=block)
    translator.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise SkipNode


def undocumented(app, env):
    """Every public name has its place in the API pages; one without it is a warning, and so fails the build."""
    from sphinx.util import logging

    documented = {_target(name) for name in env.get_domain("py").objects}
    packages = {f"keras_initkit.{module.name}" for module in pkgutil.iter_modules(keras_initkit.__path__)}
    for name in sorted({"keras_initkit", *(each for each in packages if "._" not in each)}):
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            # A value has one place, whoever exports it.
            if (
                not inspect.ismodule(value)
                and id(value) not in documented
                and f"{name}.{public}" not in env.get_domain("py").objects
            ):
                logging.getLogger(__name__).warning("%s.%s is public and has no place in docs/api", name, public)


def _target(name):
    """The identity of what a documented name stands for; `None` where it is no attribute of a module."""
    home, _, leaf = name.rpartition(".")
    return id(getattr(sys.modules[home], leaf, None)) if home in sys.modules else None
