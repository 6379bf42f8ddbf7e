"""Group-wise INT4 against torch, numpy, MLX, mlx-lm, HQQ and the package gguf."""

import json
import shutil

import gguf
import mlx.core as mx
import mlx_lm.utils
import numpy as np
import pytest
import torch
import transformers
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_tensors
from transformers import AutoModelForCausalLM

import make_int4_samples as independent
from conftest import SAMPLES

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LAYOUTS = ["mlx", "gptq", "gptq_v2", "awq"]


def load(folder):
    """A model's tensors; BF16, which numpy has not, in f32."""
    return {name: (t.float() if t.dtype == torch.bfloat16 else t).numpy()
            for name, t in load_file(folder / "model.safetensors").items()}


def make(folder, dtype="float32", seed=0):
    """A random model with rows that have every zero point, and its weights in f32 by name."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=352, hidden_size=128, intermediate_size=384, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, dtype=dtype)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.1)
                for row in range(8, 24):
                    # From -row to 15 - row, so that a group has that zero point.
                    parameter[row] += (8 - row + 7.5) * 0.04
                parameter[0] = 0
                parameter[1], parameter[2] = parameter[1].abs(), -parameter[2].abs()
    model.to(DTYPES[dtype]).save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(SAMPLES / "generation/tiny-chat" / name, folder)
    weights = {
        name.removesuffix(".weight"): parameter.detach().float()
        for name, parameter in model.named_parameters()
        if name.split(".")[-2] in independent.MODULES}
    return folder, weights


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("int4")
    return {name: make(root / name, name, seed) for seed, name in enumerate(DTYPES)}


def quantize(peftool, base, output, layout, group, *flags):
    peftool.check("quantize", base, "-o", output, "--type", "int4", "--layout", layout,
                  "--group-size", group, "--quiet", *flags)
    peftool.check("verify", output, "--quiet")
    return load(output)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_are_those_of_independent_code(peftool, bases, tmp_path, dtype, group, symmetric,
                                             layout):
    base, weights = bases[dtype]
    flags = ["--symmetric"] if symmetric else []
    found = quantize(peftool, base, tmp_path / "out", layout, group, *flags)
    zeros = set()
    for module, weight in weights.items():
        rule = "eight" if symmetric else "positive" if layout == "gptq" else "any"
        codes, scale, zero = independent.quantize(weight, group, rule, torch.float16)
        zeros |= set(zero.flatten().tolist())
        expected = {
            "mlx": lambda: {
                "weight": independent.pack(codes), "scales": scale.astype(np.float16),
                "biases": (0 - scale * zero).astype(np.float16)},
            "gptq": lambda: independent.gptq(codes, scale, zero, group, 1),
            "gptq_v2": lambda: independent.gptq(codes, scale, zero, group, 0),
            "awq": lambda: independent.awq(codes, scale, zero),
        }[layout]()
        for part, content in expected.items():
            ours = found.pop(f"{module}.{part}")
            assert ours.dtype == content.dtype and ours.shape == content.shape, (module, part)
            assert (ours.view(np.uint8) == np.ascontiguousarray(content).view(np.uint8)).all()
    assert zeros == ({8} if symmetric else set(range(layout == "gptq", 16)))
    # All else is the model's own.
    own = load(base)
    for name, value in found.items():
        assert name.split(".")[-2] not in independent.MODULES
        assert (value == own[name]).all()


def unpack(words, order=range(8)):
    """Numbers of words, the last axis eight times as long: the mirror of `independent.pack`."""
    out = np.zeros((*words.shape, 8), np.uint8)
    for nibble, place in enumerate(order):
        out[..., place] = words.view(np.uint32) >> np.uint32(4 * nibble) & 15
    return out.reshape(*words.shape[:-1], -1)


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2", "awq"])
def test_random_files_stand_for_what_numpy_says(peftool, tmp_path, layout):
    """Any words, so that every code meets every zero point; of GPTQ also in groups of any order."""
    generator = np.random.default_rng(3)
    outputs, inputs, group = 72, 128, 32
    groups = inputs // group

    def words(*shape):
        return generator.integers(-2**31, 2**31, shape).astype(np.int32)

    scales = generator.uniform(0.001, 0.1, (groups, outputs)).astype(np.float16)
    tensors = {"m.scales": scales}
    order = np.arange(inputs) // group
    if layout == "awq":
        tensors |= {"m.qweight": words(inputs, outputs // 8),
                    "m.qzeros": words(groups, outputs // 8)}
        codes = unpack(tensors["m.qweight"], independent.AWQ_ORDER).T
        zeros = unpack(tensors["m.qzeros"], independent.AWQ_ORDER).T
        settings = {"quant_method": "awq", "bits": 4, "group_size": group}
    else:
        order = generator.permutation(order).astype(np.int32)
        tensors |= {"m.qweight": words(inputs // 8, outputs),
                    "m.qzeros": words(groups, outputs // 8), "m.g_idx": order}
        codes = unpack(np.ascontiguousarray(tensors["m.qweight"].T))
        zeros = (unpack(tensors["m.qzeros"]).T + (layout == "gptq")) & 15
        settings = {"quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": True,
                    "checkpoint_format": layout}
    assert len(set(zeros.flat)) == 16
    model = tmp_path / "model"
    model.mkdir()
    save_file(tensors, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps({
        "model_type": "llama", "dtype": "float32", "quantization_config": settings}))
    peftool.check("dequantize", model, "-o", tmp_path / "plain", "--quiet")
    found = load(tmp_path / "plain")["m.weight"]
    expected = scales.T.astype(np.float32)[:, order] * (
        codes.astype(np.float32) - zeros[:, order].astype(np.float32))
    assert found.dtype == np.float32 and (found == expected).all()


def logits(folder, tokens):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2", "awq"])
def test_transformers_knows_the_settings(peftool, bases, tmp_path, layout):
    quantize(peftool, bases["float16"][0], tmp_path / "out", layout, 64, "--exclude", "*.up_proj")
    settings = transformers.AutoConfig.from_pretrained(tmp_path / "out").quantization_config
    kind = transformers.AwqConfig if layout == "awq" else transformers.GPTQConfig
    config = kind.from_dict(settings)
    config.post_init()
    assert (config.bits, config.group_size, config.desc_act) == (4, 64, False)
    assert config.format == ("gemm" if layout == "awq" else layout)
    assert config.quant_method == ("awq" if layout == "awq" else "gptq")
    left = config.modules_to_not_convert if layout == "awq" else list(settings["dynamic"])
    assert any("layers.1.mlp.up_proj" in name.replace("\\", "") for name in left)


@pytest.mark.parametrize("layout", ["mlx", "awq"])
def test_mlx_lm_loads_it(peftool, bases, tmp_path, layout):
    """mlx-lm reads its own files, and AWQ's, which it turns into its own."""
    base, weights = bases["float16"]
    quantize(peftool, base, tmp_path / "out", layout, 64)
    model, config = mlx_lm.utils.load_model(tmp_path / "out")
    assert config["quantization"]["group_size"] == 64
    quantized = {name: module for name, module in model.named_modules()
                 if type(module).__name__ == "QuantizedLinear"}
    assert set(quantized) == set(weights)
    for name, module in quantized.items():
        codes, scale, zero = independent.quantize(weights[name], 64, dtype=torch.float16)
        assert (np.array(module.weight) == independent.pack(codes)).all()
        assert (np.array(module.scales) == scale.astype(np.float16)).all()
        assert (np.array(module.biases) == (0 - scale * zero).astype(np.float16)).all()
    tokens = [1, 7, 300, 12, 55, 8, 9]
    found = np.array(model(mx.array([tokens]))[0].astype(mx.float32))
    peftool.check("dequantize", tmp_path / "out", "-o", tmp_path / "plain", "--quiet")
    expected = logits(tmp_path / "plain", tokens)
    # mlx computes in f16.
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_mlx_gives_the_same_numbers(peftool, bases, tmp_path, dtype):
    """A model that mlx-lm has quantized, embeddings and head too, is what mlx makes of it."""
    base, _ = bases[dtype]
    model, config = mlx_lm.utils.load_model(base)
    model, config = mlx_lm.utils.quantize_model(model, config, 32, 4)
    folder = tmp_path / "mlx"
    mlx_lm.utils.save_model(folder, model)
    mlx_lm.utils.save_config(config, folder / "config.json")
    peftool.check("verify", folder, "--quiet")
    # In f32, where mlx rounds each step as peftool does.
    changed = json.loads((folder / "config.json").read_text()) | {"dtype": "float32"}
    changed.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(changed))
    peftool.check("dequantize", folder, "-o", tmp_path / "plain", "--quiet")
    found = mx.load(str(tmp_path / "plain/model.safetensors"))
    count = negative = 0
    for name, module in model.named_modules():
        if not hasattr(module, "biases"):
            continue
        parts = [module.weight, module.scales.astype(mx.float32), module.biases.astype(mx.float32)]
        expected = mx.dequantize(*parts, group_size=32, bits=4)
        assert mx.array_equal(found[f"{name}.weight"], expected), name
        negative += int((module.scales < 0).sum())
        count += 1
    assert count == 16 and negative > 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("group", [32, 64, 128])
def test_blocks_of_q4_1_keep_the_codes(peftool, bases, tmp_path, layout, group):
    base, weights = bases["float16"]
    quantize(peftool, base, tmp_path / "out", layout, group)
    peftool.check("convert", tmp_path / "out", "-o", tmp_path / "m.gguf", "--dtype", "q4_1",
                  "--quiet")
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
             "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    for module, weight in weights.items():
        layer, kind = module.split(".")[2], module.split(".")[-1]
        tensor = tensors[f"blk.{layer}.{names[kind]}.weight"]
        assert tensor.tensor_type == gguf.GGMLQuantizationType.Q4_1
        rule = "positive" if layout == "gptq" else "any"
        codes, scale, zero = independent.quantize(weight, group, rule, torch.float16)
        offset = (0 - scale * zero).astype(np.float16).astype(np.float32)
        scale, offset = np.repeat(scale, group, 1), np.repeat(offset, group, 1)
        expected = scale * codes.astype(np.float32) + offset
        if kind in ("q_proj", "k_proj"):
            # llama.cpp's order of the rows of a head.
            rows = expected.shape[0] // (4 if kind == "q_proj" else 2)
            expected = expected.reshape(-1, 2, rows // 2, expected.shape[1])
            expected = expected.swapaxes(1, 2).reshape(weight.shape)
        found = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert (found == expected).all(), module
    assert tensors["token_embd.weight"].tensor_type == gguf.GGMLQuantizationType.F16
    assert tensors["output.weight"].tensor_type == gguf.GGMLQuantizationType.F16


def test_offsets_of_other_types_are_rounded_once(peftool, bases, tmp_path):
    base, weights = bases["float32"]
    found = quantize(peftool, base, tmp_path / "out", "mlx", 32, "--scale-dtype", "float32")
    for module, weight in weights.items():
        codes, scale, zero = independent.quantize(weight, 32)
        assert (found[f"{module}.scales"] == scale).all()
        assert (found[f"{module}.biases"] == 0 - scale * zero).all()
        assert (found[f"{module}.weight"] == independent.pack(codes)).all()
    # The model is loaded, and computes what the codes stand for.
    model, _ = mlx_lm.utils.load_model(tmp_path / "out")
    tokens = [1, 7, 300, 12, 55, 8, 9]
    ours = np.array(model(mx.array([tokens]))[0])
    peftool.check("dequantize", tmp_path / "out", "-o", tmp_path / "plain", "--quiet")
    expected = logits(tmp_path / "plain", tokens)
    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()


def hqq_values(tensors, module):
    """What HQQ makes of a weight's tensors."""
    layer = HQQLinear(None, None, compute_dtype=torch.float32, device="cpu")
    prefix = module + "."
    layer.load_state_dict({
        name.removeprefix(prefix): value for name, value in tensors.items()
        if name.startswith(prefix)})
    return layer.dequantize()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("group", [32, 64, 128])
def test_hqq_loads_what_is_laid_out_for_it(peftool, bases, tmp_path, layout, group):
    # Of a model in F32 what codes stand for is written in F32.
    base, weights = bases["float32"]
    quantize(peftool, base, tmp_path / "out", layout, group)
    peftool.check("convert", tmp_path / "out", "-o", tmp_path / "hqq", "--layout", "hqq", "--quiet")
    peftool.check("verify", tmp_path / "hqq", "--quiet")
    for name in ["out", "hqq"]:
        peftool.check("dequantize", tmp_path / name, "-o", tmp_path / f"{name}-plain", "--quiet")
    before, after = (load_file(tmp_path / f"{name}-plain/model.safetensors")
                     for name in ["out", "hqq"])
    tensors = load_file(tmp_path / "hqq/model.safetensors")
    for module in weights:
        found = hqq_values(tensors, module)
        assert torch.equal(found, after[f"{module}.weight"]), module
        step = tensors[f"{module}.scale"].abs().max() * 16
        assert (found - before[f"{module}.weight"]).abs().max() <= 2e-7 * step
    settings = transformers.AutoConfig.from_pretrained(tmp_path / "hqq").quantization_config
    config = transformers.HqqConfig.from_dict(settings)
    assert config.quant_config["weight_quant_params"]["group_size"] == group
    assert config.skip_modules == ["lm_head"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("optimize", [False, True])
def test_what_hqq_quantizes_is_read(peftool, tmp_path, dtype, optimize):
    """Its zero points are any numbers; with them offsets and codes become MLX's."""
    torch.manual_seed(5)
    settings = BaseQuantizeConfig(nbits=4, group_size=64, axis=1)
    settings["weight_quant_params"]["optimize"] = optimize
    settings["weight_quant_params"]["round_zero"] = False
    linear = torch.nn.Linear(128, 96, bias=False)
    layer = HQQLinear(linear, settings, compute_dtype=DTYPES[dtype], device="cpu")
    tensors = {f"m.{name}": value.contiguous() for name, value in layer.state_dict().items()}
    model = tmp_path / "model"
    model.mkdir()
    save_tensors(tensors, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps({
        "model_type": "llama", "dtype": "float32",
        "quantization_config": {"quant_method": "hqq", "quant_config": settings}}))
    peftool.check("verify", model, "--quiet")
    peftool.check("dequantize", model, "-o", tmp_path / "plain", "--quiet")
    found = load_file(tmp_path / "plain/model.safetensors")["m.weight"]
    # HQQ computes in f32, too, where it is told to.
    assert torch.equal(found, hqq_values(tensors, "m"))
    assert (tensors["m.zero"] % 1 != 0).any()
    peftool.check("convert", model, "-o", tmp_path / "mlx", "--layout", "mlx", "--quiet")
    parts = load_file(tmp_path / "mlx/model.safetensors")
    expected = mx.dequantize(*(mx.array(parts[f"m.{part}"].numpy())
                               for part in ["weight", "scales", "biases"]), group_size=64, bits=4)
    assert np.abs(np.array(expected) - found.numpy()).max() < 1e-6 * found.abs().max()
