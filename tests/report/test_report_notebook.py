"""A report's HTML and figure."""

import html.parser
import re

import numpy as np
import pytest

from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats
from keras_initkit.statistics._expected import Expected

HOSTILE = '<script>alert("x")</script>&amp; [red]'


def report(values=(np.nan, 1.0), name=HOSTILE):
    histogram = ((3, 5), (-1.0, 0.0, 1.0))
    rows = []
    for layer, numbers in (("first", (-1.0, 1.0)), (name, values)):
        rows.append(TensorStats(Tap("pre_activation", layer, 0), Moments.of((-2.0, 2.0)), "Dense", (2, 1)))
        fields = {"histogram": histogram, "predicted": Expected(0.0, 4.0)} if layer == "first" else {}
        rows.append(TensorStats(Tap("output", layer, 0), Moments.of(numbers), "Dense", (2, 1), **fields))
        rows.append(TensorStats(Tap("output_gradient", layer, 0), Moments.of((-3.0, 3.0)), "Dense", (2, 1)))
    return SignalReport(tuple(rows), model=name, notes=(name,))


class Reader(html.parser.HTMLParser):
    """Tags and text, and that every tag is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.texts, self.images = [], set(), [], []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attributes)["src"])
        elif tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_names_are_escaped_and_tags_closed():
    reader = read(report()._repr_html_())
    assert "script" not in reader.tags
    assert reader.texts.count(HOSTILE) == 2  # the layer and the note
    assert f"Signal of {HOSTILE}: 2 layer calls" in reader.texts
    assert "nan" in reader.texts


def test_colors_are_variables_that_a_dark_page_changes():
    text = report(values=(-1.0, 1.0))._repr_html_()
    style, body = text.split("</style>")
    assert "style=" not in body
    assert "ik-alarm" not in body
    assert '<td class="ik-alarm">!! nan</td>' in report()._repr_html_()
    colors = set(re.findall(r"(?<![-\w])(?:color|background(?:-color)?):([^;\"}!]+)", style))
    assert colors == {"none", "inherit", "var(--ik-outside)", "var(--ik-alarm)"}
    assert style.index("@media(prefers-color-scheme:dark)") < style.index("body[data-jp-theme-light=false]")


def test_two_hundred_layers_take_less_than_50_kilobytes():
    rows = []
    for i in range(200):
        name = f"encoder/stage_{i // 10}/block_{i}/convolution"
        rows.append(TensorStats(Tap("output", name, 0), Moments.of((-1.0, 10.0**-i)), "Conv2D", (2, 1)))
        rows.append(TensorStats(Tap("output_gradient", name, 0), Moments.of((-3.0, 3.0)), "Conv2D", (2, 1)))
    assert len(SignalReport(tuple(rows))._repr_html_()) < 50_000


def test_an_empty_report_has_a_representation():
    assert "0 layer calls" in read(SignalReport(())._repr_html_()).texts[1]  # after the style


@pytest.mark.filterwarnings("error")
def test_the_figure_draws_the_report():
    figure = report().plot()
    *histograms, forward, backward = figure.axes
    assert [panel.get_title() for panel in histograms] == ["first", "…cript>&amp; [red]"]
    assert [panel.texts[0].get_text() for panel in histograms] == ["sd 4.8e-01", "not finite"]
    lines = {line.get_label(): line.get_ydata() for line in forward.lines}
    np.testing.assert_array_equal(lines["outputs"], [1.0, np.nan])
    np.testing.assert_array_equal(lines["pre-activations"], [4.0, 4.0])
    np.testing.assert_array_equal(lines["predicted outputs"], [4.0, np.nan])
    (gradients,) = backward.lines
    np.testing.assert_array_equal(gradients.get_ydata(), [9.0, 9.0])
    assert figure.get_suptitle() == f"Signal of {HOSTILE}"
