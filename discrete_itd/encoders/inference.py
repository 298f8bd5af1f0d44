"""Inference of the kind of a column: as the user specifies, otherwise from its dtype and values; notes on copies."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from discrete_itd.encoders.categories import (
    Categories,
    check_finite,
    check_truths,
    count_values,
    fit_categories,
    no_category,
)
from discrete_itd.encoders.clock import Clock
from discrete_itd.encoders.codec import Codec
from discrete_itd.encoders.codes import (
    DISTINCT,
    MOST_ROWS,
    Codes,
    best_cut,
    cuts_of,
    fit_codes,
    in_order,
    prefix_of,
    shape_of,
)
from discrete_itd.encoders.column import Column, number
from discrete_itd.encoders.gaps import evenly
from discrete_itd.encoders.levels_or_numbers import (
    LEAST_GAIN,
    MOST_OTHERS,
    gain_of_numbers,
    grouped,
    most_informative,
)
from discrete_itd.encoders.numeric import (
    Continuous,
    find_lattice,
    gap_codes,
)
from discrete_itd.reading.columns import Reading, first_of, read_texts
from discrete_itd.reading.frames import (
    EXACT_BELOW,
    TIMES,
    PlainCells,
    Scalar,
    as_numbers,
    check_supported,
    decimals_of,
    family,
    holding_missing,
    is_category,
    is_decimal,
    is_dictionary,
    is_number,
    plain,
    read_cells,
    text_among,
    time_grid,
)
from discrete_itd.reading.notation import NOTATIONS, Asked
from discrete_itd.reading.numbers import NumberNotation
from discrete_itd.reading.text import FEW_VALUES, as_text, number_of, quoted
from discrete_itd.validation import advice, check_choice, warn, warn_of_column

Kind = Literal["nominal", "ordinal", "continuous", "clock", "code"]
Why = Literal["identifiers", "free text", "part of the clock"]  # a column is left out
KINDS: dict[str, type[Codec]] = {  # the class of each kind of column
    "nominal": Categories, "ordinal": Categories, "continuous": Continuous, "clock": Clock,
    "code": Codes,
}  # fmt: skip
MISSING = ("auto", "marginalise", "category")
UNKNOWN = ("smooth", "error")
OPTIONS = {  # the choices, the kind of column that has the option, or None if any has
    "na": None,
    "missing": MISSING,
    "notation": NOTATIONS,
    "kind": None,
    "categories": "nominal or ordinal",
}
MANY_NUMBERS = 256  # more different numbers are continuous
# Share of the cells to come that would be new numbers (Good and Turing's), above which whole numbers are continuous,
# whatever is cheaper in nats: levels do not know how far a new one lies from those seen, which an anomaly score needs.
NEW_NUMBERS = 0.1
# Fractional numbers of a list, like prices, may be levels: with at most this share of new numbers to come, at this
# share of the places of their lattice between the quartiles.
RARELY_NEW, RARE_PLACES = 0.03, 0.1
# With more rows than this for each different number, levels are as good as a density whatever the numbers are: the
# frequencies in eight groups cost about eight numbers for 2 * 200 rows, LEAST_GAIN nats a cell.
MANY_ROWS = 200
FEWEST_CODES, FEWEST_ROWS = 24, 100  # a column of fewer codes, or rows, is one of levels
MOST_RANGES = 32  # of numbers that may tell prefixes of codes
MANY_CATEGORIES = 1000  # ordinal ones, of which a fit warns that they are slow
NOTHING = Reading()  # of a column that is no text


@dataclass(frozen=True)
class ColumnSpec:
    """A user's specification of one column; None where nothing is specified."""

    kind: Kind | None = None
    missing: str | None = None
    notation: Asked | None = None
    categories: tuple[Scalar, ...] | None = None
    na: tuple[str, ...] = ()


def check_column_spec(name: Hashable, spec: Any) -> ColumnSpec:
    """Check and complete the entry of one column in ``column_types``.

    Parameters
    ----------
    name : hashable
        The column's name, for errors.
    spec : str, mapping or None
        A kind or a notation, or a mapping with "kind" and options:
        "categories" of a nominal or ordinal one (all of them, in order: other values are unseen),
        "missing" ("auto", "marginalise" or "category") of any, "na" (a text or several)
        that is a missing cell of any, and "notation" ("decimal-comma", "decimal-point", "day-first" or "month-first")
        of text that is numbers or dates.

    Raises
    ------
    ValueError, TypeError
        Naming the column and the option.

    Examples
    --------
    >>> check_column_spec("size", {"kind": "ordinal", "categories": ["S", "M", "L"]}).categories
    ('S', 'M', 'L')
    """
    where = f"column {name!r}:"
    if isinstance(spec, str | None):
        spec = {"notation" if spec in NOTATIONS else "kind": spec}
    if not isinstance(spec, Mapping):
        raise TypeError(f"{where} expected a kind or a mapping of options, got {spec!r}")
    for option in spec:
        if option not in OPTIONS:
            raise ValueError(f"{where} unknown option {option!r}; the options are {(*OPTIONS,)}")
    given = {option: spec[option] for option in OPTIONS if spec.get(option) is not None}
    for option, value in given.items():
        if isinstance(OPTIONS[option], tuple):
            check_choice(f"{where} {option}", value, OPTIONS[option])
    kind = given.get("kind")
    if kind is not None:
        check_choice(f"{where} kind", kind, (*KINDS,))
    for option in given:
        if isinstance(needed := OPTIONS[option], str) and kind not in needed.split(" or "):
            raise ValueError(f"{where} {option} needs kind={needed!r}, got kind={kind!r}")
    if "notation" in given and kind in ("nominal", "code"):
        raise ValueError(f"{where} notation is of numbers or dates, and the kind {kind}")
    if "categories" in given:
        given["categories"] = _listed(name, given["categories"])
    if "na" in given:
        na = (given["na"],) if isinstance(given["na"], str) else tuple(given["na"])
        if not all(isinstance(text, str) for text in na):
            raise TypeError(f"{where} na must be text, got {given['na']!r}")
        given["na"] = na
    return ColumnSpec(**given)


def _listed(name: Hashable, categories: Any) -> tuple[Scalar, ...]:
    """Declared categories; TypeError or ValueError naming the column if they are none, repeat or are no values."""
    where = f"column {name!r}: categories must be"
    if isinstance(categories, str | Mapping) or not isinstance(categories, Iterable):
        raise TypeError(f"{where} a list of values, got {categories!r}")
    found = [plain(c) for c in categories]
    if not all(isinstance(c, Scalar) and c == c for c in found):
        raise no_category(name, found)
    check_finite(name, found)
    check_truths(name, {isinstance(c, bool) for c in found if not isinstance(c, str)})
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{where} at least one, and none twice, got {categories!r}")
    return tuple(found)


class Observed:
    """A column, of a ``kind`` or of none yet, from which kind, categories and scale are inferred.

    ``cells`` (P,) are the plain values of those that are there, all but ``n_missing`` of ``n_rows``; text of ``na`` is
    missing.
    """

    text_dtype: Any = None  # of the text as which the column was read
    is_whole: bool | None = (
        None  # what the whole table says of :attr:`all_integers`, for some of its rows
    )

    def __init__(
        self,
        name: Hashable,
        column: pd.Series,
        kind: str | None = None,
        na: Sequence[str] = (),
    ) -> None:
        dtype: Any = column.dtype
        if is_dictionary(dtype):
            dtype = pd.ArrowDtype(dtype.pyarrow_dtype.value_type)
        if is_decimal(dtype):  # floats come back
            dtype = np.dtype(object)
        self.name, self.dtype, self._kind = plain(name), dtype, kind
        check_supported(self.name, self.dtype)
        self._plain = cells = read_cells(column.mask(column.isin(na)) if na else column)
        self.cells = cells.values[cells.where[cells.where >= 0]]
        self.rows = np.flatnonzero(cells.where >= 0)  # positions of the cells in the table
        self.n_rows, self.n_missing = len(column), len(column) - len(self.cells)

    @cached_property
    def _others(self) -> np.ndarray:
        """The cells that are no text: of one type, perhaps."""
        is_text = text_among(self.cells)
        if not is_text.any():
            return self.cells
        return read_cells(pd.Series(self.cells[~is_text], dtype=object)).values

    @property
    def is_time(self) -> bool:
        """Whether the values that are no text are times."""
        return family(self._others.dtype) in TIMES

    @property
    def is_mixed(self) -> bool:
        """Whether text stands among numbers or times, on which nobody has decided."""
        if of_numbers(self.name, self._kind) is False or is_category(self.dtype):
            return False
        is_split = 0 < len(self._others) < len(self.cells)
        return is_split and (self.is_time or is_number(self._others))

    @property
    def is_key(self) -> bool:
        """Whether every row has a value, and no two rows the same."""
        return not self.n_missing and len(pd.unique(self.cells)) == self.n_rows

    @cached_property
    def all_integers(self) -> bool:
        """Whether all values are integers: by type, or by value in a column with gaps, which readers make floats."""
        if self.is_whole is not None:
            return self.is_whole
        values = self._others
        by_type = family(self.dtype) != "float" and (
            family(values.dtype) == "integer"
            or (values.dtype == object and all(isinstance(v, int | np.integer) for v in values))
        )
        return by_type or (self.n_missing > 0 and all_whole(values))

    @cached_property
    def tally(self) -> tuple[list[Scalar], np.ndarray]:
        """The different values, or all categories of the dtype, in order, numbers before text; and their counts."""
        if is_category(self.dtype):
            categories = [plain(c) for c in self.dtype.categories]
            counts = np.bincount(self._plain.where[self._plain.where >= 0])
            found = dict(zip(map(plain, self._plain.values), counts.tolist(), strict=True))
        else:
            values, counts = count_values(self.name, self.cells)
            if self.cells.dtype.kind in "iuf":  # these are in order
                return values, counts
            found = dict(zip(values, counts.tolist(), strict=True))
            categories = sorted(found, key=lambda c: (isinstance(c, str), c))
        return categories, np.array([found.get(c, 0) for c in categories], dtype=np.int64)

    def as_read(self, read: np.ndarray, is_whole: bool, text_dtype: Any) -> Observed:
        """The column as numbers, integers if ``is_whole``, or times, (K,), that the texts of :meth:`tally` are."""
        texts, there = self.tally[0], ~pd.isna(read)
        is_whole = is_whole and all_whole(read[there]) and np.abs(read[there]).max() < EXACT_BELOW
        values = read[there].astype(np.int64) if is_whole else read[there]
        place = np.where(there, np.cumsum(there) - 1, -1)[pd.Index(texts).get_indexer(self.cells)]
        known = pd.Series(values[place[place >= 0]], dtype=pd.Int64Dtype() if is_whole else None)
        return self.holding(known, self.rows[place >= 0], text_dtype=text_dtype)

    def without(self, codes: Sequence[float]) -> Observed:
        """The column of numbers without those that stand for missing cells."""
        is_known = ~np.isin(self.cells.astype(float), codes)
        known = pd.Series(self.cells[is_known], dtype=holding_missing(self.dtype, True))
        return self.holding(known, self.rows[is_known], text_dtype=self.text_dtype)

    def as_text(self, decimal: str) -> Observed:
        """A mixed column as one of text, its numbers with a decimal mark."""
        is_number = np.array([isinstance(v, int | float | np.number) for v in self.cells])
        texts = as_text(pd.Series(self.cells, dtype=object))
        texts = texts.mask(is_number, texts.str.replace(".", decimal, regex=False))
        return self.holding(texts, self.rows, "nominal")

    def holding(
        self, known: pd.Series, rows: np.ndarray, kind: str | None = None, text_dtype: Any = None
    ) -> Observed:
        """The column with these cells, at these positions (P,), in the place of those that are there."""
        column = Observed(self.name, known, kind)
        column.rows, column.n_rows, column.n_missing = rows, self.n_rows, self.n_rows - len(known)
        column.text_dtype = text_dtype
        return column


def all_whole(values: np.ndarray) -> bool:
    """Whether plain values are numbers without fractions; False if there are none."""
    if not len(values) or not is_number(values):
        return False
    if values.dtype == object:
        return all(float(v).is_integer() for v in values)
    return bool((np.isfinite(values) & (np.floor(values) == values)).all())


def read_text(seen: Observed, spec: ColumnSpec) -> tuple[Observed, Reading]:
    """A column as numbers or times if it is text of these, and how it was read, or why it was not.

    ValueError, naming the column and a cell, if it must be numbers or times and is not. A warning names words that are
    treated as missing cells, and bounds that are treated as numbers.
    """
    asked, is_mixed = spec.notation, seen.is_mixed
    forced = asked is not None or bool(of_numbers(seen.name, spec.kind))
    is_open = spec.kind is None or forced
    if is_category(seen.dtype) or not is_open or not len(seen.cells):
        return seen, NOTHING
    decimal = {"decimal-comma": ",", "decimal-point": "."}.get(asked or "")
    column = seen
    if is_mixed:  # numbers are written as Python writes them
        column = seen.as_text(decimal or ".")
        asked = asked or (None if seen.is_time else "decimal-point")
    elif not isinstance(seen.cells[0], str):
        return seen, Reading(NumberNotation(decimal=decimal) if decimal else None)
    texts, counts = cast(tuple[list[str], np.ndarray], column.tally)
    if not all(isinstance(text, str) for text in texts):
        return seen, NOTHING
    found = read_texts(seen.name, texts, counts, asked, plain=forced or is_mixed)
    if found is None:
        return seen, NOTHING
    reading, values = found
    notation, refusal = reading.notation, reading.refusal
    if notation is None:
        if forced:
            raise ValueError(
                f"column {seen.name!r}: {spec.kind or asked} needs numbers or dates,"
                f" got {refusal.reason or quoted(refusal.unlike)}"
            )
        if is_mixed and seen.is_time:
            text = quoted(next(v for v in seen.cells if isinstance(v, str)))
            how = f"replace {text} by None where a cell is missing, or make all cells text"
            raise TypeError(f"column {seen.name!r}: mixes times with text like {text}; {how}")
        if is_mixed and len(texts) <= FEW_VALUES:
            reading = reading._replace(refusal=refusal._replace(reason=""))
        return seen, reading
    is_whole = isinstance(notation, NumberNotation) and notation.places == 0
    if is_mixed and notation.is_plain and not spec.notation:
        reading = reading._replace(notation=None)
    return column.as_read(values, is_whole, None if is_mixed else seen.dtype), reading


def infer_column(
    seen: Observed,
    spec: ColumnSpec,
    *,
    is_open: bool,
    missing: str,
    from_array: bool,
    reading: Reading = NOTHING,
    groups: np.ndarray | None = None,
    cut: int | None = None,
) -> Column:
    """Decide the kind of a column from :func:`read_text`, and learn its categories or scale.

    ``groups`` (N,) are those of the column that carries most information about it, see :func:`informative_groups`;
    with a ``cut`` it is one of codes.
    A ValueError or TypeError names the column, if its name or dtype is not supported or its values are not of the kind.
    """
    codes: list[float] = []
    if spec.kind is None and spec.categories is None and is_number(seen.cells) and not from_array:
        codes = gap_codes(*map(np.array, seen.tally))
    if codes:
        n, own = seen.n_missing, seen.without(codes)
        note = f"{' and '.join(map(number, codes))} ({own.n_missing - n} cells) taken as missing, apart from all others"
        kind = advice(
            f"column_types={{{seen.name!r}: 'continuous'}}", f"--column {seen.name}=continuous"
        )
        warn_of_column(
            seen.name, f"{note}; {kind} takes them as numbers", "numbers for missing cells"
        )
        seen = own
    name, dtype, values = seen.name, seen.dtype, seen.cells
    if not isinstance(name, Scalar) or name != name:
        raise TypeError(
            f"column {name!r}: a column's name must be a string or a number, got a {type(name).__name__}"
        )
    if seen.n_missing == seen.n_rows:
        warn_of_column(name, "every cell is missing; the column carries no information", "empty")
    if isinstance(dtype, np.dtype) and family(values.dtype) in TIMES:
        dtype = values.dtype  # times in objects come back as times
    kind = "code" if cut is not None else spec.kind or _kind(seen, dtype, from_array, groups)
    codec, scale = _fit_codec(seen, kind, spec, dtype, is_open, cut)
    if kind == "ordinal" and len(codec.categories) > MANY_CATEGORIES:
        warn(
            f"column {name!r}: {len(codec.categories)} ordinal categories will make the model large and slow; make it"
            " 'continuous'"
        )
    counts = seen.n_rows, seen.n_missing
    text = reading.notation, seen.text_dtype
    na, notes = (*dict.fromkeys((*spec.na, *reading.gaps)),), reading.notes
    if isinstance(codec, Codes):
        notes = *notes, codec.described
    column = Column(
        name, dtype, codec, *counts, False, *scale, *text, na=na, codes=(*codes,), notes=notes
    )
    is_value = (spec.missing or missing) == "category" and seen.n_missing > 0
    return column.with_absent() if is_value else column


def refit_column(column: Column, cells: pd.Series, spec: ColumnSpec, *, missing: str) -> Column:
    """The column with categories or scale learned from the ``cells`` of some rows of its table.

    What the table decides is kept: the kind, the notation, and which texts and numbers are missing cells.
    """
    kind = "continuous" if column.kind == "clock" else column.kind  # until its times are counted
    seen, codec = Observed(column.name, cells, kind, column.na), column.codec
    read = column.readable(cells)[0]
    is_known = read.where >= 0
    known = read.values[read.where[is_known]]
    types = {*map(type, column.categories)}
    is_whole = codec.whole if codec.of_numbers else types == {int}
    if len(known) < len(seen.cells) or known.dtype != seen.cells.dtype:  # text or codes among them
        if types and types <= {int, float} and known.dtype == object:
            known = np.array([number_of(v) if isinstance(v, str) else v for v in known])
        if is_whole and known.dtype.kind == "f":
            known = known.astype(np.int64)
        seen = seen.holding(pd.Series(known), np.flatnonzero(is_known))
    if codec.of_numbers or (types and types <= {int, float}):
        seen.is_whole = is_whole
    is_open = column.open or codec.of_numbers
    codec, scale = _fit_codec(seen, kind, spec, column.dtype, is_open, getattr(codec, "cut", None))
    how: dict[str, Any] = dict(zip(("origin", "step", "decimals"), scale, strict=True))
    how |= {"n_rows": seen.n_rows, "n_missing": seen.n_missing}
    fitted = replace(column, codec=codec, absent=False, informative=False, **how)
    is_value = (spec.missing or missing) == "category" and seen.n_missing > 0
    return fitted.with_absent() if is_value else fitted


def _fit_codec(
    seen: Observed, kind: str, spec: ColumnSpec, dtype: Any, is_open: bool, cut: int | None = None
) -> tuple[Codec, tuple[int, int, int | None]]:
    """The codec of a column of a kind; of numbers and times also their origin, step and decimals.

    Codes are cut at a ``cut``.
    """
    is_known = bool(spec.categories) or family(dtype) in ("category", "boolean")
    texts, counts = cast(tuple[list[str], np.ndarray], ([], None) if cut is None else seen.tally)
    if cut is not None and any(prefix_of(text, cut) is not None for text in texts):
        return fit_codes(texts, counts, cut), (0, 1, None)
    if (cut is not None or not len(seen.cells)) and not is_known:
        # a value that is new is no surprise, though in float32 its probability is below one
        return Categories("nominal", (), is_open, unseen_count=1e6), (0, 1, None)
    if codec_class(seen.name, kind).of_numbers:
        return _fit_numbers(seen, kind, dtype)
    return _fit_categories(seen, kind, spec, is_open), (0, 1, None)


def codec_class(name: Hashable, kind: str) -> type[Codec]:
    """The class of a kind of column; ValueError, naming the column, if there is none."""
    if kind not in KINDS:
        raise ValueError(f"column {name!r}: unknown kind {kind!r}; the kinds are {(*KINDS,)}")
    return KINDS[kind]


def of_numbers(name: Hashable, kind: str | None) -> bool | None:
    """Whether the values of a kind are numbers or times; None if there is no kind yet."""
    return None if kind is None else codec_class(name, kind).of_numbers


def _fit_numbers(
    seen: Observed, kind: str, dtype: Any
) -> tuple[Codec, tuple[int, int, int | None]]:
    """The scale of a column of numbers or times, and its origin, step and decimals."""
    name, values, expected = seen.name, seen.cells, family(seen.cells.dtype)
    if is_category(dtype) or expected == "boolean":
        raise ValueError(
            f"column {name!r}: dtype {dtype} cannot be {kind}; convert it to numbers first"
        )
    is_time = expected in TIMES
    origin, step = time_grid(values) if is_time else (0, 1)
    cells = PlainCells(values, np.arange(len(values)))
    numbers = as_numbers(name, cells, expected if is_time else "number", origin, step)
    whole = (is_time or seen.all_integers) and float(np.abs(numbers).max()) < EXACT_BELOW
    scale = origin, step, None if is_time or whole else decimals_of(numbers, dtype)
    kind_class: Any = codec_class(name, kind)
    return kind_class.fit(numbers, whole, in_time=expected == "datetime"), scale


def _kind(seen: Observed, dtype: Any, from_array: bool, groups: np.ndarray | None = None) -> Kind:
    if is_category(dtype):
        return "ordinal" if dtype.ordered else "nominal"
    values = seen.cells
    if family(values.dtype) in TIMES:
        return "continuous"
    if not is_number(values):
        return "nominal"
    n_numbers = len(pd.unique(values))
    if n_numbers > MANY_NUMBERS:
        return "continuous"
    if seen.all_integers and from_array and family(values.dtype) == "integer":  # codes
        return "nominal"
    if n_numbers <= FEW_VALUES and (len(values) >= 20 * n_numbers or all_whole(values)):
        return "ordinal"
    _, counts = seen.tally
    if (counts == 1).sum() > (NEW_NUMBERS if seen.all_integers else RARELY_NEW) * len(values):
        return "continuous"
    numbers, codes = np.unique(values.astype(float), return_inverse=True)
    if not seen.all_integers:
        (step, origin), (low, high) = find_lattice(numbers), np.quantile(numbers, [0.25, 0.75])
        if origin is None or n_numbers / 2 * step > RARE_PLACES * (high - low):
            return "continuous"
    if len(values) > MANY_ROWS * n_numbers or not np.isfinite(numbers).all():
        return "ordinal"
    given = None if groups is None else groups[seen.rows]
    gain = gain_of_numbers(numbers, codes, given, whole=seen.all_integers)
    return "continuous" if gain > LEAST_GAIN else "ordinal"


def is_undecided(seen: Observed) -> bool:
    """Whether a column of numbers may be one of levels or continuous, by what is measured."""
    n_numbers = len(pd.unique(seen.cells)) if is_number(seen.cells) else 0
    return 1 < n_numbers <= MANY_NUMBERS and n_numbers < len(seen.cells) <= MANY_ROWS * n_numbers


def informative_groups(
    columns: Mapping[Any, Observed], asked: Iterable[Any]
) -> dict[Any, np.ndarray]:
    """For columns ``asked`` for, groups (N,) of the other column that carries most information about them."""
    asked = list(asked)
    if not asked or len(columns) < 2:
        return {}
    names = list(columns)
    places = np.unique(np.linspace(0, len(names) - 1, MOST_OTHERS).round().astype(int)).tolist()
    groups = {names[i]: _groups(columns[names[i]]) for i in places}
    informants = {}
    for name in asked:
        others = [other for other in groups if other != name]
        group = groups[name] if name in groups else _groups(columns[name])
        best = most_informative(group, [groups[other] for other in others])
        informants[name] = groups[others[best]]
    return informants


def _groups(seen: Observed) -> np.ndarray:
    """Groups (N,) of the values of a column: ranges of numbers and times, the most frequent of other values."""
    ordered = is_number(seen.cells) or seen.is_time
    if ordered:
        distinct, codes = np.unique(seen.cells, return_inverse=True)
    else:
        codes, distinct = pd.factorize(np.array([*map(str, seen.cells)], dtype=object))
        counts = np.bincount(codes, minlength=len(distinct))
        rank = np.empty(len(distinct), dtype=np.int64)
        rank[np.lexsort((np.asarray(distinct, dtype=str), -counts))] = np.arange(len(distinct))
        codes = rank[codes]
    placed = np.full(seen.n_rows, -1)
    placed[seen.rows] = codes
    return grouped(placed, len(distinct), ordered=ordered)


def find_cuts(
    columns: Mapping[Any, Observed],
    left_out: Collection[Any],
    specs: Mapping[Any, ColumnSpec],
    *,
    if_asked: bool = False,
) -> dict[Any, int]:
    """Where columns of text are cut into prefixes that other columns tell, and rests that none does.

    ``columns`` are those of one table, as they were read; the ones ``left_out`` would have no place in the model. With
    ``if_asked``, only columns are cut that are specified as codes. A ValueError names one of these that cannot be cut.
    """
    n_rows = max((seen.n_rows for seen in columns.values()), default=0)
    some, groups, cuts = evenly(n_rows, MOST_ROWS), dict[Any, np.ndarray](), dict[Any, int]()
    for name, seen in columns.items():
        is_asked = specs[name].kind == "code"
        places = list[int]()
        is_text = is_asked and bool(text_among(seen.cells).all())
        if is_text or (not if_asked and _may_be_codes(seen, specs[name].kind)):
            places = cuts_of(*cast(tuple[list[str], np.ndarray], seen.tally))
        if is_asked and len(seen.cells) and not places:
            raise ValueError(f"column {name!r}: {_no_codes(seen)}")
        if not places or (not is_asked and in_order(seen.cells)):
            continue
        others = {n: c for n, c in columns.items() if n not in (name, *left_out) and not c.is_time}
        for other in others.keys() - groups.keys():
            groups[other] = _labels(columns[other], some)
        cut = best_cut(
            _at(seen, some), places, {n: groups[n] for n in others},
            has_levels=name not in left_out, is_asked=is_asked,
        )  # fmt: skip
        if cut is not None:
            cuts[name] = cut
    return cuts


def _no_codes(seen: Observed) -> str:
    """Why a column with cells cannot be cut as codes are, by a cell."""
    is_text = text_among(seen.cells)
    if not is_text.all():
        return f"codes are text, got {quoted(plain(seen.cells[~is_text][0]))}; make the column text"
    shapes = Counter(map(shape_of, seen.cells.tolist()))
    rare = next(text for text in seen.cells if shapes[shape_of(text)] == min(shapes.values()))
    return f"codes are text of a few shapes, with digits and a beginning, got {quoted(rare)}"


def _may_be_codes(seen: Observed, kind: str | None) -> bool:
    """Whether a column, of a kind if one is specified, may be one of codes: of text alone, with enough of it."""
    return (
        kind is None
        and not is_category(seen.dtype)
        and seen.cells.dtype == object
        and len(seen.cells) >= FEWEST_ROWS
        and bool(text_among(seen.cells).all())
        and len(seen.tally[0]) >= FEWEST_CODES
    )


def _at(seen: Observed, some: np.ndarray) -> np.ndarray:
    """The cells of a column at some positions, increasing, of its table; None where they are missing."""
    cells = np.full(len(some), None, dtype=object)
    place = np.searchsorted(seen.rows, some).clip(max=max(0, len(seen.rows) - 1))
    if len(seen.rows):
        is_there = seen.rows[place] == some
        cells[is_there] = seen.cells[place[is_there]]
    return cells


def _labels(seen: Observed, some: np.ndarray) -> np.ndarray:
    """Groups of the values of a column at some positions: its values, or ranges of many numbers; -1 for a gap."""
    codes, distinct = pd.factorize(_at(seen, some))
    if is_number(seen.cells) and len(distinct) > MOST_RANGES:
        numbers = distinct.astype(float)
        edges = np.quantile(numbers[codes[codes >= 0]], np.linspace(0, 1, MOST_RANGES + 1)[1:-1])
        return np.append(np.searchsorted(edges, numbers), -1)[codes]
    return codes


def _fit_categories(seen: Observed, kind: str, spec: ColumnSpec, is_open: bool) -> Categories:
    name, dtype, values = seen.name, seen.dtype, seen.cells
    if family(values.dtype) in TIMES:
        raise ValueError(f"column {name!r}: times cannot be {kind}; convert them to text first")
    categories, counts = seen.tally
    if spec.categories is not None:
        if is_category(dtype) and categories != list(spec.categories):
            raise ValueError(
                f"column {name!r}: its dtype has the categories {categories!r}, column_types={spec.categories!r}"
            )
        found = dict(zip(categories, counts, strict=True))
        categories, counts = spec.categories, np.array([found.get(c, 0) for c in spec.categories])
        is_open = is_open and not all(isinstance(c, bool) for c in categories)
    elif is_category(dtype):
        if not categories:
            return Categories("nominal", (), is_open)
        if not all(isinstance(c, Scalar) for c in categories):
            raise no_category(name, categories)
        check_finite(name, categories)
    elif "boolean" in (family(values.dtype), family(dtype)):
        found = dict(zip(categories, counts, strict=True))
        categories, is_open = [False, True], False
        counts = np.array([found.get(c, 0) for c in categories])
    elif family(values.dtype) == "float" and seen.all_integers:  # as other readers have them
        categories = [int(c) for c in categories]
    return fit_categories(
        kind, categories, counts,
        is_open=is_open, equally_spaced=is_category(dtype),
        is_declared=spec.categories is not None or (kind == "ordinal" and not all(counts)),
    )  # fmt: skip


def left_out_as(seen: Observed, spec: ColumnSpec, *, is_measure: bool = False) -> Why | None:
    """Reason for leaving an unspecified column out of a model; None if it is kept.

    Identifiers are text with at least nine tenths as many distinct values as cells, and integers constructed to differ
    (see :func:`_made_unique`). Free text has cells of more than 30 characters or four words on average, more than a
    tenth of which occur once. Fewer than 100 cells, real numbers, text that is dates or the like (``is_measure``), and
    dtypes of categories never qualify.
    """
    n, dtype = seen.n_rows - seen.n_missing, seen.dtype
    if spec.kind is not None or n < 100 or is_measure:
        return None
    if is_category(dtype):
        return None
    if is_number(seen.cells):
        return "identifiers" if seen.all_integers and _made_unique(seen.cells) else None
    if seen.cells.dtype != object:  # times or booleans
        return None
    categories, counts = seen.tally
    n = counts.sum()
    is_text = np.array([isinstance(c, str) for c in categories])
    if not is_text.any():
        return None
    lengths = np.array([len(c) if isinstance(c, str) else 0 for c in categories])
    words = np.array([len(c.split()) if isinstance(c, str) else 0 for c in categories])
    if counts @ lengths > 30 * n or counts @ words >= 4 * n:
        if np.count_nonzero(counts[is_text] == 1) <= 0.1 * n:
            return None
        has_letters = any(map(str.isalpha, "".join(map(str, categories))))
        # long cells of one word are hashes
        return "free text" if has_letters and counts @ words > 1.5 * n else "identifiers"
    return "identifiers" if np.count_nonzero(is_text) >= DISTINCT * n else None


def how_kept(name: Hashable) -> str:
    """The options that keep a column which :func:`left_out_as` leaves out."""
    python = f"column_types={{{name!r}: 'nominal'}} (or 'continuous', of amounts)"
    return advice(python, f"--column {name}=nominal (or continuous, of amounts)")


def _made_unique(values: np.ndarray) -> bool:
    r"""Whether integers differ more than independent draws would.

    Of n draws from any distribution on R integers, at least :math:`E = n(n-1)/2R` pairs are expected to be equal; the
    probability of only :math:`T < E` is at most :math:`e^{-(E - T + T \log(T/E))}`, Poisson's, which must be below one
    in a million. Numbers that never repeat and have more than twelve digits are no measurements either.
    """
    counts = pd.Series(values).value_counts().to_numpy()
    n, low, high = len(values), int(values.min()), int(values.max())
    if len(counts) < DISTINCT * n:
        return False
    ties, expected = float(np.sum(counts * (counts - 1.0)) / 2), n * (n - 1) / 2 / (high - low + 1)
    if not ties and low >= 1e12:
        return True
    nats = ties * math.log(ties / expected) if ties else 0.0
    return ties < expected and expected - ties + nats > math.log(1e6)


def copies(columns: Iterable[tuple[Hashable, pd.Series]]) -> list[list[Hashable]]:
    """Groups of columns (N,) with the same values in every row, or a one-to-one recoding of these; gaps are a value.

    Columns whose values hardly repeat, each a recoding of any other, are copies only if their values are the same.
    """
    groups: dict[tuple[int, bytes], list[Hashable]] = defaultdict(list)
    for name, column in columns:
        values, where = read_cells(column)
        codes, distinct = pd.factorize(values)  # numbered as they appear, whatever they are
        own = np.append(codes, -1)[where]
        if len(own) - np.bincount(own + 1).max() < 20:  # hardly alike by chance from here on
            continue
        plain = np.zeros(0)
        if 2 * len(distinct) > np.count_nonzero(own >= 0):
            plain = np.asarray(distinct).astype(float if is_number(values) else str)
        groups[hash(own.tobytes()), plain.tobytes()].append(name)
    return [group for group in groups.values() if len(group) > 1]


def variants(seen: Observed) -> list[list[tuple[str, int]]]:
    """Groups of texts of a column that differ in case or spaces alone, with their counts, the most frequent first."""
    texts, counts = seen.tally
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for text, n in zip(texts, counts.tolist(), strict=True):
        if isinstance(text, str) and n and (word := " ".join(text.split()).casefold()):
            groups[word].append((text, n))
    return [sorted(g, key=lambda found: -found[1]) for g in groups.values() if len(g) > 1]


def tell_redundant(columns: Mapping[Hashable, pd.Series], words: Iterable[Observed]) -> None:
    """Warn of :func:`copies`, and of :func:`variants` among ``words``, if there are any."""
    if found := copies(columns.items()):
        groups = [", ".join(map(repr, group)) for group in found]
        drops = advice("drop all but one", "keep one and give --drop for the others")
        warn(
            f"columns that are copies of each other in all rows, but for what their values are called:"
            f" {first_of(groups, '; ')}; {drops}"
        )
    parts = []
    for seen in words:
        if own := variants(seen):
            n = sum(count for group in own for _, count in group[1:])
            texts = [" = ".join(quoted(text) for text, _ in group) for group in own]
            rows = f"{n:,} row{'s' * (n > 1)} of rarer ones"
            parts.append(f"{seen.name!r} {first_of(texts, ', ')} ({rows})")
    if parts:
        warn(
            f"categories that differ in case or spaces alone are taken as different: {first_of(parts, '; ')};"
            " write them alike if they are the same"
        )
