#!/usr/bin/env python3
"""Makes int4/ anew: weights in group-wise INT4, quantized by torch and MLX and packed by numpy.

Run in the environment of Tests/Interop/requirements.txt. Nothing here is peftool's: the quantizer
is that of AutoGPTQ without its search, and the packings are written from the description of each
format.
"""

import json
import os
import pathlib
import shutil

os.environ["HF_HUB_OFFLINE"] = "1"

import mlx.core as mx
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

SAMPLES = pathlib.Path(__file__).resolve().parent
FOLDER = SAMPLES / "int4"
TOKENIZER = SAMPLES / "generation/tiny-chat"
GROUP = 32
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def quantize(w, group, zeros="any", dtype=torch.float32):
    """Codes (out, in), scales and zero points (out, in / group) of a weight in f32.

    Zero points are 0 to 15 ("any"), 1 to 15 ("positive") or 8 ("eight").
    """
    x = torch.as_tensor(w).view(w.shape[0], -1, group)
    low, high = x.amin(-1).clamp(max=0), x.amax(-1).clamp(min=0)
    nothing = (low == 0) & (high == 0)
    low = torch.where(nothing, -torch.ones_like(low), low)
    high = torch.where(nothing, torch.ones_like(high), high)
    spread = 2 * torch.maximum(-low, high) if zeros == "eight" else high - low
    scale = spread / 15
    if zeros == "positive":
        scale = torch.where(torch.round(-low / scale) < 1, high / 14, scale)
    scale = scale.to(dtype).float()
    # A scale that the type does not hold is that of zeros.
    lost = scale == 0
    scale = torch.where(lost, (torch.full_like(scale, 2) / 15).to(dtype).float(), scale)
    low = torch.where(lost, -torch.ones_like(low), low)
    zero = torch.round(-low / scale).clamp(int(zeros == "positive"), 15)
    zero = torch.full_like(scale, 8) if zeros == "eight" else zero
    codes = torch.clamp(torch.round(x / scale[..., None]) + zero[..., None], 0, 15)
    return (codes.view(w.shape).to(torch.uint8).numpy(), scale.numpy(),
            zero.to(torch.uint8).numpy())


def pack(numbers, order=range(8)):
    """Numbers (…, n) of 4 bits as words (…, n / 8), number order[k] of eight in nibble k."""
    eights = numbers.reshape(*numbers.shape[:-1], -1, 8).astype(np.uint32)
    words = np.zeros(eights.shape[:-1], np.uint32)
    for nibble, place in enumerate(order):
        words |= eights[..., place] << np.uint32(4 * nibble)
    return words


def gptq(codes, scale, zero, group, less):
    stored = (zero.astype(np.int64) - less) & 15
    return {
        "qweight": np.ascontiguousarray(pack(codes).T).view(np.int32),
        "qzeros": pack(stored.T).view(np.int32), "scales": scale.T.astype(np.float16),
        "g_idx": (np.arange(codes.shape[1]) // group).astype(np.int32),
    }


def awq(codes, scale, zero):
    return {
        "qweight": pack(codes.T, AWQ_ORDER).view(np.int32),
        "qzeros": pack(zero.T, AWQ_ORDER).view(np.int32),
        "scales": scale.T.astype(np.float16),
    }


def hard_weight():
    """Rows that are all of one sign, zeros, tiny, huge, or end within a step."""
    generator = torch.Generator().manual_seed(4)
    w = torch.randn(16, 128, generator=generator)
    w[1] = w[1].abs()
    w[2] = -w[2].abs()
    w[3] = 0
    w[4] *= 1e-42
    w[5] *= 1e30
    w[6, 32:64] = 0
    w[7] = torch.arange(128) / 8
    w[8] = torch.arange(128) % 16 - 7.5
    # Every zero point, as far as a group of both signs has one.
    for zero in range(16):
        w[9 + zero // 4, zero % 4 * 32:][:32] = torch.linspace(-zero, 15 - zero, 32)
    w[13] *= 1e-7
    w[14] *= 3e-6
    return w


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    w = hard_weight()
    golden = {"weight": w.numpy()}
    forms = [("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)]
    for group in (32, 64, 128):
        for name, dtype in forms:
            for zeros in ("any", "positive", "eight"):
                # F16 holds no scale of the huge row.
                rows = w if name != "f16" else torch.cat([w[:5], w[6:]])
                codes, scale, zero = quantize(rows, group, zeros, dtype)
                key = f"{group}.{name}.{zeros}"
                golden |= {f"{key}.codes": codes, f"{key}.scales": scale, f"{key}.zeros": zero}
    save_file(golden, FOLDER / "golden.safetensors")

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=352, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, dtype="float16")
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.1)
    base = FOLDER / "llama"
    model.to(torch.float16).save_pretrained(base)
    (base / "generation_config.json").unlink(missing_ok=True)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(TOKENIZER / name, base)
    adapted = get_peft_model(model, LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.05)
    adapted.save_pretrained(FOLDER / "lora")
    (FOLDER / "lora/README.md").unlink()
    tensors = load_file(base / "model.safetensors")

    def save(name, make, settings):
        written = {}
        for key, value in tensors.items():
            module = key.removesuffix(".weight")
            if module.split(".")[-1] not in MODULES:
                written[key] = value
                continue
            written |= {f"{module}.{part}": np.ascontiguousarray(content)
                        for part, content in make(value.astype(np.float32)).items()}
        folder = FOLDER / name
        folder.mkdir()
        save_file(written, folder / "model.safetensors", metadata={"format": "pt"})
        made = json.loads((base / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps(made, indent=2, sort_keys=True) + "\n")

    def coded(w, zeros="any"):
        return quantize(w, GROUP, zeros, torch.float16)

    common = {"bits": 4, "group_size": GROUP}
    save("llama-gptq", lambda w: gptq(*coded(w, "positive"), GROUP, 1), {"quantization_config": {
        **common, "quant_method": "gptq", "desc_act": False, "sym": False}})
    save("llama-gptq_v2", lambda w: gptq(*coded(w), GROUP, 0), {"quantization_config": {
        **common, "quant_method": "gptq", "checkpoint_format": "gptq_v2", "desc_act": False,
        "sym": False}})
    save("llama-awq", lambda w: awq(*coded(w)), {"quantization_config": {
        **common, "quant_method": "awq", "version": "gemm", "zero_point": True}})

    def mlx(w):
        parts = mx.quantize(mx.array(w), group_size=GROUP, bits=4)
        return dict(zip(["weight", "scales", "biases"], map(np.array, parts)))

    settings = {**common, "mode": "affine"}
    save("llama-mlx", mlx, {"quantization": settings, "quantization_config": settings})
    values = {}
    for key, value in tensors.items():
        if key.split(".")[-2] in MODULES:
            parts = mx.quantize(mx.array(value.astype(np.float32)), group_size=GROUP, bits=4)
            values[key] = np.array(mx.dequantize(*parts, group_size=GROUP, bits=4))
    save_file(values, FOLDER / "llama-mlx-values.safetensors")


if __name__ == "__main__":
    main()
