#!/usr/bin/env python3
"""LongLoRA beside full attention, by length of text: time, the part of attention, and memory.

    long_texts.py MODEL [--folder .build/benchmarks/long] [--lengths 1024 2048 4096 8192 16384]

MODEL is a Hugging Face directory of a small model. For each length `finetune` makes a step on one
random text, of a LoRA on q, k, v and o with embeddings and norms trained besides: once with --long,
once with full attention. Seconds are the step's; those of attention are the processor's, of all
threads: the share of perf's samples in it, its products with it (0 where there is no perf). MB are
the peak of the resident set less the base and what is trained, as --dry-run has them, and x is that
of the row above to it.
"""

import argparse
import array
import json
import random
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from measure import PEFTOOL, ROOT, measure

KINDS = {
    "long": ["--long"],
    "full": ["--target-modules", "q_proj,k_proj,v_proj,o_proj", "--modules-to-save",
             "embed_tokens,input_layernorm,post_attention_layernorm,norm"],
}


def write_text(path, tokens):
    """One text of random tokens, as finetune reads them."""
    rng = random.Random(tokens)
    ids = array.array("i", (rng.randrange(3, 40000) for _ in range(tokens)))
    header = json.dumps({"input_ids": {
        "dtype": "I32", "shape": [1, tokens], "data_offsets": [0, 4 * tokens]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + ids.tobytes())


def measured(command, out):
    """A run, and attention's part of the processor's time."""
    if not shutil.which("perf"):
        return measure(command, output=out), 0.0
    with tempfile.NamedTemporaryFile() as data:
        run = measure(["perf", "record", "-q", "-g", "-e", "cpu-clock", "-F", "499", "-o",
                       data.name, "--", *command], output=out)
        lines = subprocess.run(
            ["perf", "report", "--stdio", "-q", "--children", "-g", "none", "--sort", "symbol",
             "-i", data.name], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True).stdout.splitlines()
    return run, sum(float(line.split("%")[0]) / 100
                    for line in lines if " pef_attention_" in line)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / ".build/benchmarks/long")
    parser.add_argument("--lengths", type=int, nargs="+",
                        default=[1024, 2048, 4096, 8192, 16384])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'tokens':>7}" + "".join(
        f" | {kind:>5} s {'attention':>10} {'MB':>7} {'x':>5}" for kind in KINDS)
        + " | attention, long to full")
    last = {}
    for tokens in options.lengths:
        data, out = options.folder / "text.safetensors", options.folder / "out"
        write_text(data, tokens)
        line, attention = f"{tokens:>7}", {}
        for kind, flags in KINDS.items():
            command = [PEFTOOL, "finetune", options.model, "--data", data, "-o", out,
                       "--max-steps", 1, "--batch-size", 1, "--max-length", tokens,
                       "--rope-scaling", "linear:8", "--quiet", *flags]
            shutil.rmtree(out, ignore_errors=True)
            plan = json.loads(subprocess.run(
                [*map(str, command), "--dry-run", "--json"], check=True,
                stdout=subprocess.PIPE).stdout)
            run, share = measured(command, out)
            seconds = json.loads((out / "log.jsonl").read_text().splitlines()[-1])["seconds"]
            shutil.rmtree(out)
            attention[kind] = share * (run.user + run.system)
            rest = run.peak_bytes - plan["baseBytes"] - plan["trainedBytes"]
            growth = f"{rest / last[kind]:.2f}" if kind in last else ""
            last[kind] = rest
            line += (f" | {seconds:>7.2f} {attention[kind]:>8.2f} s {rest / 1e6:>7.0f}"
                     f" {growth:>5}")
        if attention["full"]:
            line += f" | {attention['long'] / attention['full']:.1%}"
        print(line, flush=True)
        shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
