"""extract: adapters out of trained models, as PEFT loads them."""

import json
import warnings

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

SIZES = dict(
    hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=96, max_position_embeddings=64)
IDS = torch.arange(24)[None] * 3


def models(kind, tied=False):
    torch.manual_seed(3)
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(n_embd=48, n_layer=2, n_head=4, vocab_size=96, n_positions=64,
                       tie_word_embeddings=tied))
    config, model = {
        "llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }[kind]
    return model(config(**SIZES, tie_word_embeddings=tied))


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def is_matrix(name, parameter):
    return parameter.dim() == 2


@pytest.fixture
def pair(tmp_path, request):
    """A base, and the same with low-rank changes of its matrices and other changes elsewhere."""
    kind, tied, rank = request.param
    model = models(kind, tied)
    model.save_pretrained(tmp_path / "base")
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                out, inner = parameter.shape
                parameter += torch.randn(out, rank) @ torch.randn(rank, inner) * 0.02
            else:
                parameter += torch.randn(parameter.shape) * 0.1
    model.save_pretrained(tmp_path / "tuned")
    return tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter"


def extract(peftool, base, tuned, out, *flags):
    return json.loads(
        peftool.check("extract", base, tuned, "-o", out, "--json", "--quiet", *flags))


def loaded(base, adapter):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # Tied models are warned about where they are merged, which is not done here.
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        warnings.filterwarnings("ignore", message=".*tied.*")
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        return PeftModel.from_pretrained(model, adapter)


@pytest.mark.parametrize(
    "pair", [(kind, tied, 3) for kind in ("llama", "qwen2", "gpt2") for tied in (False, True)],
    indirect=True, ids=str)
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_a_model_is_made_again(peftool, tmp_path, pair, dora):
    base, tuned, adapter = pair
    is_tied = json.loads((base / "config.json").read_text())["tie_word_embeddings"]
    flags = ["--rank", "3", *(["--dora"] if dora else [])]
    report = extract(peftool, base, tuned, adapter, *flags)
    assert report["keptEnergy"] > 1 - 1e-6
    assert any("is both ends" in note for note in report["notes"]) == (is_tied and not dora)
    right = logits(AutoModelForCausalLM.from_pretrained(tuned, dtype=torch.float32))
    ours = logits(loaded(base, adapter))
    assert (ours - right).norm() <= 1e-4 * right.norm()
    # And through merge, which for GPT-2's and tied models does not need what PEFT does.
    peftool.merge(base, [adapter], tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert (logits(merged) - right).norm() <= 1e-4 * right.norm()
    assert peftool.run("verify", adapter).returncode == 0


@pytest.mark.parametrize("pair", [("gpt2", False, 2)], indirect=True, ids=str)
def test_biases_are_those_of_lora_where_all_layers_have_one(peftool, pair):
    base, tuned, adapter = pair
    extract(peftool, base, tuned, adapter, "--rank", "2", "--save", "lm_head", "--save", "*.w?e")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["lora_bias"] and config["bias"] == "none"
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = "transformer.h.1.attn.c_attn.bias"
    change = load_file(tuned / "model.safetensors")[name] - load_file(
        base / "model.safetensors")[name]
    key = "base_model.model.transformer.h.1.attn.c_attn.lora_B.bias"
    assert torch.equal(tensors[key], change)
    assert config["modules_to_save"] == sorted(
        ["lm_head", "transformer.ln_f", "transformer.wpe", "transformer.wte"]
        + [f"transformer.h.{i}.ln_{j}" for i in range(2) for j in (1, 2)])


@pytest.mark.parametrize("pair", [("qwen2", False, 2)], indirect=True, ids=str)
def test_biases_are_saved_whole_where_some_layers_have_none(peftool, pair):
    base, tuned, adapter = pair
    extract(peftool, base, tuned, adapter, "--rank", "2")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert not config["lora_bias"] and config["bias"] == "lora_only"
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    assert torch.equal(
        tensors[f"base_model.model.{name}.base_layer.bias"],
        load_file(tuned / "model.safetensors")[f"{name}.bias"])


def write(folder, tensors):
    folder.mkdir(parents=True)
    save_file({name: torch.as_tensor(t) for name, t in tensors.items()},
              folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def spectrum_pair(tmp_path, shape, seed=0, dtype=torch.float32):
    """A change with a spectrum that hardly decays, like that of real fine-tunes."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) / shape[1] ** 0.5
    change = torch.randn(shape, generator=generator) * 1e-3
    change += (torch.randn(shape[0], 4, generator=generator)
               @ torch.randn(4, shape[1], generator=generator)) * 2e-3
    name = "model.layers.0.mlp.up_proj.weight"
    return (write(tmp_path / "base", {name: weight.to(dtype)}),
            write(tmp_path / "tuned", {name: (weight + change).to(dtype)}), name)


def stored_delta(folder, module):
    tensors = load_file(folder / "adapter_model.safetensors")
    key = f"base_model.model.{module}"
    return tensors[f"{key}.lora_B.weight"].double() @ tensors[f"{key}.lora_A.weight"].double()


@pytest.mark.parametrize("shape", [(400, 640), (640, 400), (576, 576)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_singular_values_are_those_of_lapack(peftool, tmp_path, shape, dtype):
    base, tuned, name = spectrum_pair(tmp_path, shape, dtype=dtype)
    difference = (load_file(tuned / "model.safetensors")[name].double()
                  - load_file(base / "model.safetensors")[name].double())
    exact = torch.linalg.svdvals(difference)
    for flags, limit in (([], 1e-3), (["--exact"], 1e-6)):
        out = tmp_path / f"adapter{len(flags)}"
        report = extract(peftool, base, tuned, out, "--rank", "16", *flags)
        found = torch.linalg.svdvals(stored_delta(out, name.removesuffix(".weight")))[:16]
        assert ((found - exact[:16]).abs() / exact[:16]).max() <= limit
        kept = (exact[:16] ** 2).sum() / (exact ** 2).sum()
        assert abs(report["keptEnergy"] - kept.item()) <= limit


def test_an_energy_is_kept_by_the_least_rank(peftool, tmp_path):
    base, tuned, name = spectrum_pair(tmp_path, (400, 640))
    difference = (load_file(tuned / "model.safetensors")[name].double()
                  - load_file(base / "model.safetensors")[name].double())
    squares = torch.linalg.svdvals(difference) ** 2
    shares = squares.cumsum(0) / squares.sum()
    for energy in (0.5, 0.9):
        report = extract(peftool, base, tuned, tmp_path / f"e{energy}", "--energy", energy)
        assert report["modules"][0]["rank"] == int((shares < energy).sum()) + 1


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_dora_is_never_further_away_than_lora(peftool, tmp_path, dora):
    """A planted DoRA adapter and one of noise: errors of what PEFT's formula rebuilds."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(300, 280, generator=generator) / 280 ** 0.5
    if dora:
        d = torch.randn(300, 8, generator=generator) @ torch.randn(8, 280, generator=generator)
        target = (weight + d * 0.004) * (1 + 0.1 * torch.randn(300, 1, generator=generator))
    else:
        target = weight + torch.randn(300, 280, generator=generator) * 1e-3
    name = "model.layers.0.mlp.up_proj.weight"
    base = write(tmp_path / "base", {name: weight})
    tuned = write(tmp_path / "tuned", {name: target})
    errors = {}
    for kind, flags in (("lora", []), ("dora", ["--dora"])):
        out = tmp_path / kind
        report = extract(peftool, base, tuned, out, "--rank", "8", *flags)
        change = stored_delta(out, name.removesuffix(".weight"))
        rebuilt = weight.double() + change
        if flags:
            m = load_file(out / "adapter_model.safetensors")[
                f"base_model.model.{name.removesuffix('.weight')}.lora_magnitude_vector"]
            rebuilt *= (m.double() / rebuilt.norm(dim=1))[:, None]
        whole = (target - weight).double().norm()
        errors[kind] = ((rebuilt - target.double()).norm() / whole).item()
        assert abs(1 - errors[kind] ** 2 - report["keptEnergy"]) < 1e-5
    assert errors["dora"] <= errors["lora"] * (1 + 1e-6)
    if dora:
        assert errors["dora"] < 1e-4 and errors["lora"] > 0.1


def test_a_convolution_has_a_pair_of_pefts_shapes(peftool, tmp_path):
    torch.manual_seed(1)
    weight = torch.randn(12, 5, 3, 3)
    change = (torch.randn(12, 2) @ torch.randn(2, 45)).view(12, 5, 3, 3) * 0.1
    base = write(tmp_path / "base", {"features.0.weight": weight})
    tuned = write(tmp_path / "tuned", {"features.0.weight": weight + change})
    extract(peftool, base, tuned, tmp_path / "adapter", "--rank", "2")
    tensors = load_file(tmp_path / "adapter/adapter_model.safetensors")
    a = tensors["base_model.model.features.0.lora_A.weight"]
    b = tensors["base_model.model.features.0.lora_B.weight"]
    assert a.shape == (2, 5, 3, 3) and b.shape == (12, 2, 1, 1)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features = torch.nn.Sequential(torch.nn.Conv2d(5, 12, 3, bias=False))

        def forward(self, x):
            return self.features(x)

    net = Net()
    net.features[0].weight.data = weight.clone()
    x = torch.randn(1, 5, 8, 8)
    expected = torch.nn.functional.conv2d(x, weight + change)
    with torch.no_grad():
        found = PeftModel.from_pretrained(net, tmp_path / "adapter")(x)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("pair", [("llama", True, 2)], indirect=True, ids=str)
def test_threads_and_shards_change_no_byte(peftool, tmp_path, pair):
    base, tuned, adapter = pair
    peftool.check("convert", tuned, "-o", tmp_path / "sharded", "--shard-size", "40KB", "--quiet")
    files = []
    for place, (path, threads) in enumerate([(tuned, 1), (tuned, 2), (tmp_path / "sharded", 2)]):
        for flags in ([], ["--dora"]):
            out = tmp_path / f"out{place}{len(flags)}"
            peftool.check("extract", base, path, "-o", out, "--rank", "2", "--quiet",
                          "--threads", threads, *flags)
            files.append((out / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[2] == files[4] and files[1] == files[3] == files[5]


def test_what_is_no_pair_of_models_is_refused(peftool, tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    base = write(tmp_path / "base", {name: np.ones((4, 6), np.float32)})
    other = write(tmp_path / "other", {name: np.ones((4, 7), np.float32)})
    fewer = write(tmp_path / "fewer", {"model.norm.weight": np.ones(4, np.float32)})
    nan = write(tmp_path / "nan", {name: np.full((4, 6), np.nan, np.float32)})
    norm = write(tmp_path / "norm", {"model.norm.weight": np.zeros(4, np.float32)})
    for (a, b), words in [
        ((base, other), "has shape [4, 7]"), ((base, fewer), "is not in"),
        ((base, base), "is the same as"), ((base, nan), "NaN or infinite"),
        ((fewer, norm), "alone, which have no low-rank update"),
    ]:
        done = peftool.run("extract", a, b, "-o", tmp_path / "out", "--rank", "2")
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()
