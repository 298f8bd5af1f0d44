"""A report on a model and a table: one HTML page.

``findings`` computes all numbers, with the help of ``measurements`` (rows, columns, facts), ``statistics`` (intervals)
and ``learning_curve`` (what longer training would gain). ``figures`` draws, ``sentences`` words, ``sections`` puts both
together, and ``page`` fills ``templates/page.html`` with the sections.
"""
