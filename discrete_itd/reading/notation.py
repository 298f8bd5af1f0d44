"""Contract of the readers of text: a reader takes a column of text or refuses it with a reason."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd

from discrete_itd.reading.text import ASCII_DIGITS, LEADING_ZERO, most_unreadable

Asked = Literal["decimal-comma", "decimal-point", "day-first", "month-first"]
NOTATIONS: tuple[Asked, ...] = ("decimal-comma", "decimal-point", "day-first", "month-first")


class Refusal(NamedTuple):
    """Why a reader does not take a column of text.

    Attributes
    ----------
    reason : str
        What the text looks like, for a warning; empty if there is nothing to be said.
    unlike : str
        The text that is least like the others.
    is_measure : bool
        Whether nearly all texts are dates, times of day, or numbers other than plain integers: measurements and no
        identifiers, however many differ.
    options : tuple of str
        The specifications that decide, where several notations fit.
    unread : ndarray of bool, shape (K,), optional
        The texts that the reader does not read, where another one may; None if no other reader is to be asked.
    """

    reason: str = ""
    unlike: str = ""
    is_measure: bool = False
    options: tuple[Asked, ...] = ()
    unread: np.ndarray | None = None


@dataclass(frozen=True)
class Notation(ABC):
    """Notation of the cells of a column: text <-> numbers or times.

    Parameters
    ----------
    digits : str
        The digits from zero on, the point and the comma, where they are not those of ASCII.

    Examples
    --------
    >>> from discrete_itd.reading.numbers import NumberNotation
    >>> NumberNotation(decimal=",", suffix=" kg").described
    "numbers with a decimal comma, like '1234,5 kg'"
    """

    digits: str = ""

    family: ClassVar[Literal["number", "datetime", "timedelta"]]
    name: ClassVar[str]  # of what is read, for people
    plural: ClassVar[str]

    @classmethod
    @abstractmethod
    def take(
        cls, texts: Sequence[str], counts: np.ndarray, asked: Asked | None, *, plain: bool
    ) -> Notation | Refusal:
        """The notation of different texts (K,), each of which occurs ``counts`` times, or why it is none of this kind.

        ``asked`` is the user's specification; with ``plain``, plain integers are numbers, too.
        """

    @abstractmethod
    def read(self, texts: Sequence[Any]) -> np.ndarray:
        """The numbers (float64), times or durations (in microseconds) of texts; NaN or NaT for other texts."""

    def read_loosely(self, texts: Sequence[Any]) -> np.ndarray:
        """The values of texts of this mark or order, whatever their unit or zone."""
        return self.read(texts)

    @abstractmethod
    def write(self, values: pd.Series) -> pd.Series:
        """Numbers or times as text, of dtype object; missing ones are None."""

    def in_digits(self, texts: list[str | None], index: pd.Index) -> pd.Series:
        """Texts with the column's own digits."""
        if self.digits:
            own = str.maketrans(ASCII_DIGITS, self.digits[:10])
            texts = [text and text.translate(own) for text in texts]
        return pd.Series(texts, index=index, dtype=object)

    @property
    @abstractmethod
    def is_plain(self) -> bool:
        """Whether it is the notation of Python and ISO 8601, without a time zone."""

    @property
    @abstractmethod
    def example(self) -> str:
        """A cell in this notation, in quotation marks."""

    @property
    def mark(self) -> str:
        """What a description says behind the name."""
        return ""

    @property
    def expected(self) -> str:
        """Description of a valid cell, for error messages."""
        return f"a {self.name}{self.mark} like {self.example}"

    @property
    def described(self) -> str:
        """Description of the column, for a line of a table."""
        return f"{self.plural}{self.mark} like {self.example}"

    @property
    def way(self) -> Asked | None:
        """The specification of its mark or order, if the cells have one."""
        return None

    def hint(self, text: str) -> str:
        """Explanation of a text that it does not read; empty if there is none."""
        return ""


class Choice(NamedTuple):
    """The better of one or two ways of reading texts (K,).

    ``is_bad`` are the texts that it does not read, ``is_either`` says that the other one reads as many of them, and
    ``differ`` are those in which the two are not equal.
    """

    way: Any
    is_bad: np.ndarray
    is_either: bool
    differ: np.ndarray


def best_way(
    ways: Sequence[Notation], texts: Sequence[str], counts: np.ndarray
) -> Choice | Refusal:
    """The way that reads most cells; a refusal if too many are unreadable, or one of these is a code."""
    if not ways:
        return Refusal(unread=np.ones(len(texts), bool))
    probe = texts[:: max(1, len(texts) // 50)]
    read = [_tried(way, texts, probe) for way in ways]
    bad = [pd.isna(values) for values in read]
    k = int(np.argmin([counts[is_bad].sum() for is_bad in bad]))
    n_bad, is_known = counts[bad[k]].sum(), ~bad[k]
    is_code = any(LEADING_ZERO.fullmatch(text) for text in compress(texts, bad[k]))
    if n_bad > most_unreadable(int(counts.sum())) or is_code:
        return Refusal(unread=bad[k])
    # the way alone reads ten times as many cells as the other one alone
    n_alone, n_others = (
        counts[is_known & bad[-1 - k]].sum(),
        counts[bad[k] & ~bad[-1 - k]].sum(),
    )
    is_either = len(ways) == 2 and (n_alone < 10 * n_others or not n_alone)
    return Choice(ways[k], bad[k], bool(is_either), is_known & (read[0] != read[-1]))


def _tried(way: Notation, texts: Sequence[str], probe: Sequence[str]) -> np.ndarray:
    """The values of the texts; all missing, if less than half of a probe of them has one."""
    are_few = len(probe) > 2 * np.count_nonzero(~pd.isna(way.read_loosely(probe)))
    return np.repeat(way.read_loosely([""]), len(texts)) if are_few else way.read_loosely(texts)
