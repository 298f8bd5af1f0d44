"""Files of models: whole or not at all, and whatever is wrong with one is a ValueError."""

import contextlib
import copy
import dataclasses
import functools
import json
import os
import re
import resource
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import TIMES
from limits import TooLong, bounded
from safetensors import safe_open
from safetensors.torch import save_file

from discrete_itd import DiffusionDensity
from discrete_itd.channel import IsotropicSchedule
from discrete_itd.denoisers import RowMixtureDenoiser
from discrete_itd.recipes import Network, RowMixture
from discrete_itd.storage import files
from discrete_itd.storage.values import flatten


@pytest.fixture(scope="module")
def model():
    rows = pd.DataFrame({"a": list("xyxxyx"), "n": [1, 2, 1, 1, 3, 1], "b": [True, False] * 3})
    return DiffusionDensity(
        denoiser=Network(width=2, depth=1, base="independent"),
        max_steps=1,
        n_evaluations=4,
        random_state=0,
    ).fit(rows)


@pytest.fixture(scope="module")
def content(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    model.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def refuse(folder, content):
    path = folder / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
        DiffusionDensity.load(path)


def with_header(folder, text, tensors=None, **stated):
    """A file with any text for a header, and by default the digests that belong to it."""
    tensors = {"w": torch.zeros(2)} if tensors is None else tensors
    with contextlib.suppress(ValueError, RecursionError):  # no JSON
        header = json.loads(text)
        if isinstance(header, dict) and json.dumps(header) == text:
            own = {files.DIGEST: files.digest(json.dumps(header), tensors)}
            text = json.dumps(own | stated | header)
    save_file(tensors, folder / "m.safetensors", {files.KEY: text})
    return folder / "m.safetensors"


def rewrite(model, folder, change, *, tensors=None):
    """Save the model with another header, digest and all."""
    header, kept = flatten(model)
    header = json.loads(json.dumps(header))
    change(header)
    path = folder / "m.safetensors"
    files.write_state(path, (header, kept if tensors is None else tensors))
    return path


def test_a_state_comes_back(tmp_path):
    header = {"name": "é", "list": [1, 2.5, None]}
    tensors = {"a": torch.arange(6).view(2, 3).T, "b": torch.tensor(1.5), "c": torch.zeros(0)}
    files.write_state(tmp_path / "s", (header, tensors))
    got, back = files.read_state(tmp_path / "s")
    assert got == header
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


NOW, NEXT = str(files.FORMAT), str(files.FORMAT + 1)
HEAD = f'{{"format": {NOW}'
GOOD = HEAD + ', "kind": "model", "a": 1}'


def test_odd_headers(folder):
    for text, message in [
        (GOOD.replace(NOW, "1"), "format 1, .*fit the model anew"),
        ('{"format": 1}', "format 1, .*fit the model anew"),
        (GOOD.replace(NOW, NEXT), f"format {NEXT}, .*upgrade discrete_itd$"),
        (GOOD.replace(NOW, "9" * 400), "upgrade discrete_itd"),
        (GOOD.replace(NOW, "9" * 5000), "damaged"),
        (GOOD.replace(NOW, "true"), "damaged"),
        (GOOD.replace(NOW, "5.0"), "damaged"),
        (GOOD.replace(NOW, "NaN"), "damaged"),
        (
            GOOD.replace('"model"', '"watch"'),
            "holds the state of a watch, not a model",
        ),
        (GOOD.replace('"model"', '"x"'), "damaged"),
        (GOOD.replace('"model"', "[]"), "damaged"),
        (HEAD + "}", "damaged"),
        (HEAD + HEAD.replace("{", ", ") + ', "kind": "model"}', "digest does not match"),
        (HEAD + ', "kind": "model", "x": {"a": 1, "a": 1}}', "digest does not match"),
        (f'{HEAD}, "kind": "model", "x": {"[" * 10**5}{"]" * 10**5}}}', "damaged"),
        (f"{'[' * 10**6}", "damaged"),
        ("[]", "damaged"),
        ("null", "damaged"),
        ("", "damaged"),
    ]:
        with pytest.raises(ValueError, match=rf"m\.safetensors: .*{message}"):
            files.read_state(with_header(folder, text))


def test_a_newer_format_may_have_another_digest(folder):
    with pytest.raises(ValueError, match="upgrade discrete_itd"):
        files.read_state(with_header(folder, GOOD.replace(NOW, NEXT), **{files.DIGEST: "later"}))


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.int8, torch.uint16])
def test_odd_types_are_neither_written_nor_read(folder, dtype):
    tensors = {"w": torch.zeros(2).to(dtype)}
    with pytest.raises(ValueError, match=r"w is of type torch\."):
        files.write_state(folder / "odd", ({}, tensors))
    assert not (folder / "odd").exists()
    try:
        path = with_header(folder, GOOD, tensors)
    except KeyError:
        pytest.skip("this release of safetensors has no such type")
    with pytest.raises(ValueError, match=r"w is of type torch\."):
        files.read_state(path)


def test_a_header_that_could_not_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_HEADER", 100)
    with pytest.raises(ValueError, match=r"m: 2\d\d characters .* too many for a file"):
        files.write_state(tmp_path / "m", ({"x": "y" * 90}, {}))
    assert os.listdir(tmp_path) == []


def frame(header, data=b""):
    """The bytes of a safetensors file with any JSON for its outer header."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_odd_tensors(folder):
    for tensor in [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**64]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]},
        {"dtype": "pickle", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        [],
        None,
    ]:
        metadata = {files.KEY: GOOD, files.DIGEST: ""}
        refuse(folder, frame({"__metadata__": metadata, "w": tensor}, b"\0" * 4))


def test_odd_metadata(folder):
    for metadata in [
        None,
        [],
        "x",
        {files.KEY: 1},
        {files.KEY: None},
        {files.KEY: {"format": 2}},
        {},
    ]:
        refuse(folder, frame({"__metadata__": metadata}))


def test_tensors_that_share_bytes(folder):
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    metadata = {files.KEY: GOOD, files.DIGEST: ""}
    refuse(folder, frame({"__metadata__": metadata, "a": one, "b": one}, b"\0" * 4))


def test_a_length_that_is_not_there(folder):
    for length in (9, 10**8, 2**31, 2**63, 2**64 - 1):
        refuse(folder, length.to_bytes(8, "little") + b"{}")


def test_only_regular_files_are_read(tmp_path, content):
    os.mkfifo(tmp_path / "pipe")  # which would be waited for
    with pytest.raises(OSError, match="not a regular file"):
        files.read_state(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        files.read_state(os.devnull)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    for name in ("loop", "dangling"):
        with pytest.raises(OSError, match=name):
            files.read_state(tmp_path / name)
    (tmp_path / "m").write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "m")
    assert files.read_state(tmp_path / "link")[0]["class"] == "DiffusionDensity"


def test_a_file_that_shrinks_later_is_of_no_matter(tmp_path):
    """A tensor mapped from the file would take the process down with it."""
    files.write_state(tmp_path / "m", ({}, {"w": torch.arange(10**5)}))
    _, tensors = files.read_state(tmp_path / "m")
    os.truncate(tmp_path / "m", 0)
    assert torch.equal(tensors["w"], torch.arange(10**5))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        DiffusionDensity.load(tmp_path / "none")
    with pytest.raises(OSError, match="director"):
        DiffusionDensity.load(tmp_path)


def test_other_files(folder):
    for content in [b"", b"\0", b"a,b\n1,2\n", b"\0" * 64, b"\xff" * 64, b"{}", b"\x80\x04N."]:
        refuse(folder, content)


def test_foreign_safetensors(folder):
    path = folder / "foreign"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="not a discrete_itd model"):
        DiffusionDensity.load(path)
    save_file({"weight": torch.zeros(2)}, path, {"discrete_itd": "[1"})
    with pytest.raises(ValueError, match="damaged"):
        DiffusionDensity.load(path)
    for header in ("[]", "{}", '{"format": "x"}', '{"format": 0}', '{"format": 1}', "[" * 100000):
        save_file({"weight": torch.zeros(2)}, path, {"discrete_itd": header})
        with pytest.raises(ValueError, match=r"damaged|format 1"):
            DiffusionDensity.load(path)


@given(data=st.data())
def test_a_file_cut_short(data, folder, content):
    refuse(folder, content[: data.draw(st.integers(0, len(content) - 1))])


@given(data=st.data())
def test_a_flipped_bit(data, folder, content):
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    refuse(folder, bytes(flipped))


@given(extra=st.binary(min_size=1, max_size=9))
def test_a_file_with_a_tail(extra, folder, content):
    refuse(folder, content + extra)


def places(value, at=()):
    """Every path into nested JSON."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for i in range(len(value)):
            yield from places(value[i], (*at, i))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is bounded on Linux only")
@pytest.mark.parametrize(
    "number", [10**12, *(pytest.param(n, marks=pytest.mark.slow) for n in (10**4, 10**9, 10**30))]
)
def test_huge_numbers_take_neither_time_nor_memory(model, folder, number):
    header = json.loads(json.dumps(flatten(model)[0]))
    for at in [*places(header)][:: 1 if TIMES > 1 else 3]:
        value = functools.reduce(lambda inner, key: inner[key], at, header)
        if not isinstance(value, int | float):
            continue

        def change(header, at=at):
            functools.reduce(lambda inner, key: inner[key], at[:-1], header)[at[-1]] = number

        path = rewrite(model, folder, change)
        with bounded(seconds=5, gigabytes=2):
            try:
                DiffusionDensity.load(path)
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017
            except TooLong:
                pytest.fail(f"{at}: {number} takes for ever")


@pytest.mark.parametrize("drop", [True, False])
def test_forged_tensors(model, folder, drop):
    tensors = flatten(model)[1]
    for name in tensors:
        forged = {k: v for k, v in tensors.items() if k != name}
        if not drop:
            forged[name] = torch.zeros(tensors[name].numel() + 1)
        path = rewrite(model, folder, dict, tensors=forged)
        with pytest.raises(ValueError, match=r"m\.safetensors: "):
            DiffusionDensity.load(path)


def test_a_device_that_is_not_there_is_no_fault_of_the_file(folder, content):
    (folder / "good").write_bytes(content)
    with pytest.raises(ValueError, match=r"^device must be .* got 'nonsense'"):
        DiffusionDensity.load(folder / "good", device="nonsense")


def test_the_file_says_what_it_is(model, tmp_path):
    model.save(tmp_path / "m")
    with safe_open(tmp_path / "m", "np") as file:
        metadata = file.metadata()
        assert all(file.get_tensor(k).dtype.kind == "f" for k in file.keys())  # noqa: SIM118
    assert json.loads(metadata["discrete_itd"])["class"] == "DiffusionDensity"


# -- whole or not at all --------------------------------------------------------------------------


def test_a_failing_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")

    def write(partial):
        partial.write_text("half")
        raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError, match="disk gone"):
        files.write_whole(path, write)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_a_full_disk_is_an_oserror_and_leaves_the_old_file(model, tmp_path):
    path, card = tmp_path / "m.safetensors", tmp_path / "m.safetensors.md"
    model.save(path)
    before = path.read_bytes()
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, most[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            model.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert path.read_bytes() == before
    assert {*tmp_path.iterdir()} <= {path, card}


def test_one_at_a_time_is_in_a_lock(tmp_path):
    path, n_times = tmp_path / "count", 12
    path.write_text("0")

    def count(_):
        n_left = n_times
        while n_left:
            with contextlib.suppress(BlockingIOError), files.locked(path):
                path.write_text(str(int(path.read_text()) + 1))
                n_left -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert path.read_text() == str(4 * n_times)
    assert [*tmp_path.iterdir()] == [path]


def test_a_lock_that_a_kill_has_left_bars_nobody(tmp_path):
    (tmp_path / ".f.lock").touch()
    with files.locked(tmp_path / "f"), pytest.raises(BlockingIOError, match="another run"):
        files.locked(tmp_path / "f").__enter__()
    assert not [*tmp_path.iterdir()]


def test_a_whole_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "f.csv.gz"
    path.write_text("old")
    seen = []
    files.write_whole(
        path, lambda partial: (seen.append(partial.suffix), partial.write_text("new"))
    )
    assert path.read_text() == "new"
    assert seen == [".gz"]
    assert os.listdir(tmp_path) == ["f.csv.gz"]
    fresh = tmp_path / "plain"
    fresh.touch()
    assert path.stat().st_mode == fresh.stat().st_mode  # not private, as temporary files are


def rewritten(path):
    """The mode of a file after it is written anew."""
    files.write_whole(path, lambda partial: partial.write_text("new"))
    assert path.read_text() == "new"
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_is_written_anew_keeps_its_mode(tmp_path, mode):
    path = tmp_path / "f"
    path.touch()
    path.chmod(mode)
    assert rewritten(path) == mode


@pytest.mark.parametrize("is_there", [True, False])
def test_links_stay_and_lead_to_what_is_written(tmp_path, is_there):
    (tmp_path / "folder").mkdir()
    target, link, further = tmp_path / "folder" / "f", tmp_path / "link", tmp_path / "further"
    if is_there:
        target.touch(0o600)
    link.symlink_to("folder/f")
    further.symlink_to(link)
    for path in (link, further):
        assert rewritten(path) == 0o600 or not is_there
        assert target.read_text() == "new"
        target.write_text("old")
    assert link.is_symlink()
    assert further.is_symlink()
    assert os.listdir(tmp_path / "folder") == ["f"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="not a regular file"):
        rewritten(tmp_path / "loop")


def test_what_a_killed_call_has_left_goes_a_day_later(tmp_path):
    names = []
    files.write_whole(tmp_path / "f", lambda partial: (names.append(partial), partial.touch()))
    (left,) = names
    left.touch()
    (tmp_path / ".fg.partial-x").touch()  # of another file
    now = time.time()
    for hours in (1, 25):
        for path in tmp_path.glob(".*"):
            os.utime(path, (now, now - 3600 * hours))
        rewritten(tmp_path / "f")
        assert left.exists() == (hours < 24)
    assert {path.name for path in tmp_path.iterdir()} == {"f", ".fg.partial-x"}


def test_a_card_replaces_cards_alone(model, tmp_path):
    model.save(tmp_path / "m")
    model.save(tmp_path / "m")
    before = (tmp_path / "m").read_bytes()
    for text in ("# Notes", ""):
        (tmp_path / "m.md").write_text(text)
        with pytest.raises(FileExistsError, match=r"m\.md"):
            model.save(tmp_path / "m")
        assert (tmp_path / "m.md").read_text() == text
    model.save(tmp_path / "m", card=False)
    assert (tmp_path / "m").read_bytes() == before


def test_only_regular_files_are_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(OSError, match="not a regular file"):
            files.write_whole(tmp_path / name, lambda partial: partial.write_text("x"))
    with pytest.raises(FileNotFoundError):
        files.write_whole(tmp_path / "none" / "f", lambda partial: partial.write_text("x"))
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


# -- the same bits --------------------------------------------------------------------------------


def test_one_model_gives_the_same_bytes_again(model, tmp_path):
    for i in range(4):
        model.save(tmp_path / str(i))
    assert len({(tmp_path / str(i)).read_bytes() for i in range(4)}) == 1


@pytest.mark.slow
def test_one_model_gives_the_same_bytes_in_any_process(model, tmp_path):
    model.save(tmp_path / "m")
    code = "import sys; from discrete_itd import DiffusionDensity as D; D.load('m').save('x')"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "m").read_bytes()


def test_timings_come_back(tmp_path):
    rows = pd.DataFrame({"a": list("xyxxyxzz") * 8, "n": [1, 2, 1, 1, 3, 1, 2, 2] * 8})
    fitted = DiffusionDensity(denoiser=RowMixture(("tree", "independent")), random_state=0)
    fitted.fit(rows).save(tmp_path / "m")
    loaded = DiffusionDensity.load(tmp_path / "m")
    pd.testing.assert_frame_equal(loaded.candidates_, fitted.candidates_)
    pd.testing.assert_frame_equal(loaded.history_, fitted.history_)
    assert loaded.model_.microseconds == fitted.model_.microseconds


@pytest.mark.parametrize(
    "timings",
    [{"history": 1}, {"cost": {}}, {"cost": 1}, {"members": {"a": 1}}],
    ids=range(4),
)  # fmt: skip
def test_forged_timings_are_refused(model, folder, timings):
    path = rewrite(model, folder, lambda header: header["fitted"]["model"].update(timings))
    with pytest.raises(ValueError, match=rf"m\.safetensors: fitted.model.{next(iter(timings))}"):
        DiffusionDensity.load(path)


def test_parameters_survive_a_file(model, tmp_path):
    given = {
        "column_types": {np.str_("n"): "nominal", "a": {"kind": "nominal", "missing": "category"}},
        "denoiser": Network(width=np.int32(2), depth=1, base="independent"),
        "max_time": np.float64(2),
        "schedule": IsotropicSchedule((1.0,)),
        "random_state": np.int64(3),
    }
    other = copy.deepcopy(model)
    vars(other).update(given)
    other.save(tmp_path / "m")
    assert DiffusionDensity.load(tmp_path / "m", device=other.device).get_params() == (
        other.get_params()
    )
    other.random_state = np.random.RandomState(0)
    other.save(tmp_path / "m")
    assert DiffusionDensity.load(tmp_path / "m").random_state is None


def test_a_companion_that_is_a_part_of_the_scorer_is_one_denoiser_in_a_loaded_model(tmp_path):
    """Both are stored; asked once, it answers for both."""
    frame = pd.DataFrame({"a": list("xyxxyx"), "b": [True, False] * 3})
    density = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    own = density.model_
    both = RowMixtureDenoiser(own.denoiser.codebook, [own.denoiser, own.marginals], [3, 1])
    for companion, is_shared in ((own.denoiser, True), (copy.deepcopy(both), False)):
        density.model_ = dataclasses.replace(own, denoiser=both, companion=companion)
        density.save(tmp_path / "m")
        back = DiffusionDensity.load(tmp_path / "m").model_
        assert (back.companion is back.denoiser.members[0]) == is_shared
