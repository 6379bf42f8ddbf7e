"""Packed files, read by the zstd program and numpy from what Formats/packed.md says."""

import json
import struct
import subprocess

import numpy
import pytest
import torch
from conftest import SAMPLES
from safetensors.torch import save_file

BASE = SAMPLES / "bases/llama-bf16"
BLOCK = 1 << 20
WIDTHS = {"BF16": 2, "F32": 4, "C64": 4, "F16": 2, "I16": 2, "U16": 2, "I32": 4, "U32": 4,
          "F64": 8, "I64": 8, "U64": 8}
SIGNED = ("BF16", "F32", "C64")


def joined(planes, dtype, base=None):
    """The bytes of a block, from its planes and what the base has in its place."""
    width = WIDTHS.get(dtype, 1)
    kind = numpy.dtype(f"<u{width}")
    elements = numpy.frombuffer(planes, "u1").reshape(width, -1).T.copy().view(kind).ravel()
    bits = 8 * width
    if base is not None:
        difference = (elements >> kind.type(1)) ^ (kind.type(0) - (elements & kind.type(1)))
        elements = numpy.frombuffer(base, kind) + difference
    elif dtype in SIGNED:
        exponent, sign = elements >> (bits - 8), elements >> (bits - 9) & 1
        mantissa = elements & ((1 << (bits - 9)) - 1)
        elements = (sign << (bits - 1) | exponent << (bits - 9) | mantissa).astype(kind)
    return elements.astype(kind).tobytes()


def unpacked(path, base=None):
    """Every file in a packed one; `base`: its tensors' bytes by name."""
    data = path.read_bytes()
    assert data[:4] == b"\x50\x2a\x4d\x18" and data[8:16] == b"PEFTPAK1"
    length, = struct.unpack("<Q", data[24:32])
    listed = json.loads(data[32:32 + length])["files"]
    place, end = 32 + length, 8 + struct.unpack("<I", data[4:8])[0]
    # zstd passes over the header, and gives all blocks one behind the other.
    contents = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout
    kinds, files, done = [], {}, 0
    beginnings = {}
    for file in listed:
        beginnings[file["name"]] = data[place:place + file.get("header", 0)]
        place += file.get("header", 0)
    for entry in range(place, end, 24):
        kinds.append(struct.unpack("<I", data[entry + 20:entry + 24])[0])
    for file in listed:
        beginning = beginnings[file["name"]]
        if beginning:
            header = json.loads(beginning[8:])
            header.pop("__metadata__", None)
            pieces = sorted((value["data_offsets"], name, value["dtype"])
                            for name, value in header.items())
        else:
            pieces = [((0, file["bytes"]), None, "U8")]
        found = beginning
        for (start, stop), name, dtype in pieces:
            for offset in range(0, stop - start, BLOCK):
                count = min(BLOCK, stop - start - offset)
                own = base[name][offset:offset + count] if kinds.pop(0) else None
                found += joined(contents[done:done + count], dtype, own)
                done += count
        files[file["name"]] = found
    assert not kinds and done == len(contents)
    return files


def tensors_of(path):
    data = path.read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: data[8 + length:][slice(*value["data_offsets"])]
            for name, value in header.items()}


def test_a_directory(peftool, tmp_path):
    peftool.check("convert", BASE, "-o", tmp_path / "x.zst")
    assert unpacked(tmp_path / "x.zst") == {
        path.name: path.read_bytes() for path in BASE.iterdir()}


def test_every_dtype(peftool, tmp_path):
    random = torch.Generator().manual_seed(1)
    tensors = {
        str(dtype): torch.randint(0, 256, (1 << 21,), generator=random, dtype=torch.uint8)
        .view(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64,
                      torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
                      torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn)}
    tensors |= {"odd": torch.randn(3, 7), "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 2)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    peftool.check("convert", path, "-o", tmp_path / "x.zst")
    assert unpacked(tmp_path / "x.zst")["x.safetensors"] == path.read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.int8])
def test_differences(peftool, tmp_path, dtype):
    random = torch.Generator().manual_seed(1)
    old = torch.randint(0, 256, ((1 << 20) + 64,), generator=random, dtype=torch.uint8)
    new = old.clone()
    new[::5] = torch.randint(0, 256, new[::5].shape, generator=random, dtype=torch.uint8)
    save_file({"w": old.view(dtype)}, tmp_path / "old.safetensors")
    save_file({"w": new.view(dtype), "more": new.view(dtype)[:9].clone()},
              tmp_path / "new.safetensors")
    peftool.check("convert", tmp_path / "new.safetensors", "-o", tmp_path / "x.zst",
                  "--delta-from", tmp_path / "old.safetensors")
    found = unpacked(tmp_path / "x.zst", tensors_of(tmp_path / "old.safetensors"))
    assert found["new.safetensors"] == (tmp_path / "new.safetensors").read_bytes()
