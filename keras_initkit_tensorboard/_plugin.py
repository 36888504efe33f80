"""What TensorBoard asks of the tab: its routes and its page."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from keras_initkit_tensorboard._series import RECORD_PLUGIN, Series

_PAGE = pathlib.Path(__file__).parent / "page"
_TYPES = {".js": "text/javascript", ".css": "text/css"}
# Nothing of what is served is a page; TensorBoard's own, which loads the module, has its own policy.
_POLICY = [("Content-Security-Policy", "default-src 'none'; frame-ancestors 'self'")]


class LayersPlugin(base_plugin.TBPlugin):
    """The tab "Layers": statistics of each layer by step, and what is wrong with them.

    Args:
        context: TensorBoard's context.
    """

    plugin_name = RECORD_PLUGIN

    def __init__(self, context: base_plugin.TBContext):
        kept = (context.sampling_hints or {}).get("scalars")
        self._series = None if context.data_provider is None else Series(context.data_provider, kept)

    def is_active(self) -> bool:
        """Returns whether a run holds statistics of layers."""
        return self._series is not None and self._series.has_any()

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Returns the name of the tab and the module that draws it."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Layers")

    def get_plugin_apps(self) -> dict[str, Any]:
        """Returns the files of the page, and its data: the runs, a statistic of a run, a layer of a run."""
        files = {f"/{path.name}": _serve_file(path) for path in _PAGE.iterdir() if path.suffix in _TYPES}
        return {
            **files,
            "/runs": self._serve(lambda series, where, _: series.runs(*where)),
            "/matrix": self._serve(
                lambda series, where, asked: series.matrix(
                    *where, _argument(asked, "run"), _argument(asked, "statistic"), asked.args.get("points", type=int)
                )
            ),
            "/layer": self._serve(
                lambda series, where, asked: series.layer(*where, _argument(asked, "run"), _argument(asked, "layer"))
            ),
        }

    def _serve(self, answer: Callable[[Series, tuple[Any, str], wrappers.Request], Any]) -> Any:
        @wrappers.Request.application
        def app(request: wrappers.Request) -> wrappers.Response:
            if self._series is None:
                raise errors.NotFoundError("TensorBoard was started without a data provider.")
            where = plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)
            content = answer(self._series, where, request)
            if isinstance(content, bytes):
                return http_util.Respond(request, content, "application/octet-stream", headers=_POLICY)
            # As an object: what is a list at the top, scripts of other pages could read in old browsers.
            content = content if isinstance(content, dict) else {"items": content}
            return http_util.Respond(request, content, "application/json", headers=_POLICY)

        return app


def _serve_file(path: pathlib.Path) -> Any:
    @wrappers.Request.application
    def app(request: wrappers.Request) -> wrappers.Response:
        return http_util.Respond(request, path.read_bytes(), _TYPES[path.suffix], headers=_POLICY)

    return app


def _argument(request: wrappers.Request, name: str) -> str:
    value = request.args.get(name)
    if not value:
        raise errors.InvalidArgumentError(f"{name}: got nothing, expected the name of one: ?{name}=...")
    return value
