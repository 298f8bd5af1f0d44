"""Fitted models: what a fit has learned, fitting candidates and choosing between them."""
