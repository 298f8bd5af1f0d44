"""The Python of the README and of the guide's longer examples runs as printed, and their commands exist."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from discrete_itd.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md"]
PAGES += [
    ROOT / "discrete_itd" / "guide" / f"{name}.md"
    for name in ("which_model", "anomalies", "scale", "images", "tables", "command")
]
TEXT = "\n".join(page.read_text() for page in PAGES)
EXAMPLE = re.compile(r"```python\n(?!>>>)(.*?)```(?:[^`]*?```text\n(.*?)```)?", re.DOTALL)


def test_the_images_example_runs_as_it_is_written(capsys, tmp_path, monkeypatch):
    """But for fewer images and steps."""
    pytest.importorskip("diffusers")
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)  # the fixture of the suite sets it back
    (example,) = [example for example, _ in EXAMPLE.findall(TEXT) if "UNet2D" in example]
    quick = example.replace("max_steps=1000", "max_steps=2")
    quick = quick.replace("[1200:1500]", "[:20]").replace("[1500:]", "[20:30]")
    exec(quick.replace("[:1200]", "[30:60]"), {})
    assert "bits per dimension" in capsys.readouterr().out


@pytest.mark.slow
def test_the_python_examples_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("diffusers")
    examples = EXAMPLE.findall(TEXT)
    assert sum(1 for _, promised in examples if promised) == 6
    names = {}
    for example, promised in examples:
        if "ImageDensity" in example:
            quick = example.replace("max_steps=1000", "max_steps=2")
            quick = quick.replace(".images.astype(int)", ".images.astype(int)[::8]")
            quick = re.sub(r"\b(1[25]00)\b", lambda m: str(int(m[1]) // 8), quick)
            exec(quick, names)
            assert "bits per dimension" in capsys.readouterr().out
            continue
        quick = example.replace("max_steps=1000", "max_steps=20, n_evaluations=4")
        quick = quick.replace("load_adult()", "load_adult()[:2000]")
        exec(quick, names)
        printed = capsys.readouterr().out
        # what is learned is not what is promised after so few steps, but its shape is
        first, own = (
            re.sub(r"[^a-z]+", " ", re.sub("True|False", "", t.split("{")[0]))
            for t in (promised, printed)
        )
        assert first.split()[:18] == own.split()[:18]  # then names of columns
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()


def test_the_shell_example_is_understood(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^discrete-itd (.*)$", TEXT, re.MULTILINE)
    known = {"fit", "score", "impute", "sample", "report", "watch", "drift", "evaluate", "describe"}
    assert {c.split()[0] for c in commands} == known
    for command in commands:  # its files are not here, but its options are known
        assert main(shlex.split(command)) == 2
        assert "--help" not in capsys.readouterr().err
