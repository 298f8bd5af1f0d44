"""Columns of a table <-> numbers and codes <-> points: the schema of a table.

A :class:`TableEncoder` infers the kind of each column of a pandas frame and maps rows to numbers and back;
:class:`Rows` is a table that was read and encoded once. The kind of a column, unless the user specifies it:

=============================  ==========  =================================================================
dtype                          kind        categories or scale
=============================  ==========  =================================================================
category                       nominal     the categories of the dtype, used or not
ordered category               ordinal     its categories, equally spaced
string, object                 nominal     the distinct values
bool                           nominal     False and True, nothing else is possible
integer, at most 20 values     ordinal     the distinct values, at their own distances
float, at most 20 values       ordinal     the same, if they are whole or come 20 times each
integer, at most 256 values    ordinal     the distinct values, if hardly any is new and a density predicts no better
float, at most 256 values      ordinal     the same of a list, like prices: numbers that lie far apart
other numbers                  continuous  a scale; the density is per unit
datetime, timedelta            continuous  a scale; the density is per second
integer of a numpy array       nominal     the distinct values, codes; continuous if there are more than 256
=============================  ==========  =================================================================

Codes, days and price lists are levels, counts and ages in a small table are continuous, as
:mod:`discrete_itd.encoders.levels_or_numbers` measures; and so are numbers of which more than a tenth of the cells
(fractional ones: 3 %) occur once. A column with gaps whose values are all whole is one of integers, for readers make
floats of these. An object column of numbers, truth values or times is what these are, and text of money, percentages,
decimal commas or dates is numbers or times where all cells agree (:mod:`discrete_itd.reading`). A missing
cell is NaN and is never an error. Identifiers and free text are left out of a model
(:func:`discrete_itd.encoders.inference.left_out_as`). Codes like postcodes, whose first characters other columns tell,
have a level for each of these prefixes (:mod:`discrete_itd.encoders.codes`).

Where rows come in time, one column of times is the clock of the table, and others are differences to it
(:mod:`discrete_itd.encoders.clock`).
"""

from discrete_itd.encoders.categories import Categories
from discrete_itd.encoders.clock import Clock
from discrete_itd.encoders.codec import Codec
from discrete_itd.encoders.codes import Codes
from discrete_itd.encoders.column import Column, number, written
from discrete_itd.encoders.inference import KINDS, MISSING, UNKNOWN, check_column_spec
from discrete_itd.encoders.numeric import Continuous
from discrete_itd.encoders.rows import Rows
from discrete_itd.encoders.table import ABSENT, PRESENT, TableEncoder
from discrete_itd.reading.frames import as_frame
from discrete_itd.reading.notation import NOTATIONS, Notation

__all__ = [
    "ABSENT", "KINDS", "MISSING", "NOTATIONS", "PRESENT", "UNKNOWN",
    "Categories", "Clock", "Codec", "Codes", "Column", "Continuous", "Notation", "Rows", "TableEncoder",
    "as_frame", "check_column_spec", "number", "written",
]  # fmt: skip
