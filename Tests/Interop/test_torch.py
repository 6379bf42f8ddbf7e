"""Files of torch.save: the same tensors, and the same merged bytes, as from safetensors."""

import json
import random
import shutil

import pytest
import torch
from conftest import SAMPLES
from safetensors.torch import load_file, save_file

ZIP = pytest.param({}, id="zip")
STREAM = pytest.param({"_use_new_zipfile_serialization": False}, id="stream")
FORMS = pytest.mark.parametrize("form", [ZIP, STREAM])
PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3, 4, 5])

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
    torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2,
]
BASES = SAMPLES / "bases"
ADAPTERS = SAMPLES / "adapters"
CASES = [
    case for case in json.loads((SAMPLES / "merged/index.json").read_text())
    if case["right"] != "refusal"
]


def values(random, dtype, count):
    """Random bytes, of which peftool must keep each; booleans are 0 or 1."""
    if dtype == torch.bool:
        return torch.tensor([random.random() < 0.5 for _ in range(count)])
    width = torch.tensor([], dtype=dtype).element_size()
    return torch.frombuffer(
        bytearray(random.randbytes(max(1, count * width))), dtype=torch.uint8
    )[: count * width].clone().view(dtype)


def view(random, dtype):
    """A tensor of up to five dimensions, of which many are views of larger storages."""
    shape = [random.choice([0, 1, 2, 3, 5, 8] if random.random() < 0.1 else [1, 2, 3, 5, 8])
             for _ in range(random.randrange(6))]
    count = 1
    for size in shape:
        count *= size
    tensor = values(random, dtype, count).reshape(shape)
    for _ in range(random.randrange(4)):
        dimensions = tensor.dim()
        if dimensions == 0:
            break
        at = random.randrange(dimensions)
        match random.randrange(4):
            case 0:
                tensor = tensor.permute(random.sample(range(dimensions), dimensions))
            case 1:
                tensor = tensor.narrow(
                    at, first := random.randrange(tensor.shape[at] + 1),
                    random.randrange(tensor.shape[at] - first + 1))
            case 2 if tensor.shape[at] > 0:
                tensor = tensor[(slice(None),) * at + (slice(None, None, 2),)]
            case 3 if dimensions < 5:
                tensor = tensor.unsqueeze(at).expand(
                    *tensor.shape[:at], random.randrange(1, 4), *tensor.shape[at:])
    return tensor


def same(peftool, saved, plain):
    report = json.loads(peftool.check("inspect", saved, "--json"))
    other = json.loads(peftool.check("inspect", plain, "--json"))
    described = [
        {entry["name"]: (entry["dtype"], entry["shape"]) for entry in each["tensors"]}
        for each in (report, other)
    ]
    assert described[0] == described[1]
    assert report["format"] == "torch"
    peftool.check("diff", saved, plain)


def lora(folder, name="layers.0.linear"):
    """An adapter that changes one small tensor, so that a merge copies all others."""
    folder.mkdir()
    save_file({
        f"base_model.model.{name}.lora_A.weight": torch.ones(1, 4),
        f"base_model.model.{name}.lora_B.weight": torch.ones(4, 1),
    }, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["linear"]}))
    return folder


@FORMS
@pytest.mark.parametrize("seed", range(12))
def test_random_dictionaries(peftool, tmp_path, form, seed):
    """Every dtype, permuted, sliced and expanded: a merge writes what safetensors would hold."""
    numbers = random.Random(seed)
    state = {f"layers.{i}.{dtype}": view(numbers, dtype)
             for i, dtype in enumerate(DTYPES * 2)}
    whole = values(numbers, torch.float32, 64)
    state["shared.a"] = whole[8:40].reshape(4, 8)
    state["shared.b"] = whole[16:48].reshape(8, 4).t()
    state["layers.0.linear.weight"] = torch.randn(4, 4)
    saved, plain = tmp_path / "model.pt", tmp_path / "plain.safetensors"
    torch.save(state, saved, **form)
    save_file({name: t.contiguous().clone() for name, t in state.items()}, plain,
              metadata={"format": "pt"})
    adapter = lora(tmp_path / "adapter")
    for source in (saved, plain):
        peftool.merge(source, [adapter], tmp_path / f"{source.stem}-merged.safetensors")
    one = (tmp_path / "model-merged.safetensors").read_bytes()
    assert one == (tmp_path / "plain-merged.safetensors").read_bytes()


@FORMS
@PROTOCOLS
def test_pickle_protocols(peftool, tmp_path, form, protocol):
    state = {"a": torch.randn(3, 5), "b": torch.arange(70_000), "c": torch.randn(2, 2).t()}
    torch.save(state, tmp_path / "a.pt", pickle_protocol=protocol, **form)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "b.safetensors")
    same(peftool, tmp_path / "a.pt", tmp_path / "b.safetensors")


@FORMS
def test_modules_parameters_and_attributes(peftool, tmp_path, form):
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Embedding(5, 2))
    module[0].weight.marked = {"by": "hand"}
    for name, state in {
        "state": module.state_dict(),
        "keep": module.state_dict(keep_vars=True),
        "parameters": dict(module.named_parameters()) | dict(module.named_buffers()),
    }.items():
        torch.save(state, tmp_path / f"{name}.pt", **form)
        save_file({k: v.detach() for k, v in state.items()}, tmp_path / f"{name}.safetensors")
        same(peftool, tmp_path / f"{name}.pt", tmp_path / f"{name}.safetensors")
    tensor = torch.ones(2)
    tensor.marked = 1
    torch.save({"a": tensor}, tmp_path / "marked.pt", **form)
    save_file({"a": torch.ones(2)}, tmp_path / "marked.safetensors")
    same(peftool, tmp_path / "marked.pt", tmp_path / "marked.safetensors")


@FORMS
def test_names_of_nested_dictionaries(peftool, tmp_path, form):
    a, b = torch.ones(2), torch.zeros(3)
    for state, names in [
        ({"state_dict": {"x.y": a}, "epoch": 3}, ["x.y"]),
        ({"model": {"x": a, "z": {"y": b}}, "lr": 0.5}, ["x", "z.y"]),
        ({"model": {"x": a}, "optimizer": {"state": {0: {"m": b}}}},
         ["model.x", "optimizer.state.0.m"]),
        ({"encoder": {"x": a}}, ["encoder.x"]),
        ({"a": [a, (b, {"c": a})]}, ["a.0", "a.1.0", "a.1.1.c"]),
        ([a, b], ["0", "1"]),
        (a, ["tensor"]),
    ]:
        torch.save(state, tmp_path / "a.pt", **form)
        report = json.loads(peftool.check("inspect", tmp_path / "a.pt", "--json"))
        assert [entry["name"] for entry in report["tensors"]] == names
    torch.save({"a": a, "epoch": 3, "by": "me", "lr": 0.5, "ok": True, "none": None},
               tmp_path / "a.pt", **form)
    report = json.loads(peftool.check("inspect", tmp_path / "a.pt", "--json"))
    assert report["metadata"] == {"epoch": "3", "by": "me", "lr": "0.5", "ok": "true"}


def test_large_strided_tensors(peftool, tmp_path):
    """Larger than a block of rows and than a piece that is read at once, each dtype's width."""
    state = {"layers.0.linear.weight": torch.randn(4, 4)}
    for dtype in (torch.int8, torch.bfloat16, torch.float32, torch.float64):
        whole = torch.arange(3 * 700 * 900).to(dtype).reshape(3, 700, 900)
        state[f"{dtype}.t"] = whole[1].t()
        state[f"{dtype}.permuted"] = whole.permute(2, 0, 1)
        state[f"{dtype}.sliced"] = whole[:, ::7, 5:800:3]
        state[f"{dtype}.expanded"] = whole[0, 0].expand(50, 900)
    state["rows"] = torch.randn(40, 8000).t()[:, ::5]
    torch.save(state, tmp_path / "a.pt")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "b.safetensors",
              metadata={"format": "pt"})
    same(peftool, tmp_path / "a.pt", tmp_path / "b.safetensors")
    report = json.loads(peftool.check("inspect", tmp_path / "a.pt", "--json"))
    assert all(entry.get("strides", list(state[entry["name"]].contiguous().stride()))
               == list(state[entry["name"]].stride()) for entry in report["tensors"])
    adapter = lora(tmp_path / "adapter")
    for name in ("a.pt", "b.safetensors"):
        peftool.merge(tmp_path / name, [adapter], tmp_path / f"{name}.safetensors")
    assert ((tmp_path / "a.pt.safetensors").read_bytes()
            == (tmp_path / "b.safetensors.safetensors").read_bytes())


def torch_copy(folder, target, form, shard_count=1):
    """A model or an adapter of the samples with its tensors in torch's files."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    state = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= load_file(file)
    if (folder / "adapter_config.json").exists():
        torch.save(state, target / "adapter_model.bin", **form)
    elif shard_count == 1:
        torch.save(state, target / "pytorch_model.bin", **form)
    else:
        names = sorted(state)
        shards = {f"pytorch_model-{i + 1:05}-of-{shard_count:05}.bin": names[i::shard_count]
                  for i in range(shard_count)}
        for file, part in shards.items():
            torch.save({name: state[name] for name in part}, target / file, **form)
        size = sum(t.numel() * t.element_size() for t in state.values())
        (target / "pytorch_model.bin.index.json").write_text(json.dumps({
            "metadata": {"total_size": size},
            "weight_map": {name: file for file, part in shards.items() for name in part}}))
    return target, state


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_golden_merges(peftool, tmp_path, case):
    """Base and adapters in torch's files give the bytes that safetensors give.

    Tensors that a merge adds stand behind those that they belong to where the base has an order
    of its own, and in the reference library's order where it has none.
    """
    forms = [{}, {"_use_new_zipfile_serialization": False}]
    base, state = torch_copy(BASES / case["base"], tmp_path / "base", forms[len(case["case"]) % 2])
    plain = tmp_path / "plain"
    shutil.copytree(base, plain, ignore=shutil.ignore_patterns("*.bin"))
    save_file(state, plain / "model.safetensors", metadata={"format": "pt"})
    adapters = [
        torch_copy(ADAPTERS / name, tmp_path / name, forms[i % 2])[0]
        for i, name in enumerate(case["adapters"])]
    flags = case["flags"]
    peftool.merge(base, adapters, tmp_path / "one", *flags, weights=case["weights"])
    peftool.merge(plain, [ADAPTERS / name for name in case["adapters"]], tmp_path / "two",
                  *flags, weights=case["weights"])
    one, two = (sorted(p.name for p in (tmp_path / out).iterdir()) for out in ("one", "two"))
    assert one == two and "model.safetensors" in one
    merged = [load_file(tmp_path / out / "model.safetensors") for out in ("one", "two")]
    if merged[1].keys() != state.keys():
        one.remove("model.safetensors")
        assert merged[0].keys() == merged[1].keys()
        assert all(torch.equal(merged[0][name], merged[1][name]) for name in merged[0])
    for name in one:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@FORMS
def test_shards(peftool, tmp_path, form):
    """Shards keep their tensors, as safetensors files with safetensors' names."""
    base, state = torch_copy(BASES / "llama-f32", tmp_path / "base", form, shard_count=3)
    peftool.check("verify", base)
    peftool.merge(base, [ADAPTERS / "lora-f32base"], tmp_path / "out")
    peftool.merge(BASES / "llama-f32", [ADAPTERS / "lora-f32base"], tmp_path / "plain")
    peftool.check("verify", tmp_path / "out")
    peftool.check("diff", tmp_path / "out", tmp_path / "plain")
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    before = json.loads((base / "pytorch_model.bin.index.json").read_text())
    assert index["weight_map"] == {
        name: file.replace("pytorch_model", "model").replace(".bin", ".safetensors")
        for name, file in before["weight_map"].items()}
    assert index["metadata"] == before["metadata"]
    peftool.merge(base, [ADAPTERS / "lora-f32base"], tmp_path / "one.safetensors")
    assert load_file(tmp_path / "one.safetensors").keys() == state.keys()


def test_peft_saves_without_safetensors(peftool, tmp_path):
    """An adapter that PEFT itself saves as adapter_model.bin."""
    import peft
    import transformers
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        BASES / "llama-bf16", dtype=torch.bfloat16)
    tuned = peft.get_peft_model(
        model, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], use_dora=True))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    for safe in (False, True):
        tuned.save_pretrained(tmp_path / str(safe), safe_serialization=safe)
        peftool.check("verify", tmp_path / str(safe), "--base", BASES / "llama-bf16")
        peftool.merge(BASES / "llama-bf16", [tmp_path / str(safe)], tmp_path / f"{safe}.out")
    assert (tmp_path / "False/adapter_model.bin").exists()
    assert not (tmp_path / "False/adapter_model.safetensors").exists()
    names = [path.name for path in (tmp_path / "True.out").glob("*.safetensors")]
    assert names and all(
        (tmp_path / "False.out" / name).read_bytes() == (tmp_path / "True.out" / name).read_bytes()
        for name in names)
