"""Properties of number lines: the slope is the derivative of the map, and the cells of a lattice tile the line."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import LAW

from discrete_itd.channel.rounded_numbers import MANY, NumberLine, NumberLines

STEP = 0.25


@st.composite
def lines(draw):
    """Columns on a lattice whose numbers are centred on -3 and spread by 2, one of them opened or none."""
    return NumberLine(
        center=-3.0,
        scale=draw(st.floats(0.5, 3.0)),
        power=draw(st.sampled_from([0.0, 0.3, 1.0, 1.7, 2.0])),
        mean=draw(st.floats(-2.0, 2.0)),
        spread=draw(st.floats(0.2, 5.0)),
        step=STEP,
        origin=-3.0,
        far=draw(st.sampled_from([2.0, 1000.0])),  # the first has tails among these numbers
        opened=draw(st.sampled_from([(), ((-2.0, 0.4),)])),
    )


@LAW
@given(st.lists(lines(), min_size=1, max_size=3), st.integers(0, 2**31 - 1))
def test_properties_log_slopes_are_those_of_finite_differences(columns, seed):
    number_lines = NumberLines(columns)
    generator = torch.Generator().manual_seed(seed)
    distance = 4 * torch.randn(20, len(columns), generator=generator, dtype=torch.float64)
    h = 1e-5
    scale, far = (torch.tensor([getattr(c, name) for c in columns]) for name in ("scale", "far"))
    # the opened cell has another slope, and the second derivative jumps where tails begin
    is_smooth = ((distance - 1).abs() > STEP / 2 + h) & ((distance.abs() - scale * far).abs() > h)
    below, above = (number_lines.encoded(distance + side * h)[0] for side in (-1, 1))
    slope = number_lines.encoded(distance)[1].exp()
    torch.testing.assert_close(
        slope[is_smooth], ((above - below) / (2 * h))[is_smooth], rtol=1e-5, atol=1e-8
    )


@LAW
@given(st.lists(lines(), min_size=1, max_size=3))
def test_properties_cells_of_neighbours_meet_and_hold_their_numbers(columns):
    number_lines = NumberLines(columns)
    distance = STEP * torch.arange(-40, 41, dtype=torch.float64)[:, None].expand(-1, len(columns))
    z = number_lines.encoded(distance)[0]
    middle, width = number_lines.cells(z)
    low, high = middle - width / 2, middle + width / 2
    torch.testing.assert_close(high[:-1], low[1:], rtol=1e-9, atol=1e-9)
    assert ((low < z) & (z < high)).all()
    _, neighbours = number_lines.near(z, 1)
    torch.testing.assert_close(neighbours.middle[:, :, 1], middle, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(neighbours.width[:, :, 1], width, rtol=1e-9, atol=1e-9)


@LAW
@given(st.lists(lines(), min_size=1, max_size=3), st.integers(0, 2**31 - 1))
def test_properties_cells_of_many_numbers_are_those_of_each(columns, seed):
    """Of which many are equal, and some missing."""
    number_lines = NumberLines(columns)
    generator = torch.Generator().manual_seed(seed)
    distance = STEP * torch.randint(-40, 41, (8, len(columns)), generator=generator).double()
    few = number_lines.encoded(distance)[0]
    few[::3] = torch.nan
    rows = torch.randint(8, (1 + MANY, 1), generator=generator)[:, 0]
    for found, expected in zip(number_lines.cells(few[rows]), number_lines.cells(few), strict=True):
        torch.testing.assert_close(found, expected[rows], rtol=1e-12, atol=0.0, equal_nan=True)
