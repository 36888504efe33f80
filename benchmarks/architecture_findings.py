"""What `diagnose` says of published architectures with their own initialization, and what tracing and probing cost.

    python benchmarks/architecture_findings.py [--published] [--only ResNet50 BertBackbone]

Each model is sound, so every error and warning is a false alarm, but for signals that truly vanish (VGG16 without
normalization). "trace" is the time of `structure`'s trace in seconds and as a share of a probe; "probe" is in forward
passes (eager, the shorter of two), "diagnose" the time in seconds to judge the ready report. `--published` takes the
published widths, with two layers each.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
from architecture_models import Builder, applications, backbones, published_backbones

from keras_initkit import diagnose, probe
from keras_initkit.inputs._specs import draw_inputs
from keras_initkit.structure._calls import calls


def measure(build: Builder, batch_size: int) -> dict[str, Any]:
    """Returns times in seconds, the number of calls and of composites that are not opened, and the alarms."""
    keras.utils.set_random_seed(0)
    model = build()
    x = draw_inputs(model, batch_size)
    trace, found = shortest(lambda: calls(model))
    forward, _ = shortest(lambda: model(x, training=False))
    probed, report = shortest(lambda: probe(model, x))
    judged, findings = shortest(lambda: diagnose(report, model=model))
    return {
        "calls": len(found),
        "closed": [call.path for call in found if call.reason],
        "trace": trace,
        "forward": forward,
        "probe": probed,
        "diagnose": judged,
        "alarms": [finding for finding in findings if finding.severity != "info"],
    }


def shortest(run: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the shorter time of two runs, and what the second returned."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - began)
    return min(times), result


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    parser.add_argument("--published", action="store_true", help="published widths of keras-hub's backbones")
    parser.add_argument("--batch-size", type=int, default=16)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    builders: dict[str, Builder] = {} if given.published else applications()
    try:
        builders |= published_backbones() if given.published else backbones()
    except ImportError:
        print("keras-hub is not installed, so its backbones are left out.")
    print("| model | calls | not opened | trace | of a probe | probe | diagnose | errors | warnings |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, build in builders.items():
        if given.only and name not in given.only:
            continue
        found = measure(build, given.batch_size)
        severities = [alarm.severity for alarm in found["alarms"]]
        print(
            f"| {name} | {found['calls']} | {len(found['closed'])} | {found['trace']:.2f} "
            f"| {found['trace'] / found['probe']:.0%} | {found['probe'] / found['forward']:.1f} "
            f"| {found['diagnose']:.2f} | {severities.count('error')} | {severities.count('warning')} |",
            flush=True,
        )
        for alarm in found["alarms"]:
            print(f"    {alarm.severity}: {alarm.kind} in {alarm.layer}")
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
