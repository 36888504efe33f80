"""The heat map of a run in a notebook, redrawn while it trains."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

from keras_initkit._compat import describe_error
from keras_initkit.callbacks._pacing import Pacer

_SECONDS, _PAUSE = 2.0, 10.0  # from one picture to the next: at least these, and ten times what it takes to draw


class LivePicture:
    """Shows a picture below a notebook's cell, and replaces it by the next one.

    Outside a notebook, and where drawing raises, it warns once and shows nothing more.

    Args:
        user: String. What warnings name.
    """

    def __init__(self, user: str) -> None:
        self._user = user
        self.begin()

    def begin(self) -> None:
        """Has the next picture appear in a place of its own, below the cell that runs then."""
        self._pacer, self._handle, self._is_broken = Pacer(_PAUSE, _SECONDS), None, False

    def show(self, draw: Callable[[], bytes], at_once: bool = False) -> None:
        """Shows the PNG picture that `draw` returns, unless one was shown lately.

        Args:
            draw: Function without arguments.
            at_once: Boolean. Whether it is shown in any case.
        """
        if self._is_broken:
            return
        if not _in_notebook():
            self._give_up("display=True draws in notebooks only; nothing is shown here")
            return
        try:
            if at_once:
                self._show(draw)
            else:
                self._pacer.run(lambda: self._show(draw))
        except Exception as error:
            self._give_up(f"the live picture could not be drawn ({describe_error(error)}); it is not shown any more")

    def _show(self, draw: Callable[[], bytes]) -> None:
        from IPython.display import Image, display

        picture = Image(data=draw(), format="png")
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def _give_up(self, why: str) -> None:
        self._is_broken = True
        warnings.warn(f"{self._user}: {why}, and training goes on.", stacklevel=4)


def _in_notebook() -> bool:
    """Returns whether a Jupyter kernel runs this, in whatever front end; IPython in a terminal shows no pictures."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
