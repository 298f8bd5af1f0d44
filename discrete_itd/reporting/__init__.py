"""A report on a model and a table: one HTML page.

``findings`` measures all numbers, with the intervals and curves of ``statistics``. ``page`` fills
``templates/page.html``, which holds the sections, with the figures of ``discrete_itd.plots``; ``sentences`` holds those
that depend on many numbers.
"""
