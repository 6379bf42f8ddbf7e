"""QA-LoRA against PEFT's own variant, numpy, MLX and the package gguf."""

import json

import gguf
import mlx.core as mx
import numpy as np
import peft
import pytest
import torch
from peft.tuners.lora.variants import QALoraLinearVariant
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import make_int4_samples as independent
import make_training_samples as training
from conftest import SAMPLES
from test_int4 import load, make, quantize, unpack

BASE = "llama3-int4"
ADAPTER = SAMPLES / "training" / "qa-lora-llama3" / "end"


class StandIn(torch.nn.Module):
    """What PEFT's variant looks at in a layer of GPTQ."""

    def __init__(self, a, b, scaling, group):
        super().__init__()
        self.in_features = a.shape[1] * group
        self.lora_A, self.lora_B = torch.nn.ModuleDict(), torch.nn.ModuleDict()
        for factors, weight in [(self.lora_A, a), (self.lora_B, b)]:
            factors["x"] = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            factors["x"].weight.data = weight
        self.lora_dropout = {"x": torch.nn.Identity()}
        self.scaling, self.qalora_group_size = {"x": scaling}, {"x": group}


def change(adapter, module):
    """What PEFT's variant adds to a layer's output, as a matrix (out, in)."""
    config = peft.LoraConfig.from_pretrained(adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
    layer = StandIn(a, b, config.lora_alpha / config.r, config.qalora_group_size).eval()
    with torch.no_grad():
        return QALoraLinearVariant.forward(
            layer, "x", torch.eye(layer.in_features), torch.zeros(1)).T


def values(tensors, module, group):
    """What an MLX weight stands for."""
    codes = unpack(tensors[f"{module}.weight"]).astype(np.float64)
    scale, offset = (np.repeat(tensors[f"{module}.{part}"].astype(np.float64), group, 1)
                     for part in ("scales", "biases"))
    return codes * scale + offset


def trained(peftool, root, layout="mlx", dtype="float32"):
    """A base in INT4 and an adapter that peftool has trained on it."""
    base, weights = make(root / "base", dtype)
    quantize(peftool, base, root / "codes", layout, 32)
    peftool.check(
        "finetune", root / "codes", "--data", SAMPLES / "generation/pairs.jsonl", "-o",
        root / "adapter", "--method", "qa-lora", "--max-steps", 8, "--learning-rate", 0.003,
        "--quiet")
    return root / "codes", root / "adapter", weights


def test_the_configuration_is_peft_s(peftool, tmp_path):
    _, adapter, weights = trained(peftool, tmp_path)
    config = peft.PeftConfig.from_pretrained(adapter)
    assert config.use_qalora and config.qalora_group_size == 32 and config.r == 8
    tensors = load_file(adapter / "adapter_model.safetensors")
    for module, weight in weights.items():
        assert tensors[f"base_model.model.{module}.lora_A.weight"].shape == (
            8, weight.shape[1] // 32)


def test_merged_logits_are_those_of_peft(peftool, tmp_path):
    """PEFT has its variant beside the codes, torch computes with what the merged ones stand for."""
    report = peftool.merge(SAMPLES / "training/bases" / BASE, [ADAPTER], tmp_path / "merged")
    assert report["quantization"] == "offsets" and report["roundingLoss"] < 1e-5
    merged = load(tmp_path / "merged")
    before = load(SAMPLES / "training/bases" / BASE)
    plain = training.load_int4(SAMPLES / "training", BASE)
    # Its variant is PEFT's own, which make_training_samples has put before plain layers.
    with_adapter = peft.PeftModel.from_pretrained(
        training.load_int4(SAMPLES / "training", BASE), ADAPTER).eval()
    with torch.no_grad():
        for name, module in plain.named_modules():
            if name.split(".")[-1] not in training.ALL:
                continue
            for part in ("weight", "scales"):
                assert (merged[f"{name}.{part}"] == before[f"{name}.{part}"]).all()
            found = values(merged, name, training.POOL)
            expected = values(before, name, training.POOL) + change(ADAPTER, name).numpy()
            assert np.abs(found - expected).max() < 1e-6
            module.weight.copy_(torch.from_numpy(found))
        ids = torch.randint(0, training.VOCABULARY, (2, 24), generator=training.seeded(5))
        found, expected = plain.eval()(ids).logits, with_adapter(ids).logits
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_mlx_and_gguf_read_the_merge(peftool, tmp_path, dtype):
    codes, adapter, weights = trained(peftool, tmp_path, dtype=dtype)
    report = peftool.merge(codes, [adapter], tmp_path / "merged")
    narrow = peftool.merge(codes, [adapter], tmp_path / "narrow", "--offset-dtype", "F16")
    peftool.check("convert", tmp_path / "merged", "-o", tmp_path / "m.gguf", "--dtype", "q4_1",
                  "--quiet")
    blocks = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
             "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    before, merged, half = (
        load(folder) for folder in (codes, tmp_path / "merged", tmp_path / "narrow"))
    rounding = size = 0
    for module, weight in weights.items():
        exact = values(before, module, 32) + change(adapter, module).double().numpy()
        found = values(merged, module, 32)
        assert np.abs(found - exact).max() < 1e-6
        parts = [mx.array(merged[f"{module}.{part}"]) for part in ("weight", "scales", "biases")]
        mlx = np.array(mx.dequantize(*parts, group_size=32, bits=4))
        assert np.abs(mlx - exact).max() < 1e-6
        # Each offset is rounded once, and the report is of all of them.
        assert half[f"{module}.biases"].dtype == np.float16
        assert (half[f"{module}.biases"] == merged[f"{module}.biases"].astype(np.float16)).all()
        lost = values(half, module, 32) - exact
        rounding += (lost ** 2).sum()
        size += (change(adapter, module).double().numpy() ** 2).sum()
        # Q4_1 has the codes, and the same offsets in F16, in llama.cpp's order of q's and k's rows.
        layer, kind = module.split(".")[2], module.split(".")[-1]
        tensor = blocks[f"blk.{layer}.{names[kind]}.weight"]
        assert tensor.tensor_type == gguf.GGMLQuantizationType.Q4_1
        expected = values(half, module, 32)
        if kind in ("q_proj", "k_proj"):
            rows = len(expected) // (4 if kind == "q_proj" else 2)
            expected = expected.reshape(-1, 2, rows // 2, weight.shape[1]).swapaxes(1, 2)
            expected = expected.reshape(weight.shape)
        ours = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.abs(ours - expected).max() < 1e-6
    assert report["roundingLoss"] < 1e-5
    assert abs(narrow["roundingLoss"] / (rounding / size) ** 0.5 - 1) < 1e-3


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2", "awq"])
def test_the_loss_of_zero_points_is_that_of_numpy(peftool, tmp_path, layout):
    codes, adapter, weights = trained(peftool, tmp_path, layout, "float16")
    refused = peftool.run("merge", codes, adapter, "-o", tmp_path / "merged")
    assert refused.returncode == 2 and not (tmp_path / "merged").exists()
    lost = size = 0
    for module, weight in weights.items():
        rule = "positive" if layout == "gptq" else "any"
        _, scale, zero = independent.quantize(weight, 32, rule, torch.float16)
        wanted = change(adapter, module).double().numpy()[:, ::32]
        new = np.clip(np.rint(zero - wanted / scale), int(layout == "gptq"), 15)
        lost += ((scale * (zero.astype(float) - new) - wanted) ** 2).sum()
        size += (wanted ** 2).sum()
    assert f"would lose {100 * (lost / size) ** 0.5:.1f} % of the adapter" in refused.stderr
    report = peftool.merge(codes, [adapter], tmp_path / "again", "--requantize")
    # By the definition, from what both models stand for.
    for folder, name in [(codes, "old"), (tmp_path / "again", "new")]:
        config = json.loads((folder / "config.json").read_text()) | {"dtype": "float32"}
        (folder / "config.json").write_text(json.dumps(config))
        peftool.check("dequantize", folder, "-o", tmp_path / name, "--quiet")
    old, new = load(tmp_path / "old"), load(tmp_path / "new")
    lost = size = 0
    for module in weights:
        delta = change(adapter, module).double().numpy()
        lost += ((new[f"{module}.weight"] - old[f"{module}.weight"] - delta) ** 2).sum()
        size += (delta ** 2).sum()
    assert abs(report["requantizationLoss"] / (lost / size) ** 0.5 - 1) < 1e-3


def test_other_models_load_the_merged_one(peftool, tmp_path):
    """In 16 or 32 bits transformers computes what the merge into offsets stands for."""
    codes, adapter, _ = trained(peftool, tmp_path)
    peftool.merge(codes, [adapter], tmp_path / "merged")
    peftool.merge(codes, [adapter], tmp_path / "dense", "--dtype", "F32")
    peftool.check("dequantize", tmp_path / "merged", "-o", tmp_path / "plain", "--quiet")
    ids = torch.tensor([[1, 7, 300, 12, 55, 8, 9]])
    found = []
    for name in ("plain", "dense"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32)
        with torch.no_grad():
            found.append(model(ids).logits)
    assert float((found[0] - found[1]).abs().max()) < 1e-5 * float(found[0].abs().max())
