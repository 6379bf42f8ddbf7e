"""prune against numpy in f64, and against PEFT as it loads the result."""

import json
import warnings

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from conftest import SAMPLES
from golden import formula
from test_combination import ALL, BASE, assert_near, changes, deltas, load, save, save_dora

PREFIX = "base_model.model."


def read(folder):
    """By module A and B, s folded into B, in f64."""
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    found = {}
    for name, a in tensors.items():
        if name.endswith("lora_A.weight"):
            b = tensors[name.replace("lora_A", "lora_B")]
            alpha = config["alpha_pattern"].get("^" + name, config["lora_alpha"])
            module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            found[module] = a.double().numpy(), alpha / a.shape[0] * b.double().numpy()
    return found


def top(values, density):
    """The largest entries by magnitude, of equal ones the first."""
    kept = np.argsort(-np.abs(values), kind="stable")[:int(density * values.size)]
    result = np.zeros_like(values)
    result[kept] = values[kept]
    return result


def balanced(a, b):
    factors = np.sqrt(np.linalg.norm(b, axis=0) / np.linalg.norm(a, axis=1))
    return a * factors[:, None], b / factors


def pruned(a, b, density):
    """The largest entries of the balanced factors together."""
    a, b = balanced(a, b)
    kept = top(np.concatenate([a.ravel(), b.ravel()]), density)
    return kept[:a.size].reshape(a.shape), kept[a.size:].reshape(b.shape)


def prune(peftool, folder, out, *flags):
    return json.loads(peftool.check("prune", folder, "-o", out, "--json", *flags))


def loaded(folder):
    """What PEFT makes of an adapter, without a word of keys that are missing or too many."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return PeftModel.from_pretrained(load(), folder)


def assert_peft_agrees(folder):
    right = deltas(folder)
    found = {name.removeprefix(PREFIX): module.get_delta_weight("default").double()
             for name, module in loaded(folder).named_modules()
             if hasattr(module, "get_delta_weight") and len(module.lora_A)}
    assert_near(found, right, 1e-6)


@pytest.fixture
def lora(tmp_path):
    """An adapter whose A and B are of quite unlike lengths."""
    return save(tmp_path / "lora", 7, lora_alpha=100)


@pytest.mark.parametrize("density", [1.0, 0.6, 0.25])
def test_density_is_topk_on_balanced_factors(peftool, tmp_path, lora, density):
    report = prune(peftool, lora, tmp_path / "out", "--density", density)
    right = {name: pruned(a, b, density) for name, (a, b) in read(lora).items()}
    for name, (a, b) in read(tmp_path / "out").items():
        expected = right[name]
        filled = (expected[0] != 0).any(axis=1) & (expected[1] != 0).any(axis=0)
        for found, wanted in ((a, expected[0][filled]), (b, expected[1][:, filled])):
            assert ((found != 0) == (wanted != 0)).all()
            assert np.abs(found - wanted).max() <= 1e-7 * np.abs(wanted).max()
    for module in report["modules"]:
        a, b = read(lora)[module["path"]]
        old, new = b @ a, right[module["path"]][1] @ right[module["path"]][0]
        kept = 1 - np.linalg.norm(new - old) ** 2 / np.linalg.norm(old) ** 2
        assert abs(module["keptEnergy"] - kept) < 1e-9
        assert abs(module["normBefore"] / np.linalg.norm(old) - 1) < 1e-9
        assert abs(module["norm"] / np.linalg.norm(new) - 1) < 1e-9
        assert module["entries"] == a.size + b.size
        assert module["keptEntries"] == int(density * (a.size + b.size))
    assert report["inputBytes"] == (lora / "adapter_model.safetensors").stat().st_size
    assert report["bytes"] == (tmp_path / "out/adapter_model.safetensors").stat().st_size
    assert_peft_agrees(tmp_path / "out")


def test_without_balance_one_factor_would_be_emptied(peftool, tmp_path, lora):
    """Why: B is 25 times as long as A here."""
    prune(peftool, lora, tmp_path / "out", "--density", 0.4)
    lost = plain = whole = 0
    for name, (a, b) in read(lora).items():
        kept = top(np.concatenate([a.ravel(), b.ravel()]), 0.4)
        product = kept[a.size:].reshape(b.shape) @ kept[:a.size].reshape(a.shape)
        plain += np.linalg.norm(product - b @ a) ** 2
        lost += np.linalg.norm(deltas(tmp_path / "out")[name].numpy() - b @ a) ** 2
        whole += np.linalg.norm(b @ a) ** 2
    assert plain / whole > 0.7 and lost / whole < 0.4, (plain / whole, lost / whole)


@pytest.mark.parametrize("rank", [None, 2, 8])
@pytest.mark.parametrize("density", [1.0, 0.3])
def test_delta_is_topk_of_the_update_and_its_decomposition(
        peftool, tmp_path, lora, density, rank):
    flags = ["--rank", rank] if rank else []
    report = prune(
        peftool, lora, tmp_path / "out", "--density", density, "--delta", *flags)
    right = {}
    for name, (a, b) in read(lora).items():
        kept = top((b @ a).ravel(), density).reshape(b.shape[0], a.shape[1])
        u, s, v = np.linalg.svd(kept, full_matrices=False)
        rank = rank or 4
        right[name] = torch.from_numpy(u[:, :rank] * s[:rank] @ v[:rank])
    assert_near(deltas(tmp_path / "out"), right, 1e-5)
    for module in report["modules"]:
        a, b = read(lora)[module["path"]]
        lost = np.linalg.norm(right[module["path"]].numpy() - b @ a) / np.linalg.norm(b @ a)
        assert abs(module["keptEnergy"] - (1 - lost ** 2)) < 1e-5
    assert_peft_agrees(tmp_path / "out")


@pytest.mark.parametrize("rule", ["--min-norm", "--min-share"])
def test_modules_with_small_norms_are_gone_and_the_others_untouched(
        peftool, tmp_path, lora, rule):
    norms = {name: value.norm().item() for name, value in deltas(lora).items()}
    limit = sorted(norms.values())[len(norms) // 2]
    number = limit if rule == "--min-norm" else limit / max(norms.values())
    report = prune(peftool, lora, tmp_path / "out", rule, number * (1 - 1e-12))
    kept = {name for name, norm in norms.items() if norm >= limit}
    assert 0 < len(kept) < len(norms)
    old, new = (load_file(f / "adapter_model.safetensors") for f in (lora, tmp_path / "out"))
    assert {name.removeprefix(PREFIX).rsplit(".lora_", 1)[0] for name in new} == kept
    assert all(torch.equal(value, old[name]) for name, value in new.items())
    assert {m["path"] for m in report["modules"] if m["rank"]} == kept
    shares = sum(n ** 2 for m, n in norms.items() if m in kept) / sum(
        n ** 2 for n in norms.values())
    assert abs(report["keptEnergy"] - shares) < 1e-9
    assert_peft_agrees(tmp_path / "out")


# DoRA.


@pytest.fixture
def dora(tmp_path):
    return save_dora(tmp_path / "dora", 8, target_modules=ALL, lora_alpha=12)


@pytest.fixture(scope="module")
def base():
    return load_file(BASE / "model.safetensors")


def magnitudes(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    return {name.removeprefix(PREFIX).removesuffix(".lora_magnitude_vector"): value
            for name, value in tensors.items() if name.endswith("magnitude_vector")}


def test_without_a_base_magnitudes_stay(peftool, tmp_path, dora, base):
    prune(peftool, dora, tmp_path / "out", "--density", 0.5)
    old, new = magnitudes(dora), magnitudes(tmp_path / "out")
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    # The rows of the merged weight are as long as they were.
    for name, change in changes(base, tmp_path / "out").items():
        norms = (base[f"{name}.weight"].double() + change).norm(dim=1)
        assert torch.allclose(norms, old[name].double(), rtol=1e-9)


@pytest.mark.parametrize("flags", [[], ["--delta"]])
def test_with_a_base_the_scaling_of_rows_stays(peftool, tmp_path, dora, base, flags):
    report = prune(
        peftool, dora, tmp_path / "out", "--density", 0.5, "--base", BASE, *flags)
    found, lost = changes(base, tmp_path / "out"), {}
    for name, change in changes(base, dora).items():
        weight = base[f"{name}.weight"].double()
        factor = (magnitudes(dora)[name].double() / (weight + deltas(dora)[name]).norm(dim=1))
        right = (factor[:, None] - 1) * weight + factor[:, None] * deltas(tmp_path / "out")[name]
        assert (found[name] - right).norm() <= 1e-6 * right.norm()
        lost[name] = (right - change).norm() ** 2 / change.norm() ** 2
    for module in report["modules"]:
        assert abs(module["keptEnergy"] - (1 - lost[module["path"]])) < 1e-6
        assert abs(module["norm"] / found[module["path"]].norm() - 1) < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        merged = loaded(tmp_path / "out").merge_and_unload().state_dict()
    for name, change in found.items():
        right = base[f"{name}.weight"].double() + change
        assert (merged[f"{name}.weight"].double() - right).norm() <= 1e-6 * right.norm()


def test_the_norm_of_a_dora_module_is_that_of_its_whole_change(peftool, tmp_path, dora, base):
    norms = {name: value.norm().item() for name, value in changes(base, dora).items()}
    limit = sorted(norms.values())[5]
    prune(peftool, dora, tmp_path / "out", "--min-norm", limit * (1 - 1e-12), "--base", BASE)
    kept = {name for name, norm in norms.items() if norm >= limit}
    assert set(magnitudes(tmp_path / "out")) == kept
    old, new = (load_file(f / "adapter_model.safetensors") for f in (dora, tmp_path / "out"))
    assert all(torch.equal(value, old[name]) for name, value in new.items())
    loaded(tmp_path / "out")


DORA = [entry for entry in json.loads((SAMPLES / "merged/index.json").read_text())
        if "dora" in entry["case"] and len(entry["adapters"]) == 1 and "error" not in entry
        and entry["adapters"][0] == entry["case"] and entry["case"] != "multi-mix-dora"]


@pytest.mark.parametrize("entry", DORA, ids=[entry["case"] for entry in DORA])
def test_all_entries_of_every_layer_change_nothing(peftool, tmp_path, entry):
    """Whatever the axis of the norm: linear layers, Conv1D, convolutions, embeddings."""
    path = SAMPLES / "bases" / entry["base"]
    adapter = SAMPLES / "adapters" / entry["adapters"][0]
    report = prune(peftool, adapter, tmp_path / "out", "--density", 1, "--base", path)
    assert abs(report["keptEnergy"] - 1) < 1e-9
    old, new = (
        formula.merge(path, [folder], None, "once", torch.float64)
        for folder in (adapter, tmp_path / "out"))
    assert old.keys() == new.keys()
    for name, result in old.items():
        error = (new[name].values - result.values).norm() / result.values.norm()
        assert error <= 1e-6, (name, error)


@pytest.mark.parametrize("flags", [
    ["--density", 0.4], ["--density", 0.4, "--delta", "--energy", 0.9], ["--min-share", 0.9],
    ["--density", 0.4, "--min-share", 0.5, "--base", BASE]])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_same_bytes_for_any_number_of_threads(peftool, tmp_path, request, kind, flags):
    if kind == "dora" and "--base" not in flags:
        flags = [*flags, "--base", BASE]
    adapter = request.getfixturevalue(kind)
    for threads in (1, 2):
        prune(peftool, adapter, tmp_path / str(threads), "--threads", threads, *flags)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    peftool.check("verify", tmp_path / "1", "--base", BASE)
