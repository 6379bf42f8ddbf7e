#!/usr/bin/env python3
"""Times peftool inspect: a file of 20,000 tensors, and the model of make_model.py.

    Tests/Benchmarks/inspect_files.py FOLDER [--runs 9]
"""

import argparse
import json
import struct
import tempfile
from pathlib import Path

from measure import PEFTOOL, ROOT, measure, print_table, warm

TENSORS = 20_000


def write_many(path):
    """A file of small f32 tensors, named as those of a deep model."""
    entries = {f"model.layers.{n // 8}.block_sparse_moe.experts.{n % 8}.w1.weight":
               {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * n, 16 * n + 16]}
               for n in range(TENSORS)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16 * TENSORS))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".build/benchmarks")
    parser.add_argument("--runs", type=int, default=9, help="runs of each, default 9")
    options = parser.parse_args()
    base = options.folder / "base"
    warm(base)
    with tempfile.TemporaryDirectory() as folder:
        many = Path(folder) / "many.safetensors"
        write_many(many)
        cases = {"no work: --version": ["--version"],
                 "20,000 tensors": ["inspect", many],
                 "20,000 tensors, --json": ["inspect", many, "--json"],
                 "the model": ["inspect", base],
                 "the model, --stats": ["inspect", base, "--stats"],
                 "the LoRA adapter": ["inspect", options.folder / "lora"]}
        rows = {label: [] for label in cases}
        for number in range(options.runs):
            for label, arguments in cases.items():
                if "--stats" not in label or number < 3:
                    rows[label].append(measure([PEFTOOL, *arguments]))
    print_table(rows)


if __name__ == "__main__":
    main()
