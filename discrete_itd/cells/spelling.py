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
# A text with at most one edit in ALIKE of its letters is alike another one. A share TYPING of wrong texts are typing
# errors. Before any value is seen, PRIOR_ALIKE of one is alike another by chance.
ALIKE, TYPING, PRIOR_ALIKE = 3, 0.5, 0.1


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


def likeness(texts: Sequence[str], counts: Ints, value: Ints, meant: Ints) -> Floats:
    r"""Likelihood ratios (n,) of a wrong and a right cell, by how near its text is to the one that its row expects.

    .. math:: \frac{P(\text{alike } u \mid \text{wrong})}{P(\text{alike } u \mid \text{right})} = \frac{s}{h(u)}

    with the share s of typing errors and the share h of the values of several rows that are alike u though none is
    meant for it; 1 where the text is not alike, has
    other digits, or stands in OFTEN rows.

    Parameters
    ----------
    texts : sequence of str, length K
        The different values of a column, with ``counts`` (K,) rows each.
    value, meant : array of int, shape (n,)
        Positions of the text of each cell, and of what its row expects in its place.
    """
    ratio, by_chance = np.ones(len(value)), dict[int, float]()
    forms = [text.casefold() for text in texts]
    digits = [re.sub(r"\D", "", text) for text in texts]
    several = np.flatnonzero(counts > 1)

    def are_alike(i: int, j: int) -> bool:
        n = max(len(forms[i]), len(forms[j]))
        most = n // ALIKE
        is_near = abs(len(forms[i]) - len(forms[j])) <= most and digits[i] == digits[j]
        is_near &= FEWEST_LETTERS <= n <= MOST_LETTERS
        return is_near and edits(forms[i], forms[j]) <= most

    pairs, inverse = np.unique(np.stack([value, meant]), axis=1, return_inverse=True)
    for k, (i, u) in enumerate(pairs.T.tolist()):
        if counts[i] >= OFTEN or not are_alike(i, u):
            continue
        if u not in by_chance:
            others = several[several != u]
            tried = others[np.linspace(0, len(others) - 1, min(len(others), 200)).astype(int)]
            n_alike = sum(are_alike(j, u) for j in tried.tolist() if j != i)
            by_chance[u] = (n_alike + PRIOR_ALIKE) / (len(tried) + 1)
        ratio[inverse.ravel() == k] = max(1.0, TYPING / by_chance[u])
    return ratio
