#!/usr/bin/env python3
"""Writes a random bf16 Llama and a LoRA and a DoRA adapter for it. Needs numpy.

The shape is TinyLlama-1.1B's (2.2 GB in 3 shards) unless flags say otherwise. One tensor is in
memory at a time.
"""

import argparse
import json
import struct
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parents[2]


def bf16(values):
    """f32 → the bits of bf16, to nearest even."""
    bits = values.view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def header(tensors):
    """The header of (name, dtype, shape) in this order; 2 bytes an element for BF16, 4 for F32."""
    entries, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape in tensors:
        end = offset + int(numpy.prod(shape)) * {"BF16": 2, "F32": 4}[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


class Shape:
    def __init__(self, options):
        self.hidden, self.inner = options.hidden, options.inner
        self.layers, self.vocabulary = options.layers, options.vocabulary
        self.heads, self.kv_heads = options.heads, options.kv_heads

    def linear(self):
        """Every linear module: name → (out, in)."""
        h, i, kv = self.hidden, self.inner, self.hidden // self.heads * self.kv_heads
        return {f"model.layers.{layer}.{name}": size for layer in range(self.layers)
                for name, size in {
                    "self_attn.q_proj": (h, h), "self_attn.k_proj": (kv, h),
                    "self_attn.v_proj": (kv, h), "self_attn.o_proj": (h, h),
                    "mlp.gate_proj": (i, h), "mlp.up_proj": (i, h),
                    "mlp.down_proj": (h, i)}.items()}

    def tensors(self):
        """Every tensor of the base: (name, dtype, shape)."""
        names = {f"{module}.weight": size for module, size in self.linear().items()}
        for layer in range(self.layers):
            for norm in ("input_layernorm", "post_attention_layernorm"):
                names[f"model.layers.{layer}.{norm}.weight"] = (self.hidden,)
        names["model.embed_tokens.weight"] = (self.vocabulary, self.hidden)
        names["model.norm.weight"] = (self.hidden,)
        names["lm_head.weight"] = (self.vocabulary, self.hidden)
        return [(name, "BF16", shape) for name, shape in sorted(names.items())]

    def config(self):
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
            "hidden_size": self.hidden, "intermediate_size": self.inner,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "tie_word_embeddings": False}


def write_base(folder, shape, shards, rng):
    """Writes the base; returns the row norms of its linear weights."""
    folder.mkdir(parents=True)
    tensors, norms, weight_map = shape.tensors(), {}, {}
    sizes = [2 * int(numpy.prod(size)) for _, _, size in tensors]
    ends, total = numpy.cumsum(sizes), sum(sizes)
    for number in range(shards):
        # A tensor belongs to the shard in which its middle lies.
        part = [tensor for tensor, end, size in zip(tensors, ends, sizes)
                if min(shards - 1, int((end - size / 2) * shards / total)) == number]
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        with open(folder / name, "wb") as file:
            file.write(header(part))
            for tensor, _, size in part:
                weight_map[tensor] = name
                values = rng.standard_normal(size, dtype=numpy.float32) * numpy.float32(0.02)
                if len(size) == 1:
                    values += 1
                elif ".layers." in tensor:
                    norms[tensor.removesuffix(".weight")] = numpy.linalg.norm(values, axis=1)
                bf16(values).tofile(file)
    write_json(folder / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json(folder / "config.json", shape.config())
    return norms


def write_adapter(folder, shape, rank, norms, rng):
    """Writes an adapter for all linear modules; a DoRA one where there are norms."""
    tensors = {}
    for module, (rows, columns) in shape.linear().items():
        key = f"base_model.model.{module}"
        tensors[f"{key}.lora_A.weight"] = rng.standard_normal((rank, columns)) * columns ** -0.5
        tensors[f"{key}.lora_B.weight"] = rng.standard_normal((rows, rank)) * 0.01
        if norms:
            noise = 1 + 0.02 * rng.standard_normal(rows)
            tensors[f"{key}.lora_magnitude_vector"] = norms[module] * noise
    folder.mkdir()
    with open(folder / "adapter_model.safetensors", "wb") as file:
        file.write(header([(name, "F32", tensors[name].shape) for name in sorted(tensors)]))
        for name in sorted(tensors):
            tensors[name].astype(numpy.float32).tofile(file)
    write_json(folder / "adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "base",
        "r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted({module.split(".")[-1] for module in shape.linear()}),
        "use_dora": bool(norms), "use_rslora": False, "fan_in_fan_out": False,
        "inference_mode": True, "init_lora_weights": True, "modules_to_save": None,
        "rank_pattern": {}, "alpha_pattern": {}})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".build/benchmarks")
    for name, value in {"hidden": 2048, "inner": 5632, "layers": 22, "heads": 32, "kv-heads": 4,
                        "vocabulary": 32000, "shards": 3, "rank": 16, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    options = parser.parse_args()
    shape, rng = Shape(options), numpy.random.default_rng(options.seed)
    norms = write_base(options.folder / "base", shape, options.shards, rng)
    write_adapter(options.folder / "lora", shape, options.rank, {}, rng)
    write_adapter(options.folder / "dora", shape, options.rank, norms, rng)
    size = sum(path.stat().st_size for path in (options.folder / "base").iterdir())
    print(f"{options.folder}: base {size / 1e9:.2f} GB, adapters lora and dora, "
          f"rank {options.rank}")


if __name__ == "__main__":
    main()
