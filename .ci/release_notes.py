"""`release_notes.py TAG ADDRESS`: prints a release's notes, or says which files do not agree that it is one.

ADDRESS is the repository that the release is made in. Needs nothing but Python.
"""

from __future__ import annotations

import configparser
import pathlib
import re
import sys

VERSION, CHANGELOG, CITATION, SETUP = "keras_initkit/_version.py", "CHANGELOG.md", "CITATION.cff", "setup.cfg"


def read(root: pathlib.Path, name: str, pattern: str) -> re.Match[str] | None:
    """The first line of a file that a pattern fits, to its end."""
    return re.search(f"^{pattern}$", (root / name).read_text(encoding="utf-8"), re.MULTILINE)


def disagreements(root: pathlib.Path, tag: str, address: str) -> list[str]:
    """A sentence for each file that has to change before the tag can be a release."""
    found = []
    version = tag.removeprefix("v")
    if not (written := read(root, VERSION, '__version__ = "(.*)"')) or written[1] != version:
        found.append(f"{VERSION}: got {written and written[1]}, expected {version}, the tag's version.")
    heading = read(root, CHANGELOG, rf"## {re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)")
    if not heading:
        found.append(f"{CHANGELOG}: no heading '## {version} (YYYY-MM-DD)' with the date of the release.")
    for key, expected in ("version", version), ("date-released", heading and heading[1]):
        if expected and not read(root, CITATION, rf"{key}: [\"']?{re.escape(expected)}[\"']?"):
            found.append(f"{CITATION}: no line '{key}: {expected}'.")
    settings = configparser.ConfigParser()
    settings.read(root / SETUP, encoding="utf-8")
    url = settings["metadata"].get("url")
    if url != address:
        found.append(f"{SETUP}: got url = {url}, expected {address}, where this release is made.")
    return found


def notes(root: pathlib.Path, tag: str) -> str:
    """What the changelog says of a version."""
    text = (root / CHANGELOG).read_text(encoding="utf-8")
    _, _, section = text.partition(f"\n## {tag.removeprefix('v')} (")
    return section.partition("\n")[2].partition("\n## ")[0].strip()


if __name__ == "__main__":
    checkout = pathlib.Path(__file__).parents[1]
    tag, address = sys.argv[1:]
    if found := disagreements(checkout, tag, address):
        sys.exit("\n".join(found))
    print(notes(checkout, tag))
