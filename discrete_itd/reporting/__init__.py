"""One page on a model and a table, for people who decide.

``findings`` and ``particulars`` work out all numbers, ``extrapolation`` what more training would buy; ``drawing`` puts
them onto axes, ``wording`` into words, and ``page`` both into one HTML file with the help of ``markup``.
"""
