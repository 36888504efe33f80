"""keras-initkit list: nothing of the catalogue is cut, however narrow the terminal."""

import pytest

from keras_initkit.cli import main
from keras_initkit.initializers import catalogue


def printed(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 100])
def test_every_word_is_printed_in_order_within_the_width(columns, capsys, monkeypatch):
    text = printed(capsys, monkeypatch, columns)
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in text
    # Columns as they are cut on the page: the second one begins under "formula".
    start = next(line for line in lines if "formula" in line).index("formula")
    left = " ".join(" ".join(line[:start] for line in lines).split())
    right = " ".join(" ".join(line[start:] for line in lines).split())
    for entry in catalogue():
        assert f"{entry.name} {entry.paper}".strip() in left
        assert f"{entry.formula} {entry.purpose}" in right


def test_ours_come_first_and_keras_own_under_their_own_heading(capsys, monkeypatch):
    text = printed(capsys, monkeypatch, 80)
    ours, theirs = text.split("\nkeras.initializers")
    assert ours.startswith("keras_initkit.initializers")
    first_words = {"ours": ours.split(), "theirs": theirs.split()}
    for entry in catalogue():
        inside, outside = ("ours", "theirs") if entry.origin == "keras_initkit" else ("theirs", "ours")
        assert entry.name in first_words[inside]
        assert entry.name not in first_words[outside]
