"""combine, scale and resize against PEFT's add_weighted_adapter, and against the formula in f64."""

import json
import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import merge_utils
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from conftest import SAMPLES

BASE = SAMPLES / "bases/llama-f32"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load():
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)


def save(folder, seed, **options):
    """A random adapter that PEFT saves."""
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ALL} | options
    model = get_peft_model(load(), LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    return folder


def deltas(folder):
    """By module s·B·A in f64, as the files say."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    found = {}
    for name, a in tensors.items():
        if not name.endswith("lora_A.weight"):
            continue
        b = tensors[name.replace("lora_A", "lora_B")]
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        scaling = scaling_of(config, module, a.shape[0])
        found[module] = scaling * (b.double().flatten(1) @ a.double().flatten(1))
    return found


def scaling_of(config, module, rank):
    import re
    alpha = config["lora_alpha"]
    for key, value in config["alpha_pattern"].items():
        if re.match(rf"(.*\.)?({key})$", module):
            alpha = value
            break
    return alpha / (rank ** 0.5 if config["use_rslora"] else rank)


def in_double(folders, weights, kind, rank=None, density=None, sign="total"):
    """PEFT's own functions of `merge_utils` on f64 numbers: a cut at a small gap between singular
    values magnifies what f32 rounds."""
    found = {}
    every = [deltas(folder) for folder in folders]
    for module in every[0]:
        tensors = [each[module] for each in every]
        numbers = torch.tensor(weights, dtype=torch.float64)
        delta = {
            "ties_svd": lambda: merge_utils.ties(tensors, numbers, density, sign),
            "magnitude_prune_svd": lambda: merge_utils.magnitude_prune(tensors, numbers, density),
        }[kind]()
        u, s, v = torch.linalg.svd(delta, full_matrices=False)
        found[module] = u[:, :rank] * s[:rank] @ v[:rank]
    return found


def peft_deltas(folders, weights, kind, **options):
    """What add_weighted_adapter makes, by module, in f64 of its f32 numbers."""
    model = PeftModel.from_pretrained(load(), folders[0], adapter_name="a0")
    for place, folder in enumerate(folders[1:], 1):
        model.load_adapter(folder, adapter_name=f"a{place}")
    names = [f"a{place}" for place in range(len(folders))]
    model.add_weighted_adapter(names, weights, "sum", combination_type=kind, **options)
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "sum" in module.lora_A:
            delta = module.scaling["sum"] * (
                module.lora_B["sum"].weight.double() @ module.lora_A["sum"].weight.double())
            found[name.removeprefix("base_model.model.")] = delta.detach()
    return found


def assert_near(ours, right, limit=1e-5):
    assert ours.keys() == right.keys()
    for name, expected in right.items():
        error = (ours[name] - expected).norm() / max(expected.norm().item(), 1e-30)
        assert error <= limit, f"{name}: {error}"


def combine(peftool, folders, out, *flags):
    peftool.check("combine", *folders, "-o", out, "--quiet", *flags)
    return deltas(out)


@pytest.fixture
def pair(tmp_path):
    return [save(tmp_path / "a", 1), save(tmp_path / "b", 2, lora_alpha=3)]


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1.0, -0.5)])
@pytest.mark.parametrize("kind", ["linear", "cat", "svd"])
def test_sums_are_those_of_peft(peftool, tmp_path, pair, kind, weights):
    flags = {"svd_rank": 5} if kind == "svd" else {}
    right = peft_deltas(pair, list(weights), kind, **flags)
    ours = combine(
        peftool, pair, tmp_path / "out", "--method", kind, "--weights",
        ",".join(map(str, weights)), *(["--rank", 5] if kind == "svd" else []))
    assert_near(ours, right)


@pytest.mark.parametrize("sign", ["total", "frequency"])
@pytest.mark.parametrize("density", [0.2, 0.55, 1.0])
@pytest.mark.parametrize("kind", ["ties", "ties_svd", "magnitude_prune", "magnitude_prune_svd"])
def test_pruning_is_that_of_peft(peftool, tmp_path, pair, kind, density, sign):
    third = save(tmp_path / "c", 3)
    folders, weights = [*pair, third], [0.8, -0.4, 0.6]
    options = {"density": density}
    flags = ["--density", density]
    if "ties" in kind:
        options["majority_sign_method"] = sign
        flags += ["--majority-sign", sign]
    if "svd" in kind:
        options["svd_rank"] = 6
        flags += ["--rank", 6]
    right = peft_deltas(folders, weights, kind, **options)
    ours = combine(
        peftool, folders, tmp_path / "out", "--method", kind, "--weights", "0.8,-0.4,0.6", *flags)
    if "svd" in kind:
        assert_near(right, in_double(folders, weights, kind, 6, density, sign), 1e-4)
        right = in_double(folders, weights, kind, 6, density, sign)
    assert_near(ours, right)


@pytest.mark.parametrize(
    "kind", ["dare_linear", "dare_ties", "dare_linear_svd", "dare_ties_svd"])
def test_dare_with_all_entries_is_that_of_peft(peftool, tmp_path, pair, kind):
    options = {"density": 1.0} | ({"svd_rank": 6} if "svd" in kind else {})
    right = peft_deltas(pair, [0.7, -0.3], kind, **options)
    ours = combine(
        peftool, pair, tmp_path / "out", "--method", kind, "--density", 1, "--weights", "0.7,-0.3",
        *(["--rank", 6] if "svd" in kind else []))
    assert_near(ours, right)


def test_dare_drops_as_many_as_it_says_and_is_right_on_average(peftool, tmp_path):
    """Over 200 seeds: the share of kept entries, and the mean of A."""
    adapter = save(tmp_path / "a", 1, target_modules=["q_proj"], lora_alpha=4)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"]
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    original = load_file(adapter / "adapter_model.safetensors")[key].double()
    total, kept = torch.zeros_like(original), 0
    for seed in range(200):
        out = tmp_path / "out"
        peftool.check(
            "combine", adapter, "-o", out, "--method", "dare_linear", "--density", 0.4, "--seed",
            seed, "--quiet", "--force")
        found = load_file(out / "adapter_model.safetensors")[key].double()
        kept += (found != 0).double().mean().item()
        total += found
    assert abs(kept / 200 - 0.4) < 5 * (0.24 / (200 * original.numel())) ** 0.5
    error = (total / 200 - original) / original.abs()
    # A kept entry is 2.5 times itself: a standard deviation of √1.5 of itself.
    assert error.abs().max() < 5 * (1.5 / 200) ** 0.5
    assert abs(error.mean()) < 5 * (1.5 / (200 * original.numel())) ** 0.5


CASES = {
    "rslora": ({"use_rslora": True}, {"use_rslora": True}),
    "ranks": ({"rank_pattern": {"q_proj": 7}}, {"r": 2, "alpha_pattern": {"mlp.up_proj": 9}}),
    "other modules": ({"target_modules": ["q_proj", "up_proj"]}, {"target_modules": ["v_proj"]}),
    "one layer": ({"layers_to_transform": [1]}, {}),
}


@pytest.mark.parametrize("kind", ["cat", "svd"])
@pytest.mark.parametrize("case", CASES)
def test_sums_are_the_formula_where_peft_is_wrong_or_refuses(peftool, tmp_path, case, kind):
    folders = [save(tmp_path / n, s, **CASES[case][s]) for s, n in enumerate("ab")]
    weights = [0.6, -1.5]
    right = {}
    for folder, weight in zip(folders, weights):
        for module, delta in deltas(folder).items():
            right[module] = right.get(module, 0) + weight * delta
    ours = combine(
        peftool, folders, tmp_path / "out", "--method", kind, "--weights", "0.6,-1.5",
        *(["--rank", 40] if kind == "svd" else []))
    assert_near(ours, right, 1e-6)
    # PEFT loads it, without a word of missing or unexpected keys, and computes that.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = PeftModel.from_pretrained(load(), tmp_path / "out")
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and len(module.lora_A):
            delta = module.get_delta_weight("default").double()
            expected = right[name.removeprefix("base_model.model.")]
            assert (delta - expected).norm() <= 1e-5 * expected.norm()


def biased_pair(tmp_path):
    """A base whose layers have biases, and two adapters with lora_bias."""
    base = SAMPLES / "bases/qwen2-f32"
    folders = []
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            LoraConfig(r=3, lora_alpha=2, target_modules=["q_proj", "v_proj"], lora_bias=True))
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.copy_(torch.randn(parameter.shape))
        model.save_pretrained(tmp_path / name)
        folders.append(tmp_path / name)
    return base, folders


def test_biases_are_carried(peftool, tmp_path):
    """PEFT's sum has biases of 0."""
    base, folders = biased_pair(tmp_path)
    peftool.check("combine", *folders, "-o", tmp_path / "out", "--weights", "2,-1", "--quiet")
    tensors = [load_file(f / "adapter_model.safetensors") for f in [*folders, tmp_path / "out"]]
    keys = [key for key in tensors[0] if key.endswith("lora_B.bias")]
    assert keys
    for key in keys:
        right = (2 * tensors[0][key].double() - tensors[1][key].double()) * 2 / 3
        assert torch.allclose(tensors[2][key].double(), right, rtol=1e-6, atol=1e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "out")


@pytest.mark.parametrize("seed", range(50))
def test_properties(peftool, tmp_path, seed):
    rng = np.random.default_rng(seed)
    a, b = (
        save(tmp_path / name, 100 * seed + place, r=int(rng.integers(1, 9)),
             target_modules=["q_proj", "down_proj"], lora_alpha=float(rng.integers(1, 20)))
        for place, name in enumerate("ab"))
    right = deltas(a)
    w = float(rng.uniform(-3, 3))
    peftool.check("scale", a, "--by", w, "-o", tmp_path / "w", "--quiet")
    peftool.check("scale", tmp_path / "w", "--by", 1 / w, "-o", tmp_path / "back", "--quiet")
    assert_near(deltas(tmp_path / "back"), right, 1e-6)
    both = combine(peftool, [a, b], tmp_path / "cat", "--weights", f"{w},1")
    peftool.check("resize", tmp_path / "cat", "--rank", 40, "-o", tmp_path / "svd", "--quiet")
    assert_near(deltas(tmp_path / "svd"), both, 1e-6)
    combine(peftool, [a, b], tmp_path / "one", "--weights", "1,0")
    peftool.check("combine", a, "-o", tmp_path / "alone", "--quiet")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    peftool.check("resize", a, "--rank", 40, "-o", tmp_path / "same", "--quiet")
    assert_near(deltas(tmp_path / "same"), right, 1e-6)


def test_ranks_by_energy_are_the_least_that_keep_it(peftool, tmp_path):
    adapter = save(tmp_path / "a", 5, r=8)
    report = json.loads(peftool.check(
        "resize", adapter, "--energy", 0.7, "-o", tmp_path / "out", "--json"))
    before, after = deltas(adapter), deltas(tmp_path / "out")
    for module in report["modules"]:
        values = torch.linalg.svdvals(before[module["path"]]) ** 2
        share = values.cumsum(0) / values.sum()
        assert module["rank"] == int((share < 0.7).sum()) + 1
        assert abs(module["keptEnergy"] - share[module["rank"] - 1]) < 1e-6
        error = (before[module["path"]] - after[module["path"]]).norm() ** 2 / values.sum()
        assert abs(error - (1 - module["keptEnergy"])) < 1e-6


def most_energy(spectra, budget):
    """The most that ranks of 1 and more keep for a number of parameters: a table over all costs."""
    unit = np.gcd.reduce([cost for _, cost in spectra])
    best = np.full(budget // unit + 1, -np.inf)
    best[0] = 0
    for energies, cost in spectra:
        longer = np.full_like(best, -np.inf)
        for rank in range(1, len(energies) + 1):
            step = rank * cost // unit
            if step < len(best):
                kept = best[:len(best) - step] + energies[:rank].sum()
                longer[step:] = np.maximum(longer[step:], kept)
        best = longer
    return best.max()


@pytest.mark.parametrize("mean", [1, 1.7, 3, 5.5, 8])
@pytest.mark.parametrize("rslora", [False, True])
def test_a_budget_keeps_what_a_table_over_all_costs_does(peftool, tmp_path, mean, rslora):
    adapter = save(tmp_path / "a", 5, r=8, use_rslora=rslora, rank_pattern={"q_proj": 5})
    with torch.no_grad():
        tensors = load_file(adapter / "adapter_model.safetensors")
        for place, name in enumerate(sorted(tensors)):
            tensors[name] *= 1.4 ** (place % 5)
        from safetensors.torch import save_file
        save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    report = json.loads(peftool.check(
        "resize", adapter, "--auto", "budget", "--mean-rank", mean, "-o", tmp_path / "out",
        "--json"))
    before, after = deltas(adapter), deltas(tmp_path / "out")
    spectra, kept = [], 0
    for module in report["modules"]:
        delta = before[module["path"]]
        values = torch.linalg.svdvals(delta)[:8].numpy() ** 2
        spectra.append((values, sum(delta.shape)))
        kept += values[:module["rank"]].sum()
        assert module["parameters"] == module["rank"] * sum(delta.shape)
        error = (delta - after[module["path"]]).norm() ** 2 / values.sum()
        assert abs(error - (1 - values[:module["rank"]].sum() / values.sum())) < 1e-6
    budget = int(mean * sum(cost for _, cost in spectra))
    assert sum(module["parameters"] for module in report["modules"]) <= budget
    right = most_energy(spectra, budget)
    assert abs(kept - right) <= 1e-9 * right

    # PEFT takes ranks and alphas by module: the scaling of each is the old one.
    old, new = (PeftModel.from_pretrained(load(), f) for f in (adapter, tmp_path / "out"))
    scalings = {n: m.scaling["default"] for n, m in old.named_modules() if hasattr(m, "lora_A")}
    ranks = {m["path"]: m["rank"] for m in report["modules"]}
    for name, module in new.named_modules():
        if hasattr(module, "lora_A"):
            path = name.removeprefix("base_model.model.")
            assert module.r["default"] == ranks[path]
            assert abs(module.scaling["default"] - scalings[name]) < 1e-12
            assert torch.allclose(
                module.get_delta_weight("default").double(), after[path], atol=1e-5)


METHODS = [
    ("cat", []), ("svd", ["--rank", 3]), ("linear", []), ("ties", ["--density", 0.4]),
    ("dare_linear", ["--density", 0.4]), ("dare_ties", ["--density", 0.4]),
    ("magnitude_prune", ["--density", 0.4]), ("ties_svd", ["--density", 0.4]),
    ("dare_linear_svd", ["--density", 0.4]), ("dare_ties_svd", ["--density", 0.4]),
    ("magnitude_prune_svd", ["--density", 0.4]), ("ties_weighted", ["--density", 0.4]),
    ("breadcrumbs", ["--density", 0.4]), ("della", ["--density", 0.4]), ("slerp", []),
    ("knots", ["--density", 0.4]), ("tsv", []),
]


@pytest.mark.parametrize("method, flags", METHODS)
def test_the_same_bytes_for_any_number_of_threads(peftool, tmp_path, pair, method, flags):
    for threads in (1, 2):
        peftool.check(
            "combine", *pair, "-o", tmp_path / str(threads), "--method", method, *flags,
            "--threads", threads, "--quiet")
    one, two = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("1", "2"))
    assert one == two
    peftool.check("verify", tmp_path / "1", "--base", BASE)


# DoRA.


def changes(base, folder):
    """By module W' − W in f64, as the files say."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    weights = {k: v.double() for k, v in base.items()}
    found = {}
    for module, delta in deltas(folder).items():
        weight = weights[f"{module}.weight"]
        if config["use_dora"]:
            m = tensors[f"base_model.model.{module}.lora_magnitude_vector"].double().flatten()
            v = weight + delta
            found[module] = (m / v.norm(dim=1))[:, None] * v - weight
        else:
            found[module] = delta
    return found


def save_dora(folder, seed, **options):
    """A random DoRA adapter, whose magnitudes are near the norms of the base's rows."""
    torch.manual_seed(seed)
    model = get_peft_model(
        load(), LoraConfig(**{"r": 4, "target_modules": ALL, "use_dora": True} | options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.1)
            elif "magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.rand(parameter.shape))
    model.save_pretrained(folder)
    return folder


def test_a_mixture_of_dora_and_lora_is_a_dora_adapter(peftool, tmp_path):
    folders = [
        save_dora(tmp_path / "a", 1), save_dora(tmp_path / "b", 2, r=3, lora_alpha=9),
        save(tmp_path / "c", 3, target_modules=["q_proj", "up_proj"])]
    weights = [0.7, -0.6, 0.9]
    base = load_file(BASE / "model.safetensors")
    target = {}
    for folder, weight in zip(folders, weights):
        for module, change in changes(base, folder).items():
            target[module] = target.get(module, 0) + weight * change
    peftool.check(
        "combine", *folders, "-o", tmp_path / "sum", "--weights", "0.7,-0.6,0.9", "--base", BASE,
        "--quiet")
    assert_near(changes(base, tmp_path / "sum"), target, 1e-5)
    # Merged in f32.
    peftool.check("merge", BASE, tmp_path / "sum", "-o", tmp_path / "merged", "--quiet")
    merged = load_file(tmp_path / "merged/model.safetensors")
    for module, change in target.items():
        right = base[f"{module}.weight"].double() + change
        error = (merged[f"{module}.weight"].double() - right).norm() / right.norm()
        assert error <= 1e-6, (module, error)
    # PEFT loads it, and its logits are those of the direct target.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ours = PeftModel.from_pretrained(load(), tmp_path / "sum").merge_and_unload()
    direct = load()
    with torch.no_grad():
        for name, parameter in direct.named_parameters():
            module = name.removesuffix(".weight")
            if module in target:
                parameter.copy_(base[name].double() + target[module])
        ids = torch.arange(60).view(4, 15)
        assert (ours(ids).logits - direct(ids).logits).abs().max() <= 1e-4


def test_a_dora_adapter_is_scaled_as_a_whole(peftool, tmp_path):
    adapter = save_dora(tmp_path / "a", 4)
    base = load_file(BASE / "model.safetensors")
    right = {module: 0.4 * change for module, change in changes(base, adapter).items()}
    peftool.check(
        "scale", adapter, "--by", 0.4, "-o", tmp_path / "out", "--base", BASE, "--quiet")
    assert_near(changes(base, tmp_path / "out"), right)
    run = peftool.run("scale", adapter, "--by", 0.4, "-o", tmp_path / "none")
    assert run.returncode == 2 and "--base MODEL" in run.stderr


# The golden sums.

GOLDEN = json.loads((SAMPLES / "combined/index.json").read_text())


@pytest.mark.parametrize("entry", GOLDEN, ids=[entry["case"] for entry in GOLDEN])
def test_golden_sums(peftool, tmp_path, entry):
    flags = ["--method", entry["method"], "--weights", ",".join(map(str, entry["weights"]))]
    for key, flag in {"svd_rank": "--rank", "density": "--density",
                      "majority_sign_method": "--majority-sign"}.items():
        if key in entry:
            flags += [flag, entry[key]]
    folders = [SAMPLES / "adapters" / name for name in entry["adapters"]]
    ours = combine(peftool, folders, tmp_path / "out", *flags)
    tensors = load_file(SAMPLES / f"combined/{entry['case']}.safetensors")
    right = {
        name.removesuffix(".lora_A"):
            tensors[name.replace("lora_A", "lora_B")].double() @ a.double()
        for name, a in tensors.items() if name.endswith("lora_A")}
    assert_near(ours, right, 1e-5)


# Where PEFT 0.21.2 is wrong: the table of combine's manual. Each error is asserted to be large, so
# that a PEFT which mends it is noticed.


def peft_sum(folders, weights, kind, model=None, **options):
    """PEFT's own sum, as a model with the adapter "sum" active."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(model or load(), folders[0], adapter_name="a0")
        for place, folder in enumerate(folders[1:], 1):
            model.load_adapter(folder, adapter_name=f"a{place}")
        names = [f"a{place}" for place in range(len(folders))]
        model.add_weighted_adapter(names, weights, "sum", combination_type=kind, **options)
        model.set_adapter("sum")
    return model


def peft_changes(base, folders, weights):
    """What PEFT's sum changes of each weight once it is merged."""
    merged = peft_sum(folders, weights, "cat").merge_and_unload().state_dict()
    return {name.removesuffix(".weight"): value.double() - base[name].double()
            for name, value in merged.items() if name.endswith("_proj.weight")}


def distance(found, right):
    """‖found − right‖ / ‖right‖ over all modules."""
    wrong = sum((found[name] - right[name]).norm() ** 2 for name in right)
    return (wrong / sum(value.norm() ** 2 for value in right.values())).sqrt().item()


def summed(parts, weights):
    total = {}
    for part, weight in zip(parts, weights):
        for name, value in part.items():
            total[name] = total.get(name, 0) + weight * value
    return total


def rslora(peftool, tmp_path):
    folders = [save(tmp_path / n, s, use_rslora=True) for s, n in enumerate("ab")]
    weights = [0.7, 0.3]
    right = summed(map(deltas, folders), weights)
    # √8 times too strong: the sum's own scaling is √8 in place of 1.
    theirs = distance(peft_deltas(folders, weights, "cat"), right)
    assert abs(theirs - (8 ** 0.5 - 1)) < 1e-3
    return theirs, distance(combine(
        peftool, folders, tmp_path / "out", "--weights", "0.7,0.3"), right)


def dora(peftool, tmp_path, first=save_dora):
    folders = [first(tmp_path / "a", 1), save_dora(tmp_path / "b", 2)]
    weights = [0.7, 0.3]
    base = load_file(BASE / "model.safetensors")
    right = summed([changes(base, folder) for folder in folders], weights)
    peftool.check("combine", *folders, "-o", tmp_path / "out", "--weights", "0.7,0.3", "--base",
                  BASE, "--quiet")
    return (distance(peft_changes(base, folders, weights), right),
            distance(changes(base, tmp_path / "out"), right))


def lora_then_dora(peftool, tmp_path):
    return dora(peftool, tmp_path, lambda folder, seed: save(folder, seed, lora_alpha=1))


def biases(peftool, tmp_path):
    base, folders = biased_pair(tmp_path)

    def of_files(folder, scaling):
        tensors = load_file(folder / "adapter_model.safetensors")
        return {name: scaling * value.double() for name, value in tensors.items()
                if name.endswith("lora_B.bias")}

    right = summed([of_files(folder, 2 / 3) for folder in folders], [0.7, 0.3])
    model = peft_sum(folders, [0.7, 0.3], "cat", AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32))
    theirs = {
        f"{name}.lora_B.bias": module.scaling["sum"] * module.lora_B["sum"].bias.double()
        for name, module in model.named_modules() if "sum" in getattr(module, "lora_B", {})}
    peftool.check("combine", *folders, "-o", tmp_path / "out", "--weights", "0.7,0.3", "--quiet")
    return distance(theirs, right), distance(of_files(tmp_path / "out", 1), right)


def rank_pattern(peftool, tmp_path):
    pattern = {"r": 8, "rank_pattern": {"q_proj": 4}, "lora_alpha": 8}
    folders = [save(tmp_path / n, s, **pattern) for s, n in enumerate("ab")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft_sum(folders, [0.7, 0.3], "linear").save_pretrained(
            tmp_path / "theirs", selected_adapters=["sum"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(load(), tmp_path / "theirs/sum")
    right = {}
    tensors = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    for name in deltas(folders[0]):
        a, b = (
            sum((weight * scale) ** 0.5
                * each[f"base_model.model.{name}.{part}.weight"].double()
                for each, weight in zip(tensors, [0.7, 0.3]))
            for part in ("lora_A", "lora_B") for scale in [2 if "q_proj" in name else 1])
        right[name] = b @ a
    ours = combine(peftool, folders, tmp_path / "out", "--method", "linear", "--weights", "0.7,0.3")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        PeftModel.from_pretrained(load(), tmp_path / "out")
    return None, distance(ours, right)


WRONG = {"rsLoRA, cat": rslora, "DoRA, cat": dora, "LoRA and DoRA, cat": lora_then_dora,
         "lora_bias, cat": biases, "equal rank_pattern, linear": rank_pattern}


def test_where_peft_is_wrong(peftool, tmp_path):
    rows = {}
    for place, (name, measure) in enumerate(WRONG.items()):
        folder = tmp_path / str(place)
        folder.mkdir()
        rows[name] = measure(peftool, folder)
    print(f"\n{'case':<28}{'PEFT':>16}{'peftool':>12}")
    for name, (theirs, ours) in rows.items():
        print(f"{name:<28}{'not loadable' if theirs is None else f'{theirs:.2g}':>16}{ours:>12.1e}")
    for name, (theirs, ours) in rows.items():
        assert ours <= 1e-5, name
        # None: its file cannot be loaded.
        assert theirs is None or theirs > 0.05, f"PEFT has mended {name}"


def saved_pair(tmp_path, **options):
    """Adapters with lm_head saved whole and changed, of which the second has other values."""
    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = get_peft_model(load(), LoraConfig(
            r=3, target_modules=["q_proj"], modules_to_save=["lm_head"], **options))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name or "modules_to_save" in name:
                    parameter.add_(torch.randn(parameter.shape) * 0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save_pretrained(tmp_path / f"s{seed}")
        folders.append(tmp_path / f"s{seed}")
    return folders


HEAD = "base_model.model.lm_head.weight"


def head(folder):
    return load_file(folder / "adapter_model.safetensors")[HEAD].double()


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.25, 0.75), (0.7, -0.4)])
def test_modules_that_are_saved_whole_are_summed(peftool, tmp_path, weights):
    folders = saved_pair(tmp_path)
    start = load().state_dict()["lm_head.weight"].double()
    text = ",".join(map(str, weights))
    flags = [] if sum(weights) == 1 else ["--base", BASE]
    out = tmp_path / "out"
    peftool.check("combine", *folders, "-o", out, "--quiet", "--weights", text, *flags)
    right = start + sum(w * (head(f) - start) for w, f in zip(weights, folders))
    assert (head(out) - right).norm() <= 1e-6 * right.norm()
    assert json.loads((out / "adapter_config.json").read_text())["modules_to_save"] == ["lm_head"]
    loaded = PeftModel.from_pretrained(load(), out)
    assert torch.equal(
        loaded.base_model.model.lm_head.weight.double().detach(), head(out))
    if flags:
        done = peftool.run("combine", *folders, "-o", tmp_path / "no", "--weights", text)
        assert done.returncode == 2 and "--base MODEL" in done.stderr


def test_other_verbs_keep_what_is_saved_whole(peftool, tmp_path):
    adapter = saved_pair(tmp_path)[0]
    for arguments in (["resize", adapter, "--rank", "2"], ["prune", adapter, "--density", "0.5"],
                      ["convert", adapter, "--to", "dora", "--base", BASE]):
        out = tmp_path / arguments[0]
        peftool.check(*arguments, "-o", out, "--quiet")
        assert torch.equal(head(out), head(adapter))
    start = load().state_dict()["lm_head.weight"].double()
    peftool.check("scale", adapter, "--by", "-2", "--base", BASE, "-o", tmp_path / "s", "--quiet")
    right = start - 2 * (head(adapter) - start)
    assert (head(tmp_path / "s") - right).norm() <= 1e-6 * right.norm()


@pytest.mark.parametrize("kind, factor", [
    ("cat", 3), ("svd", 3), ("linear", 3), ("ties", 1), ("ties_svd", 1), ("ties_weighted", 1),
    ("knots", 1), ("tsv", 1), ("slerp", 1)])
def test_the_bias_goes_the_way_of_the_update(peftool, tmp_path, kind, factor):
    """Of equal adapters a method makes so many times one, of update and bias alike."""
    count = 2 if kind == "slerp" else 3
    adapter = save(tmp_path / "a", 1, lora_bias=True, target_modules=["q_proj"],
                   init_lora_weights=True)
    flags = ["--density", "1"] if "ties" in kind or kind == "knots" else []
    out = tmp_path / "out"
    ours = combine(peftool, [adapter] * count, out, "--method", kind, *flags)
    if kind not in ("tsv", "linear", "ties"):
        assert_near(ours, {n: d * factor for n, d in deltas(adapter).items()})
    config = json.loads((adapter / "adapter_config.json").read_text())
    scaling = config["lora_alpha"] / config["r"]
    before = load_file(adapter / "adapter_model.safetensors")
    for name, bias in load_file(out / "adapter_model.safetensors").items():
        if name.endswith("lora_B.bias"):
            right = before[name].double() * scaling * factor
            assert (bias.double() - right).norm() <= 1e-6 * right.norm()
