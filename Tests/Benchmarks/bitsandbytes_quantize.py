"""Quantizes as transformers does: BASE OUTPUT THREADS. Run by quantize.py."""

import sys

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

base, output, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
config = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained(
    base, quantization_config=config, device_map="cpu", dtype="auto")
model.save_pretrained(output)
