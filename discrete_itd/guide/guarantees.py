r"""What is guaranteed, what is statistical, and what is not promised, each with the test that holds it.

A guarantee is a theorem, for any model, however badly fitted, and any table. A test can only fail to refute it; those
below enumerate all rows of small tables, or repeat an experiment often enough to see a violation.

## Guaranteed

| what | test |
|---|---|
| Probabilities along a path (6) sum to one over all rows, for any network, untrained ones too, and any schedule | `tests/likelihood/test_likelihood.py::test_path_masses_add_up_to_one` |
| Along one fixed order, to rounding | `tests/likelihood/test_likelihood.py::test_autoregression_is_normalised_to_rounding` |
| Closed forms sum to one, whatever cells are missing | `tests/denoisers/test_causal.py::test_probabilities_sum_to_one_whatever_is_missing_and_draws_follow_them` |
| Densities of continuous columns integrate to one | `tests/estimators/test_mixed.py::test_mass_and_density_add_up_to_one` |
| The integral (3) is a valid code length: not too short in total, eq. (5) | `tests/likelihood/test_likelihood.py::test_integral_is_never_optimistic_in_total` |
| Exact models: a missing cell is summed over, the posterior is Bayes' rule, and the path is the closed form in any order | `tests/denoisers/test_exact.py::test_exact_denoisers_have_every_property` |
| A score is a function of the row and the model alone, to the last bit, whatever its batch | `tests/estimators/test_row_alone.py::test_a_closed_form_gives_a_row_the_same_bits_in_any_batch` |
| Also along paths | `tests/estimators/test_row_alone.py::test_a_path_gives_a_row_the_same_bits_in_any_batch` |
| Threads that ask one model at the same time get the answers of one | `tests/estimators/test_at_once.py::test_threads_that_ask_one_model_get_the_answers_of_one` |
| Processes that load one file at the same time do | `tests/estimators/test_at_once.py::test_processes_that_ask_one_file_get_the_answers_of_one` |
| Batches of a stream have the answers of the whole table | `tests/scale/test_batches.py::test_properties_answers_are_those_of_the_whole_table` |
| Row noise depends on the row's content and the seed alone, so a path's score is reproducible | `tests/channel/test_noise.py::test_noise_is_that_of_earlier_releases` |
| Any table, whatever its types and gaps, is fitted or refused by name, and its answers agree with each other | `tests/estimators/test_every_question.py::test_every_question_of_any_table` |
| `explain` adds up to the score | `tests/estimators/test_estimators.py::test_explanations_add_up` |
| p-values of exchangeable rows: P(p ≤ α) ≤ α, on average over calibration sets, with any ties | `tests/detection/test_conformal.py::test_p_values_are_valid_exactly` |
| Rounding errors of scores only enlarge p-values | `tests/detection/test_conformal.py::test_rounding_errors_only_enlarge_p_values` |
| With `given=`, false alarms stay within the rate in every group with calibration rows enough | `tests/detection/test_groups.py::test_false_alarms_stay_within_the_budget_in_every_group` |
| `DriftWatch`: the probability of ever raising a false alarm is at most its level | `tests/detection/test_watch.py::test_false_alarms_are_rare` |
| Decoding undoes encoding, dtypes and gaps included (bins and pooled categories: up to their members) | `tests/encoders/test_encoders.py::test_decoding_undoes_encoding` |
| A stored model is the model: the same scores, the same draws | `tests/models/test_fitting.py::test_property_a_stored_model_is_the_model` |
| A seed makes the fit, on the same machine with the same versions | `tests/models/test_fitting.py::test_property_the_same_fit_again_is_the_same_model` |
| A fit that was killed goes on from its checkpoint to the same result | `tests/training/test_checkpoint.py::test_a_killed_run_ends_as_if_it_had_not_been` |
| Files are read without running code, and classes of others only if trusted | `tests/storage/test_foreign_parts.py::test_a_class_that_is_not_trusted_is_refused_by_name` |
| A damaged file is refused | `tests/storage/test_files.py::test_a_flipped_bit` |
| A file that says huge numbers takes neither time nor memory | `tests/storage/test_files.py::test_huge_numbers_take_neither_time_nor_memory` |
| Forged files, their digest right, are loaded or refused by name, in bounded time and memory (10 000 with `--slow`) | `tests/storage/test_hostile_files.py::test_hostile_files_are_loaded_or_refused` |
| A file holds no row of the training table, and no average of fewer than five; a `Support` is the user's own list | `tests/storage/test_no_record.py::test_no_file_of_twenty_thousand_rows_holds_one` |
| A file is written as a whole or not at all | `tests/storage/test_files.py::test_a_failing_writer_leaves_the_old_file` |

## One number, three ways

The paper's estimator is the integral of the denoising error over the signal-to-noise ratio, eqs. (3) and (4). Rows are
scored by it, along paths (6), or by what it is known to be in closed form: `log_prob(X, estimator=...)` on any table shows
that they agree. `tests/estimators/test_estimator_choice.py` runs every line; a missing cell, a missingness indicator and
`given=` change nothing. By default, though, a causal network answers `given=` by itself, and sums out gaps that were not in
training; by name, it leaves the cells out, and its companion answers.

| `denoiser=` | `"closed_form"` | `"path"` | `"integral"` | `mse_curve` |
|---|---|---|---|---|
| `"independent"`, `"tree"`, `"trees"`, `"bayes_net"`, `"mixture"`, `"decoder"`, mixtures of rows of these | default | equal | within its error | its own |
| `"causal"` | default | equal | within its error | its own |
| `"row_mixture"` of these, one of them causal | default | equal | within its error | the companion's |
| `"network"` | – | default | another code length | its own |

* *equal*: to rounding, one column a step, `n_evaluations` allowing. An exact model takes them in any order and gives the
  same along any schedule of many steps. A causal network is no good denoiser away from its own order: path and integral are
  along it, one column after another, where (3) is its cross-entropy, eq. (8).
* *within its error*: of `n_evaluations` noise levels a row, each with its own noise, half a nat in a row is common for 128;
  the mean over rows is far better, and `max_stderr=` buys more. Its integrand is skewed: few points, more rows beyond 1.96
  standard errors than 5 %.
* *another code length*: a network that is not the exact posterior has one path integral for each path. That of all columns
  at one SNR is the limit of ``schedule="isotropic"`` in many steps, (6) with one path, on average; it is valid, eq. (5), but
  not what the default schedule scores.
* A mixture of rows mixes what its members estimate; a causal member leaves it without a posterior at noisy states, so that
  its curve is the companion's. `mse_curve(X).attrs` says whose it is. Of categories, the area under a curve of its own is
  minus the mean score; with numbers, the area between the curves is the gain over independent columns.
* With `given=` the model that answers such questions is asked, which may be another line of this table.

## Statistical

What holds on average, or with a probability that was measured.

| what | test |
|---|---|
| Samples follow the probabilities that are scored | `tests/likelihood/test_sampling.py::test_samples_follow_the_scored_mass` |
| ±1.96 standard errors of a score along paths cover it: 93 to 99 % of held-out rows, 82 to 99 % of anomalies (`python -m tests.benchmarks.promises coverage`) | `tests/likelihood/test_likelihood.py::test_stderr_covers_the_truth` |
| The 95 % interval of a threshold's false-alarm rate covers it | `tests/detection/test_conformal.py::test_intervals_of_the_rate_cover_it` |
| `discoveries`: the share of false ones is at most `fdr`, on average, if inliers are independent draws | `tests/detection/test_conformal.py::test_the_false_discovery_rate_is_held` |
| `threshold_at_cost`: the interval of the cost covers it | `tests/detection/test_conformal.py::test_intervals_of_the_cost_cover_it` |
| `drift` keeps its level over whole batches | `tests/detection/test_drift.py::test_levels_of_whole_batches` |
| `"auto"` takes the cheapest candidate within one standard error of the best, on the rows held out | `tests/models/test_choosing.py::test_auto_takes_the_cheapest_of_those_as_good_as_the_best` |
| Held-out nats are a little too low for new rows: the same rows chose the model and ended its training | `tests/storage/test_card.py::test_a_card_says_what_the_model_is` |

## Not promised

| what | instead |
|---|---|
| That anomalies rank first: a model may be valid and useless | measure it on known anomalies; `discrete_itd.guide.pilot` |
| p-values under drift, of rows that repeat training records, or conditional on a subset that `given=` does not name | `drift`, `DriftWatch`, `given=` |
| The false-alarm rate of one calibration set, without `confidence=` | `threshold_at_rate(0.01, confidence=0.95)` |
| The rate P(p ≤ α) ≤ α where the calibration rows hold anomalies that score higher than inliers | at most α / (1 - e) for a share e of anomalies |
| Scores of anomalies along paths that are not too low: the error is one-sided, and larger than stated | a closed form, or `max_stderr=` |
| Conditionals that agree with the joint to rounding, of several cells under a model with a `companion_` (of one cell they do) or along random orders | one exact model (`"tree"`, `"bayes_net"`, `"mixture"`, `"decoder"`) |
| The same bits on another processor, device, or release of torch | scores that agree to rounding |
| Comparable nats of tables in other units: a log-density changes with the unit, and may be above zero | compare models on the same table |
| Gaps that depend on values of other columns, marginalised | `missing="category"` |
| Privacy of the training rows: a file holds their categories, rare ones too, and how often they occur together; draws may repeat rows | |
| That a reason is a cause | |
"""
