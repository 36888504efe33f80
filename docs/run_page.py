"""Runs a page's code, writes below it what it prints, and its pictures to images/: `python docs/run_page.py NAME`."""

import contextlib
import io
import os
import pathlib
import re
import shutil
import sys
import tempfile

BLOCKS = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
HERE = pathlib.Path(__file__).resolve().parent


def main(name: str) -> None:
    """Runs one page, in a directory of its own."""
    page, namespace = HERE / f"{name}.md", {}

    def run(block: re.Match) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(block[1], namespace)
        return f"```python\n{block[1]}```\n\n```text\n{printed.getvalue()}```"

    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        text = BLOCKS.sub(run, page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
        for picture in pathlib.Path(directory).glob("*.png"):
            shutil.copy(picture, HERE / "images")
        os.chdir(HERE)


if __name__ == "__main__":
    main(sys.argv[1])
