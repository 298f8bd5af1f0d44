"""What an installed package must do, run by the Python of a bare environment: ``python tests/smoke.py``.

The README's first example prints what it promises, the demo ends, nothing warns. Prints the time of these, of an import
and of a first fit and score, and for which device PyTorch was built, the time of the installation and its size.
"""

import importlib.metadata
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGE = "discrete-itd"
README = Path(__file__).resolve().parents[1] / "README.md"


def timed(what, *command):
    """What a command prints, and its seconds on the screen; SystemExit where it fails or warns."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or "Warning" in done.stderr:
        raise SystemExit(f"{what} failed or warned:\n{done.stderr}")
    print(f"{what}: {time.perf_counter() - start:.1f} s")
    return done.stdout


FIT = """
import sys, numpy as np, pandas as pd
from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
rng = np.random.default_rng(0)
colour = rng.choice(["x", "y", "z"], 200)
frame = pd.DataFrame({"colour": colour, "size": rng.normal(size=200) + (colour == "x")})
model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
model.save(sys.argv[1])
again = DiffusionDensity.load(sys.argv[1])
assert (again.score_samples(frame) == model.score_samples(frame)).all()
assert len(again.sample(3, random_state=0)) == 3
print(again.score(frame))
"""


def size(name):
    """Megabytes of an installed distribution's files, and their number."""
    files = [Path(str(f.locate())) for f in importlib.metadata.files(name) or ()]
    return sum(f.stat().st_size for f in files if f.is_file()) / 1e6, len(files)


def installation():
    """What PyTorch was built for, and the seconds from the making of the environment to its last package."""
    import torch

    records = [
        Path(str(f.locate())).stat().st_mtime
        for d in importlib.metadata.distributions()
        for f in d.files or ()
        if f.name == "RECORD"
    ]
    made = Path(sys.prefix, "pyvenv.cfg").stat().st_mtime
    device = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
    return f"PyTorch {torch.__version__} for {device}, installed in {max(records) - made:.0f} s"


def main():
    import discrete_itd

    where = Path(discrete_itd.__file__).parent
    print(
        f"{PACKAGE} {importlib.metadata.version(PACKAGE)} of {where}, Python {sys.version.split()[0]}"
    )
    assert (where / "py.typed").is_file()
    assert (where / "data").is_dir(), "the tables are not there"
    python = (sys.executable, "-c")
    for line in "pass", "import discrete_itd", "from discrete_itd import DiffusionDensity":
        timed(line, *python, line)
    with tempfile.TemporaryDirectory() as folder:
        timed("fit of 200 rows, save, load, score", *python, FIT, f"{folder}/model.safetensors")
    block = re.compile(r"```(?:python|text)\n(.*?)```", re.DOTALL)
    example, promised = block.findall(README.read_text())[:2]
    printed = timed("the README's first example", *python, example)
    # one and two packs are nearly equally probable, so that rounding may choose the other
    assert re.sub(r"(?<=packs)( +120 +)1", r"\g<1>2", printed) == promised, printed
    command = str(Path(sys.executable).with_name("discrete-itd"))
    assert "usage: discrete-itd" in timed("discrete-itd --help", command, "--help")
    assert "most anomalous" in timed("discrete-itd demo", command, "demo")
    names = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    sizes = sorted(((size(name)[0], name) for name in names), reverse=True)
    own, n_files = size(PACKAGE)
    whole = sum(s for s, _ in sizes)
    print(f"installed: {own:.1f} MB in {n_files} files, with all dependencies {whole:.0f} MB")
    print(installation())
    print("the largest: " + ", ".join(f"{name} {s:.0f} MB" for s, name in sizes[:5]))


if __name__ == "__main__":
    main()
