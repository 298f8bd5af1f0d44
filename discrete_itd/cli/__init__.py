"""The command ``discrete-itd``."""

from discrete_itd.cli.command import main

__all__ = ["main"]
