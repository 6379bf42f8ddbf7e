"""Every case of Samples/merged/index.json, merged by the real binary and held to the gates."""

import json

import pytest
import torch
from safetensors import safe_open

from conftest import SAMPLES
from golden import bases, check, formula

INDEX = json.loads((SAMPLES / "merged/index.json").read_text())
MERGES = [entry for entry in INDEX if "error" not in entry]
REFUSALS = [entry for entry in INDEX if "error" in entry]


def names(entries):
    return [entry["case"] for entry in entries]


def base_path(entry):
    return SAMPLES / "bases" / entry["base"]


def adapter_paths(entry):
    return [SAMPLES / "adapters" / name for name in entry["adapters"]]


def flags(entry):
    weights = entry["weights"]
    return entry["flags"] + (["--weights=" + ",".join(map(str, weights))] if weights else [])


def entry_of(case):
    return next(entry for entry in INDEX if entry["case"] == case)


def same_bytes(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(
        a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def rounding(entry):
    return entry["flags"][entry["flags"].index("--rounding") + 1] if entry["flags"] else "once"


def double_precision(entry, dtype=None):
    return formula.merge(
        base_path(entry), adapter_paths(entry), entry["weights"], rounding(entry), dtype)


def assert_gates(entry, found, right, results):
    """f32 within 2 ulp of the formula; 16 bits and fewer equal to what is right in 99.9 % of the
    elements, and never a number further than the next.

    The share is one of all elements that the merge changes: most tensors here have fewer than a
    thousand.
    """
    total = unequal = 0
    for name, expected in right.items():
        tensor, result = found[name], results[name]
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape), name
        if tensor.dtype == torch.float32:
            error = check.f32_error(tensor, result)
            assert error <= check.F32_ULPS, f"{name}: {error:.3g} ulp"
            continue
        apart = check.steps(tensor, expected)
        far = (apart > 1) & check.beyond_cancellation(tensor, result)
        assert not far.any(), f"{name}: {int(apart[far].max())} apart"
        total += apart.numel()
        unequal += int((apart != 0).sum())
    assert unequal <= (1 - check.EQUAL_SHARE) * total, f"{unequal} of {total} differ"


@pytest.mark.parametrize("entry", MERGES, ids=names(MERGES))
def test_case(peftool, tmp_path, entry):
    output = tmp_path / "merged"
    peftool.check("merge", base_path(entry), *adapter_paths(entry), "-o", output, *flags(entry))
    base, found = bases.read_tensors(base_path(entry)), bases.read_tensors(output)
    right = bases.read_tensors(SAMPLES / f"merged/{entry['case']}.safetensors")
    removed = set(entry.get("removed", []))
    kept = set() if entry["unchanged"] == "none" else set(base) - removed - set(right)
    assert set(found) == set(right) | kept
    for name in kept:
        assert same_bytes(found[name], base[name]), name
    assert_gates(entry, found, right, double_precision(entry))

    config = json.loads((output / "config.json").read_text())
    base_config = json.loads((base_path(entry) / "config.json").read_text())
    assert config == base_config | entry.get("config", {})
    # Whatever else the base's folder has goes along as it is.
    for path in base_path(entry).iterdir():
        if path.suffix != ".safetensors" and path.name not in (
                "config.json", "model.safetensors.index.json"):
            assert (output / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("entry", MERGES, ids=names(MERGES))
def test_verify_finds_nothing(peftool, entry):
    for adapter in adapter_paths(entry):
        peftool.check("verify", adapter, "--base", base_path(entry))
    peftool.check("verify", base_path(entry))


@pytest.mark.parametrize("entry", REFUSALS, ids=names(REFUSALS))
def test_refusal(peftool, tmp_path, entry):
    done = peftool.run("merge", base_path(entry), *adapter_paths(entry), "-o", tmp_path / "merged")
    assert done.returncode == 2
    assert done.stderr.startswith("peftool: ") and done.stderr.count("\n") == 1
    assert entry["error"].lower() in done.stderr.lower()
    assert not list(tmp_path.iterdir())


def test_a_mutated_base_can_be_allowed(peftool, tmp_path):
    entry = entry_of("pissa-mutated")
    output = tmp_path / "merged"
    peftool.check("merge", base_path(entry), *adapter_paths(entry), "-o", output,
                  "--allow-mutated-base")
    results = double_precision(entry)
    for name, tensor in bases.read_tensors(output).items():
        assert check.f32_error(tensor, results[name]) <= check.F32_ULPS, name


def headers(folder):
    """What a merge keeps of each shard: the names in the file's order, dtypes, shapes, metadata."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            keys = file.offset_keys()
            found[path.name] = [
                (k, file.get_slice(k).get_dtype(), file.get_slice(k).get_shape()) for k in keys
            ], file.metadata()
    return found


@pytest.mark.parametrize("case", ["lora", "dora", "bias-all", "conv1d", "lora-f8base"])
def test_a_merge_keeps_shards_order_and_metadata(peftool, tmp_path, case):
    entry = entry_of(case)
    output = tmp_path / "merged"
    peftool.check("merge", base_path(entry), *adapter_paths(entry), "-o", output)
    assert headers(output) == headers(base_path(entry))
    index = "model.safetensors.index.json"
    if (base_path(entry) / index).exists():
        assert (output / index).read_bytes() == (base_path(entry) / index).read_bytes()


@pytest.mark.parametrize("case", ["lora", "dora", "conv1d-dora", "multi-mix-dora"])
def test_bytes_do_not_depend_on_threads(peftool, tmp_path, case):
    entry = entry_of(case)
    for threads in (1, 2, 7):
        output = tmp_path / f"{threads}"
        peftool.check("merge", base_path(entry), *adapter_paths(entry), "-o", output,
                      "--threads", threads, *flags(entry))
    for path in (tmp_path / "1").iterdir():
        for threads in ("2", "7"):
            assert (tmp_path / threads / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("case", ["lora", "dora", "lora-f32base", "lora-f8base"])
def test_dtype(peftool, tmp_path, case, dtype):
    entry = entry_of(case)
    output = tmp_path / "merged"
    peftool.check(
        "merge", base_path(entry), *adapter_paths(entry), "-o", output, "--dtype", dtype)
    kind = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16,
            "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
            "F8_E5M2": torch.float8_e5m2}[dtype]
    results = double_precision(entry, kind)
    found = bases.read_tensors(output)
    config = json.loads((output / "config.json").read_text())
    assert config["dtype"] == str(kind).removeprefix("torch.")
    if dtype == "F64":
        # As exact as the sums, which are f32 at the least.
        for name, tensor in found.items():
            assert tensor.dtype == kind
            error = (tensor - results[name].values).abs() / check.ulp(
                results[name].scale, torch.float32)
            assert float(error.max()) <= check.F32_ULPS, name
        return
    right = {
        name: formula.round_once(result.values, kind) for name, result in results.items()
    }
    assert set(found) == set(right)
    assert_gates(entry, found, right, results)


def test_weight_0_gives_the_base(peftool, tmp_path):
    for case in ("dora", "dora-rslora", "conv1d-dora"):
        entry = entry_of(case)
        output = tmp_path / case
        peftool.check(
            "merge", base_path(entry), *adapter_paths(entry), "-o", output, "--weights", "0")
        base = bases.read_tensors(base_path(entry))
        for name, tensor in bases.read_tensors(output).items():
            assert torch.equal(tensor, base[name]), name


def test_diff_finds_pefts_result(peftool, tmp_path):
    """The steps of Samples/quickstart."""
    for case in ("lora", "dora"):
        entry = entry_of(case)
        output = tmp_path / case
        peftool.check("merge", base_path(entry), *adapter_paths(entry), "-o", output)
        peftool.check("verify", output)
        peftool.check("diff", output, SAMPLES / f"merged/{case}.safetensors", "--rtol", "0.01")
        assert peftool.run("diff", output, base_path(entry)).returncode == 1
