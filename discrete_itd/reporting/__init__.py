"""A report on a model and a table: one HTML page.

``findings`` holds all numbers, with the help of ``measurements`` (rows, columns, facts), ``statistics`` (intervals) and
``learning_curve`` (what longer training would gain). ``page`` fills ``templates/page.html``, which holds the sections,
with the figures of ``discrete_itd.plots``; ``sentences`` holds those that depend on many numbers.
"""
