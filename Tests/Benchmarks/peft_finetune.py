#!/usr/bin/env python3
"""Trains an adapter with PEFT, or all of a model with torch, as peftool finetune does.

    peft_finetune.py BASE BATCHES OUT [--start ADAPTER] [--dora] [--rank 8] [--dtype float32]
                     [--learning-rate 2e-4] [--warmup 0] [--threads N] [--method full|galore]

BATCHES is a safetensors file with input_ids and labels of the shape (steps, rows, tokens): a batch
for each step, filled up on the right. OUT gets the adapter and log.jsonl, with the members that
peftool's has. The adapter begins as the one in --start, or as PEFT has it, on all linear layers
with twice the rank as alpha; AdamW without weight decay, gradients clipped to a norm of 1, the rate
falls linearly. With --method nothing is saved but the log: full is torch's AdamW on all weights,
galore is galore_torch's with the matrices of the layers projected to --rank.
"""

import argparse
import json
import os
import pathlib
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import torch
import transformers
from safetensors.torch import load_file


def adapted(base, options):
    """The base with the adapter that is trained."""
    if options.start:
        return peft.PeftModel.from_pretrained(base, options.start, is_trainable=True)
    return peft.get_peft_model(base, peft.LoraConfig(
        task_type="CAUSAL_LM", r=options.rank, lora_alpha=2 * options.rank, lora_dropout=0.0,
        target_modules="all-linear", use_dora=options.dora))


def make_optimizer(model, trained, options):
    if options.method != "galore":
        return torch.optim.AdamW(trained, lr=options.learning_rate, weight_decay=0.0)
    from galore_torch import GaLoreAdamW
    matrices = [module.weight for name, module in model.named_modules()
                if isinstance(module, torch.nn.Linear) and ".layers." in name]
    known = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in trained if id(parameter) not in known]
    projection = dict(rank=options.rank, update_proj_gap=200, scale=0.25, proj_type="std")
    return GaLoreAdamW([dict(params=rest), dict(params=matrices, **projection)],
                       lr=options.learning_rate, no_deprecation_warning=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=pathlib.Path)
    parser.add_argument("batches", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--start", type=pathlib.Path)
    parser.add_argument("--dora", action="store_true")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--method", choices=["lora", "full", "galore"], default="lora")
    parser.add_argument("--warmup", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        options.base, dtype=getattr(torch, options.dtype))
    base.config.use_cache = False
    model = (adapted(base, options) if options.method == "lora" else base).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    batches = load_file(options.batches)
    count = len(batches["input_ids"])
    optimizer = make_optimizer(model, trained, options)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, options.warmup, count)
    options.out.mkdir(parents=True)
    with open(options.out / "log.jsonl", "w") as log:
        started = time.perf_counter()
        for step, (ids, labels) in enumerate(zip(batches["input_ids"], batches["labels"])):
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
            rate = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            entry = {"step": step + 1, "loss": loss.item(), "grad_norm": norm.item(),
                     "learning_rate": rate, "tokens": ids.numel(),
                     "labels": int((labels[:, 1:] != -100).sum())}
            ended = time.perf_counter()
            print(json.dumps({**entry, "seconds": ended - started}), file=log, flush=True)
            started = ended
    if options.method == "lora":
        model.save_pretrained(options.out)


if __name__ == "__main__":
    main()
