"""A report's HTML and figure."""

import base64
import html.parser
import io
import re

import matplotlib.image
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


def test_the_figure_is_folded_in():
    text = report()._repr_html_()
    assert text.index("<details>") < text.index("<img") < text.index("</details>")
    (source,) = read(text).images
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
    assert min(picture.shape[:2]) > 300


def test_no_colour_is_given_to_text_or_ground_but_to_marks():
    text = report(values=(-1.0, 1.0))._repr_html_()
    colours = set(re.findall(r"(?<![-\w])(?:color|background(?:-color)?):([^;\"]+)", text))
    assert colours == {"none", "inherit"}
    assert "color:#e5484d" in report()._repr_html_()


def test_an_empty_report_has_a_representation():
    assert "0 layer calls" in read(SignalReport(())._repr_html_()).texts[0]


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
