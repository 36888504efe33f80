"""Progress bars: seen on a terminal, gone afterwards, and nothing in a pipe."""

import io

import pytest
from helpers import Terminal

from keras_initkit._progress_bar import progress_bar, track


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs two bars with this stream as stderr; returns what it got, and what stdout got."""

    def run(stream, visible=True):
        monkeypatch.setattr("sys.stderr", stream)
        with progress_bar("first [red]", 2, visible) as update:
            print("result")
            update(1, "second")
            update(2, "second")
        assert list(track("ab", "letters")) == ["a", "b"]
        return stream.getvalue(), capsys.readouterr().out

    return run


def test_a_terminal_shows_titles_as_they_are_and_stdout_keeps_what_is_printed(run, monkeypatch):
    shown, printed = run(Terminal(monkeypatch))
    for title in ("first [red]", "second", "letters", "100%"):
        assert title in shown
    assert shown.endswith("\x1b[2K")  # the last line is erased
    assert printed == "result\n"


def test_a_pipe_gets_nothing(run):
    assert run(io.StringIO()) == ("", "result\n")


def test_it_can_be_left_out(run, monkeypatch):
    shown, _ = run(Terminal(monkeypatch), visible=False)
    assert "first" not in shown
    assert "letters" in shown
