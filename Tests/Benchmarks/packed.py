#!/usr/bin/env python3
"""Sizes and times of packed checkpoints, against zstd -3 on the same file.

    Tests/Benchmarks/make_model.py FOLDER --shards 1
    Tests/Benchmarks/packed.py FOLDER [--rounds 3] [--model DIR]

The model of FOLDER is packed as it is, in NF4, merged with a LoRA of random factors in F32, and so
merged in bf16 as a difference to itself; with --model DIR another model in bf16, too, such as that
of Samples/smollm2 converted with --dtype bf16. CPU is the least of the runs. Each packed file is
unpacked, and every byte compared. zstd is run with one thread and with two. Each time ends when the
output is on the disk.
"""

import argparse
import filecmp
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy
from make_model import Shape, write_adapter
from measure import PEFTOOL, ROOT, measure, median, warm


class Case:
    """A directory with one safetensors file, and the base that it is packed against, if any."""

    def __init__(self, label, source, base=None):
        self.label, self.source, self.base = label, source, base
        self.file = source / "model.safetensors"
        if not self.file.exists():
            self.file = next(source.glob("*.safetensors"))
        self.bytes = self.file.stat().st_size
        self.rows = []

    def run(self, work, rounds):
        packed, back, plain = (work / name for name in ("x.zst", "back.safetensors", "z.zst"))
        delta = ["--delta-from", self.base] if self.base else []
        commands = {
            "peftool": [PEFTOOL, "convert", self.file, "-o", packed, "--quiet", *delta],
            "peftool, 1 thread": [PEFTOOL, "convert", self.file, "-o", packed, "--quiet", *delta,
                                  "--threads", 1],
            "zstd -3": ["zstd", "-3", "-q", "-f", self.file, "-o", plain],
            "zstd -3 -T2": ["zstd", "-3", "-T2", "-q", "-f", self.file, "-o", plain],
        }
        unpacking = {
            "peftool": [PEFTOOL, "convert", packed, "-o", back, "--quiet"],
            "peftool, 1 thread": [PEFTOOL, "convert", packed, "-o", back, "--quiet",
                                  "--threads", 1],
            "zstd -3": ["zstd", "-d", "-q", "-f", plain, "-o", back],
            "zstd -3 -T2": ["zstd", "-d", "-q", "-f", plain, "-o", back],
        }
        warm(self.source)
        if self.base:
            warm(self.base)
        times = {label: ([], []) for label in commands}
        for _ in range(rounds):
            for label, command in commands.items():
                output = plain if label.startswith("zstd") else packed
                for (runs, line, made) in ((times[label][0], command, output),
                                           (times[label][1], unpacking[label], back)):
                    made.unlink(missing_ok=True)
                    runs.append(measure(line))
                    if label.startswith("zstd"):
                        runs[-1].seconds += measure(["sync", made]).seconds
                if not filecmp.cmp(back, self.file, shallow=False):
                    raise SystemExit(f"{self.label}: {label} gives back other bytes")
                size = output.stat().st_size
                if len(times[label][0]) == rounds:
                    self.rows.append((label, size, *times[label]))
        for path in (packed, back, plain):
            path.unlink(missing_ok=True)

    def show(self):
        print(f"\n{self.label}: {self.bytes / 1e6:.0f} MB")
        print(f"{'':<20}{'bytes':>14}{'ratio':>8}{'pack':>12}{'CPU':>9}{'unpack':>12}{'CPU':>9}")
        for label, size, packing, unpacking in self.rows:
            cpu = [min(run.user + run.system for run in runs) for runs in (packing, unpacking)]
            print(f"{label:<20}{size:>14,}{self.bytes / size:>8.3f}"
                  f"{self.bytes / 1e6 / median(packing):>7.0f} MB/s{cpu[0]:>7.2f} s"
                  f"{self.bytes / 1e6 / median(unpacking):>7.0f} MB/s{cpu[1]:>7.2f} s")


def run(*arguments):
    measure([PEFTOOL, *arguments, "--quiet", "--force"])


def adapter_for(model, folder):
    """A LoRA of random factors for all linear layers, about as strong as a trained one."""
    config = json.loads((model / "config.json").read_text())
    shape = Shape(SimpleNamespace(
        hidden=config["hidden_size"], inner=config["intermediate_size"],
        layers=config["num_hidden_layers"], vocabulary=config["vocab_size"],
        heads=config["num_attention_heads"], kv_heads=config["num_key_value_heads"]))
    write_adapter(folder, shape, 16, {}, numpy.random.default_rng(0))
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 4}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".build/benchmarks")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, default 3")
    parser.add_argument("--model", type=Path, help="a model in bf16, with one file of tensors")
    options = parser.parse_args()
    work = options.folder / "packed"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        # A model that has shards becomes one of one file, as zstd packs one.
        models = {"random": options.folder / "base"}
        if options.model:
            models["real"] = options.model
        for name, model in models.items():
            base = work / f"{name}-base"
            run("convert", model, "-o", base, "--shard-size", "1TB")
            run("quantize", base, "-o", work / f"{name}-nf4")
            lora = work / f"{name}-lora"
            adapter_for(model, lora)
            run("merge", base, lora, "-o", work / f"{name}-merged")
            # Its sums fill all bits of F32, its untouched tensors half of them.
            run("merge", base, lora, "-o", work / f"{name}-f32", "--dtype", "F32")
            for case in (Case(f"{name}, bf16", base),
                         Case(f"{name}, merged in f32", work / f"{name}-f32"),
                         Case(f"{name}, NF4", work / f"{name}-nf4"),
                         Case(f"{name}, merged, difference to its base",
                              work / f"{name}-merged", base)):
                case.run(work, options.rounds)
                case.show()
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
