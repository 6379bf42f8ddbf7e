"""inspect --stats of adapters and diff of two, against numpy's dense matrices in f64."""

import json
import re

import numpy as np
import pytest
from safetensors.torch import load_file

from conftest import SAMPLES

ADAPTERS = SAMPLES / "adapters"
BASES = SAMPLES / "bases"

# Sample, and its base.
CASES = [
    ("lora", "llama-bf16"), ("dora", "llama-bf16"), ("rslora-patterns", "llama-bf16"),
    ("dora-rslora", "llama-bf16"), ("embedding", "llama-bf16"), ("dora-embedding", "llama-bf16"),
    ("conv-1d", "layers-f32"), ("conv-2d", "layers-f32"), ("conv-3d", "layers-f32"),
    ("conv-2d-dora", "layers-f32"), ("conv1d", "gpt2-f32"), ("conv1d-dora", "gpt2-f32"),
    ("lora-bias", "llama-bf16"), ("save-modules", "llama-bf16"),
]


def numbers(tensor):
    return tensor.double().numpy()


def pattern(patterns, module, default):
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def read(folder):
    """By module s·B·A as a matrix (out, in), DoRA's m, and whether it is an embedding."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    found = {}
    for name, tensor in tensors.items():
        end = re.search(r"\.lora_(embedding_)?A(\.weight)?$", name)
        if not end:
            continue
        module = name[:end.start()].removeprefix("base_model.model.")
        a = numbers(tensor)
        b = numbers(tensors[name[:end.start()] + end.group().replace("A", "B")])
        rank = len(a)
        alpha = pattern(config["alpha_pattern"], module, config["lora_alpha"])
        scaling = alpha / (rank ** 0.5 if config["use_rslora"] else rank)
        delta = scaling * (b.reshape(len(b), rank) @ a.reshape(rank, -1))
        m = tensors.get(name[:end.start()] + ".lora_magnitude_vector")
        found[module] = (delta, None if m is None else numbers(m).ravel(), bool(end.group(1)))
    return found


def weight(base, module, shape, is_embedding):
    """A base's weight as a matrix (out, in)."""
    tensors = {}
    for file in sorted((BASES / base).glob("*.safetensors")):
        tensors |= load_file(file)
    name = f"{module}.weight"
    w = numbers(tensors[name if name in tensors else name.removeprefix("transformer.")])
    turned = is_embedding or base.startswith("gpt2")
    w = w.T if turned else w.reshape(len(w), -1)
    assert w.shape == shape
    return w


def effective(values):
    shares = values[values > 0] / values.sum()
    return np.exp(-(shares * np.log(shares)).sum())


def near(found, expected, limit=1e-9):
    assert found == pytest.approx(expected, rel=limit, abs=1e-14)


@pytest.mark.parametrize("name, base", CASES)
def test_figures_are_those_of_the_dense_updates(peftool, name, base):
    report = json.loads(peftool.check(
        "inspect", ADAPTERS / name, "--base", BASES / base, "--stats", "--json"))
    assert report["deltasRefusal"] is None
    updates = read(ADAPTERS / name)
    modules = {module["path"]: module for module in report["deltas"]["modules"]}
    assert modules.keys() == updates.keys()
    for path, (delta, m, is_embedding) in updates.items():
        found = modules[path]
        values = np.linalg.svd(delta, compute_uv=False)[:found["rank"]]
        near(found["norm"], np.linalg.norm(delta))
        assert np.allclose(found["singularValues"], values, rtol=1e-9, atol=1e-13 * values[0])
        near(found["effectiveRank"], effective(values), 1e-6)
        near(found["stableRank"], (values ** 2).sum() / values[0] ** 2)
        w = weight(base, path, delta.shape, is_embedding)
        near(found["weightNorm"], np.linalg.norm(w))
        near(found["share"], np.linalg.norm(delta) / np.linalg.norm(w))
        if m is None:
            assert found["changeNorm"] is None
            continue
        v = w + delta
        merged = m[:, None] / np.linalg.norm(v, axis=1, keepdims=True) * v
        near(found["changeNorm"], np.linalg.norm(merged - w), 1e-7)


@pytest.mark.parametrize("left, right", [
    ("lora", "task-a"), ("task-a", "task-b"), ("rslora-patterns", "lora"), ("dora", "dora-rslora"),
    ("embedding", "dora-embedding"), ("conv-2d", "conv-2d-dora"),
])
def test_comparison_is_that_of_the_dense_updates(peftool, left, right):
    done = peftool.run("diff", ADAPTERS / left, ADAPTERS / right, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["comparison"] == "updates"
    a, b = read(ADAPTERS / left), read(ADAPTERS / right)
    modules = {module["module"]: module for module in report["modules"]}
    assert set(modules) == {
        path for path in a if path in b and a[path][0].shape == b[path][0].shape}
    assert modules
    assert set(report["onlyInA"]) == set(a) - set(b)
    for path, found in modules.items():
        d1, d2 = a[path][0], b[path][0]
        n1, n2 = np.linalg.norm(d1), np.linalg.norm(d2)
        assert found["cosine"] == pytest.approx((d1 * d2).sum() / (n1 * n2), abs=1e-12)
        near(found["normRatio"], n1 / n2)
        near(found["relative"], np.linalg.norm(d1 - d2) / n2)
        for key, turn in [("outputOverlap", lambda d: d), ("inputOverlap", lambda d: d.T)]:
            spaces = []
            for d in (d1, d2):
                u, s, _ = np.linalg.svd(turn(d), full_matrices=False)
                spaces.append(u[:, s > 1e-6 * s[0]])
            overlap = np.linalg.norm(spaces[0].T @ spaces[1]) ** 2
            near(found[key], overlap / min(space.shape[1] for space in spaces), 1e-6)


def test_other_factors_of_the_same_updates_are_no_difference(peftool, tmp_path):
    """combine stacks the factors twice, at half the weight each; resize decomposes them."""
    lora = ADAPTERS / "rslora-patterns"
    peftool.check(
        "combine", lora, lora, "--weights", "0.5,0.5", "-o", tmp_path / "twice", "--quiet")
    peftool.check("resize", tmp_path / "twice", "--rank", 64, "-o", tmp_path / "cut", "--quiet")
    for other in ("twice", "cut"):
        done = peftool.run("diff", lora, tmp_path / other, "--json")
        report = json.loads(done.stdout)
        assert (done.returncode, report["verdict"]) == (0, "within tolerance"), done.stdout
        assert max(module["relative"] for module in report["modules"]) < 1e-6
        assert peftool.run("diff", lora, tmp_path / other, "--factors").returncode == 1
