"""A report's HTML and figure."""

import html.parser
import math
import re

import pytest

from keras_initkit.report._health import signal_decades
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats
from keras_initkit.statistics._expected import Expected

HOSTILE = '<script>alert("x")</script>&amp; [red]'


def report(values=(math.nan, 1.0), name=HOSTILE):
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
    each = report()
    figure = each.plot()
    *histograms, forward, backward = figure.axes
    assert [panel.get_title() for panel in histograms] == ["first", '…("x")</script>&amp; [red]']
    # The deviation of the moments, which is 1; that of the bins is 0.48.
    assert [panel.texts[0].get_text() for panel in histograms] == ["sd 1", "not finite"]
    for panel, decades, expected in zip((forward, backward), signal_decades(each), ({"first": 4.0}, {}), strict=True):
        lines = {line.get_label(): line for line in panel.lines}
        finite = [10**value for value in decades.values() if math.isfinite(value)]
        assert lines["measured"].get_ydata() == pytest.approx(finite)
        theory = [variance * 10 ** decades[layer] for layer, variance in expected.items()]  # it was measured as 1
        assert ([*lines["theory"].get_ydata()] if "theory" in lines else []) == pytest.approx(theory)
    assert figure.get_suptitle().startswith(f"{HOSTILE}: activations are not finite in")


def test_before_and_after_are_drawn_in_one_figure():
    before, after = report(values=(-1.0, 1.0), name="second"), report(values=(-1e-4, 1e-4), name="second")
    panels = [panel for panel in before.plot(after).axes if panel.get_ylabel().startswith("factor")]
    lines = {line.get_label(): list(line.get_ydata()) for line in panels[0].lines}
    for name, each in (("before", before), ("after", after)):
        assert lines[name] == pytest.approx([10**value for value in signal_decades(each)[0].values()])


def test_a_statistic_and_layers_are_chosen():
    each = report(values=(-1.0, 1.0), name="block/dense")
    figure = each.plot(statistic="activation_variance", layers="block")
    assert figure.axes[0].lines[0].get_ydata() == each.statistic("activation_variance")["block/dense"]
    for layers in ("dense", "block/*", re.compile("den"), ["block/dense"]):
        (label,) = each.plot(statistic="activation_variance", layers=layers).axes[0].get_xticklabels()
        assert label.get_text() == "block/dense"
    with pytest.raises(ValueError, match="layers: got 'fist', which matches no layer of the report; there is first"):
        each.plot(layers="fist")
    with pytest.raises(ValueError, match="statistic: got 'variance', expected one of"):
        each.plot(statistic="variance")
    with pytest.raises(ValueError, match=r"after: got int, expected a SignalReport"):
        each.plot(3)
