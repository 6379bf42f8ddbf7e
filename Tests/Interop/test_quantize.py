"""quantize and dequantize against real bitsandbytes and transformers: the bytes of whole models."""

import ctypes
import filecmp
import json

import numpy as np
import pytest
import torch
import transformers
from bitsandbytes import functional
from bitsandbytes.backends.utils import _get_4bit_code
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import kernels
from conftest import SAMPLES

BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
DECODER = {
    "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1,
    "vocab_size": 131, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": None,
}
# Widths that end within blocks, odd numbers of elements, and with 255 elements in a row a weight
# of several tiles of the kernels.
MODELS = {
    "llama": lambda: transformers.LlamaConfig(
        **DECODER, hidden_size=48, intermediate_size=85, head_dim=16),
    "llama-odd": lambda: transformers.LlamaConfig(
        **DECODER | {"num_attention_heads": 1}, hidden_size=34, head_dim=2,
        intermediate_size=33),
    "llama-large": lambda: transformers.LlamaConfig(
        **DECODER, hidden_size=255, intermediate_size=1001, head_dim=86),
    # bitsandbytes' multiplication on a CPU wants sizes that 32 divides.
    "llama-even": lambda: transformers.LlamaConfig(
        **DECODER | {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128},
        hidden_size=64, intermediate_size=192),
    "llama-tied": lambda: transformers.LlamaConfig(
        **DECODER, hidden_size=48, intermediate_size=96, head_dim=16, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(
        **DECODER, hidden_size=48, intermediate_size=80, tie_word_embeddings=True),
    "qwen3": lambda: transformers.Qwen3Config(
        **DECODER, hidden_size=48, intermediate_size=80, head_dim=10),
    "mistral": lambda: transformers.MistralConfig(
        **DECODER, hidden_size=48, intermediate_size=80, head_dim=16),
    "gemma2": lambda: transformers.Gemma2Config(
        **DECODER, hidden_size=48, intermediate_size=80, head_dim=16),
    "phi": lambda: transformers.PhiConfig(
        **DECODER | {"num_key_value_heads": 3}, hidden_size=48, intermediate_size=80),
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=36, n_layer=2, n_head=3, vocab_size=131, n_positions=32, bos_token_id=1,
        eos_token_id=2),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=80,
        vocab_size=131, max_position_embeddings=32),
    "opt": lambda: transformers.OPTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, ffn_dim=80, vocab_size=131,
        word_embed_proj_dim=32, max_position_embeddings=32),
    "bloom": lambda: transformers.BloomConfig(
        hidden_size=48, n_layer=2, n_head=3, vocab_size=131),
    "mixtral": lambda: transformers.MixtralConfig(
        **DECODER, hidden_size=48, intermediate_size=80, num_local_experts=3),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(
        **DECODER, hidden_size=48, intermediate_size=80, moe_intermediate_size=32, num_experts=4,
        num_experts_per_tok=2, head_dim=16),
    "olmo": lambda: transformers.OlmoConfig(
        **DECODER, hidden_size=48, intermediate_size=80, tie_word_embeddings=True),
}
FORMS = {
    "nf4-double": ({"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}, []),
    "nf4": ({"bnb_4bit_quant_type": "nf4"}, ["--no-double-quant"]),
    "fp4": ({"bnb_4bit_quant_type": "fp4"}, ["--type", "fp4", "--no-double-quant"]),
    "fp4-double": (
        {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True}, ["--type", "fp4"]),
    "int8": ({}, ["--type", "int8"]),
}


def make(name, folder, dtype="bfloat16", seed=0):
    """A random model as transformers saves it."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(MODELS[name]()).to(DTYPES[dtype])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.1
            parameter.copy_(noise + (1 if parameter.dim() == 1 else 0))
    model.save_pretrained(folder)
    return folder


def theirs(base, folder, form, dtype="bfloat16", shard=None, **extra):
    """The model as transformers and bitsandbytes save it on a CPU."""
    settings = dict(FORMS[form][0], **extra)
    if form == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True, **settings)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_compute_dtype=DTYPES[dtype], **settings)
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, device_map="cpu", dtype="auto")
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    return folder


def assert_same_folders(ours, expected):
    names = sorted(path.name for path in expected.iterdir())
    assert sorted(path.name for path in ours.iterdir()) == names
    for name in names:
        if not filecmp.cmp(ours / name, expected / name, shallow=False):
            assert_same_tensors(ours / name, expected / name)
            pytest.fail(f"{name} differs: {(ours / name).read_bytes()[:3000]}")


def assert_same_tensors(ours, expected):
    """Says which tensor differs, where the files are safetensors."""
    if ours.suffix != ".safetensors":
        return
    with safe_open(ours, "pt") as a, safe_open(expected, "pt") as b:
        assert sorted(a.keys()) == sorted(b.keys())
        for name in a.keys():
            x, y = a.get_tensor(name), b.get_tensor(name)
            assert (x.dtype, x.shape) == (y.dtype, y.shape), name
            assert x.view(torch.uint8).equal(y.view(torch.uint8)) if x.dim() else x == y, name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", MODELS)
def test_whole_models_have_the_same_bytes(peftool, tmp_path, model, form):
    base = make(model, tmp_path / "base")
    expected = theirs(base, tmp_path / "theirs", form)
    peftool.check("quantize", base, "-o", tmp_path / "ours", *FORMS[form][1])
    assert_same_folders(tmp_path / "ours", expected)


@pytest.mark.parametrize("form", ["nf4-double", "fp4", "int8"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_weights(peftool, tmp_path, dtype, form):
    base = make("llama", tmp_path / "base", dtype)
    expected = theirs(base, tmp_path / "theirs", form, dtype)
    peftool.check("quantize", base, "-o", tmp_path / "ours", *FORMS[form][1])
    assert_same_folders(tmp_path / "ours", expected)


def test_another_type_in_the_configuration_counts(peftool, tmp_path):
    base = make("gpt2", tmp_path / "base", "float32")
    config = json.loads((base / "config.json").read_text())
    config["dtype"] = "bfloat16"
    (base / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    expected = theirs(base, tmp_path / "theirs", "nf4-double")
    peftool.check("quantize", base, "-o", tmp_path / "ours")
    assert_same_folders(tmp_path / "ours", expected)


def test_a_configuration_of_another_hand_keeps_its_order(peftool, tmp_path):
    base = make("llama", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config = dict(reversed(config.items()))
    (base / "config.json").write_text(json.dumps(config))
    peftool.check("quantize", base, "-o", tmp_path / "ours")
    ours = json.loads((tmp_path / "ours/config.json").read_text())
    assert list(ours) == [*config, "quantization_config"]


@pytest.mark.parametrize("model", ["llama-large", "qwen2", "qwen3", "gpt2"])
@pytest.mark.parametrize("form", ["nf4-double", "int8"])
def test_shards_are_cut_alike(peftool, tmp_path, model, form):
    base = make(model, tmp_path / "base")
    expected = theirs(base, tmp_path / "theirs", form, shard="20KB")
    peftool.check(
        "quantize", base, "-o", tmp_path / "ours", "--shard-size", "20KB", *FORMS[form][1])
    assert_same_folders(tmp_path / "ours", expected)


@pytest.mark.parametrize("model", ["llama", "llama-tied"])
def test_excluded_modules_are_recorded(peftool, tmp_path, model):
    """With a list transformers skips no head by itself, nor one that is tied."""
    base = make(model, tmp_path / "base")
    peftool.check("quantize", base, "-o", tmp_path / "ours", "--exclude", "*.down_proj")
    config = json.loads((tmp_path / "ours/config.json").read_text())
    skipped = config["quantization_config"]["llm_int8_skip_modules"]
    assert skipped == ["lm_head"] + [f"model.layers.{n}.mlp.down_proj" for n in (0, 1)]
    expected = theirs(base, tmp_path / "theirs", "nf4-double", llm_int8_skip_modules=skipped)
    assert_same_folders(tmp_path / "ours", expected)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("code", ["nf4", "fp4"])
def test_every_block_size(peftool, tmp_path, code, block_size):
    """transformers takes 64 alone: here bitsandbytes' function is the judge."""
    base = make("llama-large", tmp_path / "base")
    peftool.check(
        "quantize", base, "-o", tmp_path / "ours", "--type", code, "--block-size", block_size)
    tensors = load_file(tmp_path / "ours/model.safetensors")
    weights = load_file(base / "model.safetensors")
    for name, weight in weights.items():
        if f"{name}.absmax" not in tensors:
            continue
        codes, state = functional.quantize_4bit(
            weight, blocksize=block_size, compress_statistics=True, quant_type=code)
        assert codes.equal(tensors[name])
        for key, value in state.as_dict(packed=True).items():
            assert value.equal(tensors[f"{name}.{key}"]), f"{name}.{key}"


def test_zeros_and_tiny_numbers(peftool, tmp_path):
    base = make("llama", tmp_path / "base", "float32")
    weights = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    for name, weight in weights.items():
        flat = weight.view(-1)
        if flat.numel() < 600:
            continue
        flat[64:192] = 0
        flat[-(flat.numel() % 64 or 64):] = 0
        flat[192:256] *= 1e-38
        flat[256:320] *= 1e-42
        flat[320:384] *= 1e30
        flat[:64] = torch.randint(-4, 5, (64,), generator=generator) / 4
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    for form in ("nf4-double", "nf4", "fp4"):
        expected = theirs(base, tmp_path / f"theirs-{form}", form, "float32")
        peftool.check("quantize", base, "-o", tmp_path / form, *FORMS[form][1])
        assert_same_folders(tmp_path / form, expected)


def test_threads_do_not_show(peftool, tmp_path):
    base = make("llama-large", tmp_path / "base")
    for threads in (1, 2, 7):
        peftool.check("quantize", base, "-o", tmp_path / f"{threads}", "--threads", threads)
    assert_same_folders(tmp_path / "1", tmp_path / "2")
    assert_same_folders(tmp_path / "1", tmp_path / "7")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(peftool, tmp_path, bad):
    base = make("llama", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = bad
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    for form in ("nf4-double", "nf4", "int8"):
        done = peftool.run("quantize", base, "-o", tmp_path / "ours", *FORMS[form][1])
        assert done.returncode == 2
        assert "model.layers.1.mlp.up_proj.weight" in done.stderr and "near row" in done.stderr
        assert not (tmp_path / "ours").exists()


def test_a_model_without_linear_modules_is_refused(peftool, tmp_path):
    """transformers finds none in Falcon, whose linear modules are a class of their own."""
    config = transformers.FalconConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, vocab_size=131)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    done = peftool.run("quantize", tmp_path / "base", "-o", tmp_path / "ours")
    assert done.returncode == 2 and "no linear module" in done.stderr


@pytest.mark.parametrize("form", ["nf4-double", "int8"])
def test_transformers_generates_the_same(peftool, tmp_path, form):
    base = make("llama-even", tmp_path / "base")
    expected = theirs(base, tmp_path / "theirs", form)
    peftool.check("quantize", base, "-o", tmp_path / "ours", *FORMS[form][1])
    tokens = []
    for folder in (tmp_path / "ours", expected):
        model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu")
        ids = torch.tensor([[1, 17, 40, 99]])
        tokens.append(model.generate(ids, max_new_tokens=16, do_sample=False))
    assert tokens[0].equal(tokens[1]) and tokens[0].shape[1] > 4


def formula(tensors, name):
    """A weight by the formula of its codes; None where it is not quantized."""
    codes = tensors[name]
    module = name.removesuffix(".weight")
    if f"{module}.SCB" in tensors:
        scales = tensors[f"{module}.SCB"].view(-1, 1)
        return codes.to(torch.float32) * scales * torch.tensor(7.874015718698502e-3)
    found = [key for key in tensors if key.startswith(f"{name}.quant_state.bitsandbytes__")]
    if not found:
        return None
    state = json.loads(bytes(tensors[found[0]].tolist()))
    absmax = tensors[f"{name}.absmax"]
    if "nested_offset" in state:
        nested = tensors[f"{name}.nested_absmax"].repeat_interleave(256)[: absmax.numel()]
        absmax = tensors[f"{name}.nested_quant_map"][absmax.int()] * nested
        absmax = absmax + torch.tensor(state["nested_offset"], dtype=torch.float32)
    codes = codes.view(-1)
    codes = torch.stack([codes >> 4, codes & 15], 1).view(-1).int()
    rows, columns = state["shape"]
    count = rows * columns
    scales = absmax.repeat_interleave(state["blocksize"])[:count]
    values = tensors[f"{name}.quant_map"][codes[:count]] * scales
    return values.view(rows, columns).to(DTYPES[state["dtype"]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", ["llama", "llama-odd", "llama-large", "qwen2", "gpt2"])
def test_dequantized_weights_are_the_formulas(peftool, tmp_path, model, form):
    base = make(model, tmp_path / "base")
    quantized = theirs(base, tmp_path / "theirs", form)
    peftool.check("dequantize", quantized, "-o", tmp_path / "ours")
    tensors = load_file(quantized / "model.safetensors")
    ours = load_file(tmp_path / "ours/model.safetensors")
    original = load_file(base / "model.safetensors")
    assert ours.keys() == original.keys()
    for name, weight in ours.items():
        expected = formula(tensors, name)
        if expected is None:
            expected = tensors[name]
        elif model == "gpt2":
            expected = expected.T
        assert weight.equal(expected.to(torch.bfloat16)), name
        assert weight.shape == original[name].shape
    names = sorted(path.name for path in base.iterdir())
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == names
    for name in names:
        if name.endswith(".json"):
            assert (tmp_path / "ours" / name).read_text() == (base / name).read_text()
    AutoModelForCausalLM.from_pretrained(tmp_path / "ours")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", ["llama-large", "gpt2"])
def test_the_report_measures_what_the_files_hold(peftool, tmp_path, model, form):
    base = make(model, tmp_path / "base")
    flags = [*FORMS[form][1], "--report"]
    result = json.loads(
        peftool.check("quantize", base, "-o", tmp_path / "ours", "--json", *flags))
    tensors = load_file(tmp_path / "ours/model.safetensors")
    original = load_file(base / "model.safetensors")
    report = result["report"]
    squares = noise = 0
    for entry in report["modules"]:
        name = f"{entry['module']}.weight"
        # What the codes stand for, before it is rounded to bf16.
        state = f"{name}.quant_state.bitsandbytes__{result['type']}"
        exact = tensors if state not in tensors else tensors | {
            state: torch.tensor(list(
                bytes(tensors[state].tolist()).replace(b"bfloat16", b"float32")),
                dtype=torch.uint8)}
        weight = original[name].double()
        error = formula(exact, name).double() - (weight.T if model == "gpt2" else weight)
        own = [key for key in tensors if key.startswith(f"{entry['module']}.")
               and not key.endswith(".bias")]
        byte_count = sum(tensors[key].nbytes for key in own)
        assert entry["parameters"] == error.numel() and entry["bytes"] == byte_count
        assert entry["bits"] == 8 * byte_count / error.numel()
        assert entry["rms"] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-9)
        assert entry["largest"] == error.abs().max().item()
        ratio = weight.square().sum() / error.square().sum()
        assert entry["snr"] == pytest.approx(10 * ratio.log10().item(), rel=1e-9)
        squares += weight.square().sum().item()
        noise += error.square().sum().item()
    assert report["snr"] == pytest.approx(10 * np.log10(squares / noise), rel=1e-9)
    ratios = [entry["snr"] for entry in report["modules"]]
    assert ratios == sorted(ratios) and len(ratios) == result["tensors"]["quantized"]


@pytest.mark.parametrize("code", ["nf4", "fp4"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_dequantizing_takes_every_block_size(peftool, tmp_path, block_size, code):
    base = make("llama-large", tmp_path / "base", "float16")
    peftool.check(
        "quantize", base, "-o", tmp_path / "nf4", "--block-size", block_size, "--type", code)
    peftool.check("dequantize", tmp_path / "nf4", "-o", tmp_path / "ours", "--threads", 3)
    tensors = load_file(tmp_path / "nf4/model.safetensors")
    for name, weight in load_file(tmp_path / "ours/model.safetensors").items():
        expected = formula(tensors, name)
        assert weight.equal(tensors[name] if expected is None else expected), name


def test_where_bitsandbytes_decodes_wrongly(peftool, tmp_path):
    """With AVX-512 bitsandbytes 0.50.2 takes other blocks' scales where the width is no multiple
    of 64; at 64 it gives the formula's values."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("needs AVX-512")
    wrong = []
    for width in (64, 80, 96, 128):
        weight = torch.randn(32, width, generator=torch.Generator().manual_seed(width))
        weight *= torch.logspace(-2, 0, 32).view(-1, 1)
        codes, state = functional.quantize_4bit(weight, quant_type="nf4")
        folder = tmp_path / str(width)
        folder.mkdir()
        tensors = {"m.weight": codes} | {
            f"m.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
        save_file(tensors, folder / "model.safetensors")
        peftool.check("dequantize", folder, "-o", folder / "ours")
        ours = load_file(folder / "ours/model.safetensors")["m.weight"]
        assert ours.equal(formula(tensors, "m.weight"))
        wrong.append(not ours.equal(functional.dequantize_4bit(codes, state)))
    assert wrong == [False, True, True, False]


def quantized_tensors():
    weight = torch.randn(8, 96, generator=torch.Generator().manual_seed(0))
    codes, state = functional.quantize_4bit(
        weight, compress_statistics=True, quant_type="nf4")
    return {"m.weight": codes} | {
        f"m.weight.{key}": value for key, value in state.as_dict(packed=True).items()}


def replace_state(tensors, **changes):
    name = "m.weight.quant_state.bitsandbytes__nf4"
    state = json.loads(bytes(tensors[name].tolist())) | changes
    text = json.dumps({key: value for key, value in state.items() if value is not None})
    return tensors | {name: torch.tensor(list(text.encode()), dtype=torch.uint8)}


# What does not fit: bitsandbytes decodes most of these without a word.
MISFITS = {
    "a scale too few": lambda t: t | {"m.weight.absmax": t["m.weight.absmax"][:-1]},
    "a scale too many": lambda t: t | {"m.weight.absmax": t["m.weight.absmax"].repeat(2)},
    "another block size": lambda t: replace_state(t, blocksize=128),
    "a block size that is none": lambda t: replace_state(t, blocksize=48),
    "codes too few": lambda t: t | {"m.weight": t["m.weight"][:-1]},
    "another shape": lambda t: replace_state(t, shape=[8, 97]),
    "a negative shape": lambda t: replace_state(t, shape=[-8, -96]),
    "a huge shape": lambda t: replace_state(t, shape=[2**62, 2**62]),
    "a vector": lambda t: replace_state(t, shape=[768]),
    "another type of codes": lambda t: replace_state(t, quant_type="fp4"),
    "an unknown type": lambda t: replace_state(t, quant_type="nf3"),
    "an unknown dtype": lambda t: replace_state(t, dtype="int8"),
    "a broken state": lambda t: t | {
        "m.weight.quant_state.bitsandbytes__nf4": torch.tensor([123, 34], dtype=torch.uint8)},
    "no map": lambda t: {k: v for k, v in t.items() if k != "m.weight.quant_map"},
    "a short map": lambda t: t | {"m.weight.quant_map": t["m.weight.quant_map"][:15]},
    "a map of NaN": lambda t: t | {"m.weight.quant_map": torch.full((16,), float("nan"))},
    "another map": lambda t: t | {"m.weight.quant_map": t["m.weight.quant_map"] / 2},
    "no nested scales": lambda t: {
        k: v for k, v in t.items() if k != "m.weight.nested_absmax"},
    "a short nested map": lambda t: t | {
        "m.weight.nested_quant_map": t["m.weight.nested_quant_map"][:255]},
    "8-bit scales without an offset": lambda t: replace_state(t, nested_offset=None),
    "another nested block size": lambda t: replace_state(t, nested_blocksize=128),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_refused(peftool, tmp_path, misfit):
    save_file(MISFITS[misfit](quantized_tensors()), tmp_path / "model.safetensors")
    done = peftool.run("dequantize", tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "m.weight" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


# The kernels alone, as every kind of processor that this machine can stand in for runs them.


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    with open("/proc/cpuinfo") as file:
        flags = set(next(line for line in file if line.startswith("flags")).split())
    found = [("x86-64", set()), ("x86-64-v3", {"avx2", "fma"}), ("x86-64-v4", {"avx512vl"})]
    builds = [kernels.build_variant(folder, name) for name, needs in found if needs <= flags]
    return [kernels.build(tmp_path_factory.mktemp("kernels")), *builds]


def midpoints(levels):
    return ((levels[:-1] + levels[1:]) / np.float32(2)).astype(np.float32)


def twin4(code, x, block_size):
    """What pef_quantize4 promises, one element after the other."""
    levels = _get_4bit_code(code, torch.device("cpu")).numpy()
    order = np.argsort(levels, kind="stable") if code == "nf4" else np.array(
        [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3])
    bounds = midpoints(levels[order])
    absmax, codes = [], []
    for start in range(0, x.size, block_size):
        block = x[start:start + block_size]
        most = np.float32(np.nan) if np.isnan(block).any() else np.abs(block).max()
        tiny = np.float32(1e-38)
        if block.size == block_size:
            scaled = block * (np.float32(1) / (tiny if most < tiny else most))
        else:
            most = tiny if most < tiny else most
            scaled = block / most
        absmax.append(most)
        codes += [order[sum(not bound >= value for bound in bounds)] for value in scaled]
    if len(codes) % 2:
        codes.append(order[sum(bound < 0 for bound in bounds)])
    codes = np.array(codes, np.uint8)
    return codes[::2] << 4 | codes[1::2], np.array(absmax, np.float32)


def quantize4(library, code, x, block_size):
    packed = np.zeros((x.size + 1) // 2, np.uint8)
    absmax = np.zeros(-(-x.size // block_size), np.float32)
    library.pef_quantize4(
        ["nf4", "fp4"].index(code), kernels.pointer(x), kernels.size(x.size),
        kernels.size(block_size), kernels.pointer(packed), kernels.pointer(absmax))
    return packed, absmax


@np.errstate(invalid="ignore", divide="ignore")
@pytest.mark.parametrize("code", ["nf4", "fp4"])
def test_4_bit_kernels_against_their_twin(variants, code):
    random = np.random.default_rng(2)
    levels = _get_4bit_code(code, torch.device("cpu")).numpy()
    ties = np.append(midpoints(np.sort(levels)), [1, -1, 0, -0.0, np.nextafter(0, 1)])
    for block_size in (32, 64, 4096):
        for count in (1, 2, 31, 33, 63, 64, 65, 129, block_size + 1, 2 * block_size + 7):
            x = random.standard_normal(count).astype(np.float32)
            x[: ties.size] = ties[:count]
            for place, value in ((count // 2, np.nan), (count // 3, np.inf)):
                if random.random() < 0.2:
                    x[place] = value
            if count > 96:
                x[32:96] = 0
            expected = twin4(code, x, block_size)
            for variant in variants:
                packed, absmax = quantize4(variant.library, code, x, block_size)
                assert np.array_equal(packed, expected[0])
                assert np.array_equal(absmax, expected[1], equal_nan=True)
                y = np.zeros(count, np.float32)
                variant.library.pef_dequantize4(
                    ["nf4", "fp4"].index(code), kernels.pointer(packed), kernels.pointer(absmax),
                    kernels.size(count), kernels.size(block_size), kernels.pointer(y))
                codes = np.stack([packed >> 4, packed & 15], 1).ravel()[:count]
                want = levels[codes] * np.repeat(absmax, block_size)[:count]
                assert np.array_equal(y, want, equal_nan=True)


def test_the_mean_is_torchs(variants):
    random = np.random.default_rng(3)
    for count in [*range(1, 300), 1023, 4096, 5000, 13824, 32767, 65537, 180224, 3000001]:
        x = (np.abs(random.standard_normal(count)) * 0.03).astype(np.float32)
        expected = torch.from_numpy(x).mean().item()
        for variant in variants:
            mean = variant.library.pef_mean
            mean.restype = ctypes.c_float
            assert mean(kernels.pointer(x), kernels.size(count)) == expected, count


def test_8_bit_codes_are_bitsandbytes(variants):
    random = np.random.default_rng(4)
    for count in (1, 255, 256, 257, 100_000, 1_000_000):
        x = (random.standard_normal(count) * 0.01).astype(np.float32)
        x[256:512] = 0
        expected, state = functional.quantize_blockwise(torch.from_numpy(x), blocksize=256)
        for variant in variants:
            codes = np.zeros(count, np.uint8)
            absmax = np.zeros(-(-count // 256), np.float32)
            variant.library.pef_quantize8(
                kernels.pointer(x), kernels.size(count), kernels.pointer(codes),
                kernels.pointer(absmax))
            assert np.array_equal(codes, expected.numpy())
            assert np.array_equal(absmax, state.absmax.numpy())
