"""A report on a model and a table: one HTML page.

``findings`` measures all numbers; ``page`` puts them into words, and fills ``templates/page.html`` with these and with
the figures of ``discrete_itd.plots``.
"""
