"""What ``--help`` and the options need to know, without an import of torch, pandas or numpy."""

FORMATS = ("csv", "tsv", "parquet")
PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
ENDINGS = ".csv, .tsv (also .gz, .bz2, .xz, .zip, .zst), .parquet"
# equal to encoders.KINDS, encoders.NOTATIONS and recipes.NAMES, whose modules import torch
KINDS = ("nominal", "ordinal", "continuous", "binned")
NOTATIONS = ("decimal-comma", "decimal-point", "day-first", "month-first")
DENOISERS = (
    "auto", "best", "network", "causal", "row_mixture", "independent", "tree", "trees", "mixture", "decoder",
    "bayes_net", "forest",
)  # fmt: skip


class UserError(Exception):
    """An error that the user can correct; its text is the one line that is printed."""
