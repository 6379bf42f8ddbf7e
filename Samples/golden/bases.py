"""The tiny models that the adapters belong to, with random weights out of numpy."""

import json
import pathlib
import shutil
import zlib

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MixtralConfig,
    Qwen2Config,
)

# No size is a power of two and none equals another, so that a wrong axis shows, but for the
# square weights that real models have too.
SIZES = dict(
    hidden_size=40,
    intermediate_size=72,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=101,
    max_position_embeddings=64,
)
SMALL = dict(SIZES, hidden_size=24, intermediate_size=20, num_hidden_layers=1, vocab_size=31)


def llama(**kw):
    return LlamaConfig(**SIZES, **kw)


CONFIGS = {
    "llama-bf16": (llama(tie_word_embeddings=False), torch.bfloat16),
    "llama-f16": (llama(tie_word_embeddings=False), torch.float16),
    "llama-f32": (llama(tie_word_embeddings=False), torch.float32),
    "llama-tied-f32": (llama(tie_word_embeddings=True), torch.float32),
    "qwen2-f32": (Qwen2Config(**SIZES, tie_word_embeddings=True), torch.float32),
    "gpt2-f32": (
        GPT2Config(n_embd=24, n_layer=2, n_head=4, vocab_size=101, n_positions=32, bos_token_id=0,
                   eos_token_id=0),
        torch.float32,
    ),
    "mixtral-bf16": (
        MixtralConfig(**SMALL, num_local_experts=3, tie_word_embeddings=False),
        torch.bfloat16,
    ),
    # hidden_size equals intermediate_size, as in the real ones: down_proj is square.
    "gpt-oss-f32": (
        GptOssConfig(
            **dict(SMALL, intermediate_size=24, max_position_embeddings=131072),
            head_dim=6,
            num_local_experts=3,
            num_experts_per_tok=2,
            tie_word_embeddings=False,
        ),
        torch.float32,
    ),
}
# About a third of the bytes of llama-bf16.
SHARD_SIZES = {"llama-bf16": "30KB"}


class Experts(torch.nn.Module):
    """Three-dimensional parameters, (experts, out, in)."""

    def __init__(self):
        super().__init__()
        self.gate_up_proj = torch.nn.Parameter(torch.empty(3, 14, 10))
        self.down_proj = torch.nn.Parameter(torch.empty(3, 10, 7))

    def forward(self, x):
        gate, up = torch.einsum("...i,eoi->e...o", x, self.gate_up_proj).chunk(2, dim=-1)
        return torch.einsum("e...i,eoi->...o", gate * up, self.down_proj)


class Layers(torch.nn.Module):
    """What no transformers model here has: convolutions, and experts fused on the disk."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv1d(6, 10, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(6, 10, (3, 5), padding=(1, 2))
        self.point = torch.nn.Conv2d(10, 7, 1)
        self.conv3 = torch.nn.Conv3d(6, 10, (3, 1, 2))
        self.experts = Experts()

    def forward(self, x):
        plane = self.conv2(x)
        parts = [
            self.conv1(x.mean(-1)),
            self.point(plane),
            self.conv3(x[..., None].expand(-1, -1, -1, -1, 3)),
            self.experts(plane.movedim(1, -1)),
        ]
        return torch.cat([part.flatten() for part in parts])


def generator(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def normal(source, shape, scale=1.0):
    return torch.from_numpy((scale * source.standard_normal(shape)).astype(np.float32))


def fill(model, name):
    """Gives every parameter random values; none stays at a default that could hide a mistake."""
    source = generator(name)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            if "norm" in key or "ln_" in key:
                values = (0.0 if key.endswith("bias") else 1.0) + normal(
                    source, parameter.shape, 0.1)
            else:
                values = normal(source, parameter.shape, 0.08)
            parameter.copy_(values)


def make(name, folder):
    folder = pathlib.Path(folder) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if name == "layers-f32":
        model = Layers()
        fill(model, name)
        save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps({"model_type": "layers"}, indent=2) + "\n")
        return
    if name == "llama-f8":
        make_f8(folder)
        return
    config, dtype = CONFIGS[name]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fill(model, name)
    model = model.to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(folder, max_shard_size=SHARD_SIZES.get(name, "50GB"))
    if name != "llama-bf16":
        (folder / "generation_config.json").unlink(missing_ok=True)


def make_f8(folder):
    """llama-bf16 with the layers' linear weights cast to F8_E4M3, without scales."""
    source = folder.parent / "llama-bf16"
    shutil.copy(source / "config.json", folder)
    tensors = {}
    for shard in sorted(source.glob("*.safetensors")):
        for key, value in load_file(shard).items():
            is_linear = "_proj.weight" in key
            tensors[key] = value.to(torch.float8_e4m3fn) if is_linear else value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


NAMES = ["llama-bf16", "llama-f8", *[n for n in CONFIGS if n != "llama-bf16"], "layers-f32"]


def load(name, folder, dtype="auto"):
    """The base as a torch module, in its own dtype."""
    path = pathlib.Path(folder) / name
    if name == "layers-f32":
        model = Layers()
        model.load_state_dict(load_file(path / "model.safetensors"))
        return model
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")


def read_tensors(path):
    """All tensors of a model folder or of one file, as they are stored."""
    path = pathlib.Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    tensors = {}
    for file in files:
        tensors |= load_file(file)
    return tensors
