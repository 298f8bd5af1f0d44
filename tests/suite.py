"""Sizes, choice and fixtures of all tests: a plugin of the processes that run them."""

import signal
from collections import Counter
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, settings

from discrete_itd import estimators
from discrete_itd.denoisers import marginal
from discrete_itd.detection import score
from discrete_itd.models import auto, exact, networks
from discrete_itd.recipes import Mixture
from discrete_itd.training import loop, objectives
from discrete_itd.training.loop import TrainingPlan

# the tensors here are tiny: a second thread would only be waited for, long where cores are busy
torch.set_num_threads(1)
# so are the tables: the mixtures among the candidates of a fit are smaller than a user's
networks.QUICK_MIXTURE = auto.QUICK_MIXTURE = Mixture(128, n_points=128, max_steps=40)
exact.EXACT["mixture"] = auto.NAMES["mixture"] = networks.QUICK_MIXTURE
auto.LARGE_MIXTURE = Mixture(256, n_points=128, max_steps=40)
# and validations, draws, rounds and small trees are fewer
SMALL = {
    (estimators, "TrainingPlan"): partial(TrainingPlan, n_validations=3),
    (loop, "EVALUATED_DRAWS"): 32,
    (objectives, "PILOT_NUMBERS"): 1,
    (objectives, "N_CELLS"): 16,
    (marginal, "EM_ROUNDS"): 12,
    (score, "SMALL_TREES"): 16,
}
FULL = {key: getattr(*key) for key in SMALL}
OF_FIGURES = [(marginal, "EM_ROUNDS"), (score, "SMALL_TREES")]  # of examples
for (module, name), value in SMALL.items():
    setattr(module, name, value)

# no test fails because a machine is busy, and examples that share a fixture do no harm
EXAMPLES = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
settings.register_profile("few", max_examples=8, **EXAMPLES)
settings.register_profile("many", max_examples=100, **EXAMPLES)  # with --slow

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def load_profile(config):
    """Hypothesis draws more examples with ``--slow``."""
    settings.load_profile("many" if config.getoption("--slow") else "few")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Without ``--slow``, tests marked slow are left out, and of a grid of parameters all but :func:`spread`."""
    if not config.getoption("--slow"):
        groups = {}
        for item in items:
            if "slow" not in item.keywords:
                groups.setdefault(item.nodeid.partition("[")[0], []).append(item)
        kept = {item for group in groups.values() for item in spread(group)}
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.runtest = partial(run_as_users_do, item.runtest)
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU"))


def run_as_users_do(example):
    """Run an example of the documentation, whose figures are those of full sizes."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in OF_FIGURES:
            patch.setattr(module, name, FULL[module, name])
        example()


def spread(group):
    """Of the cases of one test so many that every value of every parameter is in one of them.

    Where each case has a value of its own, as in a list of examples, these are all.
    """
    left = {item: values_of(item) for item in group}
    used, kept = Counter(), [group[0]] if not any(left.values()) else []
    while todo := {value for values in left.values() for value in values if not used[value]}:
        best = max(left, key=lambda i: (len(left[i] & todo), -sum(used[v] for v in left[i])))
        used.update(left.pop(best))
        kept.append(best)
    return kept


def values_of(item):
    """The parameters of a test; what cannot be compared is itself alone."""
    given = item.callspec.params.items() if hasattr(item, "callspec") else ()
    plain = (str, bytes, bool, int, float, type(None))
    return {(name, v if isinstance(v, plain) else id(v)) for name, v in given}


@pytest.fixture
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def dtype(request):
    """A test's floating type is torch's default within it.

    Laws of the core are checked in double precision, where rounding hides nothing. Files marked `single_precision` run
    in what users run, as doctests do.
    """
    if isinstance(request.node, pytest.DoctestItem):
        yield torch.get_default_dtype()
        return
    before = torch.get_default_dtype()
    usual = "float32" if "single_precision" in request.keywords else "float64"
    torch.set_default_dtype(DTYPES[request.config.getoption("--dtype") or usual])
    yield torch.get_default_dtype()
    torch.set_default_dtype(before)


@pytest.fixture
def full_size(monkeypatch):
    """Validations, pilots and grids as large as a user's."""
    for (module, name), value in FULL.items():
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def generator(device):
    return torch.Generator(device).manual_seed(0)


@pytest.fixture
def ctrl_c():
    """Raises the signal of Ctrl-C; a suite in the background ignores it otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
