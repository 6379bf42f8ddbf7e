"""transfer: against numpy's decomposition, and as PEFT loads what is moved."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from test_combination import ALL, BASE, deltas, load, save

SQUARE = ["q_proj", "o_proj"]


def rotation(size, angle, seed):
    """Cayley's: orthogonal, and by no more than about this angle."""
    generator = torch.Generator().manual_seed(seed)
    skew = torch.randn(size, size, generator=generator, dtype=torch.float64)
    skew = (skew - skew.T) / size ** 0.5 * angle / 2
    one = torch.eye(size, dtype=torch.float64)
    return torch.linalg.solve(one + skew, one - skew)


def turned(folder, angle, targets):
    """The base with each of its target weights as O·W·Qᵀ, and these two by module."""
    model = load()
    turns = {}
    with torch.no_grad():
        for place, (name, module) in enumerate(model.named_modules()):
            if name.rpartition(".")[2] in targets:
                w = module.weight.double()
                o, q = (rotation(n, angle, 2 * place + i) for i, n in enumerate(w.shape))
                module.weight.copy_(o @ w @ q.T)
                turns[name] = o, q
    model.save_pretrained(folder)
    return folder, turns


def noisy(folder, size):
    model = load()
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter += torch.randn(parameter.shape) * size * parameter.std()
    model.save_pretrained(folder)
    return folder


def transfer(peftool, adapter, source, target, out, *flags):
    return json.loads(peftool.check(
        "transfer", adapter, "--from", source, "--to", target, "-o", out, "--json", *flags))


def weights(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    return {name.removesuffix(".weight"): value for name, value in model.state_dict().items()}


@pytest.mark.parametrize("angle", [0.1, 0.5])
def test_an_adapter_of_a_turned_model_is_found(peftool, tmp_path, angle):
    adapter = save(tmp_path / "a", 1, target_modules=SQUARE, use_rslora=True)
    target, turns = turned(tmp_path / "turned", angle, SQUARE)
    report = transfer(
        peftool, adapter, BASE, target, tmp_path / "out", "--method", "cross-lora", "--exact")
    before, after = deltas(adapter), deltas(tmp_path / "out")
    assert len(after) == len(before) == 4
    for name, delta in after.items():
        o, q = turns[name]
        right = o @ before[name] @ q.T
        assert (delta - right).norm() <= 1e-3 * right.norm()
    assert all(0.5 < m["alignment"] <= 1 and m["keptEnergy"] > 1 - 1e-5 for m in report["modules"])
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32), tmp_path / "out")
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            found = module.get_delta_weight("default").double()
            assert torch.allclose(found, after[name.removeprefix("base_model.model.")], atol=1e-5)


@pytest.mark.parametrize("method", ["lora-x", "prolora"])
@pytest.mark.parametrize("subspace", [6, 320])
@pytest.mark.parametrize("size", [0, 0.1])
def test_a_projection_is_that_of_the_formula(peftool, tmp_path, method, subspace, size):
    adapter = save(tmp_path / "a", 2, target_modules=ALL)
    target = noisy(tmp_path / "noisy", size)
    report = transfer(
        peftool, adapter, BASE, target, tmp_path / "out", "--subspace", subspace, "--threshold", 0,
        "--method", method)
    source, goal = weights(BASE), weights(target)
    before, after = deltas(adapter), deltas(tmp_path / "out")
    for module in report["modules"]:
        path = module["path"]
        least = min(goal[path].shape)
        k = min(subspace, least)
        compared = max(1, min(k, least // 4))
        (us, _, vs), (ut, _, vt) = (torch.linalg.svd(w[path], full_matrices=False)
                                    for w in (source, goal))
        u, v = ut[:, :k], vt[:k]
        left, inner = u @ u.T, v.T @ v
        if method == "prolora":
            p, q = us[:, :k] @ us[:, :k].T, vs[:k].T @ vs[:k]
            left = left @ p + (torch.eye(len(p)) - left) @ (torch.eye(len(p)) - p)
            inner = q @ inner + (torch.eye(len(q)) - q) @ (torch.eye(len(q)) - inner)
        right = left @ before[path] @ inner
        assert (after[path] - right).norm() <= 1e-5 * before[path].norm()
        kept = right.norm() ** 2 / before[path].norm() ** 2
        assert abs(module["keptEnergy"] - kept) < 1e-5
        out = (us[:, :compared].T @ ut[:, :compared]).norm() ** 2 / compared
        inner = (vs[:compared] @ vt[:compared].T).norm() ** 2 / compared
        assert abs(module["overlapOut"] - out) < 1e-4 and abs(module["overlapIn"] - inner) < 1e-4
        assert module["alignment"] is None
        # Of square weights all directions are everything.
        is_square = goal[path].shape[0] == goal[path].shape[1] == k
        if is_square or method == "prolora" and size == 0:
            assert (after[path] - before[path]).norm() <= 1e-5 * before[path].norm()


def test_unaligned_signs_are_noise_and_ours_are_not(peftool, tmp_path):
    """The map with the signs that LAPACK happens to give is further off than nothing at all."""
    adapter = save(tmp_path / "a", 3, target_modules=["q_proj"])
    target, turns = turned(tmp_path / "turned", 0.3, ["q_proj"])
    transfer(peftool, adapter, BASE, target, tmp_path / "out", "--method", "cross-lora")
    source, goal = weights(BASE), weights(target)
    before, after = deltas(adapter), deltas(tmp_path / "out")
    worst = 0
    for name, delta in after.items():
        o, q = turns[name]
        right = o @ before[name] @ q.T
        assert (delta - right).norm() <= 1e-3 * right.norm()
        (us, _, vs), (ut, _, vt) = (torch.linalg.svd(w[name]) for w in (source, goal))
        naive = ut @ (us.T @ before[name] @ vs.T) @ vt
        worst = max(worst, ((naive - right).norm() / right.norm()).item())
    assert worst > 0.5


def test_a_stranger_is_refused(peftool, tmp_path):
    adapter = save(tmp_path / "a", 2, target_modules=ALL)
    target = noisy(tmp_path / "noisy", 10)
    for flags in ([], ["--method", "cross-lora"]):
        done = peftool.run(
            "transfer", adapter, "--from", BASE, "--to", target, "-o", tmp_path / "out", *flags)
        assert done.returncode == 2
        assert "layers are below the threshold 0.5; model.layers." in done.stderr
        assert not (tmp_path / "out").exists()
