#!/usr/bin/env python3
"""A model in INT4 that has learnt something: QA-LoRA merged, beside LoRA that is merged and then
quantized.

    qa_lora.py MODEL [--folder .build/benchmarks/qa-lora] [--steps 80] [--group-size 32]
               [--rate 1e-3] [--qa-rate 1e-3]

MODEL is a Hugging Face directory in 16 bits, and the task the invented verb of learn_task.py. Each
adapter has rank 8 on all linear layers and sees the same batches. Loss and perplexity are those of
the answers to 256 held-out rows. Wants the environment of Tests/Interop.
"""

import argparse
import json
import shutil
from pathlib import Path

from learn_task import ROWS, SEED, WARM_UP, examples, run, write_lines
from measure import PEFTOOL, ROOT

RANK = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / ".build/benchmarks/qa-lora")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--qa-rate", type=float, default=1e-3)
    options = parser.parse_args()
    folder, model = options.folder, options.model
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = examples(options.steps * ROWS + 256)
    data, asked = folder / "train.jsonl", folder / "held-out.jsonl"
    write_lines(data, rows[:-256])
    write_lines(asked, rows[-256:])
    figures = {}

    def train(base, name, rate, *flags):
        run(PEFTOOL, "finetune", base, "--data", data, "-o", folder / name, "--rank", RANK,
            "--batch-size", ROWS, "--learning-rate", rate, "--warmup", WARM_UP, "--seed", SEED,
            "--quiet", *flags)
        return folder / name

    def merge(name, *arguments):
        report = json.loads(run(PEFTOOL, "merge", *arguments, "-o", folder / name, "--json"))
        for key in ("roundingLoss", "requantizationLoss"):
            if report[key] is not None:
                figures[f"{name}, {key}"] = report[key]
                print(f"  {name}: {key} {report[key]:.3g}", flush=True)
        return folder / name

    def ask(what, base, *flags):
        report = json.loads(run(PEFTOOL, "evaluate", base, "--data", asked, "--json", *flags))
        figures[what] = {key: report[key] for key in ("loss", "perplexity")}
        print(f"{what:<48} loss {report['loss']:.4f}, perplexity {report['perplexity']:.3f}",
              flush=True)

    int4 = ["--type", "int4", "--group-size", options.group_size]
    codes = folder / "codes"
    run(PEFTOOL, "quantize", model, "-o", codes, *int4)
    ask("as it is", model)
    ask("INT4", codes)

    pooled = train(codes, "qa-lora", options.qa_rate, "--method", "qa-lora")
    ask("INT4 with QA-LoRA beside it", codes, "--adapter", pooled)
    ask("QA-LoRA merged into INT4, offsets in F32", merge("qa-f32", codes, pooled))
    ask("QA-LoRA merged into INT4, offsets in F16",
        merge("qa-f16", codes, pooled, "--offset-dtype", "F16"))

    lora = train(model, "lora", options.rate)
    ask("with LoRA beside it", model, "--adapter", lora)
    again = folder / "lora-int4"
    run(PEFTOOL, "quantize", merge("lora-merged", model, lora), "-o", again, *int4)
    ask("LoRA, merged, then INT4", again)

    on_codes = train(codes, "lora-on-codes", options.rate)
    ask("INT4 with LoRA beside it", codes, "--adapter", on_codes)
    ask("LoRA on INT4, merged, INT4 again",
        merge("lora-requantized", codes, on_codes, "--requantize"))
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
