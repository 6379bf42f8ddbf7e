#!/usr/bin/env python3
"""peftool finetune beside PEFT: tokens a second, and peak memory.

    finetune.py MODEL [--rounds 3] [--steps 5] [--rows 2] [--tokens 256] [--peft lora] [--bf16]
    finetune.py MODEL --lengths 512 1024 2048 4096 [--peft lora]
    finetune.py MODEL --large 512
    finetune.py MODEL --whole --rows 4 --tokens 512

MODEL is a Hugging Face directory in BF16, such as `peftool convert --dtype bf16` makes of
Samples/smollm2's. Adapters have rank 8 and are on all linear layers, the tokens are random, each
step has --rows texts of --tokens. In each round come, in an order that turns by one: the bare rate
of matrix products of this machine (sgemm.py), peftool with LoRA, DoRA, and LoRA on NF4, and PEFT
in F32. A step's time is the median of those after the first two. On a machine that others use,
compare the processor's seconds of a step, of all threads.

What matrix products alone would allow is 4 FLOP for each token and weight: two in the forward
pass, and two for the gradient of the input, with the weights of all linear layers and of lm_head.

--lengths: the peak of one text of each length, peftool beside PEFT. --large: the peak on one text
of so many tokens, with the base quantized to NF4 as it is loaded unless it is so already, with
activations kept and computed twice. --whole: all of the model is trained, by peftool and by torch,
with AdamW and with GaLore of rank 128, where products allow 6 FLOP: two more for the gradient of
the weight. Wants the environment of Tests/Interop.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

from measure import PEFTOOL, warm

WARM_UP = 2
RANK = 8
ADAPTER = ("--rank", RANK)
GALORE = ("--method", "galore", "--rank", 128)


def write_tensors(path, tensors):
    """A safetensors file of numbers of 64 bits: name → (shape, numbers)."""
    header, offset = {}, 0
    for name, (shape, numbers) in tensors.items():
        header[name] = {"dtype": "I64", "shape": shape,
                        "data_offsets": [offset, offset + 8 * len(numbers)]}
        offset += 8 * len(numbers)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, numbers in tensors.values():
            array("q", numbers).tofile(file)


class Model:
    """A model's directory, and what its configuration says of its weights."""

    def __init__(self, path):
        self.path = path
        self.config = json.loads((path / "config.json").read_text())

    @property
    def is_quantized(self):
        return "quantization_config" in self.config

    def weights(self):
        """(out, in) → how often: all linear layers and lm_head."""
        config = self.config
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        heads = config["num_attention_heads"]
        size = config.get("head_dim") or hidden // heads
        queries, keys = heads * size, config["num_key_value_heads"] * size
        counts = {(config["vocab_size"], hidden): 1}
        for shape in ((queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries),
                      (inner, hidden), (inner, hidden), (hidden, inner)):
            counts[shape] = counts.get(shape, 0) + config["num_hidden_layers"]
        return counts

    def operations_per_token(self, products):
        return sum(2 * products * out * inputs * count
                   for (out, inputs), count in self.weights().items())


class Run:
    """A fine-tune: the median seconds of a step, those of the processor, and the peak."""

    def __init__(self, command, out):
        shutil.rmtree(out, ignore_errors=True)
        log = out / "log.jsonl"
        with tempfile.TemporaryFile() as messages:
            process = subprocess.Popen(
                list(map(str, command)), stdout=subprocess.DEVNULL, stderr=messages)
            marks = []
            while True:
                # A line is written when a step is done.
                done = log.read_bytes().count(b"\n") if log.exists() else 0
                marks += [self.processor_seconds(process.pid)] * (done - len(marks))
                pid, code, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                time.sleep(0.02)
            process.returncode = os.waitstatus_to_exitcode(code)
            if process.returncode:
                messages.seek(0)
                raise SystemExit(f"{' '.join(map(str, command))}: status {process.returncode}\n"
                                 + messages.read().decode(errors="replace"))
        self.peak_bytes = usage.ru_maxrss * 1024
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        self.seconds = statistics.median(
            entry["seconds"] for entry in (entries[WARM_UP:] or entries[-1:]))
        # The last step's time would have in it how the run ends.
        marks = marks[WARM_UP - 1:-1] or marks
        self.processor = (marks[-1] - marks[0]) / max(1, len(marks) - 1)

    @staticmethod
    def processor_seconds(pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Trial:
    """Runs on random texts of one shape, all in one folder."""

    def __init__(self, model, folder, rows, tokens, steps, threads):
        self.model, self.folder, self.steps, self.threads = model, folder, steps, threads
        self.rows, self.tokens = rows, tokens
        self.rng = random.Random(0)

    def numbers(self, steps):
        vocabulary = self.model.config["vocab_size"]
        return [self.rng.randrange(vocabulary) for _ in range(steps * self.rows * self.tokens)]

    def peftool(self, *flags):
        data, out = self.folder / "tokens.safetensors", self.folder / "out"
        write_tensors(data, {"input_ids": (
            [self.steps * self.rows, self.tokens], self.numbers(self.steps))})
        return Run([PEFTOOL, "finetune", self.model.path, "--data", data, "-o", out, "--quiet",
                    "--batch-size", self.rows, "--max-length", self.tokens,
                    "--threads", self.threads, *flags], out)

    def peft(self, *flags, steps=None):
        data, out = self.folder / "batches.safetensors", self.folder / "out"
        steps = steps or self.steps
        shape, numbers = [steps, self.rows, self.tokens], self.numbers(steps)
        write_tensors(data, {"input_ids": (shape, numbers), "labels": (shape, numbers)})
        return Run([sys.executable, Path(__file__).with_name("peft_finetune.py"),
                    self.model.path, data, out, "--threads", self.threads,
                    *flags], out)

    def sgemm(self):
        """By library FLOP a second on all threads by the wall clock, and what one thread makes of a
        processor's second, times the threads."""
        weights = [f"{out}x{inputs}x{count}"
                   for (out, inputs), count in self.model.weights().items()]
        rates = {threads: json.loads(subprocess.run(
            [sys.executable, Path(__file__).with_name("sgemm.py"), "--threads", str(threads),
             *weights], check=True, capture_output=True, text=True).stdout)
            for threads in (1, self.threads)}
        return {name: {"wall": rates[self.threads][name]["wall"],
                       "processor": rates[1][name]["processor"] * self.threads}
                for name in rates[1]}


def time_steps(trial, options):
    kept = ("--checkpoint-activations", "off")
    flags = {"LoRA": ADAPTER, "DoRA": (*ADAPTER, "--dora"),
             "QLoRA": (*ADAPTER, "--quantize", "nf4")}
    if options.whole:
        flags = {"GaLore": GALORE, "full": ("--method", "full"), "LoRA": ADAPTER}
    cases = {f"peftool, {name}": lambda own=own: trial.peftool(*kept, *own)
             for name, own in flags.items()}
    if options.whole:
        cases["torch, GaLore"] = lambda: trial.peft(*GALORE)
        cases["torch, full"] = lambda: trial.peft("--method", "full")
    else:
        for method in options.peft:
            own = ["--dora"] if method == "dora" else []
            cases[f"PEFT F32, {method}"] = lambda own=own: trial.peft(*ADAPTER, *own)
    if options.bf16:
        # Without AMX a step takes minutes: two after the warm-up, in one round.
        cases["PEFT BF16, lora"] = lambda: trial.peft(
            *ADAPTER, "--dtype", "bfloat16", steps=WARM_UP + 2)
    cases["sgemm"] = trial.sgemm
    runs = {name: [] for name in cases}
    for number in range(options.rounds):
        names = list(cases)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if "BF16" in name and runs[name]:
                continue
            runs[name].append(cases[name]())
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    print_rates(trial, runs.pop("sgemm"), runs, products=3 if options.whole else 2)


def print_rates(trial, bare_runs, runs, products):
    """Products are the passes over the weights: forward, of the input's gradient, of their own."""
    operations = trial.model.operations_per_token(products)
    bound = {}
    for clock in ("wall", "processor"):
        bare = {name: statistics.median(run[name][clock] for run in bare_runs)
                for name in bare_runs[0]}
        bound[clock] = max(bare.values()) / operations
        rates = ", ".join(f"{name} {value / 1e9:.1f} GFLOP/s" for name, value in bare.items())
        print(f"bare products by the {clock} clock: {rates}: {bound[clock]:.1f} tokens/s")
    tokens = trial.rows * trial.tokens
    print(f"a step: {trial.rows} x {trial.tokens} tokens of {operations / 1e9:.2f} GFLOP\n"
          f"{'':<16}{'s a step':>9}{'min':>8}{'max':>8}{'tokens/s':>9}{'of bare':>8}{'to first':>9}"
          f" |{'processor':>10}{'of bare':>8}{'to first':>9} |{'peak':>9}   runs")
    reference = None
    for name, all_runs in runs.items():
        times = [run.seconds for run in all_runs]
        wall = statistics.median(times)
        processor = statistics.median(run.processor for run in all_runs)
        reference = reference or (wall, processor)
        peak = max(run.peak_bytes for run in all_runs) / 1e6
        print(f"{name:<16}{wall:>9.3f}{min(times):>8.3f}{max(times):>8.3f}{tokens / wall:>9.1f}"
              f"{tokens / wall / bound['wall']:>8.2f}{wall / reference[0]:>9.2f} |"
              f"{processor:>8.2f} s"
              f"{tokens * trial.threads / processor / bound['processor']:>8.2f}"
              f"{processor / reference[1]:>9.2f} |{peak:>6.0f} MB{len(times):>7}")


def measure_lengths(model, folder, options):
    """The peak on one text of each length; of two steps, for PEFT's second takes more."""
    names = ["peftool LoRA", "peftool, computed twice",
             *(f"PEFT F32 {method}" for method in options.peft)]
    print(f"{'tokens':>8}" + "".join(f"{name:>26}" for name in names)
          + "   (peak, and more than the row above for each token)")
    last = {}
    for tokens in options.lengths:
        trial = Trial(model, folder, 1, tokens, 2, options.threads)
        peaks = [trial.peftool(*ADAPTER, "--checkpoint-activations", when).peak_bytes
                 for when in ("off", "on")]
        peaks += [trial.peft(*ADAPTER, *(["--dora"] if method == "dora" else [])).peak_bytes
                  for method in options.peft]
        line = f"{tokens:>8}"
        for name, peak in zip(names, peaks):
            more = ""
            if name in last:
                more = f" {(peak - last[name][1]) / (tokens - last[name][0]) / 1e3:.0f} kB"
            line += f"{peak / 1e6:.0f} MB{more}".rjust(26)
            last[name] = (tokens, peak)
        print(line, flush=True)


def measure_large(model, folder, options):
    trial = Trial(model, folder, 1, options.large, 1, options.threads)
    flags = [] if model.is_quantized else ["--quantize", "nf4"]
    for when, label in (("off", "kept"), ("on", "computed twice")):
        run = trial.peftool(*ADAPTER, "--checkpoint-activations", when, *flags)
        print(f"1 x {options.large} tokens, activations {label:<15} peak "
              f"{run.peak_bytes / 1e9:.3f} GB, {run.seconds:.1f} s a step", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed, default 5")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peft", nargs="*", choices=["lora", "dora"], default=["lora"],
                        help="what PEFT runs, default lora")
    parser.add_argument("--bf16", action="store_true", help="PEFT in BF16, too, once")
    parser.add_argument("--lengths", type=int, nargs="+", metavar="N", help="peaks by length")
    parser.add_argument("--whole", action="store_true", help="all of the model")
    parser.add_argument("--large", type=int, metavar="N", help="the peak of a large model")
    options = parser.parse_args()
    warm(options.model)
    model = Model(options.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.lengths:
            measure_lengths(model, folder, options)
        elif options.large:
            measure_large(model, folder, options)
        else:
            time_steps(Trial(model, folder, options.rows, options.tokens,
                             WARM_UP + options.steps, options.threads), options)


if __name__ == "__main__":
    main()
