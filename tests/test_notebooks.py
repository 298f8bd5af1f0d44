"""Notebooks: what they claim is asserted, they are executed as committed, small, and the guide lists them."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_BYTES = 120_000


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_asserts_its_figures_and_was_run_from_top_to_bottom(path):
    cells = code_cells(path)
    lines = "".join(cell for c in cells for cell in [*c["source"], "\n"]).splitlines()
    tree = ast.parse("\n".join(line for line in lines if not line.startswith("%")))
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(tree)) >= 5
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert path.stat().st_size < MOST_BYTES
    assert str(ROOT) not in path.read_text()


def test_the_guide_and_the_readme_list_every_notebook():
    assert len(NOTEBOOKS) == 7
    readme = (ROOT / "README.md").read_text()
    guide = (ROOT / "discrete_itd" / "guide" / "README.md").read_text()
    for path in NOTEBOOKS:
        assert f"`{path.name}`" in guide, path.name
        assert f"notebooks/{path.name}" in readme, path.name
