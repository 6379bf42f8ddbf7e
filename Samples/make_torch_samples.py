#!/usr/bin/env python3
"""Makes Samples/torch: the same tensors in files of torch.save and in safetensors.

Runs in the environment of Tests/Interop/requirements.txt. The zip files have the same bytes each
time; in the older form torch names storages by their addresses.
"""

import json
import pathlib
import shutil

import numpy
import torch
from safetensors.torch import load_file, save_file

SAMPLES = pathlib.Path(__file__).resolve().parent
FOLDER = SAMPLES / "torch"
STREAM = {"_use_new_zipfile_serialization": False}


def state():
    """Every dtype that both formats have, and every way in which a tensor can lie."""
    numbers = numpy.random.default_rng(4)
    dtypes = [
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
        torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
        torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64,
    ]
    state = {}
    for dtype in dtypes:
        values = torch.from_numpy(numbers.integers(0, 2, (2, 3)).astype("float32"))
        state[f"dtypes.{str(dtype).removeprefix('torch.')}"] = values.to(dtype)
    whole = torch.from_numpy(numbers.standard_normal((4, 5, 6)).astype("float32"))
    state["views.whole"] = whole
    state["views.transposed"] = whole[1].t()
    state["views.permuted"] = whole.permute(2, 0, 1)
    state["views.sliced"] = whole[1:3, ::2, 4]
    state["views.expanded"] = whole[0, 0].expand(3, 6)
    state["views.scalar"] = whole[2, 3, 4]
    state["views.empty"] = whole[:, :0]
    state["parameter"] = torch.nn.Parameter(torch.ones(2))
    return state


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "sharded").mkdir(parents=True)
    tensors = state()
    plain = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(plain, FOLDER / "plain.safetensors")
    torch.save(tensors, FOLDER / "zip.pt")
    torch.save(tensors, FOLDER / "stream.pt", **STREAM)
    torch.save(tensors, FOLDER / "protocol-4.pt", pickle_protocol=4)
    module = torch.nn.Linear(2, 1)
    torch.nn.init.ones_(module.weight)
    torch.nn.init.zeros_(module.bias)
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, FOLDER / "wrapped.pth")

    map = {}
    for number, names in enumerate((["views.whole", "views.transposed"], ["parameter"]), 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: tensors[name] for name in names}, FOLDER / "sharded" / file)
        map |= dict.fromkeys(names, file)
    size = sum(plain[name].numel() * 4 for name in map)
    (FOLDER / "sharded/pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {"total_size": size}, "weight_map": map}, indent=2) + "\n")

    (FOLDER / "adapter").mkdir()
    source = SAMPLES / "adapters/lora"
    shutil.copy(source / "adapter_config.json", FOLDER / "adapter")
    torch.save(load_file(source / "adapter_model.safetensors"),
               FOLDER / "adapter/adapter_model.bin", **STREAM)


if __name__ == "__main__":
    main()
