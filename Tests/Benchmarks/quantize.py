#!/usr/bin/env python3
"""Times peftool quantize and dequantize against bitsandbytes, and against cp of their output.

    Tests/Benchmarks/make_model.py FOLDER
    Tests/Benchmarks/quantize.py FOLDER [--rounds 3] [--bitsandbytes 1]

In each round: NF4 with double quantization; LLM.int8; the NF4 model dequantized; cp -r of that and
fsync. Then transformers and bitsandbytes load, quantize and save the same model, and the bytes of
the tensors are compared: with one thread they must be the same.
"""

import argparse
import filecmp
import os
import shutil
from pathlib import Path

from measure import PEFTOOL, ROOT, measure, median, print_table, warm


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".build/benchmarks")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, default 3")
    parser.add_argument("--bitsandbytes", type=int, default=1,
                        help="runs of bitsandbytes, default 1; 0: none")
    parser.add_argument("--bitsandbytes-threads", type=int, nargs="*",
                        default=[os.cpu_count(), 1], help="its threads, default all, then 1")
    parser.add_argument("--python", type=Path, default=ROOT / ".build/interop/bin/python",
                        help="a Python that has torch, transformers and bitsandbytes")
    options = parser.parse_args()

    base = options.folder / "base"
    # Beside each other, for each is made of the one before.
    quantized, int8, dequantized, copy, theirs = (
        options.folder / f"quantize-{name}" for name in ("nf4", "int8", "back", "copy", "theirs"))
    outputs = (quantized, int8, dequantized, copy, theirs)
    quick = ["--quiet", "--force"]
    cases = {
        "peftool nf4": lambda: measure(
            [PEFTOOL, "quantize", base, "-o", quantized, *quick], quantized),
        "peftool int8": lambda: measure(
            [PEFTOOL, "quantize", base, "-o", int8, "--type", "int8", *quick], int8),
        "peftool dequantize": lambda: measure(
            [PEFTOOL, "dequantize", quantized, "-o", dequantized, *quick], dequantized),
        "cp -r of that, fsync": lambda: measure(
            ["cp", "-r", dequantized, copy], copy, is_synced=True),
    }
    rows = {label: [] for label in cases}
    try:
        warm(base)
        for _ in range(options.rounds):
            for label, case in cases.items():
                rows[label].append(case())
            shutil.rmtree(copy)
        for threads in options.bitsandbytes_threads * options.bitsandbytes:
            label = f"bitsandbytes, {threads} thread{'s' if threads > 1 else ''}"
            command = [options.python, Path(__file__).with_name("bitsandbytes_quantize.py"), base,
                       theirs, threads]
            rows.setdefault(label, []).append(measure(command, theirs, is_synced=True))
            same = filecmp.cmp(theirs / "model.safetensors", quantized / "model.safetensors",
                               shallow=False)
            ratio = median(rows[label]) / median(rows["peftool nf4"])
            print(f"{label}: {'the same bytes' if same else 'other bytes'}, "
                  f"{ratio:.1f} times the time")
        ratio = median(rows["peftool dequantize"]) / median(rows["cp -r of that, fsync"])
        print(f"dequantize takes {ratio:.2f} times the time of cp and fsync of its output")
        print_table(rows)
    finally:
        for output in outputs:
            shutil.rmtree(output, ignore_errors=True)


if __name__ == "__main__":
    main()
