"""Files of models: whole or not at all, and whatever is wrong with one is a ValueError."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from discrete_itd import CoordinateSchedule, DiffusionDensity, IsotropicSchedule
from discrete_itd import state as files

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def model():
    rows = pd.DataFrame({"a": list("xyxxyx"), "n": [1, 2, 1, 1, 3, 1], "b": [True, False] * 3})
    return DiffusionDensity(width=2, depth=1, max_steps=1, n_calls=4, random_state=0).fit(rows)


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


def rewrite(model, folder, change, *, tensors=None):
    """Save the model with another header, digest and all."""
    header, kept = model._to_state()
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
    assert got == {"format": files.FORMAT, **header}
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        DiffusionDensity.load(tmp_path / "none")
    with pytest.raises(OSError, match="director"):
        DiffusionDensity.load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"a,b\n1,2\n", b"\0" * 64, b"\xff" * 64, b"{}", b"\x80\x04N."]
)
def test_other_files(folder, content):
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
        with pytest.raises(ValueError, match="damaged"):
            DiffusionDensity.load(path)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_short(data, folder, content):
    refuse(folder, content[: data.draw(st.integers(0, len(content) - 1))])


@given(data=st.data())
@settings(max_examples=300)
def test_a_flipped_bit(data, folder, content):
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    refuse(folder, bytes(flipped))


def test_every_bit_of_the_files_frame(folder, content):
    """The eight bytes of a length and the first of the header, where readers are most easily led astray."""
    for bit in range(8 * 24):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        refuse(folder, bytes(flipped))


@given(extra=st.binary(min_size=1, max_size=9))
def test_a_file_with_a_tail(extra, folder, content):
    refuse(folder, content + extra)


def test_a_newer_format_is_refused_by_name(model, folder):
    path = rewrite(model, folder, lambda header: header.update(format=files.FORMAT + 1))
    with pytest.raises(ValueError, match=rf"format {files.FORMAT + 1}, .*upgrade discrete_itd"):
        DiffusionDensity.load(path)


def test_another_model_is_refused_by_name(model, folder):
    path = rewrite(model, folder, lambda header: header.update(model="Other"))
    with pytest.raises(ValueError, match="holds a Other, not a DiffusionDensity"):
        DiffusionDensity.load(path)


def places(value, at=()):
    """Every path into nested JSON."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for i in range(len(value)):
            yield from places(value[i], (*at, i))


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_forged_header_is_a_value_error_or_a_model(data, model, folder):
    """With a digest that is right: nothing but ValueError comes out of a header that means nothing."""
    header = json.loads(json.dumps(model._to_state()[0]))
    at = data.draw(st.sampled_from([p for p in places(header) if p]))
    new = data.draw(JSON)

    def change(header):
        for key in at[:-1]:
            header = header[key]
        if data.draw(st.booleans()):
            header[at[-1]] = new
        else:
            del header[at[-1]]

    path = rewrite(model, folder, change)
    try:
        DiffusionDensity.load(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("drop", [True, False])
def test_forged_tensors(model, folder, drop):
    tensors = model._to_state()[1]
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
    assert json.loads(metadata["discrete_itd"])["model"] == "DiffusionDensity"


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


def test_only_regular_files_are_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(OSError, match="not a regular file"):
            files.write_whole(tmp_path / name, lambda partial: partial.write_text("x"))
    with pytest.raises(FileNotFoundError):
        files.write_whole(tmp_path / "none" / "f", lambda partial: partial.write_text("x"))
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


def test_a_failing_save_leaves_the_old_model(model, content, tmp_path, monkeypatch):
    path = tmp_path / "m"
    path.write_bytes(content)

    def fail(*_):
        raise files.SafetensorError("no space left on device")

    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        model.save(path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["m"]


# -- parts of a header ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule", [IsotropicSchedule((0.1, 2.5)), CoordinateSchedule(5), CoordinateSchedule(5, 2)]
)
def test_schedules_survive_json(schedule):
    assert files.schedule_from_json(json.loads(json.dumps(files.schedule_to_json(schedule)))) == (
        schedule
    )


def test_a_schedule_of_ones_own_cannot_be_kept():
    with pytest.raises(ValueError, match="schedule of type object cannot be kept"):
        files.schedule_to_json(object())


def test_parameters_survive_json():
    parameters = DiffusionDensity(
        columns={np.int64(0): "nominal", "b": "ordinal"},
        width=np.int32(4),
        max_time=np.float64(2),
        path=IsotropicSchedule((1.0,)),
        random_state=np.int64(3),
    ).get_params()
    back = files.parameters_from_json(json.loads(json.dumps(files.parameters_to_json(parameters))))
    assert back == parameters
    parameters["random_state"] = np.random.RandomState(0)
    assert files.parameters_to_json(parameters)["random_state"] is None
