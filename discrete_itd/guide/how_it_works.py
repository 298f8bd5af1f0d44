r"""How it works, in the order of the code: from a table to a log-probability.

Each step is a folder of the package; imports run one way, down this page.

1. **Encoders** (`discrete_itd.encoders`): each column becomes points of a space. A category is a corner of a simplex,
   an ordered category a point of a line, a number itself, standardised; of a column of thousands of categories each
   has a code of a few numbers. What is not there is NaN.

   >>> import numpy as np, pandas as pd, torch
   >>> from discrete_itd.encoders import TableEncoder
   >>> rng = np.random.default_rng(0)
   >>> colour = rng.choice(["x", "y", "z"], 400)
   >>> shade = np.where(rng.random(400) < 0.9, colour, rng.choice(["x", "y", "z"], 400))
   >>> frame = pd.DataFrame({"colour": colour, "shade": shade})
   >>> encoder = TableEncoder.fit(frame)
   >>> x = torch.tensor(encoder.transform(frame).x)
   >>> book = encoder.codebook()

2. **Channel** (`discrete_itd.channel`): a row is observed through Gaussian noise, :math:`z = \sqrt\gamma x +
   \varepsilon`, eq. (1), at a signal-to-noise ratio (SNR) :math:`\gamma` for each column. The state (y, snr) is all
   that is known of a row: an SNR of zero is a missing cell, an infinite one a known cell.

   >>> from discrete_itd.channel import State
   >>> state = State.start(book, book.embed(x[:1]), given=torch.tensor([[True, False]]))

3. **Denoisers** (`discrete_itd.denoisers`): from a state to a distribution of every cell, given all that is known.
   Some are exact (independent columns, trees, Bayesian networks, mixtures), others are networks.

   >>> from discrete_itd.denoisers import MarginalDenoiser, TreeDenoiser
   >>> tree = TreeDenoiser.fit(MarginalDenoiser.fit(book, x), x)
   >>> tree(*state).column(1).exp().round(decimals=2)  # of the shade, given the colour "z"; the last is "unseen"
   tensor([[0.0000, 0.0300, 0.9700, 0.0000]])

4. **Likelihood** (`discrete_itd.likelihood`): the squared error of the prediction, integrated over the SNR, is the code
   length of the row,

   $$-\log P(x) = \tfrac12 \int_0^\infty E\|x - \hat x(\gamma)\|^2 \, d\gamma. \qquad (3)$$

   For a perfect denoiser this is exact; for any other it is a valid code length, which is not too short in total, eq.
   (5). Rows are scored along a path from nothing known to everything known, eq. (6), which is a normalised
   probability for any denoiser; or, where the denoiser has a closed form, by that.

   >>> from discrete_itd.channel import CoordinateSchedule, Quadrature
   >>> from discrete_itd.likelihood import integral_log_prob, path_log_prob
   >>> generator = torch.Generator().manual_seed(0)
   >>> path = path_log_prob(tree, x[:2], CoordinateSchedule(2), n_paths=4, generator=generator)
   >>> path.log_prob.round(decimals=2), tree.log_prob(x[:2]).round(decimals=2)
   (tensor([-1.0000, -1.2100], dtype=torch.float64), tensor([-1.0000, -1.2100]))
   >>> points = Quadrature.logistic(0.0, 2.0, low=-6, high=6)
   >>> area = integral_log_prob(tree, x[:2], points, n_points=4096, generator=generator)
   >>> bool(((area.log_prob - path.log_prob).abs() < 3 * area.stderr).all())
   True

5. **Training** (`discrete_itd.training`): a network is trained to predict clean rows from noisy ones, or known and
   unknown cells, so that its loss is an unbiased estimate of the code length. It stops when held-out rows stop
   improving.

6. **Models** (`discrete_itd.models`, `discrete_itd.recipes`): several candidates are fitted, from independent columns to
   networks, and the cheapest is taken of those whose held-out nats are within one standard error of the best.

7. **Estimators** (`discrete_itd.DiffusionDensity`): all of this behind scikit-learn's ``fit``, ``score_samples`` and
   ``sample``, with pandas on both sides. Whether a score is what it claims to be can be seen on any table: it is the same
   in closed form, along a path and by the integral (`discrete_itd.guide.guarantees`).

   >>> from discrete_itd import DiffusionDensity
   >>> model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
   >>> model.explain(frame[:1]).sum(axis=1).round(2).item() == round(-model.score(frame[:1]), 2)
   True
   >>> exact = model.log_prob(frame, estimator="closed_form").log_prob
   >>> area = model.log_prob(frame, estimator="integral")
   >>> bool(np.abs(area.log_prob - exact).mean() < 3 * area.stderr.mean())
   True

8. **Detection** (`discrete_itd.detection`): a fifth of the rows is held out to calibrate scores, so that p-values and
   thresholds hold however good or bad the model is (`discrete_itd.guide.thresholds`).

9. **Reporting, plots, scale** (`discrete_itd.reporting`, `discrete_itd.plots`, `discrete_itd.scale`): a page for those
   who decide, figures, and scores of streams and on engines. **Storage** (`discrete_itd.storage`) keeps models in files
   that are read without running code.

References
----------
Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792.
"""
