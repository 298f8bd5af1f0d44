"""Help texts of the commands."""

PACKED = (".gz", ".bz2", ".xz", ".zip")
ENDINGS = f".csv, .tsv (also {', '.join(PACKED)}), .parquet"
ABOUT = """\
Log-probabilities with error bars for the rows of a table; imputation; new rows; anomalies. Logarithms are natural,
their unit is the nat: a row with one nat less is 2.7 times as rare. Surprisal is minus the log-probability.

try it:             discrete-itd demo
with your table:    discrete-itd fit table.csv --out model.safetensors
                    discrete-itd score model.safetensors table.csv --out scores.csv
with alarms:        discrete-itd fit inliers.csv --out detector.safetensors --detector
                    discrete-itd score detector.safetensors new.csv --out scores.csv --reasons
"""
TABLES = f"""\
Tables are read according to the ending of their names: {ENDINGS}.
Empty cells are missing values. So are the words NA, N/A, NaN, NaT, null and None, in any case, but only
in columns whose other cells are all numbers, all True or False, or all dates; in a column of text they are values.
A CSV is in UTF-8 with commas; a byte order mark tells UTF-16, and a header without a comma that ; or a tab divides
tells these. --csv says what else it is; impute writes what it fills in the same way. A row may end early, which leaves
gaps.
Dates are ISO dates and times: 2024-01-31, 2024-01-31 08:30, 2024-01-31T08:30:00.5+01:00. fit also reads text in which
all cells are numbers or dates of one notation, and the model remembers it: 5.067,14 EUR or 12.5 %, 31.01.2024 or
1/31/2024. What could be read in two ways stays text, with a note that names the option.
"""
STREAMS = """\
Tables of any size are read, and written, in chunks: memory does not grow with the number of rows. TABLE and FILE may
be -, the standard input and output, for a CSV; what the command says goes to stderr then.
If TABLE is a folder, each table in it gives one of the same name in the folder FILE, whole or not at all. The same
command again makes only what is not complete: what is newer than its table, and was made by the same model and options,
stays.
A cell of a CSV is a number, a date or missing by its text and the model's column, whatever the other cells are.
"""
FIT = f"""\
Learn the distribution of a table's rows and write the model to a file.

A column of text becomes nominal: categories without an order. Numbers with few different values become
ordinal: categories that keep their order and distances. Other numbers, and dates, become continuous, with a density.
Numbers that are only names need --column shop=nominal; a postal code with a leading zero makes its column text.
Identifiers and free text are left out of the model, with a note, unless --column gives them a kind.
True and False become a nominal column with these two categories.

Kinds of columns for --column NAME=KIND:
  nominal      nominal:10 pools the categories that occur fewer than 10 times
  ordinal
  continuous
  binned       binned:0,18,65,120 has a density that is constant within these bins

or how text writes numbers and dates: decimal-comma, decimal-point, day-first, month-first; also continuous:day-first.
One cell of a column, or five in a thousand, may be no number or date. What fit is told by --column and by --csv na= and
decimal= is part of the model, and need not be told to other commands.

A missing cell is left out of the probability of its row, unless it carries information about other cells: then the
model also learns which cells of its column are missing ("gaps: a value" in the table of columns; see --missing).

Rows are taken for independent draws, which may repeat one another. If several are of one customer, or copies of one
record, name the column that says so with --groups; held-out rows would be too much like the others.

With --detector the model also raises alarms. Some rows are held out of the training to calibrate p-values and the
threshold. TABLE should then contain inliers only; if it contains anomalies, give their share with --contamination.
With --given, a row is compared with its own group, like sales with those of the same shop. All commands but report
accept the file of such a detector, and all accept that of another.

Ctrl-C, or SIGTERM, ends the fit and keeps the best model so far, and the exit code is 130; a second one ends the
command.

{TABLES}
examples:
  discrete-itd fit customers.csv --out customers.safetensors --drop id --column zip=nominal --max-time 120
  discrete-itd fit customers.csv --out customers.safetensors --column age=binned:0,18,65,120
  discrete-itd fit inliers.csv --out detector.safetensors --detector --false-alarm-rate 0.005
"""
SCORE = f"""\
Write the log-probability of each row: columns log_prob (nats; anomalies have low ones) and stderr, in the order
of the table. It is the log-probability of the cells that are not missing. With continuous or binned columns it is a
density, per unit of the column (per second for dates). Columns that the model does not know are ignored; --keep copies
columns of TABLE to the output, before the others.

MODEL may be a detector (fit --detector). There are then four more columns: score (nats; alarms are raised by a low
score), p_value (at most t with probability at most t for an inlier), alarm (True or False), and unreadable: the cells
that are no number or date in a column of these, like amount = '#REF!'. Such a cell counts for nothing, and its row
raises an alarm of that name, in addition to those whose rate is stated. With a detector of groups (fit --detector
--given) there is also group_seen, False for rows of a group that was not seen in training. The last line printed gives
the number of alarms and the expected share of inliers that raise one. --given excludes these columns, because the
threshold applies to whole rows. A table without rows gives one without rows.

{STREAMS}
{TABLES}
examples:
  discrete-itd score customers.safetensors new.csv --out scores.csv --explain
  discrete-itd score customers.safetensors new.csv --out scores.csv --given country city
  discrete-itd score detector.safetensors new.csv --out alarms.csv --reasons --keep id,amount
  discrete-itd score detector.safetensors new.csv --out alarms.csv --false-alarm-rate 0.002
  discrete-itd score customers.safetensors january/ --out scores/
  zcat new.csv.gz | discrete-itd score customers.safetensors - --out - | head
"""
IMPUTE = f"""\
Fill each missing cell of a table with its most probable category, or its median if the column is numeric, given
the other cells of the row. Everything else stays as it is written, including columns that the model does not know; in
Parquet made of a CSV, all columns are text.

{STREAMS}
{TABLES}
examples:
  discrete-itd impute customers.safetensors new.csv --out full.csv
  discrete-itd impute customers.safetensors new.csv --out full.csv --method sample --seed 0
  discrete-itd impute customers.safetensors january/ --out full/
"""
SAMPLE = """\
Draw new rows from the model, as CSV to the standard output or to a file.

examples:
  discrete-itd sample customers.safetensors -n 1000 --seed 0 --out synthetic.csv
  discrete-itd sample customers.safetensors -n 10 --given country=Peru age=40
"""
REPORT = f"""\
Write a report on a table as one HTML page with figures that needs no network: whether targets are met, the most
anomalous rows with reasons, all rows with an alarm as a download (the 1000 most anomalous of them with reasons), the
surprisal of the rows, how much the columns explain each other, and whether longer training would help.

Targets are compared with inliers that were not used for training: those of --inliers, or else all of TABLE.
A target is met if the whole 95% interval of the measured value is at or below it, missed if the interval is above it,
and otherwise undecided. The last line printed is then pass, fail or undecided. For a model without a threshold, one
half of --inliers sets one, at the rate of --target-false-alarms or 1%, and the other half measures it.

All rows are read before the page is written; at most 10 000 rows with an alarm are in its download.
TABLE or the page may be -, the standard input or output. Rows are counted from 1, without the header.
Figures need pip install 'discrete-itd[plot]'.

{TABLES}
examples:
  discrete-itd report customers.safetensors new.csv --out report.html --inliers held_out.csv
  discrete-itd report customers.safetensors new.csv --out report.html --target-nats 12.5 --check
  discrete-itd report detector.safetensors new.csv --out report.html --keep id,amount
"""
CHECK = f"""\
Find the cells of a table that are probably wrong, by its other rows and the other cells of the row; no model is needed.
FILE has one line per cell: row (from 1, without the header), column, value, expected, expected_probability and
probability_wrong, the most probable error first. The table is read whole.

{TABLES}
examples:
  discrete-itd check customers.csv --out errors.csv
  discrete-itd check customers.csv --out errors.csv --repair repaired.csv --report errors.html
"""
WATCH = f"""\
Watch rows as they arrive, and raise an alarm once they are not exchangeable with the rows that the detector was
calibrated on. Each call goes on from --state, which holds what is known of the rows watched so far (some kB for each
column, however many rows); remove it to begin anew, like after an alarm and a new fit. Of a detector fitted with
--given, rows are compared within their groups.

Each row's score, and its nats by column, get an online conformal p-value, against which test martingales bet. The
probability that any of them ever raises a false alarm is at most --level, however many rows and calls. Half of it is
for whole rows, the rest is divided among the columns. An alarm stays: the exit code is 1 if one was raised, in this
call or before, else 0. It names the columns whose own martingale raised one.

The columns of --out are row (from 1, over all calls), p_value, log10_martingale, alarm, unreadable, and for each column
of the model p_value_<column>, log10_martingale_<column> and alarm_<column>. The state is written after --out, whole or
not at all: a call that failed can be repeated. The tables of a folder are read in the order of their names.

{TABLES}
examples:
  discrete-itd watch detector.safetensors today.csv --state watch.state
  zcat today.csv.gz | discrete-itd watch detector.safetensors - --state watch.state --out watched.csv
"""
DRIFT = f"""\
Compare a table with the rows that a detector was calibrated on: mean nats per row, nats by column, and with --reference
the values and the missing cells of each column. The page of p-values, effects and their guarantees is
discrete_itd.detection.drift.Drift. watch follows rows as they arrive instead.

{TABLES}
examples:
  discrete-itd drift detector.safetensors january.csv --out columns.csv
  discrete-itd drift detector.safetensors january.csv --reference held_out.csv --check
"""
DESCRIBE = """\
Print the card of a model, in Markdown: what it was fitted to, how well it predicts held-out rows, how it is
calibrated, what it costs and where it ends. It names columns, but none of their values.

example:
  discrete-itd describe detector.safetensors
"""
DEMO = """\
Learn what edible mushrooms look like from a table in the package, then score edible and poisonous ones.
Takes about a minute; needs no network and writes no file.

example:
  discrete-itd demo
"""
