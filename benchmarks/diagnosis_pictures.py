"""Draws the pictures of docs/diagnosis.md: what each kind looks like in a small program, healthy and broken.

python benchmarks/diagnosis_pictures.py docs/images/kinds [kind ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import picture_attention
import picture_signals
import picture_tasks

from keras_initkit.diagnosis._finding import FindingKind


def main() -> None:
    """Draws all kinds, or those that are named."""
    folder, wanted = Path(sys.argv[1]), set(sys.argv[2:])
    folder.mkdir(parents=True, exist_ok=True)
    drawn = set()
    for part in (picture_signals, picture_attention, picture_tasks):
        for panel in part.panels():
            drawn.add(panel.kind)
            if not wanted or panel.kind in wanted:
                panel.save(folder)
                print(panel.kind, flush=True)
    missing = set(get_args(FindingKind)) ^ drawn
    if missing:
        raise SystemExit(f"kinds without a picture, or pictures without a kind: {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
