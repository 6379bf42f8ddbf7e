"""GGUF against the real gguf package: types, metadata, models."""

import ctypes
import json

import gguf
import gguf.quants
import numpy as np
import pytest

import kernels
from conftest import SAMPLES

TYPES = gguf.GGMLQuantizationType
# pef_block_type, in the order of CKernels.h.
BLOCKS = (
    "Q1_0 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ1_S IQ1_M IQ2_XXS IQ2_XS "
    "IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4"
).split()
# The package has no values for these.
WITH_VALUES = [name for name in BLOCKS if name not in ("Q1_0", "Q8_1", "Q8_K")]
MODELS = sorted(path.name for path in (SAMPLES / "gguf").glob("tiny-*.gguf"))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return kernels.build(tmp_path_factory.mktemp("kernels")).library


def dequantize(library, name, blocks):
    count = blocks.shape[0]
    out = np.empty((count, gguf.GGML_QUANT_SIZES[TYPES[name]][0]), np.float32)
    library.pef_dequantize_f32(
        BLOCKS.index(name), kernels.pointer(blocks), kernels.pointer(out), kernels.size(count))
    return out


def assert_bits_equal(found, expected):
    nan = np.isnan(expected)
    assert (np.isnan(found) == nan).all()
    assert (found.view(np.uint32) == expected.view(np.uint32))[~nan].all()


@pytest.mark.parametrize("name", WITH_VALUES)
def test_random_blocks_have_the_packages_values(library, name):
    """Random bytes: NaN, infinities and subnormal numbers among the scales."""
    random = np.random.default_rng(BLOCKS.index(name))
    byte_count = gguf.GGML_QUANT_SIZES[TYPES[name]][1]
    blocks = random.integers(0, 256, (20_000, byte_count), np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(blocks, TYPES[name])
    assert_bits_equal(dequantize(library, name, blocks), expected)


@pytest.mark.parametrize("name", WITH_VALUES)
def test_every_scale_has_the_packages_values(library, name):
    """Every bit pattern of two bytes, at each place of a block in turn."""
    byte_count = gguf.GGML_QUANT_SIZES[TYPES[name]][1]
    random = np.random.default_rng(1)
    blocks = np.empty((65536, byte_count), np.uint8)
    for place in {0, 2, byte_count - 2} if byte_count > 17 else {0}:
        blocks[:] = random.integers(0, 256, byte_count, np.uint8)
        blocks[:, place : place + 2] = np.arange(65536, dtype="<u2").view(np.uint8).reshape(-1, 2)
        with np.errstate(all="ignore"):
            expected = gguf.quants.dequantize(blocks, TYPES[name])
        assert_bits_equal(dequantize(library, name, blocks), expected)


def test_sizes_are_the_packages(peftool):
    report = json.loads(peftool.check("inspect", SAMPLES / "gguf/types.gguf", "--json"))
    reader = gguf.GGUFReader(SAMPLES / "gguf/types.gguf")
    expected = {
        t.name: (t.tensor_type.name, list(map(int, reversed(t.shape))), int(t.n_bytes),
                 int(t.data_offset))
        for t in reader.tensors
    }
    found = {
        t["name"]: (t["dtype"], t["shape"], t["bytes"], t["offset"]) for t in report["tensors"]
    }
    assert found == expected


@pytest.mark.parametrize("name", MODELS)
def test_models_are_read_as_the_package_reads_them(peftool, name):
    report = json.loads(peftool.check("inspect", SAMPLES / "gguf" / name, "--json"))
    reader = gguf.GGUFReader(SAMPLES / "gguf" / name)
    assert [t["name"] for t in report["tensors"]] == [t.name for t in reader.tensors]
    assert report["format"] == "gguf"
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        value = field.contents()
        found = report["metadata"][key]
        if isinstance(value, list):
            assert found.startswith(f"{len(value)} ")
        elif isinstance(value, float):
            assert np.float32(found) == np.float32(value)
        else:
            assert found == (str(value).lower() if isinstance(value, bool) else str(value))


@pytest.mark.parametrize("name", MODELS)
def test_what_the_package_writes_has_no_faults(peftool, name):
    peftool.check("verify", SAMPLES / "gguf" / name)
