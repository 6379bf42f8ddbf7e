"""convert --to lora and dora, and sums and resizes of DoRA adapters, against PEFT and f64."""

import json
import warnings

import pytest
import torch
from peft import AdaLoraConfig, LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from test_combination import BASE, deltas, load

SMALL = ["q_proj", "o_proj", "down_proj"]


def randomize(model, scale=0.3):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", "hada_", "lokr_")):
                if "magnitude" in name:
                    parameter.mul_(1 + 0.1 * torch.randn(parameter.shape))
                elif "ranknum" not in name:
                    parameter.copy_(torch.randn(parameter.shape) * scale)


def save(folder, config, seed=1, scale=0.3):
    torch.manual_seed(seed)
    model = get_peft_model(load(), config)
    randomize(model, scale)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    return folder


def merged(folder):
    """The weights that PEFT merges."""
    model = PeftModel.from_pretrained(load(), folder).merge_and_unload()
    return {name: value.double() for name, value in model.state_dict().items()}


def distance(ours, right):
    """Of the changes of all weights."""
    start = {name: value.double() for name, value in load().state_dict().items()}
    change = sum(((right[name] - start[name]) ** 2).sum() for name in right)
    return (sum(((ours[name] - right[name]) ** 2).sum() for name in right) / change).sqrt().item()


def convert(peftool, adapter, out, form, *flags):
    return json.loads(
        peftool.check("convert", adapter, "-o", out, "--to", form, "--json", "--quiet", *flags))


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_as_dora_merges_alike(peftool, tmp_path, rslora):
    adapter = save(
        tmp_path / "a", LoraConfig(r=4, lora_alpha=6, target_modules=SMALL, use_rslora=rslora))
    convert(peftool, adapter, tmp_path / "dora", "dora", "--base", BASE)
    assert json.loads((tmp_path / "dora/adapter_config.json").read_text())["use_dora"]
    assert distance(merged(tmp_path / "dora"), merged(adapter)) <= 1e-5
    peftool.merge(BASE, [adapter], tmp_path / "one")
    peftool.merge(BASE, [tmp_path / "dora"], tmp_path / "two")
    one = load_file(tmp_path / "one/model.safetensors")
    for name, value in load_file(tmp_path / "two/model.safetensors").items():
        assert (value - one[name]).norm() <= 1e-6 * one[name].norm()


@pytest.mark.parametrize("seed", range(8))
def test_what_becomes_dora_is_merged_to_the_same_weights(peftool, tmp_path, seed):
    adapter = save(tmp_path / "a", LoraConfig(r=seed % 4 + 1, target_modules=SMALL), seed)
    convert(peftool, adapter, tmp_path / "dora", "dora", "--base", BASE)
    weights = [tmp_path / name for name in ("one", "two")]
    for folder, source in zip(weights, (adapter, tmp_path / "dora")):
        peftool.merge(BASE, [source], folder)
    one, two = (load_file(folder / "model.safetensors") for folder in weights)
    assert all((two[name] - one[name]).norm() <= 1e-6 * one[name].norm() for name in one)


def test_dora_as_lora_is_the_nearest_of_a_rank(peftool, tmp_path):
    adapter = save(tmp_path / "a", LoraConfig(r=4, target_modules=SMALL, use_dora=True))
    start, right = load().state_dict(), merged(adapter)
    report = convert(
        peftool, adapter, tmp_path / "lora", "lora", "--base", BASE, "--rank", "6")
    found = deltas(tmp_path / "lora")
    lost = whole = 0
    for module, delta in found.items():
        change = right[f"{module}.weight"] - start[f"{module}.weight"].double()
        u, s, v = torch.linalg.svd(change, full_matrices=False)
        best = u[:, :6] * s[:6] @ v[:6]
        assert (delta - best).norm() <= 1e-4 * change.norm()
        lost += (s[6:] ** 2).sum()
        whole += (s ** 2).sum()
    assert abs(report["keptEnergy"] - (1 - lost / whole).item()) <= 1e-4
    # And all of it with full rank.
    convert(peftool, adapter, tmp_path / "full", "lora", "--base", BASE, "--energy", "1")
    assert distance(merged(tmp_path / "full"), right) <= 1e-4


CONFIGS = {
    "loha": LoHaConfig(r=3, alpha=5, target_modules=SMALL, rank_pattern={"o_proj": 2}),
    "lokr": LoKrConfig(r=3, alpha=5, target_modules=SMALL),
    "lokr-whole": LoKrConfig(r=99, alpha=5, target_modules=SMALL),
    "lokr-both": LoKrConfig(r=2, alpha=5, target_modules=SMALL, decompose_both=True),
    "adalora": AdaLoraConfig(
        init_r=4, target_r=2, lora_alpha=7, target_modules=SMALL, total_step=10),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_other_methods_become_lora(peftool, tmp_path, kind):
    adapter = save(tmp_path / "a", CONFIGS[kind])
    right = merged(adapter)
    convert(peftool, adapter, tmp_path / "exact", "lora")
    assert distance(merged(tmp_path / "exact"), right) <= 1e-5
    report = convert(peftool, adapter, tmp_path / "cut", "lora", "--rank", "2")
    config = json.loads((tmp_path / "cut/adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["r"] == 2
    start = load().state_dict()
    for module, delta in deltas(tmp_path / "cut").items():
        change = right[f"{module}.weight"] - start[f"{module}.weight"].double()
        u, s, v = torch.linalg.svd(change, full_matrices=False)
        assert (delta - u[:, :2] * s[:2] @ v[:2]).norm() <= 1e-4 * change.norm()
    assert 0 < report["keptEnergy"] <= 1


def test_a_sum_of_dora_is_cut_to_a_rank(peftool, tmp_path):
    folders = [
        save(tmp_path / "a", LoraConfig(r=4, target_modules=SMALL, use_dora=True), 1),
        save(tmp_path / "b", LoraConfig(r=3, target_modules=SMALL, use_dora=True), 2),
        save(tmp_path / "c", LoraConfig(r=2, target_modules=SMALL), 3),
    ]
    weights = [0.7, -0.4, 0.9]
    start = {name: value.double() for name, value in load().state_dict().items()}
    targets = [merged(folder) for folder in folders]
    right = {
        name: value + sum(w * (t[name] - value) for w, t in zip(weights, targets))
        for name, value in start.items()
    }
    errors = {}
    for rank in (2, 4, 9):
        out = tmp_path / f"out{rank}"
        report = json.loads(peftool.check(
            "combine", *folders, "-o", out, "--weights", "0.7,-0.4,0.9", "--method", "svd",
            "--rank", rank, "--base", BASE, "--json", "--quiet"))
        errors[rank] = distance(merged(out), right)
        assert abs(1 - errors[rank] ** 2 - report["keptEnergy"]) <= 1e-4
        change = {n: right[n] - start[n] for n in right if n.endswith("_proj.weight")}
        lora = sum((torch.linalg.svdvals(c)[rank:] ** 2).sum() for c in change.values())
        lora = (lora / sum((c ** 2).sum() for c in change.values())).sqrt().item()
        assert errors[rank] <= lora * (1 + 1e-5)
    assert errors[9] < 1e-4


def test_resize_of_dora_with_its_base_is_better_than_without(peftool, tmp_path):
    adapter = save(tmp_path / "a", LoraConfig(r=6, target_modules=SMALL, use_dora=True))
    right = merged(adapter)
    peftool.check("resize", adapter, "-o", tmp_path / "with", "--rank", "3", "--base", BASE)
    text = peftool.check("resize", adapter, "-o", tmp_path / "without", "--rank", "3")
    assert "without its base" in " ".join(text.split())
    near, far = (distance(merged(tmp_path / name), right) for name in ("with", "without"))
    assert near < far < 1
    peftool.check("resize", adapter, "-o", tmp_path / "full", "--rank", "6", "--base", BASE)
    assert distance(merged(tmp_path / "full"), right) <= 1e-4


def test_what_does_not_fit_is_refused(peftool, tmp_path):
    lora = save(tmp_path / "lora", LoraConfig(r=2, target_modules=SMALL))
    dora = save(tmp_path / "dora", LoraConfig(r=2, target_modules=SMALL, use_dora=True))
    loha = save(tmp_path / "loha", LoHaConfig(r=2, target_modules=SMALL))
    for arguments, words, status in [
        ((lora, "--to", "dora"), "--base MODEL", 2),
        ((dora, "--to", "dora", "--base", BASE), "is of DoRA already", 2),
        ((dora, "--to", "lora", "--base", BASE), "--rank R or --energy E", 2),
        ((dora, "--to", "lora", "--rank", "2"), "--base MODEL", 2),
        ((lora, "--to", "mlx", "--rank", "2"), "go with --to lora", 64),
        ((loha, "--to", "mlx"), "LOHA", 2),
    ]:
        done = peftool.run("convert", *arguments, "-o", tmp_path / "out")
        assert done.returncode == status and words in done.stderr, done.stderr
        assert not (tmp_path / "out").exists()
