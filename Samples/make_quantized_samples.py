#!/usr/bin/env python3
"""Makes quantized/ anew: models of bases/ as transformers and bitsandbytes save them on a CPU.

Run in the environment of Tests/Interop/requirements.txt. One thread, so that torch's sums are the
same on every machine with AVX2.
"""

import os
import pathlib
import shutil

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

SAMPLES = pathlib.Path(__file__).resolve().parent
# The base, the type for computing, and what is asked of bitsandbytes.
MODELS = {
    "llama-nf4-double": ("llama-bf16", "bfloat16", {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    "llama-fp4": ("llama-bf16", "bfloat16", {
        "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}),
    "llama-int8": ("llama-bf16", None, {"load_in_8bit": True}),
    "gpt2-nf4": ("gpt2-f32", "float32", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
}

torch.set_num_threads(1)
shutil.rmtree(SAMPLES / "quantized", ignore_errors=True)
for name, (base, compute, options) in MODELS.items():
    if compute:
        options = options | {"bnb_4bit_compute_dtype": getattr(torch, compute)}
    model = AutoModelForCausalLM.from_pretrained(
        SAMPLES / "bases" / base, quantization_config=BitsAndBytesConfig(**options),
        device_map="cpu", dtype="auto")
    folder = SAMPLES / "quantized" / name
    model.save_pretrained(folder)
    if not (SAMPLES / "bases" / base / "generation_config.json").exists():
        (folder / "generation_config.json").unlink(missing_ok=True)
