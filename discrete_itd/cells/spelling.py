"""Typing errors: texts that are near another text of their column, and what that says of a cell."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from discrete_itd.encoders.numeric import OFTEN

Floats, Ints = NDArray[np.float64], NDArray[np.int64]

# A misspelling has FEWEST_LETTERS to MOST_LETTERS, at most one edit in CHARACTERS of them (but one in any), and stands
# for a value of OFTEN times as many rows; from OFTEN rows on, in a share TYPED of those of this value at most.
FEWEST_LETTERS, MOST_LETTERS, CHARACTERS = 3, 100, 8
TYPED = 0.01
WORD = re.compile(r"[^\W_]+")
CODE = re.compile(r"[^\W\d_]\d|\d[^\W\d_]")  # a digit beside a letter
# Right texts of fewer than SHORT letters, and of more, are near another one with these probabilities, which count as
# much as two texts (in columns of towns, counties and names .01 to .1 of the longer ones are).
SHORT, NEAR_SHORT, NEAR = 6, 0.25, 0.05


def edits(one: str, two: str) -> int:
    """Insertions, deletions, replacements and exchanges of neighbours between two texts."""
    before, last = list(range(len(two) + 1)), [0]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(two, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
            if i > 1 and j > 1 and a == two[j - 2] and one[i - 2] == b:
                row[-1] = min(row[-1], last[j - 2] + 1)
        last, before = before, row
    return before[-1]


def are_codes(texts: Sequence[str]) -> bool:
    """Whether texts are capitals of one length, or have digits beside letters: they are near each other by design."""
    is_fixed = len({*map(len, texts)}) == 1 and not any(c.islower() for t in texts for c in t)
    return len(texts) > 1 and (is_fixed or all(map(CODE.search, texts)))


def misspellings(texts: Sequence[str], counts: Ints) -> tuple[Ints, Floats]:
    """The position of the frequent text that each text is a variant of, or -1, and the probability that it is meant.

    Variants have nearly the same form, and stand in fewer than OFTEN rows, or than TYPED of those of the text.
    Digits must be equal. Where frequent texts are codes, capitals of one length or with digits among letters, none is,
    nor if the words in which both differ are such codes (*737-3A4* beside *737-3H4*).
    How many are near by chance is seen from frequent texts: with a share h of these near another, and g of the rare
    ones, a share (1 - g) / (1 - h) of the rare is right.
    """
    forms = ["".join(c for c in t.casefold() if c.isalnum() or c in "<>=+%") for t in texts]
    n_letters, p = np.array([len(form) for form in forms]), np.zeros(len(forms))
    fits = (n_letters >= FEWEST_LETTERS) & (n_letters <= MOST_LETTERS)
    if are_codes([texts[i] for i in np.flatnonzero(counts >= OFTEN).tolist()]):
        return np.full(len(forms), -1), p
    often = np.argsort(-counts, kind="stable")
    often = often[((counts >= OFTEN) & fits)[often]]
    digits, words = [re.sub(r"\D", "", form) for form in forms], [{*WORD.findall(t)} for t in texts]
    letters = {c: k for k, c in enumerate(sorted(set("".join(forms))))}
    bags = np.zeros((len(forms), len(letters)), np.int16)
    for i in np.flatnonzero(fits).tolist():
        np.add.at(bags[i], [letters[c] for c in forms[i]], 1)

    def nearest(i: int, tried: Ints) -> int:
        most = max(1, len(forms[i]) // CHARACTERS)
        for j in tried[np.abs(bags[tried] - bags[i]).sum(1) <= 2 * most].tolist():
            if digits[i] != digits[j] or edits(forms[i], forms[j]) > most:
                continue
            if not any(map(CODE.search, words[i] ^ words[j])):
                return j
        return -1

    near, least = (
        np.full(len(forms), -1),
        counts * np.where(counts < OFTEN, OFTEN, 1 / TYPED),
    )
    for i in np.flatnonzero(fits).tolist():
        near[i] = nearest(i, often[counts[often] >= least[i]])
    right, rare = often[near[often] < 0], fits & (least <= counts.max())
    rare[right] = False
    by_chance = np.zeros(len(forms), bool)
    by_chance[right] = [nearest(i, right[right != i]) >= 0 for i in right.tolist()]
    for own, usual in ((n_letters < SHORT, NEAR_SHORT), (n_letters >= SHORT, NEAR)):
        others, seldom = right[own[right]], rare & own
        h = (by_chance[others].sum() + 2 * usual) / (len(others) + 2)
        g = (near >= 0)[seldom].sum() / (seldom.sum() + 1)
        if g > h:
            p[seldom & (near >= 0)] = 1 - (1 - g) / (1 - h) * h / g
    return np.where(p > 0, near, -1), p
