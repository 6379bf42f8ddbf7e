"""New files are those that the reference writers make of the same tensors and metadata."""

import json

import pytest
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from safetensors.torch import save_file

from conftest import SAMPLES
from golden import bases
from test_golden import adapter_paths, base_path, entry_of

# A base that is one file keeps its order, also where a tensor is added, as with tied embeddings.
CASES = ["lora", "lora-f8base", "bias-all", "conv-2d", "save-modules", "resized-vocab",
         "layer-replication", "target-parameters-unfused"]


def in_file_order(path):
    """The tensors of a model folder as they lie in its files."""
    tensors = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            tensors |= {name: opened.get_tensor(name) for name in opened.offset_keys()}
    return tensors


def written(tensors, path):
    save_file(tensors, path, metadata={"format": "pt"})
    return path.read_bytes()


def merge(peftool, case, output, *flags):
    entry = entry_of(case)
    peftool.check("merge", base_path(entry), *adapter_paths(entry), "-o", output, *flags)


@pytest.mark.parametrize("case", CASES)
def test_one_file(peftool, tmp_path, case):
    folder, file = tmp_path / "folder", tmp_path / "one.safetensors"
    merge(peftool, case, folder)
    merge(peftool, case, file)
    tensors = bases.read_tensors(folder)
    assert file.read_bytes() == written(tensors, tmp_path / "right.safetensors")


def test_standard_output(peftool, tmp_path):
    entry = entry_of("lora")
    file = tmp_path / "one.safetensors"
    merge(peftool, "lora", file)
    done = peftool.run(
        "merge", base_path(entry), *adapter_paths(entry), "-o", "-", text=False)
    assert done.returncode == 0 and done.stdout == file.read_bytes()


@pytest.mark.parametrize("size", ["1KB", "7KB", "20KB", "30KB", "5GB"])
@pytest.mark.parametrize("case", ["lora", "lora-f8base", "resized-vocab", "tied-lm-head"])
def test_shards(peftool, tmp_path, case, size):
    whole, output = tmp_path / "whole", tmp_path / "shards"
    merge(peftool, case, whole)
    merge(peftool, case, output, "--shard-size", size)
    tensors = in_file_order(whole)
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=size)
    found = {path.name: path for path in output.glob("*.safetensors")}
    assert set(found) == set(split.filename_to_tensors)
    for name, keys in split.filename_to_tensors.items():
        shard = {key: tensors[key] for key in keys}
        assert found[name].read_bytes() == written(shard, tmp_path / "right.safetensors"), name
    path = output / "model.safetensors.index.json"
    assert path.exists() == split.is_sharded
    if split.is_sharded:
        index = json.loads(path.read_text())
        assert index["weight_map"] == split.tensor_to_filename
        assert index["metadata"]["total_size"] == split.metadata["total_size"]
        # As transformers writes it.
        assert path.read_text() == json.dumps(index, indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("size", ["20KB", "5GB"])
def test_shards_are_those_of_transformers(peftool, tmp_path, size):
    """Loaded and saved again by transformers, the folder stays as it is."""
    from transformers import AutoModelForCausalLM

    merge(peftool, "lora", tmp_path / "ours", "--shard-size", size)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    ours, theirs = bases.read_tensors(tmp_path / "ours"), bases.read_tensors(tmp_path / "theirs")
    assert {k: v.tolist() for k, v in ours.items()} == {k: v.tolist() for k, v in theirs.items()}
    for name in ("model.safetensors.index.json", "config.json"):
        path = tmp_path / "theirs" / name
        if path.exists():
            a, b = json.loads(path.read_text()), json.loads((tmp_path / "ours" / name).read_text())
            assert a.get("metadata") == b.get("metadata")
            assert set(a) == set(b)
