"""The documentation builds without a warning, and the tutorial prints what stands in it."""

import contextlib
import html.parser
import io
import pathlib
import re
import shutil
from typing import get_args

import keras
import pytest
from helpers import COMMANDS, command_status, run_python

from keras_initkit.diagnosis._finding import FindingKind

DOCS = pathlib.Path(__file__).parents[1] / "docs"
NUMBER = re.compile(r"(\d+(?:\.(\d+))?)(?:e([-+]?\d+))?(%?)")

pytestmark = [
    pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not beside the tests"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the pages' draws are those of TensorFlow"),
]


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


def test_the_page_of_the_command_line_shows_what_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    text = (DOCS / "command_line.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], {})
    shown = dict(re.findall(r"```sh\nkeras-initkit (.*?)\n```\n\n```text\n(.*?)```", text, re.DOTALL))
    assert [command.split()[0] for command in shown] == ["diagnose", "repair", "initialize", "probe", "verify", "list"]
    for command, output in shown.items():
        assert command_status(*command.split()) == (command.startswith("diagnose"))
        assert_alike(capsys.readouterr().out, output)
    assert re.findall(r"^\| `(\w+)", text, re.MULTILINE)[:9] == COMMANDS


def assert_alike(printed, shown):
    assert NUMBER.sub("0", printed).split() == NUMBER.sub("0", shown).split()
    for got, expected in zip(NUMBER.finditer(printed), NUMBER.finditer(shown), strict=True):
        _, decimals, exponent, percent = expected.groups()
        unit = 10.0 ** (int(exponent or 0) - len(decimals or ""))
        slack = 2 if percent else 1.01 * unit if decimals or exponent else 0
        number, shown_number = (float(match[0].removesuffix("%")) for match in (got, expected))
        assert number == pytest.approx(shown_number, rel=0.05, abs=slack), f"{got[0]}, shown as {expected[0]}"


def test_every_kind_of_finding_has_its_sentence_rule_reason_remedy_and_picture():
    _, *parts = re.split(r"^### `(\w+)`\n", (DOCS / "diagnosis.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    entries = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(entries) == set(get_args(FindingKind))
    for kind, entry in entries.items():
        picture = f"images/kinds/{kind}.png"
        parts = (r"^> \S", r"^- \*\*Rule:", r"^- \*\*Reason:", r"^- \*\*Remedy:", rf"^!\[.+\]\({picture}\)$")
        assert [len(re.findall(part, entry, re.MULTILINE)) for part in parts[1:]] == [1] * 4, kind
        assert re.search(parts[0], entry, re.MULTILINE), kind
        assert (DOCS / picture).stat().st_size < 150_000
    assert {path.stem for path in (DOCS / "images" / "kinds").iterdir()} == set(entries)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages, built without the gallery's runs; a public name without a place in the API pages is a warning."""
    pytest.importorskip("sphinx_gallery")
    root = tmp_path_factory.mktemp("pages")
    options = ["-q", "-W", "--keep-going", "-D", "plot_gallery=0", "-d", "trees"]
    # sphinx-gallery writes its pages beside the sources: a copy keeps the checkout clean.
    shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns("_build", "gallery", "sg_*"))
    shutil.copytree(DOCS.parent / "examples", root / "examples")
    run_python("-m", "sphinx", *options, "docs", "html", cwd=root)
    read = {path.resolve(): Page(path) for path in (root / "html").rglob("*.html")}
    assert (root / "html" / "gallery" / "index.html").resolve() in read
    return read


def test_pages_show_no_raw_markup(pages):
    for path, page in pages.items():
        assert not re.findall(r"[^\n]*(?:[$`\\]|(?<!/)~\w|<\w+ \w)[^\n]*", page.prose), path.name
        # Sections that were not read as such, or whose text was cut at a colon.
        assert not re.findall(r"^(?:Args|Example|References|Type|Return type):$", page.prose, re.MULTILINE), path.name
        assert "`" not in page.code, path.name


def test_links_between_pages_have_targets_and_nothing_is_loaded_from_elsewhere(pages):
    for path, page in pages.items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target in pages or target.exists(), f"{path.name}: {link}"
            assert not anchor or target not in pages or anchor in pages[target].anchors, f"{path.name}: {link}"
        assert not [source for source in page.sources if "://" in source], path.name


class Page(html.parser.HTMLParser):
    """What a browser shows of a page: prose, inline code, links and loaded files."""

    SILENT = ("pre", "script", "style", "math")

    def __init__(self, path):
        super().__init__()
        self.prose, self.code, self.links, self.sources, self.anchors, self.open = "", "", [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.add(attributes.get("id"))
        if tag in (*self.SILENT, "code"):
            self.open.append(tag)
        if tag == "a" and "://" not in attributes.get("href", "://"):
            self.links.append(attributes["href"])
        if "src" in attributes or attributes.get("rel") == "stylesheet":
            self.sources.append(attributes.get("src") or attributes["href"])

    def handle_endtag(self, tag):
        if tag in (*self.SILENT, "code"):
            self.open.remove(tag)

    def handle_data(self, data):
        if not set(self.open) & set(self.SILENT):
            if "code" in self.open:
                self.code += data
            else:
                self.prose += data
