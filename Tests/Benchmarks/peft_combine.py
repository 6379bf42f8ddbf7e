#!/usr/bin/env python3
"""Times PEFT's add_weighted_adapter, by SVD, on the seven linear modules of one layer of a Llama.

    peft_combine.py FOLDER [--hidden 2048] [--inner 5632] [--rank 16]

Saves both adapters, FOLDER/a and FOLDER/b, for another program to combine, and prints the seconds
of add_weighted_adapter alone. Wants the environment of Tests/Interop.
"""

import argparse
import time
import warnings
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--inner", type=int, default=5632)
    parser.add_argument("--rank", type=int, default=16)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=options.hidden, intermediate_size=options.inner, num_hidden_layers=1,
        num_attention_heads=32, num_key_value_heads=4, vocab_size=64))
    config = LoraConfig(r=options.rank, target_modules="all-linear")
    model = get_peft_model(model, config, adapter_name="a")
    model.add_adapter("b", config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.02)
    for name in ("a", "b"):
        # PEFT puts an adapter that is not called default into a folder of its own.
        model.save_pretrained(options.folder, selected_adapters=[name])
    started = time.perf_counter()
    model.add_weighted_adapter(
        ["a", "b"], [0.7, 0.3], "sum", combination_type="svd", svd_rank=options.rank)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
