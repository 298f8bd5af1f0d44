"""The card beside a saved model: true of it, without values of the table, and never needed."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.channel import CoordinateSchedule
from discrete_itd.recipes import Network, RowMixture
from discrete_itd.storage import card as markdown
from discrete_itd.storage import files
from discrete_itd.storage.card import listed
from discrete_itd.storage.values import card_path

pytestmark = pytest.mark.single_precision


def table(n=200):
    random = np.random.default_rng(0)
    level = random.integers(0, 3, n)
    frame = pd.DataFrame(
        {
            "word": np.array(["SECRET-a", "SECRET-b", "SECRET-c"])[level],
            "a|b": pd.array(level, dtype="Int64"),
            "truth": level == 1,
        }
    )
    frame.loc[:49, "a|b"] = None
    return frame


def settled(denoiser="tree", **settings):
    return DiffusionDensity(denoiser=denoiser, random_state=0, **settings)


def lines_of(card):
    """The text of a card by section."""
    return dict(part.split("\n", 1) for part in re.split(r"^#+ ", card, flags=re.MULTILINE)[1:])


def test_a_card_says_what_the_model_is(tmp_path):
    model = settled().fit(table())
    model.save(tmp_path / "m.safetensors")
    assert sorted(os.listdir(tmp_path)) == ["m.safetensors", "m.safetensors.md"]
    card = (tmp_path / "m.safetensors.md").read_text()
    assert card.startswith(model.model_card())
    assert "SECRET" not in card
    said = lines_of(card)
    assert "`DiffusionDensity(denoiser='tree', random_state=0)`" in said["Model"]
    assert "training rows: 200," in said["Model"]
    assert "columns: 3, of them 2 nominal, 1 ordinal" in said["Model"]
    assert "missing cells: 8.33 % of the training table" in said["Model"]
    assert "| `a\\|b` | ordinal | 3 | True | 25 % | summed out | Int64 |" in said["Data"]
    nats = model.model_.held_out.nats
    assert f"nats of a held-out row: {nats:.3f} ±" in said["Model"]
    own = model.model_
    assert f"a score took: {own.microseconds:.3g} microseconds" in said["Model"]
    assert f"the fit took: {own.fit_seconds:.3g} s" in said["Model"]
    assert own.fit_seconds > 0 < own.microseconds
    assert "A value never seen raises an error in: `truth`." in said["Limits"]
    assert "Monte-Carlo" not in said["Limits"]
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        stated = json.loads(file.metadata()[files.KEY])
    assert f"`{stated[files.DIGEST]}`" in said["Limits"]
    loaded = DiffusionDensity.load(tmp_path / "m.safetensors", device=model.device)
    assert loaded.model_card() == model.model_card()


def test_columns_whose_names_differ_by_spaces_stay_apart_on_the_card():
    names = ["x", " x", "x ", "a b", "a  b", "a\nb", "a\u00a0b", "<x", " <x"]
    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.random(60) < 0.5 for name in names})
    said = lines_of(settled("independent").fit(frame).model_card())
    shown = re.findall(r"^\| (.*?) \| nominal", said["Data"], re.MULTILINE)
    assert len({" ".join(re.sub("`", "", name).split()) for name in shown}) == len(names)
    assert shown[:2] == ["x", r"`\x20x`"]
    assert r"`x`, `\x20x`, `x\x20`" in said["Limits"]


def test_a_card_says_what_a_model_along_paths_was_chosen_from_and_is_in():
    network = Network(width=2, depth=1, base="independent")
    frame = table().assign(size=np.random.default_rng(1).normal(size=200))
    settings = {"max_steps": 1, "n_evaluations": 8, "schedule": CoordinateSchedule(4)}
    along_paths = settled(network, **settings).fit(frame)
    said = lines_of(along_paths.model_card())
    assert "by 8 denoiser evaluations along paths" in said["Model"]
    assert "Monte-Carlo" in said["Limits"]
    assert "log-densities" in said["Limits"]
    nats = along_paths.model_.held_out.nats
    assert f"nats of a held-out row: {nats:.3f} ±" in said["Model"]
    assert "on the encoded scale" in said["Model"]
    several = settled(RowMixture(("tree", "independent")), missing="category").fit(table())
    said, candidates = lines_of(several.model_card()), several.candidates_
    chosen = candidates[candidates["chosen"]].iloc[0]
    assert re.search(rf"^\| {chosen['candidate']} \|.* True \|$", said["Candidates"], re.MULTILINE)
    alone = candidates.set_index("candidate")["nats"]["independent"]
    assert f"independent columns {alone:.3f} ±" in said["Model"]
    assert "it counts as a value in: `a|b`." in said["Limits"]


def test_a_detectors_card_says_what_is_guaranteed(tmp_path):
    detector = DiffusionOutlierDetector(settled(), false_alarm_rate=0.1, random_state=0)
    detector.fit(table())
    detector.save(tmp_path / "d")
    said = lines_of((tmp_path / "d.md").read_text())
    n = len(detector.calibration_scores_)
    assert f"threshold: {detector.threshold_}" in said["Calibration"]
    assert f"{n} calibration rows took no part in the fit" in said["Calibration"]
    assert f"smallest p-value is {1 / (n + 1):.3g}" in said["Calibration"]
    assert "the file holds scores and nats by column of the calibration rows" in said["Calibration"]
    bare = DiffusionOutlierDetector(settled(), calibration_fraction=0)
    said = lines_of(bare.fit(table()).model_card())
    assert "no p-values" in said["Calibration"]
    assert "score: minus the nats of all columns" in said["Calibration"]


def test_a_card_is_whole_can_be_left_out_and_is_not_read(tmp_path, monkeypatch):
    model, path = settled("independent").fit(table()), tmp_path / "m"
    model.save(path, card=False)
    assert os.listdir(tmp_path) == ["m"]
    old = path.read_bytes()
    (tmp_path / "m.md").write_bytes(b"# Model card: \xff")
    DiffusionDensity.load(path)

    def fail(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(OSError, match="no space left"):
            model.save(path)
    assert path.read_bytes() == old
    assert (tmp_path / "m.md").read_bytes() == b"# Model card: \xff"
    assert sorted(os.listdir(tmp_path)) == ["m", "m.md"]
    model.save(path)
    assert (tmp_path / "m.md").read_text().startswith("# Model card")
    assert card_path(path) == f"{path}.md"


def test_names_in_a_card_are_no_markup():
    """Read by an HTML renderer of Markdown, a hostile name is text within code, and divides no table."""
    odd = {
        "pipe|d": "`pipe\\|d`",
        "`": "`` ` ``",
        "a`b``c": "```a`b``c```",
        "x\n\n# y": "`x\\n\\n# y`",
        "<script>": "`<script>`",
        "[a](http://b)": "`[a](http://b)`",
        "www.a.b": "`www.a.b`",
        "*a*": "`*a*`",
        "_a_": "`_a_`",
        "\u202eabc": "`\\u202eabc`",
        "\x1b[31m": "`\\x1b[31m`",
        "capital_gain": "capital_gain",
        "25.0%": "25.0%",
        "\\|": "`\\ \\|`",
    }
    frame = pd.DataFrame({"name": list(odd)})
    assert markdown.table(frame)[2:] == [f"| {shown} |" for shown in odd.values()]
    rows = pd.DataFrame({name: ["a|`b", "<b>"] * 30 for name in odd})
    card = settled("independent", column_types=dict.fromkeys(odd, "nominal")).fit(rows).model_card()
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", card)
    assert not re.search(r"[`<\u202e\x1b]|\]\(|www|^# y|_a_|\*a", outside, re.MULTILINE)


def test_tables_and_lists_are_markdown():
    frame = pd.DataFrame({"a|b": ["x\ny", "\\"], "n": [1 / 3, np.nan]})
    assert markdown.table(frame) == [
        "| `a\\|b` | n |",
        "|---|---|",
        "| `x\\ny` | 0.333333 |",
        "| `\\` | nan |",
    ]
    assert listed(list("abc"), most=2) == "`a`, `b` and 1 more"


@pytest.mark.parametrize(
    ("denoiser", "is_said"),
    [
        ("bayes_net", True),
        ("independent", False),
        ("mixture", False),
        (RowMixture(("tree", "independent")), True),
    ],
)
def test_a_card_names_the_columns_of_which_nothing_is_explained(denoiser, is_said):
    """And a model says of no column that it is independent that changes the others' distributions."""
    numbers = table().assign(size=np.random.default_rng(0).normal(size=200))
    model = settled(denoiser).fit(numbers)
    said = lines_of(model.model_card())["Limits"]
    assert ("has these columns independent of all others" in said) is is_said
    assert ("nothing: `size`." in said) is is_said
    rows, alone = model.rows(numbers).x, model.denoiser_.independent_columns
    known = model.denoiser_.log_prob(rows) - model.denoiser_.log_prob(
        rows.masked_fill(alone, torch.nan)
    )
    by_itself = model.denoiser_.log_prob(rows.masked_fill(~alone, torch.nan))
    torch.testing.assert_close(known, by_itself, atol=1e-4, rtol=1e-4)
