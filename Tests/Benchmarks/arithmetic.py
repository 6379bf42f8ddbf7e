#!/usr/bin/env python3
"""Times combine and extract against PEFT's add_weighted_adapter and mergekit's full SVD.

    Tests/Benchmarks/make_model.py FOLDER
    Tests/Benchmarks/arithmetic.py FOLDER [--rounds 3]

combine: two adapters of rank 16 for the modules of one layer, by SVD; PEFT's time is that of
add_weighted_adapter alone, peftool's that of the whole command. extract: the model with FOLDER/lora
merged into it, whose change is of rank 16 and full of what bf16 rounds; mergekit's algorithm is
timed on one layer, and counted once for each. The resident set of peftool is measured, too.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from measure import PEFTOOL, ROOT, measure, median, print_table, warm

HERE = Path(__file__).parent


def seconds_of(command):
    return float(subprocess.run(list(map(str, command)), check=True, capture_output=True,
                                text=True).stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".build/benchmarks")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, default 3")
    parser.add_argument("--python", type=Path, default=ROOT / ".build/interop/bin/python",
                        help="a Python that has torch and PEFT")
    options = parser.parse_args()
    base = options.folder / "base"
    quick = ["--quiet", "--force"]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        peft = seconds_of([options.python, HERE / "peft_combine.py", work])
        rows = {"combine, one layer": [
            measure([PEFTOOL, "combine", work / "a", work / "b", "--weights", "0.7,0.3",
                     "--method", "svd", "--rank", "16", "-o", work / "sum", *quick], work / "sum")
            for _ in range(options.rounds)]}
        ours = median(rows["combine, one layer"])
        print(f"add_weighted_adapter of PEFT: {peft:.1f} s, {peft / ours:.0f} times peftool's")

        tuned = work / "tuned"
        subprocess.run([PEFTOOL, "merge", base, options.folder / "lora", "-o", tuned, "--quiet"],
                       check=True)
        warm(base)
        warm(tuned)
        for label, flags in {"extract": [], "extract --dora": ["--dora"]}.items():
            rows[label] = [
                measure([PEFTOOL, "extract", base, tuned, "--rank", "16", "-o", work / "out",
                         *quick, *flags], work / "out") for _ in range(options.rounds)]
        layers = json.loads((base / "config.json").read_text())["num_hidden_layers"]
        full = seconds_of([options.python, HERE / "full_svd.py", base, tuned]) * layers
        ratio = full / median(rows["extract"])
        print(f"full SVD in torch: {full:.0f} s for {layers} layers by one of them, "
              f"{ratio:.1f} times peftool's")
        print_table(rows)
        shutil.rmtree(work / "out", ignore_errors=True)


if __name__ == "__main__":
    main()
