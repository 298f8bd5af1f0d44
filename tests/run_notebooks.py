"""Execute notebooks from top to bottom, several at a time; with ``--write``, keep their outputs.

python tests/run_notebooks.py notebooks/*.ipynb
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> None:
    """Run each notebook; an error in a cell ends with its traceback and status 1.

    What a notebook writes beside itself is kept with ``--write`` alone: otherwise it runs in an empty folder.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time (default: 2)")
    options = parser.parse_args()
    # a kernel is started as "python": let that be this one
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if options.jobs > 1:  # each has a core of its own
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(options.jobs) as pool:
        writes = [options.write] * len(options.notebooks)
        for line in pool.map(execute, options.notebooks, writes):
            print(line, flush=True)


def execute(path: Path, write: bool) -> str:
    """Run one notebook; what to say of it."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as empty:
        resources = {"metadata": {"path": str(path.parent) if write else empty}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    seconds = time.perf_counter() - start
    if write:
        notebook.metadata = {k: v for k, v in notebook.metadata.items() if k == "kernelspec"}
        for cell in notebook.cells:
            cell.metadata = {}
            if cell.cell_type == "code":  # progress bars are of the run, not of the result
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        nbformat.write(notebook, path)
    n_cells = sum(c.cell_type == "code" for c in notebook.cells)
    return f"{path}: {n_cells} cells ran in {seconds:.0f} s"


if __name__ == "__main__":
    main()
