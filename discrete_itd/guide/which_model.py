r"""Which model, at what cost.

The default, ``denoiser="auto"``, fits several and takes the cheapest of those that are as good as the best on held-out
rows, within one standard error; ``candidates_`` lists them with nats, microseconds per row and seconds of the fit:

>>> import pandas as pd
>>> from discrete_itd import DiffusionDensity
>>> frame = pd.DataFrame({"a": list("xyxz") * 50, "b": list("uvuv") * 50, "c": list("ssst") * 50})
>>> model = DiffusionDensity(max_steps=0, random_state=0).fit(frame)  # exact models alone
>>> list(model.candidates_.columns[:4]), model.candidates_["chosen"].sum().item()
(['candidate', 'nats', 'behind', 'stderr'], 1)

## What it costs

Nats per test row (fewer are better), seconds of the fit, and rows scored per second in a batch; two threads of an
x86 server, no GPU, 26 November 2026. Standard errors of the nats are 0.005 to 0.14, except for the last line of each
table, which is of 300 rows (0.02 to 0.49). From ``tests/benchmarks/RESULTS.md``, "One call a score"; the command is
``python -m tests.benchmarks.fast mushroom adult nltcs plants --max-time 120``.

| `denoiser=` | mushroom, 6 499 × 23 | adult, 26 048 × 13 | nltcs, 18 338 × 16 | plants, 19 733 × 69 |
|---|---|---|---|---|
| `"auto"` | 9.138; 18.5 s; 40 492 /s | 15.214; 42.5 s; 22 957 /s | 5.983; 18.8 s; 200 905 /s | 12.145; 53.4 s; 23 659 /s |
| `"bayes_net"` | 11.316; 0.8 s; 201 077 /s | 15.747; 0.4 s; 608 727 /s | 6.034; 0.8 s; 488 908 /s | 13.674; 17.0 s; 183 108 /s |
| `"causal"` | 9.152; 9.4 s; 53 191 /s | 15.388; 44.1 s; 42 423 /s | 5.988; 17.2 s; 198 865 /s | 12.331; 50.5 s; 50 189 /s |
| `"decoder"` | 9.167; 31.2 s; 16 630 /s | 15.230; 31.4 s; 33 990 /s | 5.983; 16.6 s; 133 597 /s | 12.285; 31.6 s; 23 305 /s |
| `"network"`, 128 calls | 9.244; 118.9 s; 231 /s | 15.125; 122.1 s; 169 /s | 5.823; 87.5 s; 488 /s | 13.103; 122.1 s; 312 /s |

## How to choose

* **Start with** ``denoiser="tree"`` or ``"bayes_net"``: a fit takes about a second, and shows whether the columns are
  read as they are meant (``encoder_.describe()``).
* **Stay with the default** if a minute is affordable. ``max_time=30`` bounds the fit in seconds.
* **Numbers**: in ``"tree"``, ``"trees"`` and ``"bayes_net"``, columns of numbers that are not cut into bins are
  independent of all others (``model_card()`` names them); ``"forest"``, ``"mixture"`` and ``"decoder"`` have them in.
* **One exact model** (``"tree"``, ``"bayes_net"``, ``"mixture"``, ``"decoder"``) where questions about any subset of
  columns must agree with one another to rounding: its conditionals, marginals and joint are of one distribution.
* ``"network"`` where such questions matter more than speed: it hears every column, and scores along paths.
* ``"best"`` where only nats count: with ``max_time=480`` and one thread 12.033 nats on plants, scored at 1 795 rows a
  second (``python -m tests.benchmarks.fast plants --only best --max-time 480``).
* **Anomalies**: the order of nats is not the order of AUROC. On 60 tables of OddBench the default detector has a mean
  AUROC × 100 of 80.8, nearest neighbours 76.9, IsolationForest 74.1 (``python -m tests.benchmarks.odd``).

One row at a time costs 6 to 10 ms in the median, whatever the batch speed (``python -m tests.benchmarks.fast mushroom
adult cardio --latency``): score rows in batches where you can. GPUs are supported, and unmeasured.
"""
