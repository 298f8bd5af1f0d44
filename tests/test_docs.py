"""The documentation: a site without warnings, tests and commands that exist, and examples that run."""

import ast
import doctest
import importlib
import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import build_docs
import numpy as np
import pandas as pd
import pytest
import torch

import discrete_itd
from discrete_itd.cli import main

ROOT = Path(__file__).parents[1]
GUIDE = {path.stem: path for path in sorted((ROOT / "discrete_itd" / "guide").glob("*.md"))}
# what users import from, besides the names at the top
PUBLIC = (
    "channel", "datasets", "denoisers", "encoders", "images", "likelihood", "plots", "recipes", "scale", "testing",
)  # fmt: skip


def test_links_between_files_lead_to_pages_of_the_site():
    home = ROOT / "discrete_itd" / "guide" / "README.md"
    text = "[a](tables.md#gaps) [b](../../tests/benchmarks/RESULTS.md) [c](https://x.org/a.md) [d](no.md)"
    assert build_docs.linked(text, home) == (
        "[a](/guide/tables.md#gaps) [b](/contributing/results.md) [c](https://x.org/a.md) [d](no.md)"
    )


def test_the_site_loads_nothing_from_elsewhere():
    for page in (
        '<script async src="https://x.org/mathjax.js">',
        '<link href="//x.org/a.css" rel=x>',
    ):
        assert build_docs.ELSEWHERE.search(page)
    for page in ('<script src="_static/a.js">', '<a href="https://x.org">', '<link href="a.css">'):
        assert not build_docs.ELSEWHERE.search(page)


def test_assistants_find_every_page_and_name():
    folder = Path(discrete_itd.__docs_dir__)
    text = (folder / "llms.txt").read_text()
    assert {f"{stem}.md" for stem in GUIDE} == set(re.findall(r"\]\((.*?)\)", text))
    assert all(name in text for name in discrete_itd.__all__)
    assert all((folder / name).is_file() for name in re.findall(r"\]\((.*?)\)", text))


NUMBERED = r"(?:quad|   ) \((\d+)\)$|\\tag\{(\d+)\}$"  # an equation that has a number


def test_a_number_names_one_equation():
    homes = {}
    for path in sorted((ROOT / "discrete_itd").rglob("*.py")):
        for number in re.findall(NUMBERED, path.read_text(), re.MULTILINE):
            homes.setdefault(int("".join(number)), set()).add(path.name)
    assert {3, 6, 7, 9, 11, 14, 16, 20} <= set(homes)
    assert not {n: names for n, names in homes.items() if len(names) > 1}


def test_every_guarantee_has_a_test_that_exists():
    named = re.findall(
        r"`(tests/[\w/]+\.py)::(\w+)`",
        (ROOT / "tests" / "benchmarks" / "GUARANTEES.md").read_text(),
    )
    assert len(named) > 25
    for path, name in named:
        assert f"\ndef {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_every_benchmark_that_the_readme_and_the_guide_name_exists():
    commands = {
        m
        for p in (ROOT / "README.md", *GUIDE.values())
        for m in re.findall(r"python\s+-m\s+tests\.benchmarks\.(\w+)", p.read_text())
    }
    assert len(commands) >= 5
    assert not [c for c in commands if not (ROOT / "tests" / "benchmarks" / f"{c}.py").is_file()]


# numbers of at least two significant digits, alone or before a unit, that are no part of a word, a date or a version
FIGURE = re.compile(r"(?<![\w.,^/-])-?(?:\d+(?:\.\d+)?|\.\d+)(?![\w^/]|[.,]\d|-\d)")
COMMAND = re.compile(r"`python\s+-m\s+tests\.benchmarks\.([^`]+)`")


def figures(text):
    """The figures of a text but for code, dates and equations, without separators and a zero before the point."""
    text = re.sub(r"`[^`]*`|\(\d+\)|\d{4}-\d\d-\d\d|\d+ (?:January|November)(?: \d{4})?", " ", text)
    text = re.sub(r"(?<=\d)[ ,\u202f](?=\d{3}(?!\d))", "", text).replace("−", "-")
    found = (number.lstrip("-") for number in FIGURE.findall(text))
    return {
        n.removeprefix("0") if "." in n else n
        for n in found
        if len(n.strip("0.").replace(".", "")) > 1
    }


def quoted_figures(page):
    """Commands of benchmarks and the figures beside them: in one line of a table or list, or one paragraph."""
    for block in re.split(r"\n\n|\n(?=[|*])", page):
        if commands := {" ".join(c.split()) for c in COMMAND.findall(block)}:
            yield commands, figures(block)


def unproved(page, results):
    """Figures beside commands which no section of the results has that has one of these, with more options or none."""
    sections = [s.replace("`python -m tests.benchmarks.", "`") for s in re.split("\n##+ ", results)]
    return [
        (*sorted(commands), figure)
        for commands, found in quoted_figures(page)
        for figure in sorted(found)
        if not any(
            figure in figures(section)
            for section in sections
            if any(re.search(rf"`{re.escape(c)}(?=[ `])", section) for c in commands)
        )
    ]


def test_figures_beside_a_benchmark_are_those_of_the_results():
    results = (ROOT / "tests" / "benchmarks" / "RESULTS.md").read_text()
    pages = {**GUIDE, "the README": ROOT / "README.md"}
    pages |= {
        name: ROOT / "tests" / "benchmarks" / f"{name}.md" for name in ("GUARANTEES", "PEERS")
    }
    texts = {name: path.read_text() for name, path in pages.items()}
    assert sum(len(found) for t in texts.values() for _, found in quoted_figures(t)) > 30
    assert not {name: u for name, t in texts.items() if (u := unproved(t, results))}


def test_a_figure_that_the_results_lack_is_found():
    results = "### A\n`odd --all`: 81.0 ± 2.3, .052, 12 184 rows\n### B\n"
    results += "`python -m tests.benchmarks.odd --alltogether`: 76.9"
    page = "`python -m tests.benchmarks.odd\n--all`: {} of 2026-11-29 (77), `n=57`, 10^12\n\nElsewhere 33."
    for figure in ("81.0", "2.3", "0.052", "12184", "12 184"):
        assert not unproved(page.format(figure), results)
    for figure in ("81.1", "76.9", "0.52", "12185"):
        assert unproved(page.format(figure), results) == [("odd --all", figure.removeprefix("0"))]


def test_links_of_readme_and_guide_lead_somewhere_and_the_guide_lists_all_its_pages():
    beside = [ROOT / "tests" / "benchmarks" / f"{name}.md" for name in ("GUARANTEES", "PEERS")]
    for path in (*GUIDE.values(), ROOT / "README.md", *beside):
        for name in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / name).is_file(), f"{path.name}: {name}"
    assert set(re.findall(r"\]\((\w+)\.md\)", GUIDE["README"].read_text())) == set(GUIDE) - {
        "README"
    }


def documented(value):
    """Whether a class, function or module has an example, in its docstring or that of a method of its own."""
    finder = doctest.DocTestFinder(recurse=not inspect.ismodule(value))
    return any(t.examples for t in finder.find(value, name="it", module=False))


def test_every_public_name_has_an_example():
    for home in ["", *PUBLIC]:
        module = importlib.import_module(f"discrete_itd.{home}".rstrip("."))
        names = getattr(
            module, "__all__", [name for name in vars(module) if name.startswith("plot_")]
        )
        values = {name: getattr(module, name) for name in names}
        together = doctest.DocTestFinder(recurse=False).find(module, module.__name__)
        # in an example of the module
        shown = "".join(e.source for t in together for e in t.examples)
        lacking = [
            name
            for name, value in values.items()
            if (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value))
            and not documented(value)
            and f"{name}(" not in shown
        ]
        assert not lacking
        assert set(discrete_itd.__all__) <= set(dir(discrete_itd))


# -- examples of the README and of the guide run as printed, and their commands exist --------------


PAGES = [ROOT / "README.md"]
PAGES += [
    ROOT / "discrete_itd" / "guide" / f"{name}.md"
    for name in ("which_model", "anomalies", "scale", "images", "tables", "command")
]
TEXT = "\n".join(page.read_text() for page in PAGES)
EXAMPLE = re.compile(r"```python\n(?!>>>)(.*?)```(?:[^`]*?```text\n(.*?)```)?", re.DOTALL)


@pytest.mark.slow
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
@pytest.mark.filterwarnings("ignore:outside the range", "ignore:column 'odor'")  # of poisonous ones
def test_the_python_examples_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("diffusers")
    examples = EXAMPLE.findall(TEXT)
    assert sum(1 for _, promised in examples if promised) == 7
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
        quick = quick.replace("load_adult()", "load_adult()[:6000]")
        exec(quick, names)
        printed = capsys.readouterr().out
        if (
            "datasets.path" in example
        ):  # the first example is run as it is, with the sizes of a user
            command = [sys.executable, "-c", example]
            whole = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            # one and two packs are nearly equally probable, so that rounding may choose the other
            printed = re.sub(r"(?<=packs)( +120 +)1", r"\g<1>2", whole)
            assert printed == promised
        # what is learned is not what is promised after so few steps, but its shape is
        first, own = (
            re.sub(r"[^a-z]+", " ", re.sub("True|False", "", t.split("{")[0]))
            for t in (promised, printed)
        )
        assert first.split()[:12] == own.split()[:12]  # then names of columns, or of members
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()


@pytest.mark.filterwarnings(
    "ignore:outside the range", "ignore:module 'sre_constants' is deprecated"
)
def test_the_guide_checks_inliers_by_pandera_and_great_expectations():
    """The rows that fail are those of small p-values, of which a batch may have three in a hundred."""
    pytest.importorskip("pandera")
    pytest.importorskip("great_expectations")
    text = (ROOT / "discrete_itd" / "guide" / "what_else.md").read_text()
    block = next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "pandera" in b)
    random = np.random.default_rng(0)

    def rows(n):
        a = random.integers(3, size=n)
        b = np.where(random.random(n) < 0.9, a, random.integers(3, size=n))
        return pd.DataFrame({"a": a, "b": b, "n": random.normal(a)}).astype({"a": str, "b": str})

    given = {"old": rows(600), "DiffusionOutlierDetector": discrete_itd.DiffusionOutlierDetector}
    for n_wrong in (0, 3, 40):
        batch = rows(200).set_axis(np.arange(200) + 1000)
        batch.iloc[:n_wrong, 2] = 9.0
        names = given | {"batch": batch}
        exec(block, names)
        fails = names["detector"].p_values(batch) <= 0.01
        assert fails[:n_wrong].all()
        assert names["result"].success == (fails.mean() <= 0.03) == (n_wrong < 40)
        assert set(names["odd"]["row"] if fails.any() else ()) == set(batch.index[fails])


def test_the_guide_compares_a_turnover_with_the_last_ones_of_its_group():
    """By a loop over rows, blind to later ones; in two shops whose levels cross."""
    text = (ROOT / "discrete_itd" / "guide" / "anomalies.md").read_text()
    block = next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "ratio" in b)
    told = {}
    exec(block, told)
    random, n = np.random.default_rng(0), 300
    days, shop = pd.date_range("2022-01-01", periods=n), np.repeat(["a", "b"], n)
    level = np.concatenate([np.linspace(10, 40, n), np.linspace(90, 50, n)])
    sales = pd.DataFrame({"shop": shop, "date": [*days, *days]})
    sales["turnover"] = level + random.normal(size=2 * n)
    found = told["with_ratio"](sales.sample(frac=1, random_state=0))
    for i in (1, 40, 250, 590):
        row = sales.loc[i]
        own = sales[(sales["shop"] == row["shop"]) & (sales["date"] < row["date"])]
        own = own[own["date"].dt.day_of_week == row["date"].weekday()]["turnover"][-8:]
        expected = row["turnover"] / own.median()
        assert found["ratio"][i] == pytest.approx(expected, nan_ok=True)
    earlier = told["with_ratio"](sales[sales["date"] < "2022-09-01"])["ratio"]
    pd.testing.assert_series_equal(found["ratio"][earlier.index], earlier)
    new = pd.DataFrame({"shop": ["a", "b"], "date": days[-1] + pd.Timedelta(days=1)})
    new["turnover"] = [40.0, 15.0]
    both = told["with_ratio"](pd.concat([sales, new.set_axis([900, 901])]))
    watcher = told["watcher"].set_params(denoiser="forest", false_alarm_rate=0.05)
    watcher.fit(told["with_ratio"](sales))
    assert watcher.predict(both.loc[[900, 901]]).tolist() == [1, -1]


def test_the_shell_example_is_understood(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^discrete-itd (.*)$", TEXT, re.MULTILINE)
    known = {
        "fit",
        "score",
        "impute",
        "sample",
        "report",
        "watch",
        "drift",
        "describe",
        "check",
        "rules",
    }
    assert {c.split()[0] for c in commands} == known
    for command in commands:  # its files are not here, but its options are known
        assert main(shlex.split(command)) == 2
        assert "--help" not in capsys.readouterr().err


# -- notebooks: what they claim is asserted, they are executed as committed, small, and listed -----


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_BYTES = 120_000


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_a_notebook_asserts_its_figures_and_was_run_from_top_to_bottom():
    for path in NOTEBOOKS:
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
    assert len(NOTEBOOKS) == 8
    readme = (ROOT / "README.md").read_text()
    guide = (ROOT / "discrete_itd" / "guide" / "README.md").read_text()
    for path in NOTEBOOKS:
        assert f"`{path.name}`" in guide, path.name
        assert f"notebooks/{path.name}" in readme, path.name
