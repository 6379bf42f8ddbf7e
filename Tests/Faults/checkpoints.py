"""Small checkpoints: a sharded bf16 Llama and adapters that fit it, with nothing but the standard
library."""

import json
import random
import struct
import zipfile
from pathlib import Path

BYTES = {"BF16": 2, "F32": 4, "F16": 2, "U8": 1, "I64": 8}
# High bytes of a bf16 or f32 number: ±0.008…0.13 for weights, 0.5…2 for magnitudes.
WEIGHTS = bytes((0x3C, 0x3D, 0xBC, 0xBD)[i % 4] for i in range(256))
MAGNITUDES = bytes([0x3F] * 256)


def product(shape):
    count = 1
    for size in shape:
        count *= size
    return count


def numbers(dtype, shape, rng, high=WEIGHTS):
    """Random finite numbers, as bytes."""
    size, count = BYTES[dtype], product(shape)
    data = bytearray(rng.randbytes(size * count)) if hasattr(rng, "randbytes") else bytearray(
        rng.getrandbits(8 * size * count).to_bytes(size * count, "little"))
    data[size - 1::size] = data[size - 1::size].translate(high)
    return bytes(data)


def header(tensors, metadata=None):
    """The header bytes of tensors given as (name, dtype, shape), data in that order."""
    entries, offset = {"__metadata__": metadata} if metadata else {}, 0
    for name, dtype, shape in tensors:
        end = offset + BYTES[dtype] * product(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write(path, tensors, rng, high=lambda name: WEIGHTS):
    with open(path, "wb") as file:
        file.write(header(tensors, {"format": "pt"}))
        for name, dtype, shape in tensors:
            file.write(numbers(dtype, shape, rng, high(name)))


def write_torch(path, tensors, rng):
    """A file as `torch.save` makes it of a dictionary of bf16 tensors."""
    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def sizes(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    pickled = b"\x80\2}("
    for number, (name, _, shape) in enumerate(tensors):
        strides = [product(shape[place + 1:]) for place in range(len(shape))]
        pickled += (
            text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage")
            + b"ctorch\nBFloat16Storage\n" + text(str(number)) + text("cpu") + b"J"
            + struct.pack("<i", product(shape)) + b"tQK\0" + sizes(shape) + sizes(strides)
            + b"\x89NtR")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", pickled + b"u.")
        for number, (_, dtype, shape) in enumerate(tensors):
            file.writestr(f"m/data/{number}", numbers(dtype, shape, rng))


def tokenizer(**model):
    """A `tokenizer.json` of three tokens."""
    return {
        "added_tokens": [{"id": 3, "content": "<s>", "special": True}], "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": True},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]} | model}


# What a command reads, by name: where it lies in a model's folder.
INPUTS = {"base": "base", "lora": "lora", "dora": "dora", "nf4": "nf4", "int8": "int8",
          "tuned": "tuned", "gguf": "model.gguf", "torch": "pytorch_model.bin"}


class Model:
    """A base of `shards` files in `folder/base`, with `folder/lora` and `folder/dora`."""

    def __init__(self, folder, hidden=64, inner=128, layers=2, vocabulary=256, shards=3):
        self.folder = Path(folder)
        self.base, self.lora, self.dora = (self.folder / name for name in ("base", "lora", "dora"))
        self.hidden, self.inner, self.layers, self.vocabulary = hidden, inner, layers, vocabulary
        self._write_base(shards)
        self._write_adapter(self.lora, ["q_proj", "v_proj", "down_proj"], use_dora=False)
        self._write_adapter(self.dora, list(self._linear(0)), use_dora=True)

    def _linear(self, layer):
        """Name of the projection → (module, out, in)."""
        h, i, kv = self.hidden, self.inner, self.hidden // 2
        shapes = {"q_proj": (h, h), "k_proj": (kv, h), "v_proj": (kv, h), "o_proj": (h, h),
                  "gate_proj": (i, h), "up_proj": (i, h), "down_proj": (h, i)}
        return {name: (f"model.layers.{layer}.{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}",
                       *shape) for name, shape in shapes.items()}

    def _write_base(self, shards):
        tensors = [("model.embed_tokens.weight", "BF16", (self.vocabulary, self.hidden))]
        for layer in range(self.layers):
            for module, rows, columns in self._linear(layer).values():
                tensors.append((f"{module}.weight", "BF16", (rows, columns)))
            for norm in ("input_layernorm", "post_attention_layernorm"):
                tensors.append((f"model.layers.{layer}.{norm}.weight", "BF16", (self.hidden,)))
        tensors.append(("model.norm.weight", "BF16", (self.hidden,)))
        tensors.append(("lm_head.weight", "BF16", (self.vocabulary, self.hidden)))

        self.tensors = tensors
        self.base.mkdir(parents=True)
        total = sum(BYTES[dtype] * product(shape) for _, dtype, shape in tensors)
        groups, done = [[] for _ in range(shards)], 0
        for tensor in tensors:
            groups[min(shards - 1, done * shards // total)].append(tensor)
            done += BYTES["BF16"] * product(tensor[2])
        groups = [group for group in groups if group]
        weight_map = {}
        for number, group in enumerate(groups, 1):
            name = f"model-{number:05}-of-{len(groups):05}.safetensors"
            write(self.base / name, group, random.Random(number))
            weight_map.update({tensor: name for tensor, _, _ in group})
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (self.base / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
            "hidden_size": self.hidden, "intermediate_size": self.inner,
            "num_hidden_layers": self.layers, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 128, "vocab_size": self.vocabulary,
            "tie_word_embeddings": False}
        (self.base / "config.json").write_text(json.dumps(config, indent=2))
        (self.base / "generation_config.json").write_text('{"bos_token_id": 1}\n')
        (self.base / "tokenizer.json").write_text(json.dumps(tokenizer()))

    def _write_adapter(self, folder, targets, use_dora, rank=4):
        tensors = []
        for layer in range(self.layers):
            for name, (module, rows, columns) in sorted(self._linear(layer).items()):
                if name in targets:
                    key = f"base_model.model.{module}"
                    tensors.append((f"{key}.lora_A.weight", "F32", (rank, columns)))
                    tensors.append((f"{key}.lora_B.weight", "F32", (rows, rank)))
                    if use_dora:
                        tensors.append((f"{key}.lora_magnitude_vector", "F32", (rows,)))
        folder.mkdir()
        write(folder / "adapter_model.safetensors", tensors, random.Random(99),
              lambda name: MAGNITUDES if "magnitude" in name else WEIGHTS)
        config = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "base",
            "r": rank, "lora_alpha": 2 * rank, "target_modules": targets, "lora_dropout": 0.0,
            "bias": "none", "fan_in_fan_out": False, "inference_mode": True, "use_dora": use_dora,
            "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {},
            "modules_to_save": None, "init_lora_weights": True}
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))

    def write_torch(self):
        """The base's tensors, with other numbers, in one file of PyTorch."""
        write_torch(self.folder / INPUTS["torch"], self.tensors, random.Random(0))

    @property
    def shards(self):
        return sorted(self.base.glob("*.safetensors"))

    @property
    def byte_count(self):
        return sum(shard.stat().st_size for shard in self.shards)
