r"""A pilot, step by step, for those who decide: from the first fit to accept or reject.

Each step names the figure to read, and where it is. Set aside a *test table* first: rows of a later time than the
training rows, with known anomalies if you have any, that nobody looks at before step 6.

| step | do | read | go on if |
|---|---|---|---|
| 1. the columns | `DiffusionDensity(denoiser="tree").fit(X).encoder_.describe()` | `kind`, `categories`, `missing` | every column is what it is meant to be; otherwise `column_types=`; identifiers and free text are left out, and a warning names them |
| 2. a first model | `DiffusionDensity(random_state=0).fit(X)` | `candidates_`: `nats`, `behind`, `chosen` | the chosen model is better than `independent` by many standard errors: columns depend on one another |
| 3. the detector | `DiffusionOutlierDetector(random_state=0).fit(X)` | `print(detector.threshold_)`: rate, interval, calibration rows | the interval is narrow enough for the alarms that you can check |
| 4. the budget | `threshold_at_rate(5 / 20_000, rows_per_day=20_000)` | alarms per day and their interval | that many checks are affordable |
| 5. plausibility | `reasons(X, k=3)` of the lowest scores | `sentence` | somebody who knows the data calls the reasons sensible |
| 6. the test table | `predict`, `p_values`; `drift(test)` | share of alarms among inliers and among known anomalies; `drifted` | the first is within the interval of step 3, the second is worth its checks |
| 7. operation | `save`, `DriftWatch(detector)` | the card beside the file; `watch.alarm_` | |

``report(detector, test, inliers=..., out="report.html", target_false_alarms=0.02)`` writes steps 3 to 6 on one page.

**Accept** if the test table met the false-alarm target, and the checks that its alarms cost are worth the anomalies that
they find, at the prevalence that you expect. **Reject** if known anomalies rank among inliers after step 5 named no
column that should be read differently: their values are then typical in every combination that the model sees, and no
threshold will help. Compare with the simplest alternative (``denoiser="independent"``, IsolationForest) on the same test
table: if that is as good, take that.

## What can go wrong, and how to see it

| failure | how it shows | what to do |
|---|---|---|
| **Overfitting** | `history_`: `valid_nats` rise while `train_nats` fall; nats of new rows, `-score(test)`, are above the held-out nats of the card by more than their standard errors | training stops by itself and the best state is kept; of small tables take `"tree"`, `"bayes_net"`, or more rows. Held-out rows also chose the model, so new rows cost slightly more |
| **Columns that identify rows** | a warning at `fit`; `describe()`: "left out" | nothing; `column_types={"id": "nominal"}` keeps one |
| **Unseen categories** | `explain(X)`: a large share of one column; a warning where all values of a column are new | `handle_unknown="error"` refuses them; fit again with rows that have them |
| **Drift** | `drift(batch)`: `drifted`, `drifted_columns` with an `effect` in nats; `DriftWatch.alarm_` | find the cause; fit and calibrate again: p-values are no longer valid |
| **The model fits badly** | `drift(batch).misfit` far from 0: inliers cost more, or less, than rows drawn from the model | p-values stay valid; ranking and samples suffer: `"best"`, more rows, other kinds of columns |
| **Too typical** | rows that repeat defaults or copies have *high* scores and raise no alarm | `p_values(X, two_sided=True)` |
| **Too few calibration rows** | a warning at `fit`; a wide interval in `threshold_`; equal smallest p-values, 1 / (n + 1) | more rows, a larger `calibration_fraction`, or a larger rate |
| **Gaps** | rows with many missing cells look typical: a missing cell costs nothing | `missing="category"` where gaps say something; read `describe()["missing"]` |
| **Anomalies in training** | `detector.trimmed_` under `contamination=`; the lowest scores of training rows are real anomalies | `contamination=0.05`, and the weaker guarantee of `discrete_itd.guide.thresholds` |
| **One cell decides** | `explain(X)`: one column has nearly all the nats of an alarm | read `reasons` before acting on a single alarm |
| **Scores with a standard error** | `log_prob(X).stderr` is large for rows near the threshold | only models along paths: `max_stderr=0.1`, or a model with a closed form |

How much is to be expected: mean AUROC × 100 of the default detector is 80.8 on sixty tables that nobody here chose
(nearest neighbours 76.9, IsolationForest 74.1; ``python -m tests.benchmarks.odd``). On single tables it loses, there by
up to 39 points: try yours.

>>> import pandas as pd
>>> from discrete_itd import DiffusionOutlierDetector
>>> frame = pd.DataFrame({"a": ["x", "y"] * 100, "b": ["u", "v"] * 100})
>>> detector = DiffusionOutlierDetector(denoiser="tree", false_alarm_rate=0.05, random_state=0).fit(frame)
>>> detector.density_.encoder_.describe()[["column", "kind", "missing"]].values.tolist()
[['a', 'nominal', 0.0], ['b', 'nominal', 0.0]]
>>> detector.drift(frame[:20]).drifted, detector.predict(frame.assign(b="u")[:4]).tolist()
(False, [1, -1, 1, -1])
"""
