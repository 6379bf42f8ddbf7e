"""Merging with quantized bases against real PEFT on real bitsandbytes models."""

import json
import warnings

import pytest
import torch
from bitsandbytes import functional
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from test_quantize import DTYPES, FORMS, formula, make, theirs

# bitsandbytes' decoder on a CPU is right where 64 divides the input widths, as in this model.
MODEL = "llama-even"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapter(base, folder, seed=0, **options):
    """A random adapter that PEFT saves for a model."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS} | options
    model = get_peft_model(model, LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                noise = torch.randn(parameter.shape) * 0.05
                parameter.copy_(parameter * (1 + noise) if "magnitude" in name else noise)
    model.save_pretrained(folder)
    return folder


def merged_by_peft(base, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, device_map="cpu")
        return PeftModel.from_pretrained(model, folder).merge_and_unload()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_quantized_again_as_peft_does(peftool, tmp_path, form, dora):
    base = theirs(make(MODEL, tmp_path / "base"), tmp_path / "quantized", form)
    lora = adapter(
        tmp_path / "base", tmp_path / "adapter", use_dora=dora, target_modules=TARGETS[:-1])
    report = json.loads(peftool.check(
        "merge", base, lora, "-o", tmp_path / "ours", "--quantize", form.split("-")[0], "--json"))
    assert report["quantization"] == "requantized" and report["tensors"]["changed"] == 12
    expected = merged_by_peft(base, lora)
    ours = load_file(tmp_path / "ours/model.safetensors")
    # transformers cannot save a model that it has loaded quantized.
    right = expected.state_dict()
    assert ours.keys() == right.keys()
    before = load_file(base / "model.safetensors")
    different = total = 0
    for name, tensor in ours.items():
        other = right[name]
        if "down_proj" in name or not name.startswith("model.layers") or "norm" in name:
            # What no adapter changes keeps its bytes.
            assert tensor.equal(before[name]), name
        elif name.endswith(".weight"):
            # f32 sums in another order meet the middle between two codes now and then.
            different += (tensor.view(-1) != other.view(-1)).sum().item()
            total += tensor.numel()
        elif name.endswith(".SCB") or name.endswith(".absmax") and tensor.dtype == torch.float32:
            assert torch.allclose(tensor, other, rtol=1e-6), name
        elif name.endswith((".quant_map", ".nested_quant_map", ".weight_format")):
            assert tensor.equal(other), name
        elif name.endswith("nf4") or name.endswith("fp4"):
            state, theirs_state = (json.loads(bytes(t.tolist())) for t in (tensor, other))
            # With LoRA PEFT's quantized layer has another type after a merge than before.
            assert state["dtype"] == "bfloat16"
            assert theirs_state["dtype"] == ("bfloat16" if dora else "float32")
            assert state["shape"] == theirs_state["shape"]
    assert total > 10_000 and different <= total / 2_000, (different, total)

    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", device_map="cpu")
    ids = torch.arange(64).view(4, 16)
    with torch.no_grad():
        a, b = reloaded(ids).logits.float(), expected(ids).logits.float()
    assert torch.isfinite(a).all() and b.abs().max() > 0.1
    # Computed in bf16.
    assert (a - b).abs().max() <= 0.02 * b.abs().max()
    # And another adapter goes onto it in PEFT.
    again = get_peft_model(reloaded, LoraConfig(r=2, target_modules=["q_proj"]))
    assert torch.isfinite(again(ids).logits).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_dequantized_as_peft_merges_it(peftool, tmp_path, form, dora, dtype):
    """PEFT merges into the model that the codes stand for, in the type that it had."""
    make(MODEL, tmp_path / "base", dtype)
    base = theirs(tmp_path / "base", tmp_path / "quantized", form, dtype)
    lora = adapter(tmp_path / "base", tmp_path / "adapter", use_dora=dora)
    peftool.check("merge", base, lora, "-o", tmp_path / "ours")
    tensors = load_file(base / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            decoded = formula(tensors, name)
            if decoded is not None:
                parameter.copy_(decoded)
    right = PeftModel.from_pretrained(model, lora).merge_and_unload().state_dict()
    ours = load_file(tmp_path / "ours/model.safetensors")
    assert ours.keys() == right.keys()
    unit = {"float32": 2**-22, "bfloat16": 2**-7, "float16": 2**-10}[dtype]
    for name, tensor in ours.items():
        other = right[name]
        assert tensor.dtype == other.dtype == DTYPES[dtype]
        assert torch.allclose(tensor, other, rtol=unit, atol=1e-7), name
        if dtype != "float32":
            assert (tensor != other).float().mean() < 1e-3, name
    config = json.loads((tmp_path / "ours/config.json").read_text())
    assert config == json.loads((tmp_path / "base/config.json").read_text())


@pytest.mark.parametrize("form", ["nf4-double", "nf4", "int8"])
def test_simulation_is_the_quantized_base(peftool, tmp_path, form):
    make("llama-large", tmp_path / "base")
    base = theirs(tmp_path / "base", tmp_path / "quantized", form)
    lora = adapter(tmp_path / "base", tmp_path / "adapter", use_dora=True)
    peftool.check("merge", base, lora, "-o", tmp_path / "merged")
    flags = [flag for flag in FORMS[form][1] if flag == "--no-double-quant"]
    peftool.check("merge", tmp_path / "base", lora, "-o", tmp_path / "simulated",
                  "--simulate", form.split("-")[0], *flags)
    peftool.check("diff", tmp_path / "merged", tmp_path / "simulated")


def test_biases_are_scaled(peftool, tmp_path):
    """PEFT 0.21 adds lora_B.bias to a 4-bit layer's without the scaling with which it trains."""
    make("qwen2", tmp_path / "base")
    base = theirs(tmp_path / "base", tmp_path / "quantized", "nf4")
    lora = adapter(
        tmp_path / "base", tmp_path / "adapter", lora_bias=True, target_modules=["q_proj"])
    peftool.check("merge", base, lora, "-o", tmp_path / "ours", "--quantize", "nf4")
    ours = load_file(tmp_path / "ours/model.safetensors")
    before = load_file(base / "model.safetensors")
    adapters = load_file(lora / "adapter_model.safetensors")
    peft = merged_by_peft(base, lora).state_dict()
    name = "model.layers.1.self_attn.q_proj.bias"
    b = adapters["base_model.model.model.layers.1.self_attn.q_proj.lora_B.bias"]
    right = (before[name].float() + 2 * b).to(torch.bfloat16)
    assert ours[name].equal(right)
    assert peft[name].equal(before[name] + b)
    assert (peft[name] - right.float()).abs().max() > 0.05


def test_quantizing_a_merge_is_merging_then_quantizing(peftool, tmp_path):
    base = make("llama-large", tmp_path / "base")
    lora = adapter(base, tmp_path / "adapter")
    peftool.check("merge", base, lora, "-o", tmp_path / "once", "--quantize", "nf4")
    peftool.check("merge", base, lora, "-o", tmp_path / "merged")
    peftool.check("quantize", tmp_path / "merged", "-o", tmp_path / "twice")
    a, b = (load_file(tmp_path / n / "model.safetensors") for n in ("once", "twice"))
    assert a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)
    # bitsandbytes codes the merged weights alike.
    weight = load_file(tmp_path / "merged/model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    codes, _ = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    assert codes.equal(a["model.layers.0.mlp.up_proj.weight"])


def test_codes_keep_the_type_that_they_are_stored_as(peftool, tmp_path):
    """`bnb_4bit_quant_storage`: what changes lies in the file as it was, and means the same."""
    base = make(MODEL, tmp_path / "base")
    lora = adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    for name, storage in [("plain", torch.uint8), ("stored", torch.bfloat16)]:
        quantized = theirs(
            base, tmp_path / f"{name}-base", "nf4-double", bnb_4bit_quant_storage=storage)
        peftool.check("merge", quantized, lora, "-o", tmp_path / name, "--quantize", "nf4")
    plain, stored = (
        load_file(tmp_path / name / "model.safetensors") for name in ("plain", "stored"))
    assert plain.keys() == stored.keys()
    for name, tensor in stored.items():
        if "q_proj" in name and name.endswith(".weight"):
            assert tensor.dtype == torch.bfloat16
        assert tensor.view(-1).view(torch.uint8).equal(plain[name].view(-1).view(torch.uint8)), name
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "stored", device_map="cpu")
    assert torch.isfinite(model(torch.arange(64).view(4, 16)).logits).all()
