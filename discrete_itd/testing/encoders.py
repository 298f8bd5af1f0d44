"""Properties of an encoder of tables, and their check."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.encoders import Bins, Categories, Column, Continuous, TableEncoder
from discrete_itd.testing.properties import checked, through_file

NOWHERE = "no value of any table \N{SNOWMAN}"


@dataclass(frozen=True)
class _Subject:
    encoder: TableEncoder
    frame: pd.DataFrame
    rtol: float
    atol: float

    def columns(self) -> list[tuple[int, Column, pd.Series]]:
        """Each column, its position, and its cells."""
        table: Any = self.frame
        return [(j, c, table[c.name]) for j, c in enumerate(self.encoder.schema)]

    def alike(self, a: pd.Series, b: pd.Series) -> None:
        pd.testing.assert_series_equal(a, b, rtol=self.rtol, atol=self.atol)


def _shapes(s: _Subject) -> None:
    """Codes and log-volumes are finite float64 of the columns' points; a missing cell is NaN and has no volume."""
    x, log_volume = s.encoder.transform(s.frame)
    for array in (x, log_volume):
        assert array.dtype == float, f"an array of {array.dtype}"
        assert array.shape == (len(s.frame), len(s.encoder.owner)), f"shape {array.shape}"
    assert np.isfinite(log_volume).all(), "a log-volume is not finite"
    for j, column, cells in s.columns():
        gap, name = cells.isna().to_numpy(), f"column {column.name!r}"
        assert (np.isnan(x[:, j]) == gap).all(), f"{name}: NaN elsewhere than at missing cells"
        assert not log_volume[gap, j].any(), f"{name}: a missing cell has a log-volume"
        own = x[~gap, j]
        if column.points.kind == "real":
            assert np.isfinite(own).all(), f"{name}: a value is not finite"
        else:
            inside = (own >= 0) & (own < column.points.n_points) & (own == np.floor(own))
            assert inside.all(), f"{name}: {own[~inside][0]} is no code of {column.points.n_points}"
    assert s.encoder.codebook().n_columns == len(s.encoder.owner), "the codebook has other columns"


def _decoding_undoes_encoding(s: _Subject) -> None:
    """decode(encode(X)) is X, dtypes and gaps included; of bins and pooled categories, the codes come back.

    Draws of a continuous column with atoms, or of one whose numbers repeat, may be other numbers.
    """
    x, _ = s.encoder.transform(s.frame)
    for rng in (None, np.random.default_rng(0)):
        back: Any = s.encoder.inverse_transform(x, s.frame.index, rng)
        again = s.encoder.transform(back).x
        for j, column, cells in s.columns():
            # unseen categories have no value
            known = ~(column.open & (x[:, j] == column.codec.n_levels))
            if column.kind == "binned" or getattr(column.codec, "pooled", ()):
                np.testing.assert_array_equal(again[known, j], x[known, j], f"{column.name!r}")
                assert back[column.name].dtype == cells.dtype, f"dtype of {column.name!r}"
            elif known.all() and (rng is None or not _draws_few(column.codec)):
                s.alike(back[column.name], cells)


def _row_alone(s: _Subject) -> None:
    """A row is encoded alone as it is in its table."""
    together = s.encoder.transform(s.frame)
    for i in range(min(len(s.frame), 20)):
        for one, all_ in zip(s.encoder.transform(s.frame.iloc[i : i + 1]), together, strict=True):
            np.testing.assert_array_equal(one, all_[i : i + 1], f"row {i}")


def _names_not_order(s: _Subject) -> None:
    """Columns are found by their names, whatever their order."""
    turned = s.encoder.transform(s.frame.iloc[:, ::-1])
    np.testing.assert_array_equal(turned.x, s.encoder.transform(s.frame).x)


def _refused(call: Callable[[], Any], column: Column, what: str) -> None:
    """AssertionError unless a call raises an error that names the column."""
    message = None
    try:
        call()
    except (TypeError, ValueError) as error:
        message = str(error)
    assert message is not None, f"column {column.name!r}: {what} is not refused"
    assert repr(column.name) in message, f"{what}: the message does not name it: {message}"


def _refuses(s: _Subject) -> None:
    """An absent column, text among numbers and an unseen value in a closed column raise errors that name the column.

    An open column encodes unseen values as its last level.
    """
    for j, column, _ in s.columns():
        without = s.frame.drop(columns=[column.name])
        _refused(lambda w=without: s.encoder.transform(w), column, "its absence")
        strange = s.frame.iloc[:1].astype({column.name: object})
        strange[column.name] = [NOWHERE]
        if column.open:
            x = s.encoder.transform(strange).x
            expected = column.points.n_points - 1
            assert x[0, j] == expected, f"column {column.name!r}: unseen is {x[0, j]}"
        else:
            _refused(lambda t=strange: s.encoder.transform(t), column, "an unseen value")


def _slope(s: _Subject) -> None:
    """Log-volumes of continuous columns are the logarithm of the slope of the map: densities are per unit.

    Where numbers repeat, the code of new ones is added.
    """
    for _, column, cells in s.columns():
        if not _is_number(column) or cells.isna().all():
            continue
        codec: Any = column.codec
        values = np.unique(np.array(cells.dropna(), dtype=float))
        step = 1e-5 * np.maximum(np.abs(values), 1e-3 * max(1e-12, float(np.ptp(values))))
        high, low = (codec.encode(values + h)[0] for h in (step / 2, -step / 2))
        z, got = codec.encode(values)
        expected = np.log((high - low) / step)
        if getattr(codec, "seen", ()):
            expected -= codec.new_nats(z)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3, err_msg=f"{column.name!r}")


def _draws_few(codec: Any) -> bool:
    """Whether draws are limited to a finite set of numbers."""
    return bool(getattr(codec, "atoms", ()) or getattr(codec, "seen", ()))


def _is_number(column: Column) -> bool:
    return column.kind == "continuous" and column.family == "number"


def _stored(s: _Subject) -> None:
    """It is the same after it went through a file."""
    again = through_file(type(s.encoder), s.encoder)
    for a, b in zip(again.transform(s.frame), s.encoder.transform(s.frame), strict=True):
        np.testing.assert_array_equal(a, b)


def check_encoder(
    encoder: TableEncoder, frame: pd.DataFrame, *, rtol: float = 1e-6, atol: float = 1e-9
) -> list[str]:
    """Check the properties that the encoder of a table must have.

    Parameters
    ----------
    encoder : TableEncoder
        Possibly with your own codecs.
    frame : DataFrame, shape (N, C)
        Rows that it can encode, with missing cells and with categories seen in training.
    rtol, atol : float
        Tolerances of decoded numbers.

    Returns
    -------
    list of str
        Names of the properties that were checked; "stored" if all codecs are the library's own, since files hold no
        others.

    Raises
    ------
    AssertionError
        If a property does not hold; the message says which.

    Examples
    --------
    >>> frame = pd.DataFrame({"colour": ["red", "blue", None], "size": [3, 1, 2]})
    >>> check_encoder(TableEncoder.fit(frame), frame)[:2]
    ['shapes', 'decoding_undoes_encoding']
    """
    subject = _Subject(encoder, frame, rtol, atol)
    own = all(isinstance(c.codec, Categories | Bins | Continuous) for c in encoder.schema)
    properties = [
        (_shapes, True),
        (_decoding_undoes_encoding, True),
        (_row_alone, True),
        (_names_not_order, True),
        (_refuses, True),
        (_slope, any(_is_number(c) for c in encoder.schema)),
        (_stored, own),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # unseen values are intended here
        return checked(encoder, subject, properties)
