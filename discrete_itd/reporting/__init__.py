"""A report on a model and a table: one HTML page.

``findings`` computes all numbers, with the help of ``measurements`` (rows, columns, facts), ``statistics`` (intervals)
and ``learning_curve`` (what longer training would gain). ``figures`` draws, ``sentences`` words what depends on many
numbers, and ``page`` fills ``templates/page.html``, which holds the sections. A new section is a block of that file.
"""
