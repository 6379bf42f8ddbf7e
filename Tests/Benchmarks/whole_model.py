#!/usr/bin/env python3
"""All of a model trained by full AdamW and by GaLore: where the losses end.

    whole_model.py MODEL [--folder .build/benchmarks/whole] [--steps 300] [--rank 128]

MODEL is a Hugging Face directory, such as `peftool convert --dtype bf16` makes of
Samples/smollm2's. The texts are modules of this Python's standard library in an order drawn once,
none of which is seen twice; what follows in that order is held out. Both are trained on the same
batches of two rows of 128 tokens, with a rate that falls linearly: GaLore's is that of AdamW over
its scale of 0.25, so that where its subspace holds a gradient its steps are as long. Prints the
mean loss of the last forty steps, and that on the held-out texts before and after.
"""

import argparse
import json
import random
import statistics
import subprocess
import sysconfig
from pathlib import Path

from measure import PEFTOOL, ROOT

MODULES = Path(sysconfig.get_path("stdlib"))
TRAINED, HELD_OUT = 1_200_000, 60_000
RATE, SCALE, LAST = 5e-5, 0.25, 40


def write_texts(folder):
    """Writes `train.txt` and `held-out.txt`."""
    modules = sorted(MODULES.glob("*.py"))
    random.Random(1).shuffle(modules)
    text = "\n\n".join(path.read_text(errors="replace") for path in modules)
    (folder / "train.txt").write_text(text[:TRAINED])
    (folder / "held-out.txt").write_text(text[TRAINED:TRAINED + HELD_OUT])


def finetune(model, folder, name, steps, *flags):
    out = folder / name
    subprocess.run(["rm", "-rf", out], check=True)
    report = subprocess.run(
        [PEFTOOL, "finetune", model, "--data", folder / "train.txt", "--eval-data",
         folder / "held-out.txt", "-o", out, "--packing", "--max-length", "128", "--batch-size",
         "2", "--max-steps", str(steps), "--json", *flags],
        check=True, stdout=subprocess.PIPE)
    found = json.loads(report.stdout)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    evaluations = [entry["loss"] for entry in found["evaluations"]]
    subprocess.run(["rm", "-rf", out], check=True)
    return (statistics.mean(losses[-LAST:]), evaluations[0], evaluations[-1],
            found["tokensPerSecond"])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / ".build/benchmarks/whole")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rank", type=int, default=128)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    write_texts(options.folder)
    runs = {
        "full": ["--method", "full", "--learning-rate", str(RATE)],
        "galore": ["--method", "galore", "--rank", str(options.rank), "--scale", str(SCALE),
                   "--learning-rate", str(RATE / SCALE)],
    }
    print(f"{'method':8} {'last steps':>14} {'held-out before':>16} {'after':>8} "
          f"{'tokens/s':>9}")
    ends = {}
    for name, flags in runs.items():
        last, before, after, speed = finetune(
            options.model, options.folder, name, options.steps, *flags)
        ends[name] = last, after
        print(f"{name:8} {last:14.4f} {before:16.4f} {after:8.4f} {speed:9.0f}", flush=True)
    for place, what in enumerate(["last steps", "held-out"]):
        ratio = ends["galore"][place] / ends["full"][place] - 1
        print(f"GaLore's loss over full AdamW's, {what}: {ratio:+.2%}")


if __name__ == "__main__":
    main()
