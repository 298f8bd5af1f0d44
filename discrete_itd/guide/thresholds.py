r"""Thresholds and p-values, for people who must defend them.

A detector holds back a fifth of the rows it is fitted to (``calibration_fraction``). They take no part in the fit, so
their scores show how inliers score that the model has not seen. Everything on this page follows from them, whatever
the model.

>>> import numpy as np, pandas as pd
>>> from discrete_itd import DiffusionOutlierDetector
>>> rng = np.random.default_rng(0)
>>> colour = rng.choice(["x", "y", "z"], 400)
>>> frame = pd.DataFrame({"colour": colour, "size": rng.normal(size=400) + (colour == "x")})
>>> detector = DiffusionOutlierDetector(denoiser="tree", false_alarm_rate=0.05, random_state=0).fit(frame)
>>> len(detector.calibration_scores_)
80

## What a p-value says

With n calibration scores, a row with score s has, eq. (7),

$$p = \frac{1 + \#\{i : S_i \le s\}}{n + 1}.$$

*If the row is exchangeable with the calibration rows* (for instance, all are independent draws of one distribution),
then P(p ≤ α) ≤ α, in finite samples, for any model and any distribution, on average over calibration sets. It is
not the probability that the row is an inlier, and says nothing of how many anomalies are found: that is power, which
a better model improves.

The smallest possible p-value is 1 / (n + 1). A false-alarm rate of 0.1 % so needs at least 999 calibration rows, which
are a fifth of 4 995 rows; with fewer, ``threshold_at_rate`` refuses and ``fit`` warns.

>>> detector.p_values(frame[:1]).item() >= 1 / 81
True
>>> detector.threshold_at_rate(0.001)
Traceback (most recent call last):
    ...
ValueError: false_alarm_rate=0.001: 80 calibration rows cannot guarantee so small a rate; it takes 999

## What a threshold says

>>> print(str(detector.threshold_).partition(": ")[2])  # "alarm below ... nats: "
4.94 % of inliers (1.38 % to 10.6 %, from 80 calibration rows)

The first figure is the expected rate, the interval is where the rate of *this* calibration set lies with 95 %
confidence. It is wide because 80 rows are few. Who must promise a rate for this very threshold asks for it:

>>> print(str(detector.threshold_at_rate(0.05, confidence=0.95)).partition(": ")[2])
1.23 % of inliers (0.0316 % to 4.51 %, from 80 calibration rows)

| question | call |
|---|---|
| a share of inliers may raise an alarm | `threshold_at_rate(0.01)` |
| so many alarms a day can be checked | `threshold_at_rate(5 / 20_000, rows_per_day=20_000)` |
| a miss costs 500, a check 10 | `threshold_at_cost(500, 10, anomalies=X, prevalence=0.001)` |
| alarms from now on by this one | `set_threshold(threshold)` |
| which rows of this batch, at most a tenth of them false | `discoveries(X, fdr=0.1)` |

Each returns what it promises as text (``print``) and as fields (`discrete_itd.detection.thresholds.Threshold`).

## What to say to an auditor

1. *Calibration rows were not used to fit*: by construction of ``fit``; with a model that was fitted before
   (``sklearn.frozen.FrozenEstimator``), you must see to it yourself.
2. *New rows are exchangeable with them*: this is an assumption. ``drift(X)`` tests it for one batch, and
   `discrete_itd.DriftWatch` for rows as they arrive, with a bound on the probability of ever raising a false alarm.
3. *Rows are independent draws*, which may repeat one another by chance. Where several are of one customer, or copies of
   one record, say so: ``fit(X, groups=customer)`` keeps them on one side and calibrates on one row of each. Rates are
   then those of rows of new customers.
4. *Ties*: equal scores make p-values larger and thresholds lower, never the other way round. The stated rate is too
   high by at most 1 / (n + 1).
5. *Groups*: the rate holds on average over all rows. With ``given="shop"`` it holds in every group that has at least
   1 / ``false_alarm_rate`` - 1 calibration rows of its own (``groups_``).
6. *Anomalies among the training rows*: with a share e of them among the calibration rows, only P(p ≤ α) ≤ α / (1 - e)
   is guaranteed; where anomalies score lower than inliers, p-values are valid and have less power.
7. *Looking more than once*: a p-value is for one row. Of many rows at once, some inliers have small p-values;
   ``discoveries`` allows for that. A threshold that was chosen by its effect on the same rows is no longer covered.

Measured (``python -m tests.benchmarks.validity``, of 26 November 2026): 200 divisions of five tables, with tied scores
and copied rows as well; 188 of 188 rates of false alarms and false discoveries are within their 99 % intervals. For
example mushroom, 561 calibration and 561 test rows, α = 5 %: promised at most 4.98 %, mean rate 5.17 %. The intervals of
thresholds cover the true rate in 94 to 98 % of calibration sets, ties or none (``python -m tests.benchmarks.promises
ties``).
"""
