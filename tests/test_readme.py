"""The README's Python runs as printed, and its commands exist."""

import re
from pathlib import Path

from discrete_itd.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    quick = example.replace("max_steps=1000", "max_steps=20, n_calls=4, width=16")
    assert quick != example
    exec(quick, {})
    printed = capsys.readouterr().out
    (promised,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)

    def words(text):
        return re.sub(r"[^a-z]+", " ", text.split("{")[0])

    assert words(printed) == words(promised)


def test_the_shell_example_is_understood(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^discrete-itd (.*)$", README, re.MULTILINE)
    assert {c.split()[0] for c in commands} == {"fit", "score", "sample"}
    for command in commands:  # its files are not here, but its options are known
        assert main(command.split()) == 2
        assert "--help" not in capsys.readouterr().err
