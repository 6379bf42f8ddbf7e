"""SHiRA: sparse adapters that PEFT saves, and those that peftool writes, against PEFT and numpy."""

import json
import warnings

import numpy as np
import pytest
import torch
from peft import PeftModel, ShiraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from conftest import SAMPLES
from test_combination import ALL, deltas, save
from test_extraction import extract, logits, models

PREFIX = "base_model.model."
IDS = torch.arange(24)[None] % 90


def load(base, dtype):
    return AutoModelForCausalLM.from_pretrained(SAMPLES / "bases" / base, dtype=dtype)


def save_shira(folder, base, dtype, seed, **options):
    torch.manual_seed(seed)
    model = get_peft_model(
        load(base, dtype), ShiraConfig(**({"r": 3, "target_modules": ALL} | options)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "shira_" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
    model.save_pretrained(folder)
    return folder


def change(folder, module, shape):
    tensors = load_file(folder / "adapter_model.safetensors")
    rows, columns = tensors[f"{PREFIX}{module}.shira_indices"].long()
    values = tensors[f"{PREFIX}{module}.shira_weight"].double()
    dense = torch.zeros(shape, dtype=torch.float64)
    dense[rows, columns] = values
    return dense, len(set(zip(rows.tolist(), columns.tolist()))) == len(values)


def of_peft(model, adapter):
    """The model as PEFT loads the adapter, without a word of keys that are missing or too many."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*tie.*")
        return PeftModel.from_pretrained(model, adapter)


@pytest.mark.parametrize("base, dtype", [
    ("llama-f32", torch.float32), ("llama-bf16", torch.bfloat16), ("llama-f16", torch.float16)])
@pytest.mark.parametrize("count", [1, 2])
def test_merge_is_that_of_peft(peftool, tmp_path, base, dtype, count):
    """To the bit: alone, and of two one after the other with PEFT's rounding."""
    folders = [save_shira(tmp_path / str(s), base, dtype, s) for s in range(count)]
    for folder in folders:
        check = peftool.check("verify", folder, "--base", SAMPLES / "bases" / base)
        assert "no faults" in check
    model = load(base, dtype)
    for folder in folders:
        model = of_peft(model, folder).merge_and_unload()
    flags = ["--rounding", "peft"] if count > 1 else []
    peftool.merge(SAMPLES / "bases" / base, folders, tmp_path / "merged", *flags)
    right = model.state_dict()
    found = {}
    for path in (tmp_path / "merged").glob("*.safetensors"):
        found |= load_file(path)
    assert len(found) == len(right)
    for name, tensor in found.items():
        assert tensor.dtype == dtype and torch.equal(tensor, right[name]), name


@pytest.mark.parametrize("density", [0.01, 0.03])
def test_prune_keeps_the_largest_entries_of_updates(peftool, tmp_path, density):
    adapter = save(tmp_path / "lora", 4, rank_pattern={"q_proj": 2})
    out = tmp_path / "sparse"
    report = json.loads(peftool.check(
        "prune", adapter, "--density", density, "--delta", "--shira", "-o", out, "--json"))
    config = json.loads((out / "adapter_config.json").read_text())
    right = deltas(adapter)
    needed = 1
    for entry in report["modules"]:
        delta = right[entry["path"]].float()
        dense, has_no_doubles = change(out, entry["path"], delta.shape)
        assert has_no_doubles
        kept = int(density * delta.numel())
        needed = max(needed, -(-kept // sum(delta.shape)))
        assert entry["keptEntries"] == kept and (dense != 0).sum() == kept
        order = delta.abs().flatten().sort(descending=True).values
        assert torch.equal(dense.abs()[dense != 0].sort(descending=True).values.float(),
                           dense[dense != 0].abs().float().sort(descending=True).values)
        assert np.allclose(
            dense.abs().flatten().sort(descending=True).values[:kept], order[:kept], rtol=1e-5)
        near = (dense - right[entry["path"]])[dense != 0].abs().max()
        assert near <= 1e-6 * delta.abs().max()
    assert config["r"] == needed and config["peft_type"] == "SHIRA"

    base = SAMPLES / "bases/llama-f32"
    model = of_peft(load("llama-f32", torch.float32), out)
    peftool.merge(base, [out], tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, merged(IDS).logits)
    for name, tensor in model.merge_and_unload().state_dict().items():
        assert torch.equal(tensor, merged.state_dict()[name])


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("flags, rank", [(["--rank", 4], 4), (["--density", 0.05], None)])
def test_extract_keeps_the_largest_entries_of_changes(peftool, tmp_path, kind, tied, flags, rank):
    model = models(kind, tied)
    model.save_pretrained(tmp_path / "base")
    torch.manual_seed(5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Sparse, and of as many entries as are asked for or fewer.
            mask = torch.rand(parameter.shape) < (0.04 if parameter.dim() == 2 else 1)
            if "v_proj" not in name:
                parameter += mask * torch.randn(parameter.shape) * 0.1
    model.save_pretrained(tmp_path / "tuned")
    out = tmp_path / "sparse"
    report = extract(peftool, tmp_path / "base", tmp_path / "tuned", out, "--shira", *flags)
    config = json.loads((out / "adapter_config.json").read_text())
    assert rank is None or config["r"] == rank
    assert not any("v_proj" in entry["path"] for entry in report["modules"])
    for entry in report["modules"]:
        name = entry["path"] + ".weight"
        right = model.state_dict()[name].double() - before[name].double()
        dense, has_no_doubles = change(out, entry["path"], right.shape)
        assert has_no_doubles
        size = config["r"] * sum(right.shape)
        kept = size if rank else int(0.05 * right.numel())
        assert entry["keptEntries"] == kept
        least = right.abs().flatten().sort(descending=True).values[kept - 1]
        assert torch.equal(dense != 0, (right.float().abs() >= least) & (right != 0))
        assert torch.equal(dense, torch.where(dense != 0, right.float().double(), 0))
    right = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "tuned", dtype=torch.float32))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    ours = logits(of_peft(base, out))
    assert (ours - right).norm() <= 1e-5 * right.norm()
    peftool.merge(tmp_path / "base", [out], tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert (logits(merged) - right).norm() <= 1e-5 * right.norm()


def test_peft_adds_up_entries_of_one_place_and_peftool_refuses_them(peftool, tmp_path):
    folder = save_shira(tmp_path / "a", "llama-f32", torch.float32, 1, target_modules=["q_proj"])
    tensors = load_file(folder / "adapter_model.safetensors")
    name = f"{PREFIX}model.layers.0.self_attn.q_proj.shira_indices"
    tensors[name][:, 1] = tensors[name][:, 0]
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    of_peft(load("llama-f32", torch.float32), folder).merge_and_unload()
    for verb in (["merge", SAMPLES / "bases/llama-f32", folder, "-o", tmp_path / "out"],
                 ["verify", folder, "--base", SAMPLES / "bases/llama-f32"]):
        done = peftool.run(*verb)
        assert "has two entries at row" in done.stderr + done.stdout and done.returncode
