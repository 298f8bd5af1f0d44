"""The lowest declared version of every direct dependency, as constraints of pip: ``python tests/lowest.py [FILE]``."""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(project):
    """Lines ``name==version`` of the project's dependencies and extras, each with the lower end of its range."""
    declared = [project["dependencies"], *project["optional-dependencies"].values()]
    own = [line for lines in declared for line in lines if not line.startswith(project["name"])]
    return sorted({re.sub(r"(?:\[.*\])?>=([^,;]+)[^;]*", r"==\1", line) for line in own})


if __name__ == "__main__":
    lines = "\n".join(lowest(tomllib.loads(PYPROJECT.read_text())["project"])) + "\n"
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(lines)
    print(lines, end="")
