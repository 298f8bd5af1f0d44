"""The README's Python runs as printed, and its commands exist."""

import re
from pathlib import Path

import pytest

from discrete_itd.cli import main
from discrete_itd.recipes import Network

README = (Path(__file__).parents[1] / "README.md").read_text()


def save_a_model(folder):
    """A diffusion model of digits that has learned nothing."""
    diffusers = pytest.importorskip("diffusers")
    diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 8), down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).float().save_pretrained(folder)  # fmt: skip
    diffusers.DDPMScheduler(num_train_timesteps=20).save_pretrained(folder)


@pytest.mark.slow
def test_the_python_examples_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_a_model("my-ddpm")
    examples = re.findall(r"```python\n(.*?)```(?:[^`]*?```text\n(.*?)```)?", README, re.DOTALL)
    assert sum(1 for _, promised in examples if promised) == 5
    names = {"Network": Network}
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
        quick = quick.replace("[Network(),", "[Network(width=16),")
        exec(quick, names)
        printed = capsys.readouterr().out
        # what is learned is not what is promised after so few steps, but its shape is
        first, own = (re.sub(r"[^a-z]+", " ", t.split("{")[0]) for t in (promised, printed))
        assert first.split()[:18] == own.split()[:18]  # then names of columns
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()


def test_the_shell_example_is_understood(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^discrete-itd (.*)$", README, re.MULTILINE)
    known = {"fit", "score", "impute", "sample", "report", "watch"}
    assert {c.split()[0] for c in commands} == known
    for command in commands:  # its files are not here, but its options are known
        assert main(command.split()) == 2
        assert "--help" not in capsys.readouterr().err
