"""Merges as PEFT does: BASE ADAPTER OUTPUT SHARD_BYTES. Run by merge.py."""

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, adapter, output, shard_size = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
model.save_pretrained(output, max_shard_size=int(shard_size))
