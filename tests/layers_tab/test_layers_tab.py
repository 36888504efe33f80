"""The tab "Layers" as a person sees it: TensorBoard in a browser, asserted by what is on the screen."""

import math
import os
import re
import shutil
from urllib.parse import urlencode

import pytest

if not os.environ.get("REQUIRE_BROWSER"):
    pytest.importorskip("selenium", reason="selenium is not installed (pip install selenium)")
from browser_tab import Tab

pytestmark = pytest.mark.one_backend


@pytest.fixture
def tab(driver, server):
    return Tab(driver, server)


@pytest.fixture(autouse=True)
def nothing_was_said_and_nothing_loaded_from_elsewhere(driver, server):
    driver.get_log("browser"), driver.get_log("performance")
    yield
    said = [each["message"] for each in driver.get_log("browser") if each["level"] == "SEVERE"]
    assert [each for each in said if "favicon.ico" not in each] == []  # which a browser asks of any server
    for address in Tab(driver, server).requests():
        assert address.startswith((server, "data:", "blob:", "about:")), address


def decades(callbacks, run, statistic, layer, entry, column=-1):
    """By the callback's own reports: how far a layer's variance is from that where the signal enters."""
    values = callbacks[run].reports[column].statistic(statistic)
    return math.log10(values[layer] / values[entry])


def test_the_tab_opens_in_tensorboard(tab):
    tab.open_in_tensorboard()
    assert tab.text("figcaption").startswith("activation variance, ")
    tab.driver.switch_to.default_content()
    assert "Layers" in [each.text.capitalize() for each in tab.all("[role=tab][aria-selected=true]")]


def test_white_is_healthy_and_colors_say_how_far_from_it(tab, logs):
    tab.open(run="healthy/train", statistic="activation_variance")
    assert tab.notice() == ""
    # Three layers of a block stand under its row, which shows the one that is farthest from healthy.
    for row in range(12):
        assert tab.pixel(row, 0, of=6) == (255, 255, 255), row
    tab.open(run="exploding/train", statistic="activation_variance")
    far = decades(logs[1], "exploding", "activation_variance", "block_2_dense_2", "block_0_dense_0", 0)
    assert far > 8  # the end of the scale
    assert tab.pixel(1, 0, of=6) == (255, 255, 255)
    assert tab.pixel(11, 0, of=6) == (0x57, 0x1F, 0)
    assert tab.pixel(8, 0, of=6) == tab.pixel(11, 0, of=6)  # the block's row


def test_a_click_shows_the_layer_at_the_step(tab, logs):
    tab.open(run="healthy/train", statistic="activation_gradient_variance")
    tab.click_cell(2, 3, of=6)
    tab.wait_for_text("#layer", "block_0_dense_1 Dense")
    value = logs[1]["healthy"].reports[3].statistic("activation_gradient_variance")["block_0_dense_1"]
    shown = re.search(r"activation gradient variance at step 3: (\S+),", tab.text("#layer"))[1]
    assert float(shown) == pytest.approx(value, rel=0.06)  # two digits are shown
    tab.wait_for_text("#layer", "Histogram of the weight gradient at step 3")
    titles = [each.text for each in tab.all("#layer figcaption")]
    assert "Weights and updates: update ratio" in titles
    assert "Forward: activation variance" in titles
    assert all(tab.has_ink(canvas) for canvas in tab.all("#layer canvas"))
    assert "step 3: smallest" in tab.text("#profile")


def test_a_finding_leads_to_its_layer_and_step(tab, logs):
    findings = logs[1]["exploding"].findings
    finding = next(each for each in findings if each.kind == "exploding_activation")
    tab.open(run="exploding/train")
    link = next(each for each in tab.all("#findings a") if each.text.startswith("exploding_activation"))
    assert link.text == f"exploding_activation in {finding.layer} at step {finding.step}"
    tab.find("#statistic").send_keys("dead")
    link.click()
    tab.wait_for_text("#layer", f"{finding.layer} Dense")
    tab.wait_for_text("#layer", f"activation variance at step {finding.step}:")  # where such a finding is seen
    opened = next(each for each in tab.all("#findings li[aria-current]") if finding.kind in each.text)
    assert finding.message in opened.text
    assert finding.remedy.split("\n")[0] in opened.text
    assert finding.evidence["healthy"] in opened.text
    assert f"layer={finding.layer}" in tab.driver.current_url


def test_folding_searching_and_keys(tab):
    tab.open(run="healthy/train", statistic="activation_variance")
    tab.keys("f", "ARROW_DOWN")  # folds all blocks, chooses the first row
    tab.wait_for_text("#layer", "Block block_0")
    tab.keys("ARROW_DOWN", "ENTER", "ARROW_DOWN", "ARROW_DOWN", "ARROW_RIGHT", "ARROW_RIGHT")  # unfolds block_1
    tab.wait_for_text("#layer", "Layer block_1_dense_1")
    tab.wait_for_text("#layer", "at step 1:")
    tab.keys("END", "ARROW_UP")
    tab.wait_for_text("#layer", "Layer block_1_dense_0")
    tab.wait_for_text("#layer", "at step 5:")
    tab.keys("f", "/")  # unfolds all; goes to the search
    tab.driver.switch_to.active_element.send_keys("DENSE_2\n")
    tab.wait_for_text("#layer", "Layer block_0_dense_2")
    tab.keys("ARROW_DOWN", "ARROW_DOWN")  # of the rows that are left
    tab.wait_for_text("#layer", "Layer block_1_dense_2")
    assert tab.pixel(8, 0, of=6) is None  # three blocks with a layer each


def test_two_runs_side_by_side_and_their_difference(tab, logs):
    tab.open(run="healthy/train", statistic="activation_variance", layer="block_2_dense_2", step=0)
    tab.find(".runs summary").click()
    tab.find("input[value='exploding/train']").click()
    tab.wait(lambda: len(tab.all(".maps canvas")) == 2)
    assert [each.text for each in tab.all(".maps figcaption")] == ["healthy/train", "exploding/train"]
    assert [tab.pixel(11, 0, of=6, map=i) for i in (0, 1)] == [(255, 255, 255), (0x57, 0x1F, 0)]
    tab.find("#difference").click()
    tab.wait_for_text(".maps figcaption", "healthy/train minus exploding/train")
    apart = [decades(logs[1], run, "activation_variance", "block_2_dense_2", "block_0_dense_0", 0) for run in logs[1]]
    tab.wait_for_text("#layer", f"difference {apart[0] - apart[1]:.1f} decades")
    assert tab.pixel(1, 0, of=6) == (255, 255, 255)
    assert tab.pixel(11, 0, of=6) == (0, 0x26, 0x3B)  # healthy is far below exploding


def test_the_address_names_the_run_that_is_shown(tab):
    tab.open(run="healthy/train", statistic="activation_variance")
    tab.find(".runs summary").click()
    for run in ("exploding/train", "healthy/train"):  # the other one too, then that one alone
        tab.find(f"input[value='{run}']").click()
    tab.wait_for_text(".runs summary", "Run: exploding/train")
    tab.driver.refresh()
    tab.wait(lambda: tab.all(".maps canvas"))
    assert tab.text(".runs summary") == "Run: exploding/train"


def test_a_run_that_is_deleted_while_it_is_shown(tab, logs):
    shutil.copytree(logs[0] / "healthy", logs[0] / "deleted")
    tab.wait(lambda: "deleted/train" in tab.runs())
    tab.open(run="deleted/train", statistic="activation_variance")
    shutil.rmtree(logs[0] / "deleted")
    tab.wait(lambda: "deleted/train" not in tab.runs())
    tab.find("#statistic option[value=update_ratio]").click()
    tab.wait_for_text(".notice", "Run deleted/train is not in this log")


def test_dark_as_tensorboard_is_and_light_again(tab):
    tab.open_in_tensorboard(darkMode="true")
    assert tab.find("html").get_attribute("data-theme") == "dark"
    assert tab.find("body").value_of_css_property("background-color") == "rgba(23, 25, 28, 1)"
    tab.open_in_tensorboard(darkMode="false")
    assert tab.find("html").get_attribute("data-theme") == "light"
    tab.open(run="healthy/train", statistic="activation_variance")  # alone, it follows the system
    assert tab.pixel(1, 0, of=6) == (255, 255, 255)
    for scheme, color in (("dark", (0x24, 0x27, 0x2B)), ("light", (255, 255, 255))):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        tab.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        tab.wait(lambda color=color: tab.pixel(1, 0, of=6) == color)


def test_hostile_names_do_nothing(tab, hostile):
    tab.open(run="hostile/<b>run</b>", layer=hostile, step=1)
    tab.wait_for_text("#layer", hostile)
    assert hostile in tab.text("#findings pre")
    assert f"vanishing_activation in {hostile} at step 1" in [each.text for each in tab.all("#findings a")]
    tab.find("#findings a").click()
    assert tab.text(".runs summary") == "Run: hostile/<b>run</b>"
    assert tab.all("img, b b, script[src], aside script") == []
    assert tab.driver.execute_script("return window.hacked") is None
    assert tab.driver.execute_script("return document.querySelectorAll('meta[http-equiv]').length") == 1


def test_theory_stands_beside_the_profile_where_it_was_logged(tab):
    tab.open(run="hostile/<b>run</b>")
    assert "Dashed: theory" in tab.text("#profile")
    tab.open(run="healthy/train")
    assert "theory" not in tab.text("#profile")


def test_missing_points_are_said(tab):
    tab.open(run="long", statistic="activation_variance")
    tab.wait_for_text(".notice", "long: 1000 steps are shown, and there may be more.")
    tab.wait_for_text(".notice", "--samples_per_plugin=scalars=0")
    tab.open(run="healthy/train")
    assert tab.notice() == ""


def test_a_thousand_layers_of_a_thousand_steps(tab):
    tab.open(run="big", statistic="activation_variance")
    tab.wait_for_text(".maps figcaption", "1000 layers, 1000 steps")
    row = 700 + 700 // 50 + 1 - 0.5  # behind the rows of blocks; higher than a pixel it is not
    height = tab.driver.execute_script("return document.querySelector('.maps canvas').clientHeight") - 22
    colors = {tab.pixel_at(0.5, row / 1020 * height + dy) for dy in (-1, 0, 1, 2)}
    assert any(red > 100 and red > 2 * blue for red, _, blue in colors), colors  # one bad layer of 1,000 is seen
    before = tab.pixel_at(0.5, 100)
    assert before == (255, 255, 255)
    tab.find("#search").send_keys("dense_700\n")
    tab.wait_for_text("#layer", "decades above")
    for column in (10, 900):
        red, _, blue = tab.pixel(1, column, of=1000)
        assert red > 2 * blue


def test_an_address_without_such_a_run(tab, server):
    tab.open(run="gone", layer="nowhere")
    assert tab.notice().startswith("Run gone is not in this log")
    assert "Click a cell" in tab.text("#layer") or "nowhere" in tab.text("#layer")
    tab.driver.get(f"{server}/data/plugin/keras_initkit_layers/matrix?{urlencode({'run': 'big'})}")
    assert "statistic: got nothing" in tab.text("body")
    tab.driver.get_log("browser")  # that answer is an error on purpose
