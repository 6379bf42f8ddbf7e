"""combine --recipe against the formula in f64: weights and densities by module and layer."""

import json

import numpy as np
import pytest
import torch
from peft.utils import merge_utils
from safetensors.torch import load_file

from test_combination import METHODS, assert_near, deltas, pair, save  # noqa: F401

LAYERS = 2
APART = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")


def gradient(values, layer):
    """`evaluate_setting` of mergekit's config.py, t = layer / (LAYERS - 1)."""
    return float(np.interp(
        layer / (LAYERS - 1), np.linspace(0, 1, len(values)), values)) if len(values) > 1 \
        else values[0]


def layer_of(module):
    return int(module.split(".")[2])


@pytest.fixture
def folders(tmp_path):
    return [save(tmp_path / "a", 1), save(tmp_path / "b", 2, lora_alpha=3, r=3),
            save(tmp_path / "c", 3, target_modules=["q_proj", "up_proj"])]


RECIPE = """
method: {method}
adapters:
  - path: a
    weight: [0.2, 0.9]
  - path: b
    weight:
      - filter: "*.self_attn.*"
        value: [-1, 0, 0.5]
      - filter: "*.layers.0.mlp.{{up,gate}}_proj"
        value: 0
      - value: 0.3
  - path: c
weight:
  - filter: "*.q_proj"
    value: 1.5
"""


def weights_of(module):
    if "self_attn" in module:
        b = gradient([-1, 0, 0.5], layer_of(module))
    elif layer_of(module) == 0 and module.split(".")[-1] in ("up_proj", "gate_proj"):
        b = 0
    else:
        b = 0.3
    return [gradient([0.2, 0.9], layer_of(module)), b, 1.5 if "q_proj" in module else 1]


@pytest.mark.parametrize("method, flags", [("cat", []), ("svd", ["--rank", 40])])
def test_sums_have_the_weights_of_their_modules(peftool, tmp_path, folders, method, flags):
    recipe = tmp_path / "merge.yaml"
    recipe.write_text(RECIPE.format(method=method))
    peftool.check("combine", "--recipe", recipe, "-o", tmp_path / "out", "--quiet", *flags)
    every = [deltas(folder) for folder in folders]
    right = {
        module: sum(
            weight * each[module].numpy()
            for weight, each in zip(weights_of(module), every) if module in each)
        for module in every[0]}
    ours = deltas(tmp_path / "out")
    assert_near(ours, {module: torch.from_numpy(delta) for module, delta in right.items()}, 1e-6)


def byte_count(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@pytest.mark.parametrize("rank", [[], ["--rank", 3], ["--energy", 0.9]])
@pytest.mark.parametrize("method, flags", METHODS)
def test_the_plan_holds_for_every_method(  # noqa: F811
        peftool, tmp_path, pair, method, flags, rank):
    if rank and method in APART:
        pytest.skip("keeps the rank")
    flags = [*flags, *([] if "--rank" in flags else rank)]
    call = ["combine", *pair, "--method", method, *flags, "--json"]
    plan = json.loads(peftool.check(*call, "--dry-run"))
    report = json.loads(peftool.check(*call, "-o", tmp_path / "out"))
    for planned, done in zip(plan["modules"], report["modules"], strict=True):
        assert planned["path"] == done["path"]
        assert done["rank"] <= planned["rank"]
        assert done["rank"] == planned["rank"] or not planned["isRankKnown"]
    found = byte_count(tmp_path / "out")
    assert found == plan["bytes"] if plan["isKnown"] else found <= plan["bytes"]


def test_the_plan_is_what_is_done(peftool, tmp_path, folders):
    recipe = tmp_path / "merge.yaml"
    recipe.write_text(RECIPE.format(method="cat"))
    plan = json.loads(peftool.check("combine", "--recipe", recipe, "--dry-run", "--json"))
    assert not (tmp_path / "out").exists()
    report = json.loads(
        peftool.check("combine", "--recipe", recipe, "-o", tmp_path / "out", "--json"))
    assert plan["isKnown"]
    assert [m["path"] for m in plan["modules"]] == [m["path"] for m in report["modules"]]
    assert [m["rank"] for m in plan["modules"]] == [m["rank"] for m in report["modules"]]
    assert plan["bytes"] == byte_count(tmp_path / "out")
    for module in plan["modules"]:
        right = weights_of(module["path"])
        for weight, rank, expected in zip(module["weights"], module["ranks"], right):
            assert (weight is None) == (rank is None)
            assert weight is None or weight == pytest.approx(expected, abs=1e-15)
        # An adapter with weight 0 is no part of the module.
        assert module["rank"] == sum(r for r in module["ranks"] if r is not None)


def test_densities_are_those_of_their_modules(peftool, tmp_path, folders):
    recipe = tmp_path / "merge.yaml"
    recipe.write_text("""
method: ties_svd
majority_sign_method: frequency
rank: 40
density: [0.3, 0.8]
adapters:
  - path: a
    weight: 0.7
    density:
      - filter: "*.{k,v}_proj"
        value: 0.5
  - path: b
    weight: [1, -0.4]
""")
    peftool.check("combine", "--recipe", recipe, "-o", tmp_path / "out", "--quiet")
    every = [deltas(folder) for folder in folders[:2]]
    right = {}
    for module in every[0]:
        general = gradient([0.3, 0.8], layer_of(module))
        own = 0.5 if module.endswith(("k_proj", "v_proj")) else general
        weights = torch.tensor([0.7, gradient([1, -0.4], layer_of(module))], dtype=torch.float64)
        pruned = [merge_utils.prune(each[module], density, "magnitude")
                  for each, density in zip(every, (own, general))]
        # merge_utils.ties with a density for each.
        stacked = torch.stack(pruned)
        mask = merge_utils.calculate_majority_sign_mask(stacked, "frequency")
        stacked = stacked * weights.view(-1, 1, 1)
        right[module] = merge_utils.disjoint_merge(stacked, mask)
    assert_near(deltas(tmp_path / "out"), right, 1e-5)


@pytest.mark.parametrize("kind", ["linear", "magnitude_prune", "knots", "tsv", "slerp", "della"])
def test_a_weight_of_zero_takes_an_adapter_out_of_a_module(peftool, tmp_path, kind):
    """In layer 0 only the first adapter counts: as if it were alone there."""
    save(tmp_path / "a", 1)
    save(tmp_path / "b", 2)
    density = "density: 0.5" if kind in ("magnitude_prune", "knots", "della") else ""
    recipe = tmp_path / "merge.yaml"
    recipe.write_text(f"""
method: {kind}
{density}
adapters:
  - path: a
  - path: b
    weight: [0, 1]
""")
    peftool.check("combine", "--recipe", recipe, "-o", tmp_path / "out", "--quiet")
    ours = deltas(tmp_path / "out")
    if kind in ("linear", "slerp", "tsv"):
        alone = deltas(tmp_path / "a")
    else:
        flags = ["--density", 0.5]
        peftool.check(
            "combine", tmp_path / "a", "-o", tmp_path / "alone", "--method", kind, "--quiet",
            *flags)
        alone = deltas(tmp_path / "alone")
    modules = [module for module in alone if layer_of(module) == 0]
    assert modules
    assert_near({m: ours[m] for m in modules}, {m: alone[m] for m in modules}, 1e-6)
    with_both = [m for m in ours if layer_of(m) == 1]
    assert any((ours[m] - alone[m]).norm() > 1e-3 * alone[m].norm() for m in with_both)


def test_modules_without_any_weight_are_left_out(peftool, tmp_path, folders):
    recipe = tmp_path / "merge.yaml"
    recipe.write_text("""
adapters: [{path: a}, {path: b}]
weight: [{filter: "*.layers.1.*", value: 0}]
""")
    report = json.loads(
        peftool.check("combine", "--recipe", recipe, "-o", tmp_path / "out", "--json"))
    assert {layer_of(module) for module in deltas(tmp_path / "out")} == {0}
    assert "left out, as every weight is 0 there: 7 of the modules" in report["notes"]


def test_flags_win_over_the_recipe(peftool, tmp_path, folders):
    recipe = tmp_path / "merge.yaml"
    recipe.write_text("""
method: ties_svd
rank: 2
seed: 5
density: 0.5
adapters: [{path: a, weight: [0, 1], density: 0.2}, {path: b, weight: 3}]
""")
    peftool.check(
        "combine", "--recipe", recipe, "-o", tmp_path / "out", "--quiet", "--method",
        "magnitude_prune_svd", "--weights", "0.7,-0.5", "--density", 0.9, "--energy", 0.8,
        "--seed", 3)
    peftool.check(
        "combine", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "right", "--quiet", "--method",
        "magnitude_prune_svd", "--weights", "0.7,-0.5", "--density", 0.9, "--energy", 0.8,
        "--seed", 3)
    assert (tmp_path / "out/adapter_model.safetensors").read_bytes() == (
        tmp_path / "right/adapter_model.safetensors").read_bytes()


def test_the_same_bytes_for_any_number_of_threads(peftool, tmp_path, folders):
    recipe = tmp_path / "merge.yaml"
    recipe.write_text("""
method: dare_ties_svd
seed: 9
density: [0.3, 0.8]
adapters: [{path: a, weight: [0, 1]}, {path: b}, {path: c, weight: [1, 0]}]
""")
    for threads in (1, 3):
        peftool.check("combine", "--recipe", recipe, "-o", tmp_path / f"{threads}", "--threads",
                      threads, "--quiet")
    assert (tmp_path / "1/adapter_model.safetensors").read_bytes() == (
        tmp_path / "3/adapter_model.safetensors").read_bytes()
