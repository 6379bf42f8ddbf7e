#!/usr/bin/env python3
"""peftool generate beside transformers' generate: time to the first token, and tokens a second.

    generate.py MODEL [--adapter DIR] [--prompt-tokens 16 512] [--tokens 64] [--runs 3]
                      [--threads N] [--dtypes bfloat16 float32] [--transformers 0]

MODEL is a Hugging Face directory, such as Samples/smollm2 makes. The prompt is text of the
repository's documents, of as many tokens as asked for; both are told to go on greedily for as many
tokens, with a cache, and to pass over eos. Times are without loading, and the median of the runs.
Wants the environment of Tests/Interop.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import torch
import transformers

from measure import PEFTOOL, ROOT


def without_end(model, folder):
    """The model's directory with links to its files, but no eos token."""
    for path in model.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "generation_config.json").write_text('{"eos_token_id": []}')
    return folder


def run_peftool(model, prompt, arguments):
    command = [PEFTOOL, "generate", model, prompt, "--json", "--max-tokens", arguments.tokens,
               "--threads", arguments.threads]
    if arguments.adapter:
        command += ["--adapter", arguments.adapter]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    return result["firstTokenSeconds"], result["tokensPerSecond"], result["ids"]


def run_transformers(model, ids, arguments):
    def timed(count):
        started = time.perf_counter()
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
            eos_token_id=-1, pad_token_id=0)
        return time.perf_counter() - started, out[0, ids.shape[1]:].tolist()

    first, _ = timed(1)
    whole, tokens = timed(arguments.tokens)
    return first, (arguments.tokens - 1) / (whole - first), tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--adapter", type=pathlib.Path)
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[16, 512])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float32"])
    parser.add_argument("--transformers", type=int, default=1)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    text = "".join(path.read_text() for path in sorted((ROOT / "Formats").glob("*.md")))
    print(f"{'':24} {'prompt':>7} {'first token s':>14} {'tokens/s':>9}  same tokens")
    with tempfile.TemporaryDirectory() as folder:
        model = without_end(arguments.model, pathlib.Path(folder))
        models = {}
        if arguments.transformers:
            for dtype in arguments.dtypes:
                loaded = transformers.AutoModelForCausalLM.from_pretrained(
                    arguments.model, dtype=getattr(torch, dtype))
                if arguments.adapter:
                    loaded = peft.PeftModel.from_pretrained(loaded, arguments.adapter)
                models[dtype] = loaded.eval()
        for count in arguments.prompt_tokens:
            prompt = tokenizer.decode(tokenizer(text)["input_ids"][:count])
            ids = torch.tensor([tokenizer(prompt)["input_ids"]])
            kinds = {"peftool": lambda: run_peftool(model, prompt, arguments)}
            for dtype, loaded in models.items():
                kinds[f"transformers {dtype}"] = (
                    lambda loaded=loaded: run_transformers(loaded, ids, arguments))
            tokens = None
            for name, run in kinds.items():
                runs = [run() for _ in range(arguments.runs)]
                first, rate = (statistics.median(r[place] for r in runs) for place in (0, 1))
                tokens = tokens or runs[0][2]
                print(f"{name:24} {ids.shape[1]:7} {first:14.3f} {rate:9.1f}  "
                      f"{sum(a == b for a, b in zip(tokens, runs[0][2]))}", flush=True)


if __name__ == "__main__":
    main()
