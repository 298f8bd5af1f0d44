"""Random numbers keyed by the content of rows: a function of the row, with the laws of chance."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import LAW, seeded_generator, seeds
from scipy import stats

from discrete_itd.channel.noise import RowNoise, cell_bits, draw_salt

salts = st.integers(-(2**63), 2**64 - 1)  # any integer of 64 bits, signed or not


def make_noise(x, path=0, salt=1):
    return RowNoise(x, torch.full((len(x),), path, device=x.device), salt)


def numbers(x, **kwargs):
    """Some of the noise of each row, on one line."""
    noise = make_noise(x, **kwargs)
    return torch.cat([noise.normal(1, 3, torch.float64), noise.uniform(0, 2)], 1)


@LAW
@given(seeds, st.integers(1, 7), salts, st.integers(0, 300))
def test_noise_is_a_function_of_the_row(device, dtype, seed, n_columns, salt, path):
    rng = np.random.default_rng(seed)
    codes = torch.tensor(rng.choice([0.0, 1.0, -0.25, np.nan], (12, n_columns)), device=device)
    order = torch.tensor(rng.permutation(12)[:7], device=device)
    noise, part = make_noise(codes, path, salt), make_noise(codes[order], path, salt)
    for stream in (0, 1, 5):
        normal = noise.normal(stream, 5, dtype)
        assert torch.equal(normal[order], part.normal(stream, 5, dtype))
        assert torch.equal(noise.uniform(stream, 3)[order], part.uniform(stream, 3))
        for i in range(12):  # equal rows, equal noise; different rows, different noise
            same = ((codes == codes[i]) | (codes.isnan() & codes[i].isnan())).all(1)
            assert torch.equal((normal == normal[i]).all(1), same)


@LAW
@given(st.floats(), st.floats(), salts)
def test_equal_cells_and_only_they_are_alike(device, a, b, salt):
    """Of all float64 values, subnormal and infinite ones included."""
    x = torch.tensor([[a, 1.0], [b, 1.0], [1.0, a]], dtype=torch.float64, device=device)
    same = a == b or (math.isnan(a) and math.isnan(b))
    got = numbers(x, salt=salt)
    assert torch.equal(got[0], got[1]) == same
    assert torch.equal(got[0], got[2]) == (a == 1.0)  # the place of a cell counts


def test_zero_has_no_sign_and_missing_cells_no_payload(device):
    bits = np.array(
        [0x7FF8000000000000, 0x7FF8000000000001, 0xFFF8000000000000, 0x7FF4000000000002]
    )
    missing = torch.tensor(bits.astype(np.uint64).view(np.float64), device=device)[:, None]
    assert missing.isnan().all()
    assert len(cell_bits(missing).unique()) == 1
    assert len(numbers(missing).unique(dim=0)) == 1
    zeros = torch.tensor([[0.0], [-0.0]], dtype=torch.float64, device=device)
    assert len(numbers(zeros).unique(dim=0)) == 1
    assert not torch.equal(numbers(zeros)[0], numbers(missing)[0])
    near = torch.tensor([[1.0], [1.0 + 2**-52]], dtype=torch.float64, device=device)
    assert len(numbers(near).unique(dim=0)) == 2


def test_rows_in_any_memory_layout_are_alike(device):
    x = torch.tensor(np.random.default_rng(0).normal(size=(5, 3)), device=device)
    assert torch.equal(numbers(x.T.contiguous().T), numbers(x))
    assert torch.equal(numbers(x[::2]), numbers(x)[::2])


def test_extreme_salts_are_different_salts(device):
    x = torch.zeros(1, 2, dtype=torch.float64, device=device)
    got = [numbers(x, salt=s) for s in (0, 1, -1, 2**62, 2**63 - 1, -(2**63))]
    assert len(torch.cat(got).unique(dim=0)) == 6
    assert torch.equal(numbers(x, salt=2**63), numbers(x, salt=-(2**63)))


def distinct_rows(n, device):
    """Rows of a category and a real value."""
    number = torch.arange(n, dtype=torch.float64, device=device)
    return torch.stack([number // 300, (number % 300) * 1e-3], 1)


@pytest.mark.parametrize("stream", [0, 1, 77])
def test_normals_and_uniforms_have_their_laws(device, dtype, stream):
    noise = make_noise(distinct_rows(20000, device), path=3, salt=12345)
    normal = noise.normal(stream, 5, dtype).cpu().double().numpy()
    uniform = noise.uniform(stream, 4).cpu().numpy()
    assert normal.shape == (20000, 5)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    for column in normal.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    for column in uniform.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    assert stats.kstest(normal[:4000].ravel(), "norm").pvalue > 1e-4  # along the rows too
    assert abs((normal**2).mean() - 1) < 5 * math.sqrt(2 / normal.size)
    assert abs(stats.kurtosis(normal.ravel())) < 0.1


def test_streams_paths_rows_salts_and_coordinates_are_independent(device, dtype):
    codes = distinct_rows(5000, device)
    views = [
        make_noise(codes),
        make_noise(codes, path=1),
        make_noise(codes, path=2),
        make_noise(codes, salt=2),
        make_noise(codes + 1),
        make_noise(codes.flip(1)),
    ]
    columns = [v.normal(s, 3, dtype).cpu().double().numpy() for v in views for s in (0, 1, 2)]
    z = np.concatenate(columns, 1)
    z = np.concatenate([z, np.roll(z[:, :3], 1, 0)], 1)
    for values in (z, z**2, np.sign(z) * (abs(z) > 1)):
        r = np.corrcoef(values.T) - np.eye(values.shape[1])
        assert abs(r).max() < 5.5 / math.sqrt(len(z))
    quadrants = (z[:, 0] > 0) * 4 + (z[:, 1] > 0) * 2 + (z[:, 2] > 0)
    assert stats.chisquare(np.bincount(quadrants, minlength=8)).pvalue > 1e-4


def test_a_salt_is_one_draw_of_the_generator(device):
    salts = {draw_salt(seeded_generator(seed, device)) for seed in range(50)}
    assert len(salts) == 50
    assert draw_salt(seeded_generator(3, device)) == draw_salt(seeded_generator(3, device))
    assert min(salts) >= 0
    assert 2**61 < max(salts) < 2**62


def test_noise_is_that_of_earlier_releases(device):
    """Or a saved model would give a row another score on another path."""
    x = torch.tensor([[0.0, 1.0], [0.5, math.nan]], dtype=torch.float64, device=device)
    noise = RowNoise(x, torch.tensor([0, 5], device=device), salt=-7)
    got = [noise.uniform(0, 2), noise.uniform(3, 2), noise.normal(1, 2, torch.float64)]
    expected = (
        [0.27047039998875433, 0.06704415118898222, 0.255331323874575, 0.19677107616954037],
        [0.028434304195659732, 0.550168186607656, 0.4324424130244161, 0.21921670020622797],
        [-0.5455781244884464, 1.142444723839626, 0.6429995664744855, 1.7033399183446212],
    )
    for values, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(values.flatten().cpu().numpy(), wanted, rtol=1e-12)
