"""Tensors of many blocks: what only shows where one ends and the next begins, and shares of
elements that mean something. Made in a temporary folder; merged by PEFT too."""

import os

import pytest
import torch
from peft import IA3Config, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPT2Config, GptOssConfig, LlamaConfig, MixtralConfig

from golden import bases, cases, formula, peft_cases
from golden.peft_cases import ALL, lora
from test_golden import assert_gates

SIZES = dict(hidden_size=328, intermediate_size=712, num_hidden_layers=1, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=1501, max_position_embeddings=131072)
CONFIGS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "llama-tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "gpt2": GPT2Config(n_embd=328, n_layer=1, n_head=4, vocab_size=1501, n_positions=64,
                       bos_token_id=0, eos_token_id=0),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=3, tie_word_embeddings=False),
    "gpt-oss": GptOssConfig(**dict(SIZES, intermediate_size=328), head_dim=82,
                            num_local_experts=3, num_experts_per_tok=2,
                            tie_word_embeddings=False),
}
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Makes a base when it is first asked for: a folder like Samples."""
    folder = tmp_path_factory.mktemp("wide")

    def make(name, dtype):
        base = f"{name}-{str(dtype).removeprefix('torch.')}"
        if not (folder / "bases" / base).exists():
            model = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=F32)
            bases.fill(model, name)
            model = model.to(dtype)
            model.config.dtype = dtype
            model.save_pretrained(folder / "bases" / base, max_shard_size="1500KB")
        return folder, base

    return make


RIGHT = {
    "lora": ("llama", BF16, lambda: lora(ALL, r=16, alpha=32)),
    "lora f16": ("llama", F16, lambda: lora(ALL, r=16, alpha=32)),
    "lora f32": ("llama", F32, lambda: lora(ALL, r=16, alpha=32)),
    "lora rank 128": ("llama", BF16, lambda: lora(ALL, r=128, alpha=16, use_rslora=True)),
    "dora": ("llama", BF16, lambda: lora(ALL, r=16, alpha=32, use_dora=True)),
    "dora f16": ("llama", F16, lambda: lora(ALL, r=16, use_dora=True)),
    "dora f32": ("llama", F32, lambda: lora(ALL, r=16, use_dora=True)),
    "embeddings": ("llama", BF16, lambda: lora(["embed_tokens", "lm_head"], r=8)),
    "dora embedding": ("llama", BF16, lambda: lora(["embed_tokens"], r=8, use_dora=True)),
    "dora embedding f32": ("llama", F32, lambda: lora(["embed_tokens"], r=8, use_dora=True)),
    "tokens": ("llama", BF16,
               lambda: lora(["q_proj"], trainable_token_indices=[0, 49, 50, 1000, 1500])),
    "tokens tied": ("llama-tied", BF16, lambda: lora(["q_proj"], trainable_token_indices=[1500])),
    "saved": ("llama", BF16, lambda: lora(["q_proj"], modules_to_save=["embed_tokens", "norm"])),
    "conv1d": ("gpt2", BF16, lambda: lora(cases.GPT2, r=16, fan_in_fan_out=True)),
    "conv1d dora": ("gpt2", BF16,
                    lambda: lora(cases.GPT2, r=16, fan_in_fan_out=True, use_dora=True)),
    "conv1d dora f32": ("gpt2", F32,
                        lambda: lora(cases.GPT2, r=16, fan_in_fan_out=True, use_dora=True)),
    "lora_bias": ("gpt2", BF16, lambda: lora(["c_attn", "mlp.c_proj"], lora_bias=True)),
    "experts": ("mixtral", BF16, lambda: lora([], r=8, target_parameters=cases.EXPERTS)),
    "experts, transposed": ("gpt-oss", BF16,
                            lambda: lora([], r=8, target_parameters=cases.EXPERTS)),
    "experts, transposed, f32": ("gpt-oss", F32,
                                 lambda: lora([], r=8, target_parameters=cases.EXPERTS)),
    "ia3": ("gpt2", BF16,
            lambda: IA3Config(target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True,
                              feedforward_modules=["mlp.c_proj"])),
}


def make_adapter(root, name, family, dtype, config):
    folder, base = root(family, dtype)
    return folder, base, peft_cases.save_adapter(name, base, config(), folder)


@pytest.mark.parametrize("name", list(RIGHT))
def test_against_peft(peftool, tmp_path, root, name):
    folder, base, adapter = make_adapter(root, name, *RIGHT[name])
    output = tmp_path / "merged"
    # Fewer rows in a block than the machine's threads take, whatever it has.
    peftool.merge(folder / "bases" / base, [adapter], output, "--threads", os.cpu_count() + 3)
    right, _ = peft_cases.merge_with_peft(base, [adapter], folder)
    results = formula.merge(folder / "bases" / base, [adapter])
    found = bases.read_tensors(output)
    assert set(found) == set(right)
    assert_gates(None, found, right, results)


@pytest.mark.parametrize("dtype", [BF16, F32])
@pytest.mark.parametrize("rounding", ["once", "peft", "peft-safe"])
def test_several(peftool, tmp_path, root, dtype, rounding):
    adapters = [
        make_adapter(root, f"several {index}", "llama", dtype, config)
        for index, config in enumerate([
            lambda: lora(["q_proj", "down_proj", "embed_tokens"], r=8),
            lambda: lora(["q_proj", "up_proj"], r=5, alpha=3),
        ])
    ]
    folder, base, _ = adapters[0]
    paths = [adapter for _, _, adapter in adapters]
    weights = [0.7, -0.5] if rounding == "once" else None
    output = tmp_path / "merged"
    peftool.merge(folder / "bases" / base, paths, output, "--rounding", rounding, weights=weights)
    results = formula.merge(folder / "bases" / base, paths, weights, rounding)
    right = {name: formula.round_once(r.values, r.dtype) for name, r in results.items()}
    if rounding != "once":
        right, _ = peft_cases.merge_with_peft(base, paths, folder, safe=rounding == "peft-safe")
    assert_gates(None, bases.read_tensors(output), right, results)


def convolutions():
    return torch.nn.ModuleDict({
        "net": torch.nn.ModuleDict({
            "one": torch.nn.Conv1d(70, 150, 9),
            "two": torch.nn.Conv2d(60, 90, (3, 5)),
            "three": torch.nn.Conv3d(20, 66, (3, 3, 2)),
        })
    })


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("dtype", [BF16, F32])
def test_convolutions(peftool, tmp_path, dtype, use_dora):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "layers"}\n')
    model = convolutions()
    bases.fill(model, "convolutions")
    model = model.to(dtype)
    save_file(model.state_dict(), base / "model.safetensors", metadata={"format": "pt"})
    peft = get_peft_model(model, lora(["one", "two", "three"], r=6, use_dora=use_dora))
    peft_cases.randomize(peft, "convolutions")
    peft.save_pretrained(tmp_path / "adapter")

    plain = convolutions().to(dtype)
    plain.load_state_dict(bases.read_tensors(base))
    right = PeftModel.from_pretrained(plain, tmp_path / "adapter").merge_and_unload().state_dict()
    peftool.merge(base, [tmp_path / "adapter"], tmp_path / "merged")
    assert_gates(None, bases.read_tensors(tmp_path / "merged"), dict(right),
                 formula.merge(base, [tmp_path / "adapter"]))
