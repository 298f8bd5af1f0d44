"""What a release needs: versions and dates that agree, lowest versions, and a file of citations."""

import datetime
import importlib.util
import re
import subprocess
import tomllib
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
from lowest import lowest

ROOT = Path(__file__).parents[1]
TODAY = datetime.date(2026, 12, 1)


def load_release():
    loader = SourceFileLoader("release", str(ROOT / ".ci" / "release"))
    spec = importlib.util.spec_from_loader("release", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


release = load_release()


@pytest.fixture
def checkout(tmp_path):
    """A repository that is ready to be released."""
    files = {
        "discrete_itd/__init__.py": '__version__ = "0.2.0"\n',
        "CHANGELOG.md": "# Changelog\n\n## [0.2.0] - 2026-12-01\n\n## [0.1.0] - 2026-11-25\n",
        "CITATION.cff": 'version: 0.2.0\ndate-released: "2026-12-01"\n',
        "README.md": "`pip install discrete-itd`",
        "pyproject.toml": '[project]\nname = "x"\n[project.urls]\nSource = "https://x.org/a/b"\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tmp_path))
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "x"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def change(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_what_agrees_may_be_released(checkout):
    assert release.problems(checkout, TODAY) == ("0.2.0", [])


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        (
            "CHANGELOG.md",
            "## [0.2.0] - 2026-12-01",
            "## [Unreleased]",
            "top section is '[Unreleased]'",
        ),
        (
            "CHANGELOG.md",
            "[0.2.0] - 2026-12-01",
            "[0.2.0] - 2026-11-30",
            "not '[0.2.0] - 2026-12-01'",
        ),
        (
            "CITATION.cff",
            "2026-12-01",
            "2026-11-25",
            "0.2.0 of 2026-11-25, not 0.2.0 of 2026-12-01",
        ),
        ("discrete_itd/__init__.py", "0.2.0", "0.2.1", "not '[0.2.1] - 2026-12-01'"),
        ("pyproject.toml", "Source", "Paper", "project.urls has no Source"),
        ("README.md", "`pip", "once it is released `pip", "'once it is released'"),
    ],
)
def test_what_differs_is_named(checkout, name, old, new, words):
    change(checkout / name, old, new)
    _, found = release.problems(checkout, TODAY)
    assert any(words in line for line in found), found
    assert "the tree is not clean" in found


def test_a_version_is_released_once(checkout):
    subprocess.run(["git", "-C", str(checkout), "tag", "v0.2.0"], check=True)
    assert release.problems(checkout, TODAY)[1] == ["the tag v0.2.0 is there already"]


def test_links_of_the_long_description_lead_to_the_repository():
    text = release.absolute((ROOT / "README.md").read_text(), "https://x.org/a/b", "0.2.0")
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", text)
    assert len(links) > 20
    for picture, link in links:
        if link.startswith("https://x.org"):
            kind, path = re.fullmatch(r"https://x.org/a/b/(\w+)/v0.2.0/([^#]+).*", link).groups()
            assert (kind, (ROOT / path).is_file()) == ("raw" if picture else "blob", True)
        else:
            assert link.startswith("https://")


@pytest.mark.slow
def test_wheel_and_sdist_are_built_as_an_index_wants_them(tmp_path, monkeypatch):
    """What is committed, checked by twine; nothing is uploaded."""
    for name in ("build", "twine"):
        pytest.importorskip(name)
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    monkeypatch.setattr(release, "source", lambda _: "https://x.org/a/b")
    wheel, sdist, unpacked = release.build(ROOT, tmp_path, "0.2.0")
    assert wheel.is_file()
    assert sdist.is_file()
    assert "](https://x.org/a/b/raw/v0.2.0/notebooks/" in (unpacked / "README.md").read_text()
    assert (unpacked / "tests" / "test_release.py").is_file()
    assert (unpacked / ".ci" / "release").is_file()


def test_the_repository_states_its_version_and_dates(monkeypatch):
    """All that a release reads is there, in an sdist too; a version under way has no date yet."""
    monkeypatch.setattr(release, "git", lambda *_: "")
    version, found = release.problems(ROOT, TODAY)
    assert version.count(".") == 2
    assert not any("is not to be found" in line for line in found)
    sections = [
        line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## [")
    ]
    assert sections[0] == "## [Unreleased]" or sections[0].startswith(f"## [{version}] - ")
    for line in sections[1:]:
        datetime.date.fromisoformat(line.split(" - ")[1])


def test_the_citation_is_complete():
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(cited)
    paper = cited["preferred-citation"]
    assert [a["family-names"] for a in paper["authors"]] == ["Kong", "Brekelmans", "Ver Steeg"]
    assert paper["year"] == 2023


def test_lowest_versions_are_those_declared():
    project = {
        "name": "own",
        "dependencies": ["torch>=2.4"],
        "optional-dependencies": {
            "a": ["own[b]", "dask[dataframe]>=2025.1,<2026"],
            "b": ["x>=1; python_version<'4'"],
        },
    }
    assert lowest(project) == ["dask==2025.1", "torch==2.4", "x==1; python_version<'4'"]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all("==" in line for line in lowest(declared))
