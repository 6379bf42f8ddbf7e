#!/usr/bin/env python3
"""A small task that the model cannot do, learnt with peftool and with PEFT, step for step.

    learn_task.py MODEL [--folder .build/benchmarks/learn] [--steps 300] [--questions 64]

MODEL is a Hugging Face directory, such as `peftool convert --dtype bf16` makes of
Samples/smollm2's. The task is an invented verb: what has been "zorped" stands in reverse order, and
each letter for another, always the same. Its rows are drawn from a seed; those that are asked
afterwards are none of those that were learnt.

LoRA and DoRA of rank 8 on all linear layers are trained by peftool finetune and by PEFT in F32, on
the same batches, from the same adapter, with the same settings. Then both are asked: loss on
held-out rows (evaluate), and how many answers are right to the last character (generate, and
transformers' generate, which is asked with peftool's adapters, too). Leaves in FOLDER the adapters,
figures.json and curves.html. Wants the environment of Tests/Interop.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

from curves import page
from measure import PEFTOOL, ROOT

sys.path.append(str(ROOT / "Samples"))
from task import LETTERS, SEED, examples, write_lines  # noqa: E402

ROWS, RANK, RATE, WARM_UP = 8, 8, 1e-3, 10
METHODS = {"LoRA": [], "DoRA": ["--dora"]}


def uniform(seed, index):
    """A random number in [0, 1): Philox4x32-10, 53 bits of block index / 2 of stream 0."""
    mask = 0xFFFFFFFF
    counter, key = [index // 2 & mask, index // 2 >> 32, 0, 0], [seed & mask, seed >> 32]
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [second >> 32 ^ counter[1] ^ key[0], second & mask,
                   first >> 32 ^ counter[3] ^ key[1], first & mask]
        key = [key[0] + 0x9E3779B9 & mask, key[1] + 0xBB67AE85 & mask]
    low, high = counter[2 * (index % 2):][:2]
    return ((high << 32 | low) >> 11) * 2.0 ** -53


def order(count, seed):
    """The order in which peftool takes examples in the first epoch (Formats/training-data.md)."""
    order = list(range(count))
    for place in range(count - 1, 0, -1):
        other = int(uniform(seed, place) * (place + 1))
        order[place], order[other] = order[other], order[place]
    return order


def batches(rows, tokenizer, path):
    """The batches that peftool makes of the rows, for PEFT: (steps, ROWS, tokens)."""
    ids, labels = [], []
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        whole = tokenizer(row["prompt"] + row["completion"])["input_ids"]
        whole.append(tokenizer.eos_token_id)
        ids.append(whole)
        labels.append([-100] * len(prompt) + whole[len(prompt):])
    if len({len(row) for row in ids}) > 1:
        raise SystemExit("the tokenizer cuts the rows into unequal numbers of tokens")
    places = torch.tensor(order(len(rows), SEED)).reshape(-1, ROWS)
    save_file({"input_ids": torch.tensor(ids)[places], "labels": torch.tensor(labels)[places]},
              path)


def run(*command):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: status {done.returncode}")
    return done.stdout


def finetune(model, data, out, flags, rate=RATE, steps=None):
    shutil.rmtree(out, ignore_errors=True)
    run(PEFTOOL, "finetune", model, "--data", data, "-o", out, "--rank", RANK, "--batch-size",
        ROWS, "--learning-rate", rate, "--warmup", WARM_UP, "--seed", SEED, "--quiet", *flags,
        *(["--max-steps", steps] if steps else []))


def start(model, data, out, flags):
    """The adapter that peftool begins with.

    In the first step B is zeros and so A's gradient is zeros: a run of one step at next to no rate
    leaves A and the magnitudes as they were drawn.
    """
    finetune(model, data, out, flags, rate=1e-30, steps=1)
    path = out / "adapter_model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if ".lora_B." in name:
            if tensor.abs().max() > 1e-20:
                raise SystemExit(f"{path}: {name} did not begin with zeros")
            tensor.zero_()
    save_file(tensors, path, metadata={"format": "pt"})


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def asked_peftool(model, adapter, held_out, questions):
    """Loss on held-out rows, and the share of right answers."""
    flags = ["--adapter", adapter] if adapter else []
    loss = json.loads(run(PEFTOOL, "evaluate", model, "--data", held_out, "--json", *flags))
    right = 0
    for row in questions:
        answer = json.loads(run(
            PEFTOOL, "generate", model, row["prompt"], "--max-tokens", 3 * LETTERS, "--json",
            *flags))
        right += answer["text"] == row["completion"]
    return loss["loss"], right / len(questions)


def asked_transformers(model, adapter, tokenizer, questions):
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        base = peft.PeftModel.from_pretrained(base, adapter)
    prompts = tokenizer([row["prompt"] for row in questions], return_tensors="pt")
    with torch.no_grad():
        made = base.eval().generate(
            input_ids=prompts["input_ids"], attention_mask=prompts["attention_mask"],
            max_new_tokens=3 * LETTERS, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    texts = tokenizer.batch_decode(
        made[:, prompts["input_ids"].shape[1]:], skip_special_tokens=True)
    return sum(text == row["completion"] for text, row in zip(texts, questions)) / len(questions)


def check(ours, theirs):
    """That both have made the same steps."""
    for one, other in zip(ours, theirs, strict=True):
        same = (one["tokens"] == other["tokens"] and one["labels"] == other["labels"]
                and abs(one["learning_rate"] - other["learning_rate"]) < 1e-9)
        if not same:
            raise SystemExit(f"other steps: {one} and {other}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / ".build/benchmarks/learn")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--questions", type=int, default=64, help="held-out rows that are asked")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder, model, began = options.folder, options.model, time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    rows = examples(options.steps * ROWS + 256)
    learnt, held_out = rows[:-256], rows[-256:]
    questions = held_out[:options.questions]
    data, asked = folder / "train.jsonl", folder / "held-out.jsonl"
    write_lines(data, learnt)
    write_lines(asked, held_out)
    batches(learnt, tokenizer, folder / "batches.safetensors")

    print(f"{len(learnt)} rows, such as {learnt[0]}, {options.steps} steps of {ROWS}", flush=True)
    loss, right = asked_peftool(model, None, asked, questions)
    theirs = asked_transformers(model, None, tokenizer, questions)
    figures = {"before": {"loss": loss, "peftool": right, "transformers": theirs}}
    print(f"before: loss {loss:.3f}, right {right:.0%} (transformers {theirs:.0%})", flush=True)
    curves = {}
    for method, flags in METHODS.items():
        own, peer = folder / f"peftool-{method}", folder / f"peft-{method}"
        start(model, data, folder / f"start-{method}", flags)
        finetune(model, data, own, flags)
        shutil.rmtree(peer, ignore_errors=True)
        run(sys.executable, Path(__file__).with_name("peft_finetune.py"), model,
            folder / "batches.safetensors", peer, "--start", folder / f"start-{method}",
            "--learning-rate", RATE, "--warmup", WARM_UP)
        curves[method] = (log(own), log(peer))
        check(*curves[method])
        for name, adapter, entries in (("peftool", own, curves[method][0]),
                                       ("PEFT", peer, curves[method][1])):
            loss, right = asked_peftool(model, adapter, asked, questions)
            theirs = asked_transformers(model, adapter, tokenizer, questions)
            seconds = sum(entry["seconds"] for entry in entries)
            figures[f"{method}, {name}"] = {
                "loss": loss, "peftool": right, "transformers": theirs, "seconds": seconds}
            print(f"{method} trained by {name:<8} in {seconds:.0f} s: loss {loss:.4f}, "
                  f"right {right:.0%} (transformers {theirs:.0%})", flush=True)
        apart = [abs(a["loss"] - b["loss"]) for a, b in zip(*curves[method])]
        figures[f"{method}, largest difference of a step's loss"] = max(apart)
        print(f"{method}: losses of a step differ by at most {max(apart[:50]):.1e} in the first "
              f"50 steps, {max(apart):.1e} in all", flush=True)
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    (folder / "curves.html").write_text(page(learnt[0], figures, curves))
    print(f"{folder / 'curves.html'}, in {(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
