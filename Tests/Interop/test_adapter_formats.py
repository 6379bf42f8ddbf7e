"""Adapters of one format converted to another by the real binary and loaded by the library that the
format belongs to: the merged weights must be those of the adapter as it was."""

import json
import warnings

import mlx.core as mx
import numpy
import pytest
import torch
from lycoris import create_lycoris, create_lycoris_from_weights
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from mlx_lm.utils import load_model, save_config
from mlx.utils import tree_flatten
from peft import PeftModel
from safetensors.torch import load_file, save_file

from conftest import SAMPLES
from golden import bases, formula, peft_cases
from golden.peft_cases import ALL, lora

# Of changes of about 0.1 to 1, in f32 by four libraries.
LARGEST_ERROR = 1e-6


def convert(peftool, adapter, output, format, *flags):
    return json.loads(peftool.check(
        "convert", adapter, "-o", output, "--to", format, "--json", "--quiet", *flags))


def double_precision(base, adapter):
    """What a PEFT adapter makes of its base, by the formula; only what it changes."""
    results = formula.merge(SAMPLES / "bases" / base, [adapter], None)
    before = bases.read_tensors(SAMPLES / "bases" / base)
    changed = {
        name: result.values for name, result in results.items()
        if not torch.equal(result.values, before[name].double())}
    assert changed
    return changed


def merged_by_peft(base, adapter):
    """The weights that PEFT merges; a warning of PEFT's is an error."""
    model = bases.load(base, SAMPLES / "bases", torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        peft = PeftModel.from_pretrained(model, adapter)
    return peft.merge_and_unload().state_dict()


def merged_by_mlx(base, adapter):
    """The weights of the modules that mlx-lm fuses."""
    model, _ = load_model(SAMPLES / "bases" / base)
    load_adapters(model, str(adapter))
    return {
        f"{name}.weight": torch.from_numpy(numpy.array(module.fuse().weight.astype(mx.float32)))
        for name, module in model.named_modules() if hasattr(module, "fuse")}


def merged_by_lycoris(base, adapter):
    model = bases.load(base, SAMPLES / "bases", torch.float32)
    with torch.no_grad():
        network, _ = create_lycoris_from_weights(1.0, None, model, weights_sd=load_file(adapter))
        network.merge_to(1.0)
    return model.state_dict()


# kohya's adapters are one file.
OUTPUT = {"peft": "out", "mlx": "out", "kohya": "out.safetensors"}
MERGED_BY = {"peft": merged_by_peft, "mlx": merged_by_mlx, "kohya": merged_by_lycoris}


def assert_merged(found, right):
    for name, expected in right.items():
        error = (found[name].double() - expected).abs().max()
        assert error <= LARGEST_ERROR, f"{name}: {error}"


def save(tmp_path, name, base, config):
    return peft_cases.save_adapter(name, base, config, SAMPLES, folder=tmp_path / "adapter")


LLAMA = {
    "lora": lambda: lora(ALL),
    "dora": lambda: lora(ALL, use_dora=True),
    "rank 1": lambda: lora(["q_proj", "lm_head"], r=1, alpha=3),
    "odd rank": lambda: lora("all-linear", r=7, alpha=3),
    "rslora": lambda: lora(ALL, r=6, use_rslora=True),
    "rslora dora": lambda: lora(["v_proj"], r=5, alpha=3, use_rslora=True, use_dora=True),
    "negative alpha": lambda: lora(["o_proj"], alpha=-4),
    "ranks": lambda: lora(ALL, rank_pattern={"q_proj": 2, r"layers\.1\.mlp.*": 9}),
    "alphas": lambda: lora(ALL, alpha_pattern={"k_proj": 5, r"layers\.0\.mlp.up_proj": 64}),
    "ranks and alphas, dora": lambda: lora(
        ALL, rank_pattern={"q_proj": 3}, alpha_pattern={"q_proj": 1}, use_dora=True),
    "one layer": lambda: lora(ALL, layers_to_transform=[1]),
    "first layer": lambda: lora(["q_proj"], layers_to_transform=[0]),
}


@pytest.mark.parametrize("to", ["mlx", "kohya"])
@pytest.mark.parametrize("name", LLAMA)
def test_peft_adapters_mean_the_same_elsewhere(peftool, tmp_path, name, to):
    base = "llama-f32"
    adapter = save(tmp_path, name, base, LLAMA[name]())
    right = double_precision(base, adapter)
    out = tmp_path / OUTPUT[to]
    convert(peftool, adapter, out, to, "--base", SAMPLES / "bases" / base)
    found = MERGED_BY[to](base, out)
    assert_merged(found, right)
    if to == "mlx":
        assert set(found) == set(right), "mlx-lm changes these modules and no other"
    convert(peftool, out, tmp_path / "back", "peft")
    assert_merged(merged_by_peft(base, tmp_path / "back"), right)
    factors = [load_file(f / "adapter_model.safetensors") for f in (adapter, tmp_path / "back")]
    config = json.loads((tmp_path / "back/adapter_config.json").read_text())
    assert sorted(config) == sorted(json.loads((adapter / "adapter_config.json").read_text()))
    if to == "kohya":
        pairs = {key for key in factors[0] if ".lora_" in key}
        assert pairs == factors[1].keys()
        assert all(torch.equal(factors[0][key], factors[1][key]) for key in pairs)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("use_dora", [False, True])
def test_convolutions_mean_the_same_in_lycoris(peftool, tmp_path, dims, use_dora):
    config = lora([f"conv{dims}"], use_dora=use_dora)
    adapter = save(tmp_path, f"conv {dims} {use_dora}", "layers-f32", config)
    right = double_precision("layers-f32", adapter)
    convert(peftool, adapter, tmp_path / OUTPUT["kohya"], "kohya")
    assert_merged(merged_by_lycoris("layers-f32", tmp_path / OUTPUT["kohya"]), right)
    convert(
        peftool, tmp_path / OUTPUT["kohya"], tmp_path / "back", "peft", "--base",
        SAMPLES / "bases/layers-f32")
    assert_merged(merged_by_peft("layers-f32", tmp_path / "back"), right)


def test_untied_embeddings_mean_the_same_in_mlx(peftool, tmp_path):
    base = "llama-f32"
    adapter = save(tmp_path, "embedding", base, lora(["embed_tokens", "q_proj"]))
    right = double_precision(base, adapter)
    flags = ["--base", SAMPLES / "bases" / base]
    report = convert(peftool, adapter, tmp_path / "out", "mlx", *flags)
    assert "saved whole" in report["notes"][0]
    assert_merged(merged_by_mlx(base, tmp_path / "out"), right)
    convert(peftool, tmp_path / "out", tmp_path / "back", "peft", *flags)
    assert_merged(merged_by_peft(base, tmp_path / "back"), right)


def mlx_adapter(folder, base, settings, type="lora", layers=2):
    """An adapter that mlx-lm made for itself, and the weights that it fuses to."""
    folder.mkdir()
    model, _ = load_model(SAMPLES / "bases" / base)
    model.freeze()
    linear_to_lora_layers(model, layers, settings, use_dora=type == "dora")
    mx.random.seed(1)
    values = {
        key: mx.abs(value) * (1 + 0.1 * mx.random.normal(value.shape)) if key.endswith(".m")
        else 0.2 * mx.random.normal(value.shape)
        for key, value in tree_flatten(model.trainable_parameters())}
    mx.save_safetensors(str(folder / "adapters.safetensors"), values)
    # Trainers leave these beside it.
    mx.save_safetensors(str(folder / "0000100_adapters.safetensors"), values)
    save_config(
        dict(model=base, fine_tune_type=type, num_layers=layers, lora_parameters=settings),
        folder / "adapter_config.json")
    return merged_by_mlx(base, folder)


MLX = {
    "all of a layer": ({"rank": 8, "dropout": 0.0, "scale": 20.0}, "lora", 2),
    "last layer": ({"rank": 4, "dropout": 0.1, "scale": 0.3}, "lora", 1),
    "keys": ({"rank": 3, "dropout": 0.0, "scale": 2.5,
              "keys": ["self_attn.q_proj", "self_attn.v_proj"]}, "lora", 2),
    "dora": ({"rank": 6, "dropout": 0.0, "scale": 1.7}, "dora", 2),
    "output": ({"rank": 4, "dropout": 0.0, "scale": 2.0, "keys": ["lm_head"]}, "lora", 1),
}


@pytest.mark.parametrize("to", ["peft", "kohya"])
@pytest.mark.parametrize("name", MLX)
def test_mlx_adapters_mean_the_same_elsewhere(peftool, tmp_path, name, to):
    settings, type, layers = MLX[name]
    right = mlx_adapter(tmp_path / "adapter", "llama-f32", settings, type, layers)
    convert(peftool, tmp_path / "adapter", tmp_path / OUTPUT[to], to)
    found = MERGED_BY[to]("llama-f32", tmp_path / OUTPUT[to])
    # A scale of 20 makes weights of up to 50.
    for name, expected in right.items():
        assert (found[name] - expected).abs().max() <= LARGEST_ERROR * expected.abs().max()


def lycoris_adapter(path, base, dtype=None, **options):
    """A network that LyCORIS saved, with random values."""
    model = bases.load(base, SAMPLES / "bases", torch.float32)
    network = create_lycoris(model, algo="lora", **options)
    network.apply_to()
    source = bases.generator(f"lycoris {options}")
    state = {}
    for key, value in network.state_dict().items():
        if "lora_" in key:
            value = bases.normal(source, value.shape, 0.2)
        elif "dora_scale" in key:
            value = value * (1 + bases.normal(source, value.shape, 0.1))
        state[key] = (value.to(dtype) if dtype else value).contiguous()
    save_file(state, path)


LYCORIS = {
    "lora": dict(linear_dim=4, linear_alpha=1),
    "rslora": dict(linear_dim=9, linear_alpha=2, rs_lora=True),
    "dora": dict(linear_dim=4, linear_alpha=8, dora_wd=True),
    "bf16": dict(linear_dim=4, linear_alpha=3, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("to", ["peft", "mlx"])
@pytest.mark.parametrize("name", LYCORIS)
def test_lycoris_adapters_mean_the_same_elsewhere(peftool, tmp_path, name, to):
    lycoris_adapter(tmp_path / "adapter.safetensors", "llama-f32", **LYCORIS[name])
    right = merged_by_lycoris("llama-f32", tmp_path / "adapter.safetensors")
    convert(peftool, tmp_path / "adapter.safetensors", tmp_path / "out", to)
    found = MERGED_BY[to]("llama-f32", tmp_path / "out")
    # MLX computes the change in the factors' dtype.
    largest = 2 ** -7 if (name, to) == ("bf16", "mlx") else LARGEST_ERROR
    for name in found:
        assert (found[name] - right[name]).abs().max() <= largest


def test_a_scale_of_each_input_is_refused(peftool, tmp_path):
    lycoris_adapter(
        tmp_path / "adapter.safetensors", "llama-f32", linear_dim=4, linear_alpha=8, dora_wd=True,
        wd_on_output=False)
    run = peftool.run("convert", tmp_path / "adapter.safetensors", "-o", tmp_path / "out", "--to",
                      "peft")
    assert run.returncode == 2 and "of each input" in run.stderr, run.stderr


@pytest.mark.parametrize("algorithm", ["loha", "lokr"])
def test_other_methods_are_refused_by_name(peftool, tmp_path, algorithm):
    network = create_lycoris(
        bases.load("llama-f32", SAMPLES / "bases", torch.float32), linear_dim=4, linear_alpha=1,
        algo=algorithm)
    network.apply_to()
    save_file(network.state_dict(), tmp_path / "adapter.safetensors")
    run = peftool.run("convert", tmp_path / "adapter.safetensors", "-o", tmp_path / "out", "--to",
                      "mlx")
    name = {"loha": "LoHa", "lokr": "LoKr"}[algorithm]
    assert run.returncode == 2 and f"is of {name}" in run.stderr, run.stderr
