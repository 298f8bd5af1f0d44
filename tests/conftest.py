"""Options of the suite, whose processes that run tests take part in ``tests/suite.py``, too."""

import importlib
import os

import pytest
from _pytest.doctest import DoctestModule

# the matrices here are tiny: a second thread would only be waited for
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device on which the suite runs (cpu, cuda)")
    parser.addoption(
        "--dtype",
        choices=["float32", "float64"],
        help="floating type of the suite; by default that of each file",
    )
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_configure(config):
    """A process that only hands tests to others, whose start they await, imports none of the package."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        suite = importlib.import_module("tests.suite")
        suite.load_profile(config)
        config.pluginmanager.register(suite)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file():
    """Modules of tests have no examples: to look for some takes a tenth of the collection."""
    return [collector for collector in (yield) if not isinstance(collector, DoctestModule)]
