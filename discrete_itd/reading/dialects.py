"""How a CSV is written, by its beginning: the encoding, the mark between cells, and where the rows begin."""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, zip_longest
from statistics import median
from typing import NamedTuple

from discrete_itd.reading.text import denotes_missing
from discrete_itd.validation import warn

BYTE_ORDERS = (  # UTF-32's mark begins with UTF-16's, so it is tried first
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# letters beyond ASCII of languages, by the encodings in which programs of their countries write
CHINESE = bytes(b for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF) for b in (high, low))
ALPHABETS = {
    "cp1255": ("".join(map(chr, range(0x5D0, 0x5EB))),),
    "cp932": ("".join(map(chr, [*range(0x3041, 0x30FD), *range(0x4E00, 0x9FA0)])),),
    "cp949": ("".join(map(chr, range(0xAC00, 0xD7A4))),),
    "gb18030": (CHINESE.decode("gb2312", "ignore"),),
    "cp1251": ("абвгдежзийклмнопрстуфхцчшщъыьэюяё", "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя"),
    "cp1256": ("".join(map(chr, range(0x621, 0x64B))),),
    "cp1253": ("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋ",),
    "cp1254": ("çğıöşüâî\u0307",),  # what "İ" has in lower case, besides an i
    "cp1252": ("äöüß", "àâæçéèêëîïôùûüÿœ", "áéíóúñüº", "àèéìíòóù", "àáâãçéêíóôõú", "åäöæøé", "áéíóúýðæö"),
    "cp1250": ("ąćęłńóśźż", "áäčďéěíľĺňóôřŕšťúůýž", "áéíóöőúüű", "ăâîșțşţ", "čćđšž"),
}  # fmt: skip
LATIN = ("cp1252", "cp1250", "cp1254")
# The letters in which cp1254 and cp1252 differ. cp1252 has letters of Icelandic in their place, which rarely stand
# alone in a text, so a text that fits both is Turkish.
TURKISH = {*"ĞİŞğış"}
SIGNS = "°²³µ½±€£–—“”’…"  # in tables of any language
WORD = re.compile(r"[^\W\d_]+")
MOST_ROWS = 50  # of a file that are looked at
MOST_HEADERS = 3  # rows below the header that go on with it
NUMBER = re.compile(r"\W{0,3}\d")  # how a cell with a number or a date begins


@dataclass(frozen=True)
class Dialect:
    """Format of a CSV."""

    sep: str | None = None  # None if it is to be found, and so is the encoding
    encoding: str | None = None
    decimal: str | None = None  # None if each column has its own
    na: tuple[str, ...] = ()  # cells that are missing, besides empty ones
    newline: str = "\n"  # end of a row of a copy
    head: str = ""  # the text up to the first row

    @classmethod
    def asked(cls, options: Sequence[tuple[str, str]]) -> Dialect:
        """The dialect that pairs of a name and a value describe, of which "na" may occur several times."""
        na = tuple(value for key, value in options if key == "na")
        others = {key: value for key, value in options if key != "na"}
        return cls(na=na, **others)


class Head(NamedTuple):
    """What stands in a CSV before its rows: ``n_above`` and ``n_below`` lines around the header, or a first row."""

    sep: str
    header: Sequence[str]
    head: str
    n_above: int = 0
    n_below: int = 0
    is_row: bool = False


def found_encoding(path: str, start: bytes) -> str:
    """The encoding of a text that begins with some bytes: by its mark, UTF-8, or that whose letters are of a language.

    A warning names an encoding that is only probable.
    """
    for mark, encoding in BYTE_ORDERS:
        if start.startswith(mark):
            return encoding
    for encoding, nulls in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if 4 * nulls.count(0) > len(start):
            return encoding
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(start)
    n_damaged, n_beyond = text.count("\ufffd"), sum(not c.isascii() for c in text)
    if 20 * n_damaged <= n_beyond:
        return "utf-8"
    share = {encoding: _share_of_letters(start, encoding) for encoding in ALPHABETS}
    if max(share.values()) < 0.95:
        share["cp1252"] += 0.1  # the most frequent one of tables in several languages
    best = max(share, key=lambda encoding: share[encoding])
    if share[best] < 0.6:
        return "utf-8"
    text = codecs.getincrementaldecoder(best)().decode(start)
    words = WORD.findall(text) + re.findall(r"\S+", text)
    word = next(word for word in words if not word.isascii())
    warn(
        f"{path}: no UTF-8, read as {best}, by words like {word!r}; --csv encoding= says otherwise"
    )
    return best


def _share_of_letters(start: bytes, encoding: str) -> float:
    """Among letters beyond ASCII, the largest share of one language; 0 if the bytes are no text."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeDecodeError:
        return 0.0
    if encoding == "cp1254" and TURKISH.isdisjoint(text):  # the text is the same in cp1252
        return 0.0
    # words have capitals at their beginning or all over, and are of one script
    is_latin = encoding in LATIN
    text = WORD.sub(lambda word: word[0] if _is_word(word[0], is_latin) else "¿", text)
    letters = [c for c in text.lower() if not (c.isascii() or c.isspace() or c in SIGNS)]
    if not is_latin:
        letters = [c for c in letters if c == "¿" or unicodedata.category(c)[0] in "LMNC"]
    if not letters:  # signs, like that of a degree
        return 2.0 * (encoding == "cp1252")
    counts = [sum(map(set(alphabet).__contains__, letters)) for alphabet in ALPHABETS[encoding]]
    return max(counts) / len(letters)


def _is_word(text: str, is_latin: bool) -> bool:
    is_cased = text in (text.lower(), text.upper(), text.capitalize())
    if is_latin:
        return is_cased and not re.search(r"[²³±](?!$)", text)
    return is_cased and (text.isascii() or not re.search("[A-Za-z]", text))


def found_head(text: str, sep: str | None = None) -> Head:
    """What stands before the rows of a CSV that begins with a text, whose cells ``sep`` divides or the best mark."""
    rows = {mark: _rows(text, mark) for mark in ([sep] if sep else ",;\t|")}
    top = {mark: _place_of_header(own) for mark, own in rows.items()}

    def cells(mark: str) -> float:
        """Those of the header and of the next row; a mark by which less is above the header is better."""
        own = [len(row) for row, _ in rows[mark] if row]
        n_above = sum(bool(row) for row, _ in rows[mark][: top[mark]])
        n = min(own[n_above : n_above + 2], default=1)
        return n / (1 + n_above) if n > 1 else 0

    best = max(rows, key=cells)
    if not any(row for row, _ in rows[best]):
        return Head(best, [], text)
    found, place = [row for row, _ in rows[best]], top[best]
    header, n_above = [*found[place]], sum(map(bool, found[:place]))
    n_below = _n_more_headers(rows[best][place + 1 :])
    # separators at the end of each row
    widest = max((len(row) for row in found[place + 1 :]), default=0)
    if not any(any(row[len(header) :]) for row in found[place + 1 :]):
        header += [""] * (widest - len(header))
    is_row = 2 * _recurs(place, rows[best]) > len(header)
    return Head(best, header, text[: rows[best][place + n_below][1]], n_above, n_below, is_row)


def _rows(text: str, sep: str) -> list[tuple[list[str], int]]:
    """The first rows of a text, and where each of them ends."""
    lines, found = io.StringIO(text, newline=""), []
    with suppress(csv.Error):
        for row in islice(csv.reader(lines, delimiter=sep), MOST_ROWS):
            found.append((row, lines.tell()))
    return found


def _place_of_header(rows: Sequence[tuple[list[str], int]]) -> int:
    """The position of the first row of names: half as many as most rows have cells at least, no empty line below."""
    sizes = [sum(map(bool, row)) for row, _ in rows]
    first = next((i for i, (row, _) in enumerate(rows) if row), 0)
    typical = median([size for size in sizes if size] or [0])
    wide = [
        2 * size >= typical
        and len(row) >= min(2, typical)
        and not "".join(row[:1]).startswith("sep=")
        for size, (row, _) in zip(sizes, rows, strict=True)
    ]
    for i in range(len(rows)):
        later = sizes[i + 1 :][:MOST_HEADERS]
        is_title = 0 in later and sizes[i] < max(sizes)
        if wide[i] and not is_title:
            is_value = NUMBER.match(next(filter(None, rows[i][0]), "")) or _recurs(i, rows)
            return first if is_value else i
    return first


def _recurs(i: int, rows: Sequence[tuple[list[str], int]]) -> int:
    """How many cells of row ``i`` stand again in their columns further on, as values do and names do not."""
    row = rows[i][0]
    columns = zip_longest(*(other for other, _ in rows[i + 1 :] if other != row))
    return sum(bool(cell) and cell in own for cell, own in zip(row, columns, strict=False))


def _n_more_headers(rows: Sequence[tuple[list[str], int]]) -> int:
    """How many rows below the header have words in the columns that are numbers further on, and no value of another."""
    body = [row for row, _ in rows[MOST_HEADERS:] if any(row)]
    width = max(map(len, body), default=0)
    columns = {j: [row[j] for row in body if j < len(row) and row[j]] for j in range(width)}
    numbers = {
        j: own
        for j, own in columns.items()
        if len(own) > 4 and sum(map(bool, map(NUMBER.match, own))) > 0.8 * len(own)
    }
    n = 0
    for row, _ in rows[:MOST_HEADERS]:
        words = [row[j] for j in numbers if j < len(row) and row[j]]
        if len(numbers) < 2 or 2 * len(words) < len(numbers) or _recurs(n, rows):
            break
        if any(NUMBER.match(word) or denotes_missing(word) for word in words):
            break
        n += 1
    return n
