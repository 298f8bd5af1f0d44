"""Fitted models: the result of a fit, and the fitting and choice of candidates."""
