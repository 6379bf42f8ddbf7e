#!/usr/bin/env python3
"""Times peftool merge against cp of the same files, and against PEFT.

    Tests/Benchmarks/make_model.py FOLDER
    Tests/Benchmarks/merge.py FOLDER [--rounds 5] [--peft 1] [--profile]

In each round: cp -r of the base and fsync of the copy; a LoRA merge; a DoRA merge; their order
turns by one each round. All inputs are in the page cache. peftool syncs by itself; the copy and
PEFT's output are synced by this script, on their time.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from measure import PEFTOOL, ROOT, measure, median, print_table, warm

PROFILE_LINES = 25


def profile(command, output):
    """Where a run spends its processor time, by symbol."""
    if not shutil.which("perf"):
        print("perf is not there: no profile")
        return
    shutil.rmtree(output, ignore_errors=True)
    with tempfile.NamedTemporaryFile() as data:
        # The clock and not the cycle counter, which virtual machines may lack.
        subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-o", data.name,
                        *map(str, command)], check=True, stdout=subprocess.DEVNULL)
        report = subprocess.run(
            ["perf", "report", "--stdio", "-q", "--sort", "dso,symbol", "-i", data.name],
            check=True, capture_output=True, text=True).stdout
    lines = [line.rstrip(" -") for line in report.splitlines() if line.strip()]
    print("\n".join(lines[:PROFILE_LINES]))
    shutil.rmtree(output, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".build/benchmarks")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, default 5")
    parser.add_argument("--peft", type=int, default=1, help="runs of PEFT, default 1; 0: none")
    parser.add_argument("--python", type=Path, default=ROOT / ".build/interop/bin/python",
                        help="a Python that has torch, transformers and peft")
    parser.add_argument("--threads", help="as peftool takes it")
    parser.add_argument("--profile", action="store_true", help="symbols by processor time (perf)")
    options = parser.parse_args()

    base, output = options.folder / "base", options.folder / "output"
    shard_size = max(path.stat().st_size for path in base.glob("*.safetensors"))
    threads = ["--threads", options.threads] if options.threads else []

    def merge(adapter):
        return [PEFTOOL, "merge", base, options.folder / adapter, "-o", output, "--quiet",
                *threads]

    def peft(adapter):
        return [options.python, Path(__file__).with_name("peft_merge.py"), base,
                options.folder / adapter, output, shard_size]

    def copy():
        return measure(["cp", "-r", base, output], output, is_synced=True)

    cases = {"cp -r, fsync": copy,
             "peftool merge, LoRA": lambda: measure(merge("lora"), output),
             "peftool merge, DoRA": lambda: measure(merge("dora"), output)}
    rows = {label: [] for label in cases}
    try:
        for path in (base, options.folder / "lora", options.folder / "dora"):
            warm(path)
        for number in range(options.rounds):
            labels = list(cases)
            for label in labels[number % 3:] + labels[:number % 3]:
                rows[label].append(cases[label]())
        for number in range(options.peft):
            for adapter, label in (("lora", "PEFT, LoRA"), ("dora", "PEFT, DoRA")):
                rows.setdefault(label, []).append(measure(peft(adapter), output, is_synced=True))
        size = sum(path.stat().st_size for path in base.iterdir())
        print(f"base {size / 1e9:.2f} GB, "
              f"cp {size / median(rows['cp -r, fsync']) / 1e9:.2f} GB/s; ratio to cp")
        print_table(rows, baseline="cp -r, fsync")
        if options.profile:
            for adapter in ("lora", "dora"):
                print(f"\nprofile of merge, {adapter}")
                profile(merge(adapter), output)
    finally:
        shutil.rmtree(output, ignore_errors=True)


if __name__ == "__main__":
    main()
