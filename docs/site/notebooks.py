"""Run the notebooks and write them, with their outputs, as .ipynb files beside their sources.

A source is a file of Python in percent format: `# %%` begins a cell. A notebook is run again only if its
source or the package has changed since its outputs were made.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

from docs.site.chapters import NOTEBOOKS, ROOT

FOLDER = ROOT / "docs" / "notebooks"
LONGEST = 900
"""Seconds of one cell, and of the start, on a busy machine. On an idle core no notebook takes 120."""


def write() -> list[Path]:
    """The notebooks with their outputs, up to date, in the order of the menu."""
    return [run(FOLDER / f"{name}.py") for name in NOTEBOOKS]


def run(source: Path) -> Path:
    """Run one notebook. An error in a cell is raised."""
    made, code = source.with_suffix(".ipynb"), digest(source)
    if made.is_file() and nbformat.read(made, as_version=4).metadata.get("made_from") == code:
        return made
    notebook = jupytext.read(source, fmt="py:percent")
    with tempfile.TemporaryDirectory() as folder:
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        where = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=LONGEST, startup_timeout=LONGEST, resources=where)
        client.execute(env=environment)
    notebook.metadata["made_from"] = code
    nbformat.write(notebook, made)
    return made


def digest(source: Path) -> str:
    """Changes with the notebook and with each file of the package."""
    files = [source, *sorted((ROOT / "recsys_rl").rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
