"""What a log holds of the layers, read through TensorBoard's data provider."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

RECORD_PLUGIN = "keras_initkit_layers"  # under which `LayerStatsCallback` logs what it knows of the model
RECORD_TAG = "keras_initkit/layers"
# Statistics by which layers are recognized in a log without that record; a record names those of its log.
STATISTICS = (
    "activation_variance",
    "activation_gradient_variance",
    "dead_units",
    "saturated_units",
    "weight_gradient_variance",
    "update_ratio",
    "nonfinite",
    "activation_mean",
    "saturated",
    "weight_variance",
    "weight_update_variance",
    "pre_activation_mean",
    "pre_activation_variance",
    "pre_activation_gradient_variance",
    "attention_entropy",
    "attention_logit",
    "attention_future",
    "attention_padding",
)
_HISTOGRAMS = ("activation", "activation_gradient", "weight", "weight_gradient")
_ALL = 2**24  # points of a series, more than TensorBoard keeps: none is left out
_KEPT_SCALARS = 1000  # points of a tag that TensorBoard keeps unless --samples_per_plugin says otherwise
_KEPT_HISTOGRAMS = 100  # that are sent for one layer


class Series:
    """Reads the statistics of layers, by run.

    Args:
        provider: TensorBoard's data provider.
        kept: Integer. Points of a tag that the server was told to keep, 0 for all; `None` for its default.
    """

    def __init__(self, provider: Any, kept: int | None = None):
        self._provider = provider
        self._kept = _KEPT_SCALARS if kept is None else kept

    def has_any(self) -> bool:
        """Returns whether a run holds a statistic of a layer."""
        from tensorboard.context import RequestContext

        return bool(self.runs(RequestContext(), ""))

    def runs(self, context: Any, experiment: str) -> list[dict[str, Any]]:
        """Returns the runs that hold statistics of layers: name, statistics, number of layers, last step, record.

        A record is what `LayerStatsCallback` logged of the model, or `None`.
        """
        records = self._records(context, experiment)
        tags = self._provider.list_scalars(context, experiment_id=experiment, plugin_name="scalars")
        found = []
        for run in sorted(tags, key=_natural):
            record = records.get(run)
            known = dict.fromkeys([*(record or {}).get("statistics", ()), *STATISTICS])
            seen = {tag.partition("/")[0] for tag in tags[run] if "/" in tag}
            statistics = [name for name in known if name in seen]
            if statistics:
                mine = {tag: each for tag, each in tags[run].items() if tag.partition("/")[0] in statistics}
                layers = {tag.partition("/")[2] for tag in mine}
                found.append(
                    {
                        "run": run,
                        "statistics": statistics,
                        "layers": len(layers),
                        "last_step": max(each.max_step for each in mine.values()),
                        "record": record,
                    }
                )
        return found

    def matrix(self, context: Any, experiment: str, run: str, statistic: str, points: int | None = None) -> bytes:
        """Returns one statistic of all layers at all steps, as `encode_matrix` does.

        Args:
            points: Integer. The most points of each layer, for a first look; `None` for all.
        """
        record = self._records(context, experiment).get(run) or {}
        prefix = statistic + "/"
        listed = self._provider.list_scalars(
            context, experiment_id=experiment, plugin_name="scalars", run_tag_filter=_only([run])
        )
        tags = [tag for tag in listed.get(run, {}) if tag.startswith(prefix)]
        series = self._scalars(context, experiment, run, tags, points or _ALL)
        by_layer = {tag[len(prefix) :]: values for tag, values in series.items()}
        order = dict.fromkeys(layer for layer, _ in record.get("layers", ()))
        order |= dict.fromkeys(sorted(by_layer, key=_natural))
        longest = max(map(len, by_layer.values()), default=0)
        header: dict[str, Any] = {"run": run, "statistic": statistic, "is_preview": points is not None}
        measured = record.get("measured")
        if points is None and self._kept and longest >= self._kept and measured != longest:
            # A run that was resumed has measured more than its last record counts.
            header["thinned"] = {"shown": longest, "measured": measured if (measured or 0) > longest else None}
        with _no_search_for_garbage():
            return encode_matrix(header, [layer for layer in order if layer in by_layer], by_layer)

    def layer(self, context: Any, experiment: str, run: str, layer: str) -> dict[str, Any]:
        """Returns all statistics of one layer, as `[step, value]`, and its histograms, as `[step, buckets]`.

        A value that is not finite is `None`; a bucket is `[left, right, count]`.
        """
        record = self._records(context, experiment).get(run) or {}
        names = dict.fromkeys([*record.get("statistics", ()), *STATISTICS])
        scalars = self._scalars(context, experiment, run, [f"{name}/{layer}" for name in names], _ALL)
        tensors = self._provider.read_tensors(
            context,
            experiment_id=experiment,
            plugin_name="histograms",
            downsample=_KEPT_HISTOGRAMS,
            run_tag_filter=_only([run], [f"{kind}/{layer}" for kind in _HISTOGRAMS]),
        ).get(run, {})
        return {
            "statistics": {
                name: [[each.step, each.value if math.isfinite(each.value) else None] for each in scalars[tag]]
                for name in names
                if scalars.get(tag := f"{name}/{layer}")
            },
            "histograms": {
                kind: [[each.step, each.numpy.tolist()] for each in tensors[tag]]
                for kind in _HISTOGRAMS
                if tensors.get(tag := f"{kind}/{layer}")
            },
        }

    def _scalars(self, context: Any, experiment: str, run: str, tags: Sequence[str], points: int) -> Mapping[str, Any]:
        if not tags:
            return {}
        with _no_search_for_garbage():
            read = self._provider.read_scalars(
                context,
                experiment_id=experiment,
                plugin_name="scalars",
                downsample=points,
                run_tag_filter=_only([run], tags),
            )
        return read.get(run, {})

    def _records(self, context: Any, experiment: str) -> dict[str, Any]:
        read = self._provider.read_tensors(
            context,
            experiment_id=experiment,
            plugin_name=RECORD_PLUGIN,
            downsample=1,  # the last one, which holds all
            run_tag_filter=_only(None, [RECORD_TAG]),
        )
        found = {}
        for run, tags in read.items():
            for data in tags.values():
                try:
                    record = json.loads(data[-1].numpy.item())
                    if record.get("version") == 1:
                        found[run] = record
                except (ValueError, AttributeError, IndexError):  # of another program, or torn
                    continue
        return found


def encode_matrix(header: Mapping[str, Any], layers: Sequence[str], series: Mapping[str, Iterable[Any]]) -> bytes:
    """Returns a matrix of shape `(layers, steps)` as bytes.

    They are the length of the header (uint32), the header as JSON, padded to a multiple of four bytes, and the values
    by layer (float32), all little-endian. A layer that has no point at a step has NaN there; a value that was logged
    and is not finite becomes infinity.

    Args:
        header: Mapping to which `layers` and `steps` are added.
        layers: Names of the layers, in the order of the rows.
        series: Points with `step` and `value`, by layer.
    """
    points = {layer: list(series[layer]) for layer in layers}
    by_layer = {layer: [each.step for each in several] for layer, several in points.items()}
    first = next(iter(by_layer.values()), [])
    is_regular = all(steps == first for steps in by_layer.values()) and first == sorted(set(first))
    steps = first if is_regular else sorted(set().union(*by_layer.values()))
    place = {step: i for i, step in enumerate(steps)}
    values = np.full((len(layers), len(steps)), np.nan, "<f4")
    with np.errstate(over="ignore"):
        for row, layer in zip(values, layers, strict=True):
            read = np.array([each.value for each in points[layer]], "<f4")
            read[~np.isfinite(read)] = np.inf
            row[slice(None) if is_regular else [place[step] for step in by_layer[layer]]] = read
    text = json.dumps({**header, "layers": list(layers), "steps": steps}).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + values.tobytes()


@contextlib.contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """A million points are a million objects, among which Python would search again and again: 40 % of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _only(runs: Iterable[str] | None, tags: Iterable[str] | None = None) -> Any:
    from tensorboard.data.provider import RunTagFilter

    return RunTagFilter(runs=runs, tags=tags)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `dense_2` before `dense_10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
