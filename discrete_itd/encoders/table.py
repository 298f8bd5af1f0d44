"""The schema of a table: rows of a pandas frame <-> rows of numbers for the model."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd

from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.encoders.calendar import (
    dates_of_parts,
    dates_of_periods,
    days_of,
    is_part_of_date,
    moves_with,
    part_numbers,
)
from discrete_itd.encoders.clock import (
    YEAR,
    Clock,
    Times,
    counts_seconds,
    fit_clock,
    fitted_blocks,
    local_offsets,
    local_times,
    may_count,
    times_of,
    unit_of,
    utc_offsets,
)
from discrete_itd.encoders.codec import Codec
from discrete_itd.encoders.column import SUSPICIOUS_ROWS, Column
from discrete_itd.encoders.following import RelatedCells
from discrete_itd.encoders.gaps import informative_gaps, sampled
from discrete_itd.encoders.inference import (
    MISSING,
    UNKNOWN,
    ColumnSpec,
    Observed,
    Why,
    check_column_spec,
    find_cuts,
    how_kept,
    infer_column,
    informative_groups,
    is_undecided,
    left_out_as,
    read_text,
    refit_column,
    tell_redundant,
)
from discrete_itd.encoders.numeric import Continuous
from discrete_itd.encoders.relation_search import relations_of
from discrete_itd.encoders.relations import Relation, has_numbers
from discrete_itd.reading.columns import settled, tell
from discrete_itd.reading.frames import (
    PlainCells,
    check_unique_names,
    is_category,
    read_cells,
    read_few,
    time_zone,
)
from discrete_itd.reading.text import Words, tell_unreadable
from discrete_itd.validation import advice, by_topic, check_choice, warn, warn_of_column

if TYPE_CHECKING:
    from discrete_itd.channel import Codebook

PRESENT, ABSENT = 0.0, 1.0  # levels of a missingness indicator


class Cells(NamedTuple):
    """Encoded rows: two float64 arrays of shape (N, C').

    Attributes
    ----------
    x : ndarray
        Per internal column the category's code, or a continuous value on its scale; NaN where a cell is missing.
    log_volume : ndarray
        Nats to add to the core's log-mass or log-density of the cell; the sum is in the unit of the original value.
    """

    x: np.ndarray
    log_volume: np.ndarray


class Encoded(NamedTuple):
    """The ``cells`` of rows, and what they are given.

    Attributes
    ----------
    cells : Cells
    unreadable : ndarray of object, shape (N, C)
        The text of unreadable cells, which are missing; None elsewhere.
    clock : ndarray of float64, shape (N,), optional
        The clock of each row, in its steps; NaN where it is missing. None without a clock.
    is_given : ndarray of bool, shape (N, C), optional
        Which cells are there, but no part of the row: times without a clock to count from. None if there are none.
    """

    cells: Cells
    unreadable: np.ndarray
    clock: np.ndarray | None = None
    is_given: np.ndarray | None = None


@dataclass(frozen=True)
class LeftOut:
    """A column of the training table that has no place in the model.

    ``is_key`` says that no row was without a value, and no value in two.
    """

    name: Hashable
    position: int
    why: Why
    is_key: bool = False


class TableEncoder:
    """The schema of a table: one :class:`Column` per column of the user's, but for those left out.

    Internal columns are the user's, in this order, followed by one missingness indicator (0 present, 1 missing) for
    each column of numbers or ordered categories where "absent" is a value (a nominal column has a level for it), and
    by second parts of cells: the time of day of a clock.

    Parameters
    ----------
    schema : sequence of Column
    left_out : sequence of LeftOut
        In the order of their positions. They identify rows or hold free text: new tables may have them or not.
    relations : sequence of Relation
        Columns of the schema that follow from others.
    times : Times, optional
        The clock of the table (24).

    Attributes
    ----------
    schema : tuple of Column, length C
    left_out : tuple of LeftOut
    relations : tuple of Relation
    times : Times or None
    owner : ndarray of int64, shape (C',)
        Position of the user's column to which each internal column belongs.

    Examples
    --------
    >>> frame = pd.DataFrame({"colour": ["red", "blue", None], "size": [3, 1, 2]})
    >>> encoder = TableEncoder.fit(frame)
    >>> x = encoder.transform(frame).x
    >>> x
    array([[ 1.,  2.],
           [ 0.,  0.],
           [nan,  1.]])
    >>> encoder.inverse_transform(x)["size"].tolist()
    [3, 1, 2]
    """

    def __init__(
        self,
        schema: Sequence[Column],
        left_out: Sequence[LeftOut] = (),
        relations: Sequence[Relation] = (),
        times: Times | None = None,
    ) -> None:
        self.schema, self.left_out = tuple(schema), tuple(left_out)
        self.relations, self.times = tuple(relations), times
        if any(not has_numbers(self.schema[j]) for r in self.relations for j in r.columns):
            raise ValueError("relations are between columns with numbers or times")
        clocks = [j for j, column in enumerate(self.schema) if isinstance(column.codec, Clock)]
        if clocks != ([] if times is None else [times.clock]):
            raise ValueError("a schema has the clock of its times")
        places, n_all = [c.position for c in self.left_out], len(self.all_names)
        if places != sorted(set(places) & set(range(n_all))):
            raise ValueError("positions of columns left out must increase within the table")
        if len({*self.all_names}) < n_all:
            raise ValueError("names of columns repeat")
        indicated = [j for j, column in enumerate(self.schema) if column.indicator]
        divided = [j for j, column in enumerate(self.schema) if column.codec.part]
        self.owner = np.array([*range(len(self.schema)), *indicated, *divided], dtype=np.int64)
        places = dict(zip(indicated, range(len(self.schema), len(self.owner)), strict=False))
        self._indicators = places
        first = len(self.schema) + len(indicated)
        self._parts = dict(zip(divided, range(first, len(self.owner)), strict=True))

    @classmethod
    def fit(
        cls,
        table: pd.DataFrame,
        columns: Mapping[Any, Any] | str | None = None,
        *,
        missing: str = "marginalise",
        **how: Any,
    ) -> TableEncoder:
        """The schema of :meth:`infer`, with "absent" as a value of columns whose gaps carry information (21)."""
        encoder = cls.infer(table, columns, missing=missing, **how)
        return encoder.with_informative_gaps(table, columns, missing=missing)

    def refit(
        self,
        rows: pd.DataFrame,
        columns: Mapping[Any, Any] | str | None = None,
        *,
        missing: str = "marginalise",
    ) -> TableEncoder:
        """The schema with categories, scales and informative gaps learned from some rows of the table.

        What the table decides is kept: kinds, notations, words and numbers for missing cells, columns left out. Only a
        column without a cell in these rows becomes one of categories, without any. ``columns`` and ``missing`` are
        those of the fit to the table.
        """
        specs = column_specs(self.all_names, columns)
        schema = [
            refit_column(c, cast(pd.Series, rows[c.name]), specs[c.name], missing=missing)
            for c in self.schema
        ]
        encoder = TableEncoder(schema, self.left_out, self.relations)
        if self.times is not None:
            numbers = {}
            for j in (self.times.clock, *self.times.since):
                if (column := schema[j]).codec.of_numbers:
                    cells, _ = column.readable(cast(pd.Series, rows[column.name]))
                    numbers[j] = np.append(column.numbers(cells), np.nan)[cells.where]
            if self.times.clock in numbers:
                encoder = encoder._counted(numbers, self.times.seconds)
        return encoder.with_informative_gaps(rows, columns, missing=missing)

    @classmethod
    @by_topic()
    def infer(
        cls,
        table: pd.DataFrame,
        columns: Mapping[Any, Any] | str | None = None,
        *,
        handle_unknown: str = "smooth",
        missing: str = "marginalise",
        from_array: bool = False,
        leave_out: bool = False,
    ) -> TableEncoder:
        """Infer the kind of each column, and learn its categories or scale; "absent" is a value if asked for.

        Parameters
        ----------
        table : DataFrame, shape (N, C)
        columns : mapping from name to kind or options, or one kind for all, optional
            Overrides the inference; see :func:`check_column_spec`.
        handle_unknown : {"smooth", "error"}
            Whether a column of categories gets a level for values never seen. Boolean columns never do.
        missing : {"auto", "marginalise", "category"}
            Whether missing cells are left out of a row's score, or "absent" is a value of columns that have some; with
            "auto", of those whose gaps carry information (21).
        from_array : bool
            Whether the frame was made from an array: integers are then codes of nominal categories.
        leave_out : bool
            Whether identifiers and free text are left out, see :func:`~discrete_itd.encoders.inference.left_out_as`,
            but of a table of nothing else, and of an array.

        Raises
        ------
        ValueError, TypeError
            Naming the column, if its specification is invalid or its values fit no kind.
        """
        specs = column_specs(table, columns)
        check_unique_names(table)
        if not len(table):
            raise ValueError("the table has no rows to learn from (n_samples=0)")
        check_choice("handle_unknown", handle_unknown, UNKNOWN)
        check_choice("missing", missing, MISSING)
        read = {}
        for name, cells in table.items():
            spec = specs[name]
            read[name] = read_text(Observed(name, cells, spec.kind, spec.na), spec)
        any_points = any(
            text.notation is None and column.cells.dtype.kind == "f" and not column.all_integers
            for column, text in read.values()
        )
        ways = settled([text.notation for _, text in read.values()], any_points=any_points)
        for name, (column, text) in read.items():
            for way in ways.intersection(text.refusal.options):
                spec = replace(specs[name], notation=way)
                cells = cast(pd.Series, table[name])
                found, reading = read_text(Observed(name, cells, spec.kind, spec.na), spec)
                how = f"read as {way}, as other columns are"
                read[name] = found, reading._replace(notes=(*reading.notes, how))
                warn_of_column(column.name, f"{text.refusal.reason}, {how}", way)
        found = {column.name: text.words for column, text in read.values() if text.words}
        tell_unreadable(found, {}, fitted=True)
        reasons: dict[Any, Why | None] = {
            name: left_out_as(
                column,
                specs[name],
                is_measure=text.refusal.is_measure or counts_seconds(column.cells),
            )
            for name, (column, text) in read.items()
            if leave_out
        }
        without = {name for name, why in reasons.items() if why}
        cuts = find_cuts(
            {name: column for name, (column, _) in read.items()}, without, specs,
            if_asked=handle_unknown != "smooth" or from_array,
        )  # fmt: skip
        found = [
            LeftOut(column.name, place, why, column.is_key)
            for place, (name, (column, _)) in enumerate(read.items())
            if name not in cuts and (why := reasons.get(name))
        ]
        is_kept = from_array or len(found) == len(read)
        _warn_of(found, is_kept)
        left_out = [] if is_kept else found
        without = {column.position for column in left_out}
        for place, (column, text) in enumerate(read.values()):
            if text.refusal.reason and place not in without:
                tell(column.name, text.refusal)
        how: Any = {
            "is_open": handle_unknown == "smooth",
            "missing": missing,
            "from_array": from_array,
        }
        kept = {name: read[name] for i, name in enumerate(read) if i not in without}
        undecided = [
            name
            for name, (column, _) in kept.items()
            if specs[name].kind is None and is_undecided(column)
        ]
        groups = informative_groups({name: column for name, (column, _) in kept.items()}, undecided)
        columns_of: dict[Any, Column] = {
            name: infer_column(
                column,
                specs[name],
                reading=text,
                groups=groups.get(name),
                cut=cuts.get(name),
                **how,
            )
            for name, (column, text) in kept.items()
        }
        words = [read[n][0] for n, c in columns_of.items() if not c.codec.of_numbers]
        tell_redundant({c.name: cast(pd.Series, table[n]) for n, c in columns_of.items()}, words)
        encoder = cls([*columns_of.values()], left_out)
        seen = {name: column for name, (column, _) in kept.items()}
        return encoder._with_times(seen, specs, leave_out=leave_out)

    def with_informative_gaps(
        self,
        frame: pd.DataFrame,
        columns: Mapping[Any, Any] | str | None = None,
        *,
        missing: str = "marginalise",
    ) -> TableEncoder:
        """The schema with "absent" as a value of columns whose gaps carry information (21), by rows of a table.

        Of columns for which ``missing`` is "auto"; of others it is only noted. ``columns`` are as in :meth:`infer`.
        """
        specs = column_specs(self.all_names, columns)
        examined = [c.n_missing and not (c.absent or c.kind == "clock") for c in self.schema]
        asked = np.flatnonzero(examined).tolist()
        if not asked:
            return self
        some = frame.iloc[sampled(len(frame))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the fit says what is to be said of these cells
            x = self.readable(some)[0].x
        nominal = [not c.is_ordered for c in self.schema]
        found = [asked[k] for k in informative_gaps(x[:, : self.n_columns], nominal, asked)]
        if not found:
            return self
        schema = [*self.schema]
        for j in found:
            c = schema[j]
            is_value = (specs[c.name].missing or missing) == "auto"
            schema[j] = c.with_absent() if is_value else replace(c, informative=True)
        return TableEncoder(schema, self.left_out, self.relations, self.times)

    def with_relations(self, frame: pd.DataFrame) -> TableEncoder:
        """The schema with the relations (23) that most rows of a table follow."""
        return self.with_only(relations_of(self.read(frame), self.schema))

    def with_only(self, relations: Sequence[Relation]) -> TableEncoder:
        """The schema with other relations in the place of its own."""
        return TableEncoder(self.schema, self.left_out, relations, self.times)

    def _with_times(
        self, seen: Mapping[Any, Observed], specs: Mapping[Any, ColumnSpec], *, leave_out: bool
    ) -> TableEncoder:
        """The schema with a clock (24), if the rows come in time.

        Numbers that grow with it, and values that do not come back, are left out if asked for.

        ``seen`` are the columns by name, as they were read.
        """
        declared = [j for j, c in enumerate(self.schema) if specs[c.name].kind == "clock"]
        if len(declared) > 1:
            first, second = (self.names[j] for j in declared[:2])
            raise ValueError(f"column {second!r}: a table has one clock, and {first!r} is one")
        numbers = {}
        for j, column in enumerate(self.schema):
            observed, is_declared = seen[column.name], j in declared
            if not is_declared and (specs[column.name].kind or is_category(column.dtype)):
                continue
            is_time = column.family == "datetime" and len(observed.cells)
            is_number = column.is_ordered or is_declared
            if is_time or (is_number and may_count(observed.cells, any_unit=is_declared)):
                cells = PlainCells(observed.cells, np.arange(len(observed.cells)))
                numbers[j] = np.full(observed.n_rows, np.nan)
                numbers[j][observed.rows] = column.numbers(cells)
        chosen = times_of(self.schema, numbers, *declared)
        if chosen is None and declared:
            what = f"column {self.names[declared[0]]!r}: a clock needs two times"
            raise ValueError(f"{what}, or whole numbers: of years, or of seconds since 1970")
        clock, since, seconds = chosen or (None, (), 0.0)
        local = self._dates(seen) if clock is None or seconds == YEAR else None
        if local is not None:
            moments = days_of(local)
        elif clock is not None:
            column, moments = self.schema[clock], numbers[clock]
            local = local_times(moments, unit_of(column, seconds), time_zone(column.dtype))
        else:
            return self
        why: dict[int, Why] = {}
        for j in {*range(self.n_columns)} - {clock, *since} if leave_out else ():
            observed = seen[self.names[j]]
            if specs[self.names[j]].kind is None and self.schema[j].family == "number":
                has_time = np.isfinite(moments[observed.rows])
                cells, rows = observed.cells[has_time], observed.rows[has_time]
                is_part = moves_with(cells, moments[rows]) or is_part_of_date(cells, local[rows])
                if is_part or dates_of_periods(cells) is not None:
                    why[j] = "part of the clock"
        if len(why) == self.n_columns:
            return self
        keys = {j for j in why if seen[self.names[j]].is_key}
        encoder = self._without(why, keys)
        if clock is None:
            return encoder
        places = {name: j for j, name in enumerate(encoder.names)}
        moved = {places[self.names[j]]: numbers[j] for j in (clock, *since)}
        return encoder._counted(moved, seconds)

    def _dates(self, seen: Mapping[Any, Observed]) -> pd.DatetimeIndex | None:
        """The dates (N,) that parts in several columns make, or that one column writes, by which rows are in order."""
        columns = []
        for column in self.schema:
            observed = seen[column.name]
            if (part := part_numbers(observed.cells)) is not None:
                columns.append(np.full(observed.n_rows, np.nan))
                columns[-1][observed.rows] = part
        if (dates := dates_of_parts(columns)) is not None:
            return dates
        for column in self.schema:
            observed = seen[column.name]
            if (known := dates_of_periods(observed.cells)) is not None:
                return pd.DatetimeIndex(
                    pd.Series(known, observed.rows).reindex(range(observed.n_rows))
                )
        return None

    def _without(self, why: Mapping[int, Why], keys: Collection[int]) -> TableEncoder:
        """The schema without the columns at some positions, with reasons; some of them are ``keys``."""
        if not why:
            return self
        every = self.all_names
        new = [
            LeftOut(self.names[j], every.index(self.names[j]), why[j], j in keys)
            for j in sorted(why)
        ]
        left_out = sorted([*self.left_out, *new], key=lambda column: column.position)
        _warn_of(new, is_kept=False)
        return TableEncoder([c for j, c in enumerate(self.schema) if j not in why], left_out)

    def _counted(self, numbers: Mapping[int, np.ndarray], seconds: float) -> TableEncoder:
        """The schema with a clock, and other times counted from it, by their numbers (N,) in rows of its table.

        By position, the clock first. ``seconds`` are those of :class:`Times`.
        """
        schema, (clock, *since) = [*self.schema], numbers
        column, values = schema[clock], numbers[clock]
        known = values[~np.isnan(values)]
        unit = unit_of(column, seconds)
        known = known + local_offsets(known, unit, time_zone(column.dtype))
        codec = fit_clock(known, unit)
        schema[clock] = replace(column, codec=codec, absent=False)
        times, near = (
            Times(clock, (*since,), fitted_blocks(codec, known), seconds),
            codec.near(values),
        )
        for j in since:
            lags = numbers[j] - times.steps_to(schema, j, near)
            lags = lags[~np.isnan(lags)]
            if len(lags):
                schema[j] = replace(schema[j], codec=Continuous.fit(lags, True))
        counted = tuple(j for j in since if schema[j].codec is not self.schema[j].codec)
        return TableEncoder(schema, self.left_out, self.relations, replace(times, since=counted))

    def indicator_of(self, j: int) -> int | None:
        """The internal column that says whether the cells of column j are missing, if there is one."""
        return self._indicators.get(j)

    def part_of(self, j: int) -> int | None:
        """The internal column of the second part of the cells of column j, if they have one."""
        return self._parts.get(j)

    def near_clock(self, frame: pd.DataFrame, clock: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The clock (N,) of rows; where it is missing, by their first other time and its difference in ``x`` (N, C').

        ``frame`` has their cells, text as what it writes.
        """
        times = cast(Times, self.times)
        unit, clock = times.unit(self.schema[times.clock]), clock.copy()
        for j in times.since:
            is_open = np.isnan(clock)
            if is_open.any():
                column = self.schema[j]
                cells, _ = column.readable(cast(pd.Series, frame.loc[is_open, column.name]))
                steps = np.append(column.numbers(cells), np.nan)[cells.where]
                seconds, origin = times.unit(column)
                lag = column.codec.settled(column.codec.decode(x[is_open, j]))
                at = (steps - lag) * seconds + origin
                clock[is_open] = np.rint((at - unit.origin) / unit.seconds)
        return clock

    def start_of(self, j: int, clock: np.ndarray | None) -> np.ndarray | None:
        """The steps (N,) from which decoded cells of column j count in rows with a ``clock`` (N,).

        None where they count from nothing. A decoded weekday of the clock is of the row's block.
        """
        if self.times is None or clock is None or j not in (self.times.clock, *self.times.since):
            return None
        if j != self.times.clock:
            return self.times.steps_to(self.schema, j, clock)
        codec, ahead = cast(Clock, self.schema[j].codec), self._ahead(clock)
        return codec.blocks(clock + ahead) * codec.length - ahead

    def _ahead(self, clock: np.ndarray) -> np.ndarray:
        """Steps (N,) by which local time is ahead of the clock's numbers in UTC."""
        times = cast(Times, self.times)
        column = self.schema[times.clock]
        return local_offsets(clock, times.unit(column), time_zone(column.dtype))

    @cached_property
    def related(self) -> RelatedCells:
        """The relations among encoded cells."""
        if self.times is None:
            return RelatedCells(self.schema, self.relations)
        return RelatedCells(self.schema, self.relations, self.times.clock, self.times.since)

    @property
    def names(self) -> list:
        """Names of the user's columns, without those left out."""
        return [column.name for column in self.schema]

    @property
    def all_names(self) -> list:
        """Names of all columns of the training table, in its order."""
        names = self.names
        for column in self.left_out:
            names.insert(column.position, column.name)
        return names

    def place_of(self, name: Hashable, where: str = "") -> int:
        """The position of a column of the model; ValueError, with the place that names it, if it has none."""
        if isinstance(name, Hashable) and name in self._places:
            return self._places[name]
        where = f"named in {where}, but " if where else ""
        for column in self.left_out:
            if column.name == name:
                raise ValueError(
                    f"column {name!r}: {where}left out of the model, as it looks like {column.why};"
                    f" a fit with {how_kept(column.name)} keeps it"
                )
        raise ValueError(f"column {name!r}: {where}the model has no such column")

    @cached_property
    def _places(self) -> dict[Hashable, int]:
        return {column.name: j for j, column in enumerate(self.schema)}

    def named(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A table whose columns are found by position, with or without those left out, with their names."""
        is_whole = frame.shape[1] == len(self.all_names)
        return frame.set_axis(self.all_names if is_whole else self.names, axis=1)

    def one_row(self, given: Any) -> pd.DataFrame:
        """A frame of one row and all columns; missing where ``given``, a mapping, a Series or a frame, has no value.

        A ValueError or TypeError if it names another column, has several rows, or is none of these.
        """
        if isinstance(given, pd.DataFrame):
            if len(given) != 1:
                raise ValueError(f"given must be one row, got {len(given)}")
            row = given.reset_index(drop=True)
        elif isinstance(given, Mapping | pd.Series):
            row = pd.DataFrame({name: pd.Series([v]) for name, v in given.items()}, index=[0])
        else:
            kinds = "a mapping, a Series or a frame of one row"
            raise TypeError(f"given must be {kinds}, got {given!r}")
        for name in row.columns:
            self.place_of(name, "given=")
        return row.reindex(columns=self.names)

    @property
    def n_columns(self) -> int:
        """Number of the user's columns, C."""
        return len(self.schema)

    @property
    def unseen_counts(self) -> list[float]:
        """By internal column, the pseudo-count of the level of unseen values."""
        counts = [c.codec.unseen_count for c in self.schema]
        return [counts[j] for j in self.owner]

    def codebook(self) -> Codebook:
        """The points of all internal columns."""
        from discrete_itd.channel import Codebook

        return Codebook(self.points, [*self._indicators.values()], self._indicators)

    @property
    def points(self) -> list[ColumnPoints]:
        """The points of each internal column."""
        indicators = [ColumnPoints("simplex", 2)] * len(self._indicators)
        parts = [cast(Codec, self.schema[j].codec.part).points for j in self._parts]
        return [column.points for column in self.schema] + indicators + parts

    def transform(self, frame: pd.DataFrame) -> Cells:
        """Encode rows, whose columns are found by name.

        A ValueError or TypeError names a column that is absent, or holds a value that its kind cannot take.
        """
        return self.encoded(frame).cells

    def encoded(self, frame: pd.DataFrame) -> Encoded:
        """The rows of :meth:`transform`, with what they are given."""
        encoded = self.readable(frame)
        for i, j in np.argwhere(pd.notna(encoded.unreadable)).tolist():
            raise ValueError(self.schema[j].refusal(encoded.unreadable[i, j]))
        return encoded

    @by_topic()
    def readable(self, frame: pd.DataFrame) -> Encoded:
        """The rows of :meth:`encoded` with unreadable cells as missing.

        A ValueError or TypeError names a column that is absent, or holds a value that its kind cannot take.
        """
        check_unique_names(frame)
        for name in self.names:
            if name not in frame.columns:
                raise ValueError(f"column {name!r}: the table has no such column")
        shape = (len(frame), len(self.owner))
        x, log_volume = np.empty(shape), np.zeros(shape)
        unreadable = np.full((len(frame), self.n_columns), None, dtype=object)
        few = None
        # a service asks for one row, over which pandas takes longer than a network
        if len(frame) < SUSPICIOUS_ROWS:
            places = frame.columns.get_indexer(pd.Index(self.names, dtype=frame.columns.dtype))
            few = frame.to_numpy(dtype=object)[:, places]
        clock, near, given = None, None, None  # the second one without far clocks
        of_clock = () if self.times is None else (self.times.clock,)
        for j in (*of_clock, *(j for j in range(self.n_columns) if j not in of_clock)):
            column = self.schema[j]
            cells = None if few is None else read_few(few[:, j])
            if cells is None:
                cells = read_cells(cast(pd.Series, frame[column.name]))
            cells, words = column.readable(cells)
            if words is not None:
                unreadable[:, j] = words
            start = self.start_of(j, near)
            is_clock = isinstance(column.codec, Clock)
            if is_clock:
                clock = np.append(column.numbers(cells), np.nan)[cells.where]
                near = cast(Clock, column.codec).near(clock)
            codes, volumes, is_suspicious = column.encode(
                cells, -self._ahead(cast(np.ndarray, clock)) if is_clock else start
            )
            internal = [j, self._parts[j]] if j in self._parts else j
            if is_clock and j not in self._parts:
                codes, volumes = codes[:, 0], volumes[:, 0]
            x[:, internal], log_volume[:, internal] = codes, volumes
            if is_suspicious:
                own = f"dtype {frame[column.name].dtype}, fitted as {column.dtype}, {column.kind}"
                ask = "is the dtype the same, and the kind right (column_types=)?"
                what = f"no value was seen in training ({own}); {ask}"
                warn_of_column(column.name, what, "unseen")
            if j in self._indicators:
                x[:, self._indicators[j]] = np.where(cells.where < 0, ABSENT, PRESENT)
            if start is not None and np.isnan(start).any():
                given = np.zeros((len(frame), self.n_columns), bool) if given is None else given
                given[:, j] = np.isnan(start) & (cells.where >= 0)
        # nor is it known whether there is a value
        x[pd.notna(unreadable)[:, self.owner]] = np.nan
        return Encoded(Cells(x, log_volume), unreadable, clock, given)

    def text_columns(self, frame: pd.DataFrame) -> list[Column]:
        """The columns whose numbers or times are text in a table, or gaps alone and were text in training."""
        return [c for c in self.schema if c.is_written(cast(pd.Series, frame[c.name]))]

    def read(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A table of the model's columns with text as the numbers and times that it writes."""
        columns = self.text_columns(frame)
        return replaced(frame, {c.name: c.read(cast(pd.Series, frame[c.name])) for c in columns})

    def write(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A table of the model's columns, with numbers and times as the training table wrote them as text."""
        columns = [c for c in self.schema if c.notation is not None and c.name in frame]
        return replaced(frame, {c.name: c.write(cast(pd.Series, frame[c.name])) for c in columns})

    def inverse_transform(
        self,
        x: np.ndarray,
        index: pd.Index | None = None,
        rng: np.random.Generator | None = None,
        *,
        settled: bool = False,
        clock: np.ndarray | None = None,
    ) -> pd.DataFrame:
        """The table (N, C) of encoded rows x (N, C'), with the fitted names and dtypes.

        Rows without a ``clock`` (N,) in its steps, as in :class:`Encoded`, get the block of a training row.

        NaN becomes a missing cell, and so does the code of an unseen category; a column of numpy integers or truth
        values that has missing cells is of the nullable dtype. ``rng`` draws a member of a pooled category;
        without it, this is the most frequent one. Draws, and ``settled`` cells, are
        numbers seen in training where these repeat.
        """
        x = np.array(x, dtype=float)
        if x.ndim != 2 or x.shape[1] != len(self.owner):
            raise ValueError(f"x must have {len(self.owner)} columns, got shape {x.shape}")
        for j, place in self._indicators.items():
            x[x[:, place] == ABSENT, j] = np.nan
        index = pd.RangeIndex(len(x)) if index is None else index
        clock = self._clock(x, rng, clock, settled=settled)
        cells = {}
        for j, c in enumerate(self.schema):
            start, codes = self.start_of(j, clock), x[:, j]
            if clock is not None and isinstance(c.codec, Clock):
                codes = c.codec.encode(clock + self._ahead(clock))[0][:, 0]
                start = clock - c.codec.decode(codes)
            cells[c.name] = c.decode(codes, rng, settled=settled, start=start).set_axis(index)
        return pd.DataFrame(cells, columns=pd.Index(self.names), index=index)

    def _clock(
        self,
        x: np.ndarray,
        rng: np.random.Generator | None,
        clock: np.ndarray | None,
        *,
        settled: bool,
    ) -> np.ndarray | None:
        """The clock of encoded rows (N, C'), in its steps: the given one where it is known, or in a training block."""
        if self.times is None:
            return None
        j, times = self.times.clock, self.times
        codec = cast(Clock, self.schema[j].codec)
        drawn = (
            np.full(len(x), times.usual_block) if rng is None else rng.choice(times.blocks, len(x))
        )
        values = codec.decode(x[:, j], rng) + drawn * codec.length
        if j in self._parts:
            is_settled = settled or rng is not None
            values = values + codec.times_of_day(x[:, self._parts[j]], settled=is_settled)
        column = self.schema[j]
        values = values - utc_offsets(values, times.unit(column), time_zone(column.dtype))
        return values if clock is None else np.where(np.isnan(clock), values, clock)

    def describe(self) -> pd.DataFrame:
        """One line per column: kind, number of categories, whether open, share missing, how, dtype, relation, reading.

        ``gaps`` is "a value" where "absent" is one, "summed out" where missing cells are left out of the score.

        The kind of a column that has no place in the model is "left out: identifiers" or "left out: free text".
        """
        names = [
            "column",
            "kind",
            "categories",
            "open",
            "missing",
            "gaps",
            "dtype",
            "follows",
            "read",
        ]
        labels = [str(name) for name in self.names]
        follows = {
            r.child: f"{r.text(labels)}, in {r.n_follow:,} of {r.n_rows:,} rows"
            for r in self.relations
        }
        lines: list[tuple] = []
        for j, c in enumerate(self.schema):
            share = c.n_missing / max(1, c.n_rows)
            dtype = "category" if is_category(c.dtype) else str(c.dtype)
            gaps = "a value" if c.absent else "summed out" if c.n_missing else ""
            kind = c.kind
            if self.times is not None and j in self.times.since:
                kind += f", since {self.names[self.times.clock]}"
            counts = len(c.categories), c.open, share
            lines.append((c.name, kind, *counts, gaps, dtype, follows.get(j, ""), c.reading))
        for c in self.left_out:
            lines.insert(c.position, (c.name, f"left out: {c.why}", 0, False, np.nan, *[""] * 4))
        return pd.DataFrame(lines, columns=names)

    def tell_unreadable(self, texts: np.ndarray) -> None:
        """Warn of unreadable cells, (N, C), by their text."""
        columns = zip(self.names, texts.T, strict=True)
        words = {name: Counter(own[pd.notna(own)].tolist()) for name, own in columns}
        self.tell_words({name: counts for name, counts in words.items() if counts})

    def tell_words(self, words: Words) -> None:
        """Warn of unreadable cells by column, with a hint at what the first of a column may be."""
        known = [c for c in self.schema if c.name in words]
        hints = {c.name: c.hint(next(iter(words[c.name]))) for c in known}
        tell_unreadable({name: words[name] for name in hints}, hints)

    def absent(self, x: np.ndarray) -> np.ndarray:
        """Which cells of encoded rows (N, C') are known to be missing: bool, (N, C)."""
        out = x[:, : self.n_columns] == [c.absent_level for c in self.schema]
        for j, place in self._indicators.items():
            out[:, j] = x[:, place] == ABSENT
        return out


def replaced(frame: pd.DataFrame, new: Mapping[Any, pd.Series]) -> pd.DataFrame:
    """The table, or a copy of it with some columns exchanged."""
    if not new:
        return frame
    cells = {name: new.get(name, values) for name, values in frame.items()}
    return pd.DataFrame(cells, index=frame.index, columns=frame.columns)


def _warn_of(found: Sequence[LeftOut], is_kept: bool) -> None:
    """Warn about columns that are left out, and how to keep them, or that probably should be."""
    if found and not is_kept:
        names = ", ".join(f"{column.name!r} ({column.why})" for column in found)
        warn(f"left out of the model: {names}; {how_kept(found[0].name)} keeps a column")
        return
    for column in found:
        drop = advice(
            "drop it, or say what it is with column_types=",
            f"give --drop {column.name}, or say what it is with --column",
        )
        warn(f"column {column.name!r}: looks like {column.why}; {drop}")


def column_specs(
    names: Iterable[Any], columns: Mapping[Any, Any] | str | None
) -> dict[Any, ColumnSpec]:
    """Specification of each column; ValueError or TypeError naming one that is absent or invalid."""
    names = list(names)
    if isinstance(columns, str):
        columns = dict.fromkeys(names, columns)
    if not isinstance(columns, Mapping | None):
        raise TypeError(f"column_types must be a mapping or one kind, got {columns!r}")
    for name in columns or {}:
        if name not in names:
            where = "named in column_types=, but the table has no such column"
            raise ValueError(f"column {name!r}: {where}")
    return {name: check_column_spec(name, (columns or {}).get(name)) for name in names}
