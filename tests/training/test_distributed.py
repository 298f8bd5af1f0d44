"""Two processes that train together: the laws are checked in the processes themselves, by the script below."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.channel import Codebook
from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.denoisers import CausalDenoiser, MarginalDenoiser, NeuralDenoiser
from discrete_itd.models.contract import FitPlan, SharedRun, TrainingRows, fit_recipe
from discrete_itd.recipes import Causal, Recipe
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import TrainingPlan
from discrete_itd.training.distributed import LOST, FitError, Team, job, led, team_of_process
from discrete_itd.training.loop import Run, seeded, train
from discrete_itd.training.objectives import mean_and_error

N_COLUMNS = 5


def rows(n, seed):
    """Binary columns, each mostly equal to the one before."""
    generator = torch.Generator().manual_seed(seed)
    flips = (torch.rand(n, N_COLUMNS, generator=generator) < 0.2).long()
    return (flips.cumsum(1) % 2).double()


def network(causal, x, dropout=0.0):
    base = MarginalDenoiser.fit(Codebook([ColumnPoints("simplex", 2)] * N_COLUMNS), x)
    with seeded(0, x.device):
        if causal:
            return CausalDenoiser(base, list(range(N_COLUMNS)), width=16, depth=1, dropout=dropout)
        return NeuralDenoiser(base, width=16, depth=1, dropout=dropout)


def trained(net, n, team=None, *, steps=40, checkpoint=None, progress=None):
    plan = TrainingPlan(
        max_steps=steps, batch_size=64, learning_rate=0.05, n_validations=4, ema=0.9
    )
    with seeded(1, torch.device("cpu")):
        report = train(
            net, rows(n, 1), rows(50, 2), plan, generator=torch.Generator().manual_seed(3),
            team=team, checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
    return torch.cat([p.detach().flatten() for p in net.parameters() if p.requires_grad]), report


class EndedError(Exception):
    pass


class TwoArgumentsError(Exception):
    """Cannot be pickled."""

    def __init__(self, one, other):
        super().__init__(f"{one}, {other}")


class Failing(Recipe):
    trains = True

    def fit(self, rows, plan):
        raise TwoArgumentsError("a", "b")


def in_one_of_two(file):
    """What each of the two processes does."""
    with job() as team:
        check_a_batch_is_shared()
        check_evaluations_are_of_all_rows(team)
        check_a_run_goes_on(Path(file))
        check_networks_of_a_fit_are_trained_by_all(team)
        check_detectors_are_calibrated_alike(team)
        check_failures_are_told(team)
        check_the_end_of_another_is_told(team)


def check_a_batch_is_shared():
    """The steps are those of one process with the whole batch, and all end with the same weights."""

    @led
    def fit():
        # one batch is all of the 32 rows
        return trained(network(True, rows(32, 1)), 32, SharedRun().team, steps=8)

    together, report = fit()
    alone, own_report = trained(network(True, rows(32, 1)), 32, steps=8)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=2e-5)
    for one, other in zip(report.history, own_report.history, strict=True):
        assert one.valid_nats == pytest.approx(other.valid_nats, abs=1e-4)
        assert one.valid_stderr == pytest.approx(other.valid_stderr, abs=1e-4)
    assert report.history[-1].valid_nats < report.history[0].valid_nats - 0.01  # they were steps


def check_evaluations_are_of_all_rows(team):
    values = torch.arange(7.0).double()
    parts = [team.part(values, r) for r in range(2)]
    assert sorted(torch.cat(parts).tolist()) == values.tolist()
    assert team.mean_and_error(team.part(values)) == pytest.approx(mean_and_error(values))
    assert len(team.part(values[:1])) == 1


def check_a_run_goes_on(file):
    """A run that was ended and goes on ends as one that was not, to the last bit, with noise and dropout."""

    def stop(share, _):
        if share > 0.5:
            raise EndedError

    @led
    def fit(checkpoint=None, progress=None):
        net = network(False, rows(300, 1), dropout=0.3)
        return trained(
            net,
            300,
            SharedRun().team,
            checkpoint=checkpoint and Checkpoint(checkpoint, interval=0.0),
            progress=progress,
        )[0]

    whole = fit()
    with pytest.raises((EndedError, FitError)):
        fit(file, stop)
    torch.testing.assert_close(fit(file), whole, atol=0, rtol=0)


def check_networks_of_a_fit_are_trained_by_all(team):
    """Two members of a mixture, one after the other: all end with the same weights, or learn why there are none."""
    x = rows(300, 1)
    base = MarginalDenoiser.fit(Codebook([ColumnPoints("simplex", 2)] * N_COLUMNS), x)
    table = TrainingRows(base, x, rows(50, 2), torch.Generator().manual_seed(4))

    @led
    def fit(recipe):
        return fit_recipe(recipe, table, FitPlan(TrainingPlan(max_steps=20), 0)).denoiser

    found = fit(Causal(2, width=8, base="independent"))
    assert len(found.members) == 2
    for value in found.state_dict().values():
        assert torch.equal(team.agreed(value), value)
    broken = Causal(width=8, base="no base")  # not checked, so that it fails where it is fitted
    with pytest.raises(FitError if team.rank else ValueError, match="base must be"):
        fit(broken)
    with pytest.raises(FitError if team.rank else TwoArgumentsError, match="a, b"):
        fit(Failing())


def check_detectors_are_calibrated_alike(team):
    """Without a seed, too, for the rows of the calibration are not those of the fit of process 0."""
    table = pd.DataFrame(rows(200, 1).long().numpy()).astype("category")
    detector = DiffusionOutlierDetector(DiffusionDensity(denoiser="tree")).fit(table)
    scores = detector.calibration_scores_
    assert np.array_equal(team.agreed(scores), scores)


def check_failures_are_told(team):
    @led
    def fail():
        raise ValueError("column 'a': no")

    with pytest.raises(FitError if team.rank else ValueError, match="column 'a': no"):
        fail()


def check_the_end_of_another_is_told(team):
    @led
    def fit():
        return trained(network(True, rows(300, 1)), 300, SharedRun().team)

    if team.rank:
        os._exit(0)
    with pytest.raises(RuntimeError, match=LOST):
        fit()
    os._exit(7)  # so that the test sees that it came so far


def test_two_processes():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "run")
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.training.test_distributed", file],
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "WORLD_SIZE": "2",
                    "LOCAL_RANK": str(rank),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "OMP_NUM_THREADS": "1",
                },
                cwd=Path(__file__).parents[2],
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [7, 0], said


def test_one_process_is_a_team_of_its_own():
    team = team_of_process()
    assert (team.rank, team.size) == (0, 1)
    assert led(lambda a: a + 1)(2) == 3


def test_the_batch_is_divided():
    two = Team()
    two.size = 2
    x, plan = rows(512, 1), TrainingPlan(batch_size=64)
    run = Run(network(True, x), x, x, plan, torch.Generator(), team=two)
    assert {len(t) for t in next(run.batches)} == {run.batch_size} == {32}


if __name__ == "__main__":
    in_one_of_two(sys.argv[1])
