"""Wrong cells of a table: a cell after a noisy channel (25).

``written`` reads cells as they are meant, and ``views`` shows columns as values, patterns and bins. Judges say how
probable a cell is given the others of its row (``judgement``): other columns one by one (``others``), keys (``keys``),
networks (``network``), near functions of numbers (``spread``) and boosting of labels (``boosting``), by ``counts``
without the row itself; ``judges`` chooses among them. ``channel`` has the shares of errors and exceptions, ``spelling``
and ``slips`` what was mistyped, ``blame`` divides those of a contradiction; ``errors`` names the cells, and ``repair``
writes expected values that are nearly certain.
"""
