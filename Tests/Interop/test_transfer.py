"""transfer: against numpy's decomposition, and as PEFT loads what is moved."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from conftest import SAMPLES
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


READERS = {"q_proj": "input_layernorm", "k_proj": "input_layernorm", "v_proj": "input_layernorm",
           "gate_proj": "post_attention_layernorm", "up_proj": "post_attention_layernorm"}
TOKENS = torch.tensor([[1, 17, 54, 99, 3, 8, 71, 23]])


def with_gains(folder):
    """The base with norms that are not all 1."""
    model = load()
    torch.manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.copy_(1 + 0.4 * torch.rand(parameter.shape))
    model.save_pretrained(folder)
    return model.eval()


def in_another_stream(narrow, width, folder):
    """The model that computes the same in a turned hidden stream, with norms of its own."""
    config = type(narrow.config)(**narrow.config.to_dict() | {
        "hidden_size": width, "head_dim": narrow.config.head_dim,
        "rms_norm_eps": narrow.config.rms_norm_eps * narrow.config.hidden_size / width})
    torch.manual_seed(width)
    old = {name: value.double() for name, value in narrow.state_dict().items()}
    size = narrow.config.hidden_size
    r = torch.linalg.qr(torch.randn(width, size, dtype=torch.float64)).Q.T
    new = {name: 1 + torch.rand(width, dtype=torch.float64)
           for name, value in old.items() if value.dim() == 1}
    for name, value in old.items():
        last = name.removesuffix(".weight").rpartition(".")[2]
        if value.dim() == 1:
            continue
        if last == "embed_tokens":
            new[name] = value @ r
        elif last in ("o_proj", "down_proj"):
            new[name] = r.T @ value
        else:
            norm = "model.norm.weight"
            if last in READERS:
                norm = ".".join(name.split(".")[:3]) + f".{READERS[last]}.weight"
            new[name] = (size / width) ** 0.5 * (value * old[norm]) @ r / new[norm]
    model = AutoModelForCausalLM.from_config(config).float().eval()
    model.load_state_dict({name: value.float() for name, value in new.items()})
    model.save_pretrained(folder)
    return model


def logits(model, adapter=None):
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        found = model(TOKENS).logits
    if adapter:
        model.unload()
    return found


@pytest.mark.parametrize("width", [40, 64, 100])
def test_an_adapter_goes_with_the_hidden_stream(peftool, tmp_path, width):
    """The same model in other coordinates or a wider stream: the same logits with the adapter."""
    narrow = with_gains(tmp_path / "narrow")
    wide = in_another_stream(narrow, width, tmp_path / "wide")
    adapter = save(tmp_path / "a", 4, target_modules=ALL)
    before, after = logits(narrow), logits(narrow, adapter)
    assert torch.allclose(logits(wide), before, atol=1e-4 * before.abs().max().item())
    report = transfer(
        peftool, adapter, tmp_path / "narrow", tmp_path / "wide", tmp_path / "out", "--method",
        "procrustes")
    found = logits(wide, tmp_path / "out")
    assert (after - before).norm() > 0.1 * before.norm()
    assert (found - after).norm() < 1e-3 * (after - before).norm()
    for module in report["modules"]:
        assert module["keptEnergy"] > 1 - 1e-5
        assert module["overlapOut"] > 0.999 and module["overlapIn"] > 0.999
    # As it stands it is no adapter for the other model.
    if width == 40:
        assert (logits(wide, adapter) - after).norm() > 0.1 * (after - before).norm()


def test_tokens_are_found_by_their_texts(peftool, tmp_path):
    """A model whose vocabulary is in another order, with its tokenizer and without."""
    source = SAMPLES / "generation/tiny-chat"
    target = tmp_path / "target"
    shutil.copytree(source, target)
    tensors = load_file(source / "model.safetensors")
    count = len(tensors["model.embed_tokens.weight"])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3)).tolist()
    places = torch.tensor(order).argsort()
    for name in ["model.embed_tokens.weight", "lm_head.weight"]:
        if name in tensors:
            tensors[name] = tensors[name][places].contiguous()
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    path = target / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {text: order[id] for text, id in vocabulary.items()}
    for token in tokenizer["added_tokens"]:
        token["id"] = order[token["id"]]
    path.write_text(json.dumps(tokenizer))
    adapter = SAMPLES / "generation/tiny-sailor"
    transfer(peftool, adapter, source, target, tmp_path / "out", "--method", "procrustes")
    before, after = deltas(adapter), deltas(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, delta in after.items():
        assert (delta - before[name]).norm() <= 1e-4 * before[name].norm()
    path.unlink()
    done = peftool.run(
        "transfer", adapter, "--from", source, "--to", target, "-o", tmp_path / "no", "--method",
        "procrustes", "--threshold", 0.9)
    assert done.returncode == 2
    assert f"embeddings of {count} shared tokens agree to a cosine of 0." in done.stderr
