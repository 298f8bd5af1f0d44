"""Damaged and forged files by the thousand: each is loaded, or refused with a ValueError that names it, in bounds.

    python -m pytest -n0 --slow tests/storage/test_hostile_files.py
    HOSTILE_FILES=3000 python -m pytest -n0 --slow tests/storage/test_hostile_files.py

Half of the files were hit by chance (bytes, cuts, the outer header), half by someone who knows the format: their digest
is right. What such a file loads as may be nonsense, but asking it for scores ends as well.
"""

import contextlib
import json
import math
import os
import random
import string
import warnings
from pathlib import Path

import pytest
import torch
from limits import TooLong, bounded
from safetensors.torch import save

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.recipes import Forest, Mixture, Network, RowMixture
from discrete_itd.storage import files
from tests.examples import levels

pytestmark = [
    pytest.mark.single_precision,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is bounded on Linux"),
]
N_SLOW = int(os.environ.get("HOSTILE_FILES", "1000"))
SECONDS, GIGABYTES = 20, 1
NUMBERS = [0, -1, 1, 2, 255, 2**31, 2**63, -(2**63), 10**30, 1e-300, 1e300, -0.0, 0.5]
ODD = [None, True, False, "", "x", [], {}, [[]], math.nan, math.inf, -math.inf, "\0", *NUMBERS]
NETWORK = Network(width=2, depth=1, base="independent")
QUICK = {"max_steps": 1, "n_evaluations": 4, "random_state": 0}
MODELS = {
    "tree": lambda: DiffusionDensity(denoiser="tree", random_state=0),
    "network": lambda: DiffusionDensity(denoiser=NETWORK, **QUICK),
    "detector": lambda: DiffusionOutlierDetector(
        DiffusionDensity(denoiser="tree", random_state=0), random_state=0
    ),
}


def table(n=60):
    rows = levels(n)[["word", "whole", "size", "day"]]
    return rows.assign(size=rows["size"].mask(rows.index % 9 == 0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Each model's class and file."""
    folder, out = tmp_path_factory.mktemp("saved"), {}
    for name, make in MODELS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few rows of calibration
            model = make().fit(table())
        model.save(folder / name)
        out[name] = type(model), folder / name
    return out


# -- by chance -------------------------------------------------------------------------------------


def flipped(content, rng):
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(content, rng):
    """Ends too early, or lacks a part in the middle."""
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:a] + (b"" if rng.random() < 0.5 else content[b:])


def longer(content, rng):
    """A part twice, or zeros put in."""
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    part = content[a:b] if rng.random() < 0.5 else bytes(rng.randrange(1, 99))
    at = rng.choice([a, len(content)])
    return content[:at] + part + content[at:]


def outer(content, rng):
    """Another number, or no entry, in the header that says where tensors are; the length that is stated fits it."""
    n = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + n])
    own = header if rng.random() < 0.1 else {k: v for k, v in header.items() if k[0] != "_"}
    change(own, rng)
    text = json.dumps(header | own).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + n :]


# -- by someone who knows the format ---------------------------------------------------------------


def places(value, at=()):
    """Every path into nested JSON but the root."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def inside(value, at):
    for key in at:
        value = value[key]
    return value


def change(header, rng):
    """One to three places of nested JSON: another value, that of another place, none, one more, or a nested one."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        spots = list(places(header))
        if not spots:
            return
        at = rng.choice(spots)
        inner, old = inside(header, at[:-1]), inside(header, at)
        kind = rng.randrange(7)
        if kind == 0:
            del inner[at[-1]]
        elif kind == 1:
            inner[at[-1]] = json.loads(json.dumps(inside(header, rng.choice(spots))))
        elif kind == 2 and isinstance(old, list):
            old += old[:1] * rng.choice([1, 2, 1000]) if old else [0]
        elif kind == 2 and isinstance(old, dict):
            old["".join(rng.choices(string.ascii_letters, k=3))] = rng.choice(ODD)
        elif kind == 3:
            inner[at[-1]] = [old] if rng.random() < 0.5 else {"class": old}
        elif kind == 4 and isinstance(old, str) and old:
            i = rng.randrange(len(old))
            inner[at[-1]] = old[:i] + rng.choice("é\0/.x9") + old[i + 1 :]
        elif kind <= 5 and isinstance(old, int | float):
            steps = [old + 1, old - 1, -old, old * 2, old * 10**9, *NUMBERS]
            inner[at[-1]] = rng.choice(steps)
        else:
            inner[at[-1]] = rng.choice(ODD)


def forged_tensors(tensors, rng):
    """One tensor of another shape or type, with other numbers, exchanged for another, lost, or of another name."""
    out = dict(tensors)
    name = rng.choice(sorted(out))
    old = out[name]
    other = out[rng.choice(sorted(out))]
    flat = old.flatten()
    changed = old.clone()
    if len(flat):
        if old.dtype.is_floating_point:
            values = [0, -1, 1, 7, 1e38, -1e38, math.nan, math.inf, -math.inf]
        else:
            limits = torch.iinfo(old.dtype)
            values = [0, 1, 7, limits.max // 2, limits.min // 2]
        changed.view(-1)[rng.randrange(len(flat))] = rng.choice(values)
    choices = [
        changed,
        changed,
        flat,
        old[None],
        old[..., :1] if old.ndim else old[None],
        old[:0] if old.ndim else old[None],
        torch.cat([flat, flat]),
        old.T if old.ndim == 2 else flat[:-1],
        torch.zeros_like(old),
        old.double() if old.dtype != torch.float64 else old.float(),
        old.long() if old.is_floating_point() else old.float(),
        torch.empty((0, 2**40)),
        other,
    ]
    kind = rng.randrange(len(choices) + 2)
    if kind == len(choices):
        del out[name]
    elif kind > len(choices):
        out[name + rng.choice("x.")] = out.pop(name)
    else:
        out[name] = choices[kind]
    return out


def signed(state, kind="model"):
    """The bytes of a file with that content, and a digest that is right."""
    header, tensors = state
    tensors = {k: v.clone().contiguous() for k, v in tensors.items()}
    header = {"format": files.FORMAT, "kind": kind, **header}
    return save(
        tensors,
        {
            files.KEY: json.dumps(
                {files.DIGEST: files.digest(json.dumps(header), tensors), **header}
            )
        },
    )


def other_header(state, rng):
    header = json.loads(json.dumps(state[0]))
    change(header, rng)
    return signed((header, state[1]))


def other_tensors(state, rng):
    return signed((state[0], forged_tensors(state[1], rng)))


def both(state, rng):
    header = json.loads(json.dumps(state[0]))
    change(header, rng)
    return signed((header, forged_tensors(state[1], rng)))


DISTRIBUTIONS = {
    "independent": "independent",
    "tree": "tree",
    "bayes_net": "bayes_net",
    "forest": Forest(2),
    "mixture": Mixture(2, n_points=64, max_steps=40),
    "rows": RowMixture(("tree", "independent")),
    "network": NETWORK,
}


def test_what_does_not_add_up_to_one_is_refused(tmp_path):
    """Every table of probabilities of every denoiser, signed anew with another number."""
    for name in DISTRIBUTIONS:
        path, changed = tmp_path / "m", 0
        rows = table().drop(columns="day")
        settings = QUICK if name == "network" else {"random_state": 0}
        model = DiffusionDensity(denoiser=DISTRIBUTIONS[name], **settings).fit(rows)
        model.save(path)
        header, tensors = files.read_state(path)
        for key, tensor in tensors.items():
            last = key.split(".")[-1]
            if not last.startswith(("log_", "mixture")) or not tensor.numel():
                continue
            where = (*[0] * (tensor.ndim - 1), slice(0, 1))
            forged = tensor.clone()
            forged[where] += 5
            path.write_bytes(signed((header, tensors | {key: forged})))
            with pytest.raises(ValueError, match=f"(?s){path}: .*add up to one"):
                DiffusionDensity.load(path)
            changed += 1
        assert changed > 1


def test_a_detector_whose_parts_contradict_each_other_is_refused(tmp_path):
    """Quantiles that fall, and a threshold that states what its offset is not among the calibration scores."""
    path = tmp_path / "d"
    DiffusionOutlierDetector(
        DiffusionDensity(denoiser="tree", random_state=0), false_alarm_rate=0.2, random_state=0
    ).fit(table()).save(path, card=False)
    (header, tensors), forged = files.read_state(path), []
    threshold = header["fitted"]["threshold"]
    odd = {name: threshold[name] * 1.5 for name in ("offset", "false_alarm_rate", "low", "high")}
    odd |= {"ranks": [r + 1 for r in threshold["ranks"]], "n_calibration": 10**6}
    for name, value in odd.items():
        fitted = {**header["fitted"], "threshold": {**threshold, name: value}}
        forged.append(("threshold states", {**header, "fitted": fitted}, tensors))
    falling = {"fitted.quantiles": tensors["fitted.quantiles"].flip(1)}
    forged.append(("quantiles that fall", header, tensors | falling))
    for words, *state in forged:
        path.write_bytes(signed(state))
        with pytest.raises(ValueError, match=f"{path}: fitted.*{words}"):
            DiffusionOutlierDetector.load(path)
    path.write_bytes(signed((header, tensors)))
    DiffusionOutlierDetector.load(path)


BY_CHANCE = [flipped, cut, longer, outer]
KNOWING = [other_header, other_header, other_tensors, both]


@pytest.mark.parametrize(
    "n_files",
    [60, pytest.param(N_SLOW, marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")])],
)
def test_hostile_files_are_loaded_or_refused(saved, tmp_path, n_files):
    rows, path = table(5), tmp_path / "hostile"
    states = {name: files.read_state(file) for name, (_, file) in saved.items()}
    told = {"refused": 0, "loaded": 0}
    for i in range(n_files):
        rng = random.Random(i)
        name = sorted(saved)[i % len(saved)]
        cls, file = saved[name]
        if i // len(saved) % 2:
            make = rng.choice(KNOWING)
            path.write_bytes(make(states[name], rng))
        else:
            make = rng.choice(BY_CHANCE)
            path.write_bytes(make(file.read_bytes(), rng))
        try:
            told[outcome(cls, path, rows)] += 1
        except (Exception, TooLong) as error:
            raise AssertionError(f"file {i}, {name}, {make.__name__}: {error!r}") from error
    print(told)
    assert min(told.values()) > 0


def outcome(cls, path, rows):
    """Whether a file is loaded or refused; any other end is an error."""
    with bounded(seconds=SECONDS, gigabytes=GIGABYTES), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = cls.load(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            return "refused"
        with contextlib.suppress(ValueError):  # a model of other columns
            model.score_samples(rows)
        return "loaded"
