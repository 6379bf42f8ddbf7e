#!/usr/bin/env python3
"""What peftool plan says that methods take, beside what they take.

    plan.py MODEL [--rows 2] [--tokens 256] [--steps 2] [--only LoRA full] [--checkpoint on]

MODEL is a Hugging Face directory in BF16, as for finetune.py. Each method of `plan --json` is
trained for a few steps on random tokens, and its peak is the largest resident set that the kernel
tells of (ru_maxrss). peftool reads its base into memory of its own and maps no file, so that this
has the base in it, and nothing twice. The plan's time is of the rate that it has measured; on a
machine that others use, that is another one a minute later.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from finetune import Model, Trial
from measure import PEFTOOL, warm

FLAGS = {
    "LoRA": [], "QLoRA": ["--quantize", "nf4"], "LoRA-FA": ["--method", "lora-fa"],
    "DoRA": ["--dora"], "QDoRA": ["--dora", "--quantize", "nf4"],
    "AdaLoRA": ["--method", "adalora"], "LoRA, ranks found": ["--rank", "auto"],
    "SHiRA": ["--method", "shira"], "QA-LoRA": ["--method", "qa-lora"], "LongLoRA": ["--long"],
    "full": ["--method", "full"], "full 8-bit": ["--method", "full", "--optimizer", "adamw_8bit"],
    "GaLore": ["--method", "galore"],
    "GaLore 8-bit": ["--method", "galore", "--optimizer", "adamw_8bit"],
}
ADALORA_STEPS = 4
"""It wants a step in which it prunes."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="these methods alone")
    parser.add_argument("--checkpoint", choices=["on", "off"], default="off",
                        help="whether activations are computed twice, default off")
    options = parser.parse_args()
    warm(options.model)
    kept = ["--checkpoint-activations", options.checkpoint]
    plan = json.loads(subprocess.run(
        [PEFTOOL, "plan", options.model, "--json", "--threads", str(options.threads),
         "--batch-size", str(options.rows), "--max-length", str(options.tokens), *kept],
        check=True, capture_output=True).stdout)
    print(f"{options.rows} x {options.tokens} tokens, activations computed "
          f"{'twice' if options.checkpoint == 'on' else 'once'}; "
          f"{plan['flops'] / 1e9:.0f} GFLOP/s\n"
          f"{'':<18}{'weights':>9}{'activ.':>9}{'grads':>9}{'optim.':>9}{'rest':>9}{'plan':>9}"
          f"{'measured':>10}{'plan/measured':>15}{'plan':>9}{'measured':>10}")
    worst = 1.0
    with tempfile.TemporaryDirectory() as name:
        for method in plan["methods"]:
            if options.only and method["method"] not in options.only:
                continue
            steps = ADALORA_STEPS if method["method"] == "AdaLoRA" else options.steps
            base = options.model
            if method["method"] == "QA-LoRA":
                base = Path(name) / "int4"
                subprocess.run([PEFTOOL, "quantize", options.model, "-o", base, "--type", "int4",
                                "--group-size", "32", "--quiet"], check=True)
            trial = Trial(Model(base), Path(name), options.rows, options.tokens, steps,
                          options.threads)
            run = trial.peftool(*kept, *FLAGS[method["method"]])
            parts = [method[key + "Bytes"] for key in
                     ("weight", "activation", "gradient", "optimizer", "rest", "peak")]
            ratio = method["peakBytes"] / run.peak_bytes
            worst = max(worst, ratio, 1 / ratio)
            print(f"{method['method']:<18}" + "".join(f"{part / 1e6:>9.0f}" for part in parts)
                  + f"{run.peak_bytes / 1e6:>7.0f} MB{ratio:>15.3f}"
                  + f"{method['secondsPerStep']:>7.2f} s{run.seconds:>8.2f} s", flush=True)
    print(f"the farthest from what was measured: {(worst - 1) * 100:.1f} %")


if __name__ == "__main__":
    main()
