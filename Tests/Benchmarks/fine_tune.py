#!/usr/bin/env python3
"""A full fine-tune of a small model, as the other scripts want one to extract adapters from.

    fine_tune.py MODEL OUT [--steps 60]

MODEL is a Hugging Face directory, such as Samples/smollm2 makes. All its weights are trained with
AdamW on the text of the repository's documents, in F32, and saved in the dtype that they had. Wants
the environment of Tests/Interop.
"""

import argparse
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from quantized_merge import load, sequences
from transformers import AutoConfig, AutoTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rows, _ = sequences(tokenizer)
    model = load(arguments.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    order = torch.randperm(len(rows))
    for step in range(arguments.steps):
        batch = rows[order.roll(-2 * step)[:2]]
        loss = model(batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    dtype = AutoConfig.from_pretrained(arguments.model).dtype or torch.float32
    model.to(dtype).save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
