"""The tab "Layers" with 1,000 layers of 1,000 steps: time to open, sizes of the answers, frame times while panning.

It takes chromium and chromedriver (Debian: `apt-get install chromium chromium-driver`), selenium, and a checkout that
was installed, whose plugin TensorBoard finds. Times are those of a browser without a graphics card.

    python benchmarks/dashboard.py [--layers 1000] [--steps 1000] [--repeats 5]
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy as np
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

# Runs before the page: notes the first frame that shows a map, and the first that shows all steps.
WATCH = """(() => {
  const seen = window.seen = {};
  const look = (now) => {
    const canvas = document.querySelector('.maps canvas'), caption = document.querySelector('.maps figcaption');
    if (canvas?.width && canvas.getContext('2d').getImageData(canvas.width >> 1, 60, 1, 1).data[3]) {
      seen.map ??= now;
      if (caption.textContent.includes(' STEPS steps')) seen.all ??= now;
    }
    if (!seen.all) requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();"""
# Drags the map, one move for each frame, and returns the milliseconds between frames.
PAN = """const [zooms, done] = arguments, canvas = document.querySelector('.maps canvas');
const {left, top} = canvas.getBoundingClientRect(), times = [];
canvas.setPointerCapture = () => {};
const at = (name, x, y) =>
  canvas.dispatchEvent(new PointerEvent(name, {clientX: left + x, clientY: top + y, pointerId: 1}));
for (let i = 0; i < zooms; i++) {
  canvas.dispatchEvent(new WheelEvent('wheel', {ctrlKey: true, deltaY: -200, clientX: left + 500, clientY: top + 300}));
}
at('pointerdown', 600, 300);
let last, moves = 0;
const frame = (now) => {
  if (last !== undefined) times.push(now - last);
  last = now;
  at('pointermove', 600 - 2 * (++moves % 60), 300 - moves % 60);
  if (moves < 180) requestAnimationFrame(frame);
  else { at('pointerup', 0, 0); done(times); }
};
requestAnimationFrame(frame);"""


def write_log(directory, layers, steps):
    draw = np.random.default_rng(0).normal(size=(steps, layers)) + np.linspace(0, -6, layers)
    event = Event()
    for layer in range(layers):
        event.summary.value.add(tag=f"activation_variance/block_{layer // 10}_dense_{layer}", simple_value=0.0)
    with open(os.path.join(directory, "events.out.tfevents.1.benchmark"), "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(file_version="brain.Event:2").SerializeToString())
        for step, row in enumerate(10.0**draw):
            event.step = step
            for value, number in zip(event.summary.value, row.tolist(), strict=True):
                value.simple_value = number
            writer.write(event.SerializeToString())


def start_server(directory, output):
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", directory, "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, stdout=output, stderr=output)
    while True:
        time.sleep(0.2)
        with open(output.name) as file:
            if found := re.search(r"http://127\.0\.0\.1:\d+", file.read()):
                return process, found[0]


def wait_until_read(address, layers, steps):
    while True:
        with urllib.request.urlopen(f"{address}/data/plugin/keras_initkit_layers/runs") as answer:
            if any((each["layers"], each["last_step"]) == (layers, steps - 1) for each in json.load(answer)["items"]):
                return
        time.sleep(0.5)


def start_browser():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1400,900"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    return driver


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("layers", 1000), ("steps", 1000), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, tempfile.NamedTemporaryFile("w") as output:
        write_log(directory, given.layers, given.steps)
        server, address = start_server(directory, output)
        driver = start_browser()
        try:
            wait_until_read(address, given.layers, given.steps)
            watch = WATCH.replace("STEPS", str(given.steps))
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": watch})
            page = f"{address}/data/plugin_entry.html?name=keras_initkit_layers&n="
            opened = []
            for number in range(given.repeats + 1):  # the first one warms up
                driver.get(f"{page}{number}")
                WebDriverWait(driver, 120).until(lambda each: each.execute_script("return window.seen.all"))
                opened.append(driver.execute_script("return [seen.map, seen.all]"))
            sizes = driver.execute_script(
                "return performance.getEntriesByType('resource').filter((each) => each.name.includes('/matrix?'))"
                ".map((each) => each.encodedBodySize)"
            )
            first, complete = (statistics.median(times) / 1000 for times in zip(*opened[1:], strict=True))
            load = os.getloadavg()[0]
            print(f"{given.layers} layers x {given.steps} steps, {os.cpu_count()} processors, load {load:.1f}")
            print(f"first map after {first:.2f} s, all steps after {complete:.2f} s (medians of {given.repeats})")
            print(f"answers of {', '.join(f'{size / 1e6:.2f} MB' for size in sizes)}")
            for zooms in (1, 4):
                times = np.array(driver.execute_async_script(PAN, zooms))
                middle, high = np.quantile(times, [0.5, 0.95])
                shown = f"panning, {'a tenth' if zooms == 4 else 'half of the map'}"
                print(f"{shown}: {middle:.0f} ms a frame (median), {high:.0f} ms (95 %), {times.max():.0f} at most")
        finally:
            driver.quit()
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
