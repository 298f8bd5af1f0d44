"""A report on a model and a table: one HTML page.

``findings`` measures all numbers; ``page`` fills ``templates/page.html`` with them and with the figures of
``discrete_itd.plots``; ``sentences`` holds the sentences that depend on many numbers.
"""
