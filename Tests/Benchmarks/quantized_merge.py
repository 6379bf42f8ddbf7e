#!/usr/bin/env python3
"""What each way of merging an adapter that was trained on NF4 costs: the table of peftool's manual.

    quantized_merge.py MODEL [--steps 40] [--peftool PATH]

MODEL is a Hugging Face directory in bf16, such as Samples/smollm2 makes. It is quantized to NF4
with double quantization; a LoRA adapter of rank 16 on all linear layers is trained in PEFT on what
its codes stand for, as QLoRA does, with the text of the repository's documents but the last fifth,
on which losses are then measured. Wants the environment of Tests/Interop.
"""

import argparse
import os
import pathlib
import subprocess
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
LENGTH = 128


def sequences(tokenizer):
    files = sorted([*ROOT.glob("*.md"), *ROOT.glob("Formats/*.md"), *ROOT.glob("Tests/*/*.md")])
    ids = tokenizer("\n\n".join(f.read_text() for f in files), return_tensors="pt").input_ids[0]
    rows = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    held_out = len(rows) // 5
    return rows[:-held_out], rows[-held_out:]


def load(folder):
    # Computed in F32, whatever the file's dtype: a CPU is quick at it, and the loss has its digits.
    return AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32)


@torch.no_grad()
def losses(model, rows):
    model.eval()
    found = [model(row[None], labels=row[None]).loss.item() for row in rows]
    return sum(found) / len(found)


def train(base, rows, folder, steps):
    torch.manual_seed(0)
    model = get_peft_model(load(base), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
    order = torch.randperm(len(rows))
    for step in range(steps):
        row = rows[order[step % len(rows)]][None]
        model(row, labels=row).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--peftool", default=str(ROOT / ".build/release/peftool"))
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    training, held_out = sequences(AutoTokenizer.from_pretrained(arguments.model))
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)

        def peftool(*words):
            subprocess.run([arguments.peftool, *map(str, words), "--quiet"], check=True)

        peftool("quantize", arguments.model, "-o", work / "nf4")
        # The same numbers as in bitsandbytes' layers, and much quicker on a CPU.
        peftool("dequantize", work / "nf4", "-o", work / "seen")
        train(work / "seen", training, work / "adapter", arguments.steps)
        ways = [
            ("merge NF4, dequantized", work / "nf4", []),
            ("merge BASE --simulate nf4", arguments.model, ["--simulate", "nf4"]),
            ("merge BASE", arguments.model, []),
            ("merge NF4 --quantize nf4", work / "nf4", ["--quantize", "nf4"]),
            ("merge BASE --quantize nf4", arguments.model, ["--quantize", "nf4"]),
        ]
        print(f"{len(training)} sequences of {LENGTH} for training, {len(held_out)} held out")
        print(f"{'base, no adapter':36}{losses(load(arguments.model), held_out):8.4f}")
        print(f"{'NF4, no adapter':36}{losses(load(work / 'seen'), held_out):8.4f}")
        seen = PeftModel.from_pretrained(load(work / "seen"), work / "adapter")
        print(f"{'NF4 with the adapter beside it':36}{losses(seen, held_out):8.4f}")
        for index, (title, base, flags) in enumerate(ways):
            output = work / f"out{index}"
            peftool("merge", base, work / "adapter", "-o", output, *flags)
            size = sum(f.stat().st_size for f in output.glob("*.safetensors"))
            if "--quantize" in flags:
                peftool("dequantize", output, "-o", work / f"plain{index}")
                output = work / f"plain{index}"
            print(f"{title:36}{losses(load(output), held_out):8.4f}  {size / 1e6:7.1f} MB",
                  flush=True)


if __name__ == "__main__":
    main()
