"""The page in a browser: opened, clicked and looked at."""

import itertools
import json
import urllib.request
from urllib.parse import quote, urlencode

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

GUTTER, ROW = 190, 26  # of the names; the highest that a row is
_NUMBERS = itertools.count()
_READY = (
    "return document.querySelectorAll('.maps canvas').length > 0 && document.querySelector('#profile canvas') !== null"
)


class Tab:
    def __init__(self, driver, server):
        self.driver, self.server = driver, server

    def open(self, **selection):
        """Opens the page alone, as TensorBoard opens it in its frame."""
        address = f"{self.server}/data/plugin_entry.html?name=keras_initkit_layers&n={next(_NUMBERS)}"
        self.driver.get(f"{address}#{urlencode(selection, quote_via=quote)}")
        self.wait(lambda: self.driver.execute_script(_READY))

    def open_in_tensorboard(self, **arguments):
        self.driver.get(f"{self.server}/?{urlencode({'n': next(_NUMBERS), **arguments})}#keras_initkit_layers")
        self.wait(lambda: self.all("iframe"))
        self.driver.switch_to.frame(self.find("iframe"))
        self.wait(lambda: self.driver.execute_script(_READY))

    def wait(self, condition):
        return WebDriverWait(self.driver, 30).until(lambda _: condition())

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.find(selector).get_property("innerText").strip()

    def notice(self):
        return self.text(".notice")

    def wait_for_text(self, selector, text):
        try:
            self.wait(lambda: text in self.text(selector))
        except Exception as error:
            raise AssertionError(f"{text!r} is not in {self.text(selector)!r}") from error

    def pixel(self, row, column, of, map=0):
        """Color of a cell as it is drawn, of `of` steps; `None` where no cell is."""
        left = 0 if map else GUTTER
        width = self.driver.execute_script(
            "return document.querySelectorAll('.maps canvas')[arguments[0]].clientWidth", map
        )
        return self._read(left + (column + 0.5) / of * (width - left), (row + 0.5) * ROW, map)

    def pixel_at(self, x, y):
        """Color at a share of the map's width and a height in pixels."""
        width = self.find(".maps canvas").get_property("clientWidth")
        return self._read(GUTTER + x * (width - GUTTER), y, 0)

    def _read(self, x, y, map):
        # After the next frame, in which a change is drawn.
        red, green, blue, alpha = self.driver.execute_async_script(
            """const [x, y, map, done] = arguments;
            requestAnimationFrame(() => requestAnimationFrame(() => {
              const canvas = document.querySelectorAll('.maps canvas')[map], ratio = canvas.width / canvas.clientWidth;
              done([...canvas.getContext('2d').getImageData(Math.floor(x * ratio), Math.floor(y * ratio), 1, 1).data]);
            }));""",
            x,
            y,
            map,
        )
        return (red, green, blue) if alpha else None

    def has_ink(self, canvas):
        script = (
            "const c = arguments[0]; return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean)"
        )
        return self.wait(lambda: self.driver.execute_script(script, canvas))

    def click_cell(self, row, column, of):
        canvas = self.find(".maps canvas")
        width, height = canvas.size["width"], canvas.size["height"]
        x, y = GUTTER + (column + 0.5) / of * (width - GUTTER), (row + 0.5) * ROW
        ActionChains(self.driver).move_to_element_with_offset(canvas, x - width / 2, y - height / 2).click().perform()

    def keys(self, *names):
        self.driver.execute_script("document.querySelector('.maps canvas').focus()")
        ActionChains(self.driver).send_keys(*(getattr(Keys, name, name) for name in names)).perform()

    def runs(self):
        """Names of the runs that the server lists now."""
        with urllib.request.urlopen(f"{self.server}/data/plugin/keras_initkit_layers/runs") as answer:
            return [each["run"] for each in json.load(answer)["items"]]

    def requests(self):
        """Addresses of all requests since this was asked last."""
        found = (json.loads(each["message"])["message"] for each in self.driver.get_log("performance"))
        return [each["params"]["request"]["url"] for each in found if each["method"] == "Network.requestWillBeSent"]
