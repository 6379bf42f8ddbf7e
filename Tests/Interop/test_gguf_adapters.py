"""Adapters in llama.cpp's form, against what PEFT adds to each weight."""

import json
import shutil

import gguf
import gguf.quants
import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from conftest import SAMPLES
from test_gguf_writing import fields, permuted

NAMES = ["lora", "rslora-patterns", "lora-bf16file", "lora-f32base", "pissa-converted", "task-a"]


def base_of(adapter):
    return json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]


def deltas(base, adapter):
    """What PEFT adds to each weight, in f64, by llama.cpp's names."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = model.config
    architecture = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[
        config.model_type]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    model = peft.PeftModel.from_pretrained(model, adapter)
    found = {}
    for path, module in model.base_model.model.named_modules():
        if not isinstance(module, peft.tuners.lora.LoraLayer):
            continue
        if module.lora_embedding_A:
            a, b = module.lora_embedding_A["default"], module.lora_embedding_B["default"]
        else:
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        delta = module.scaling["default"] * (b.double() @ a.double()).detach().numpy()
        if module.lora_embedding_A:
            delta = delta.T
        elif architecture == gguf.MODEL_ARCH.LLAMA:
            for part, heads in [("q_proj", config.num_attention_heads),
                                ("k_proj", config.num_key_value_heads)]:
                if path.endswith(part):
                    delta = permuted(delta, heads)
        found[names.get_name(path + ".weight", try_suffixes=(".weight",))] = delta
    return found


def added(path):
    """What llama.cpp adds for such a file: alpha by the rank that B has, times B·A."""
    pairs, tensors = fields(path)
    alpha = np.float32(pairs["adapter.lora.alpha"][2])
    found = {}
    for name in tensors:
        if not name.endswith(".lora_a"):
            continue
        name = name.removesuffix(".lora_a")
        a, b = (
            gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64)
            for t in (tensors[f"{name}.lora_{part}"] for part in "ab"))
        product = a @ b.T if name == "token_embd.weight" else b @ a
        found[name] = product * float(alpha) / b.shape[1]
    assert len(found) * 2 == len(tensors)
    return pairs, found


def assert_adds(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        np.testing.assert_allclose(
            found[name], delta, rtol=0, atol=tolerance * np.abs(delta).max(), err_msg=name)


# alpha and B are rounded to f32.
F32 = 4 * np.finfo(np.float32).eps


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_adds_what_peft_adds(peftool, tmp_path, name):
    adapter = SAMPLES / "adapters" / name
    base = SAMPLES / "bases" / base_of(adapter)
    path = tmp_path / "adapter.gguf"
    peftool.check("convert", adapter, "-o", path, "--base", base, "--quiet")
    peftool.check("verify", path)
    pairs, found = added(path)
    assert_adds(found, deltas(base, adapter), F32)
    assert pairs["general.type"][2] == "adapter" and pairs["adapter.type"][2] == "lora"
    assert pairs["general.architecture"][2] == "llama"
    assert pairs["adapter.lora.alpha"][0] == "FLOAT32"
    assert {"general.file_type", "general.quantization_version"} <= pairs.keys()
    assert not any(key.startswith("tokenizer.") for key in pairs)
    assert "lora, alpha" in peftool.check("inspect", path)


def test_what_fits_stays_as_it_is(peftool, tmp_path):
    """Without patterns alpha is the configuration's, and no number changes."""
    adapter = SAMPLES / "adapters/lora"
    peftool.check(
        "convert", adapter, "-o", tmp_path / "a.gguf", "--base", SAMPLES / "bases/llama-bf16")
    pairs, tensors = fields(tmp_path / "a.gguf")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert pairs["adapter.lora.alpha"][2] == config["lora_alpha"]
    stored = load_file(adapter / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.0"
    for name, key in [("blk.0.ffn_up.weight.lora_a", "mlp.up_proj.lora_A.weight"),
                      ("blk.0.attn_v.weight.lora_b", "self_attn.v_proj.lora_B.weight")]:
        assert tensors[name].data.tobytes() == stored[f"{prefix}.{key}"].float().numpy().tobytes()


@pytest.mark.parametrize("dtype, tolerance", [("f16", 2e-3), ("bf16", 2e-2), ("q8_0", 2e-2)])
def test_other_types(peftool, tmp_path, dtype, tolerance):
    adapter = SAMPLES / "adapters/rslora-patterns"
    base = SAMPLES / "bases/llama-bf16"
    path = tmp_path / "a.gguf"
    peftool.check("convert", adapter, "-o", path, "--base", base, "--dtype", dtype, "--quiet")
    _, found = added(path)
    assert_adds(found, deltas(base, adapter), tolerance)
    kinds = {name: t.tensor_type.name for name, t in fields(path)[1].items()}
    # A row of B is as long as the rank, which has no whole block.
    expected = {"q8_0": "F16"}.get(dtype, dtype.upper())
    assert kinds["blk.0.ffn_up.weight.lora_b"] == expected
    done = peftool.run("convert", adapter, "-o", path, "--base", base, "--dtype", "q4_0", "--force")
    assert done.returncode == 2 and "Q4_0, expected F32, F16, BF16, Q8_0" in done.stderr


def test_embeddings_and_the_output(peftool, tmp_path):
    base = SAMPLES / "bases/llama-f32"
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["embed_tokens", "lm_head", "q_proj"],
        use_rslora=True, alpha_pattern={"lm_head": 7})
    model = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.normal_()
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    path = tmp_path / "a.gguf"
    peftool.check("convert", tmp_path / "adapter", "-o", path, "--base", base, "--quiet")
    _, found = added(path)
    assert {"token_embd.weight", "output.weight"} <= found.keys()
    assert fields(path)[1]["token_embd.weight.lora_a"].data.shape == (model.config.vocab_size, 3)
    assert_adds(found, deltas(base, tmp_path / "adapter"), F32)


def test_the_base_is_named_or_found(peftool, tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(SAMPLES / "adapters/lora", adapter)
    done = peftool.run("convert", adapter, "-o", tmp_path / "a.gguf")
    assert done.returncode == 2
    assert "is for llama-bf16, which is no model's folder here: --base MODEL" in done.stderr
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(SAMPLES / "bases/llama-bf16")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    peftool.check("convert", adapter, "-o", tmp_path / "a.gguf")
    peftool.check(
        "convert", adapter, "-o", tmp_path / "b.gguf", "--base", SAMPLES / "bases/llama-bf16",
        "--threads", 1)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize("name, message", [
    ("dora", "use_dora is true: DoRA has magnitudes besides B·A, and llama.cpp's adapters cannot "
             "hold it: peftool merge BASE ADAPTER -o MODEL, then convert MODEL, or train a LoRA"),
    ("lora-bias", "lora_bias is true"), ("adalora", "is AdaLoRA"), ("ia3", "is (IA)³"),
    ("save-modules", "is a whole tensor of the model"),
    ("bias-all", "is a whole tensor of the model"),
    ("trainable-tokens", "trainable_token_indices is set"),
    ("layer-replication", "layer_replication is set"),
    ("pissa-mutated", "init_lora_weights is pissa"),
])
def test_what_such_a_file_cannot_hold_is_refused(peftool, tmp_path, name, message):
    adapter = SAMPLES / "adapters" / name
    done = peftool.run(
        "convert", adapter, "-o", tmp_path / "a.gguf", "--base",
        SAMPLES / "bases" / base_of(adapter))
    assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "a.gguf").exists()


def test_an_adapter_of_another_model_is_refused(peftool, tmp_path):
    config = json.loads((SAMPLES / "bases/llama-bf16/config.json").read_text())
    for change, message in [
        ({"model_type": "gpt2"}, "model_type is gpt2"),
        ({"intermediate_size": 30}, "for rank 4 and a matrix of"),
        ({"num_hidden_layers": 1}, "matches no matrix of a LlamaForCausalLM of 1 layers"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        done = peftool.run(
            "convert", SAMPLES / "adapters/lora", "-o", tmp_path / "a.gguf", "--base", tmp_path)
        assert done.returncode == 2 and message in done.stderr, done.stderr
