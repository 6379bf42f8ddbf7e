#!/usr/bin/env python3
"""An adapter moved from a model to the same one after a full fine-tune, by each method.

    transfer.py MODEL [--folder .build/benchmarks/transfer] [--steps 200]

MODEL is a small Hugging Face directory in 16 bits. It is trained whole for --steps steps on modules
of Python's standard library, as whole_model.py does. A LoRA of rank 8 learns the invented verb of
learn_task.py on MODEL, and is moved. Prints the loss of the answers to 256 held-out rows: of both
models alone, of the adapter where it was made, and on the fine-tuned model as it is, moved by each
method, and one that was trained there; and what transfer says is kept. Wants the environment of
Tests/Interop.
"""

import argparse
import json
import shutil
from pathlib import Path

from learn_task import ROWS, SEED, WARM_UP, examples, run, write_lines
from measure import PEFTOOL, ROOT
from whole_model import RATE, write_texts

RANK, LEARNING_STEPS = 8, 80
METHODS = ["prolora", "lora-x", "cross-lora", "procrustes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / ".build/benchmarks/transfer")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    folder, model, tuned = options.folder, options.model, options.folder / "tuned"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_texts(folder)
    rows = examples(LEARNING_STEPS * ROWS + 256)
    data, asked = folder / "train.jsonl", folder / "held-out.jsonl"
    write_lines(data, rows[:-256])
    write_lines(asked, rows[-256:])

    def learn(base, name):
        run(PEFTOOL, "finetune", base, "--data", data, "-o", folder / name, "--rank", RANK,
            "--batch-size", ROWS, "--learning-rate", 1e-3, "--warmup", WARM_UP, "--seed", SEED,
            "--quiet")
        return folder / name

    def ask(what, base, *flags, more=""):
        report = json.loads(run(PEFTOOL, "evaluate", base, "--data", asked, "--json", *flags))
        print(f"{what:<44} {report['loss']:.4f}{more}", flush=True)

    run(PEFTOOL, "finetune", model, "--data", folder / "train.txt", "-o", tuned, "--method", "full",
        "--packing", "--max-length", 128, "--batch-size", 2, "--max-steps", options.steps,
        "--learning-rate", RATE, "--quiet")
    adapter = learn(model, "adapter")
    ask("MODEL", model)
    ask("MODEL with the adapter", model, "--adapter", adapter)
    ask("fine-tuned", tuned)
    ask("fine-tuned, the adapter as it is", tuned, "--adapter", adapter)
    for method in METHODS:
        out = folder / method
        report = json.loads(run(
            PEFTOOL, "transfer", adapter, "--from", model, "--to", tuned, "-o", out, "--method",
            method, "--threshold", 0, "--json"))
        ask(f"fine-tuned, moved by {method}", tuned, "--adapter", out,
            more=f"  kept {report['keptEnergy'] or 0:.4f}")
    ask("fine-tuned, an adapter trained on it", tuned, "--adapter", learn(tuned, "own"))


if __name__ == "__main__":
    main()
