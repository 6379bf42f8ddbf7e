"""GGUF against the real gguf package: types, metadata, models."""

import json

import gguf
import gguf.quants
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import kernels
from conftest import ROOT, SAMPLES

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


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    return kernels.build_variants(tmp_path_factory.mktemp("variants"))


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


QUANTIZABLE = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]


def quantize(library, name, values):
    out = np.empty((values.shape[0], gguf.GGML_QUANT_SIZES[TYPES[name]][1]), np.uint8)
    library.pef_quantize_f32(
        BLOCKS.index(name), kernels.pointer(values), kernels.pointer(out),
        kernels.size(values.shape[0]))
    return out


def blocks_of_numbers():
    random = np.random.default_rng(0)
    n = 20_000
    normal = random.standard_normal((n, 32))
    yield normal
    yield normal * np.exp(random.uniform(-105, 85, (n, 1)))
    # Halves of steps.
    yield random.integers(-8, 9, (n, 32)) / random.choice([1, 2, 4, 8, 127], (n, 1))
    yield random.integers(-127, 128, (n, 32)) * random.choice(2.0 ** np.arange(-40, 40), (n, 1)) / 2
    yield random.integers(0, 2**32, (n, 32), np.uint32).view(np.float32)
    rare = random.random((n, 32))
    yield np.select([rare < 0.02, rare < 0.04, rare < 0.06], [np.nan, np.inf, -np.inf], normal)
    yield np.zeros((4, 32))


@pytest.mark.parametrize("name", QUANTIZABLE)
def test_blocks_are_quantized_as_the_package_does(library, variants, name):
    """Every byte, but for the bits of a NaN and for the sign of a minimum of 0."""
    for values in blocks_of_numbers():
        with np.errstate(all="ignore"):
            values = np.ascontiguousarray(values.astype(np.float32))
            expected = gguf.quants.quantize(values, TYPES[name])
        found = quantize(library, name, values)
        for variant in variants:
            assert quantize(variant.library, name, values).tobytes() == found.tobytes()
        floats = 4 if name.endswith("_1") else 2
        halves, wanted = (b[:, :floats].copy().view(np.float16) for b in (found, expected))
        same = (halves.view(np.uint16) == wanted.view(np.uint16)) | (
            np.isnan(halves) & np.isnan(wanted))
        if name.endswith("_1"):
            # numpy's minimum of 0 and -0 is the processor's.
            both = (values == 0).any(1) & (np.signbit(values) & (values == 0)).any(1)
            same[:, 1] |= both & (halves[:, 1] == 0) & (wanted[:, 1] == 0)
        assert same.all()
        assert (found[:, floats:] == expected[:, floats:]).all()


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


TEXT = "the the other thin inner <|user|> <tool> hers\n  and ü 漢字 I'll 'there'"


@pytest.fixture(scope="module")
def converted(peftool, tmp_path_factory):
    """The directory that `convert` makes of a model, made once."""
    made = {}

    def convert(path):
        if path not in made:
            made[path] = tmp_path_factory.mktemp("converted") / "model"
            peftool.check("convert", path, "-o", made[path], "--dtype", "f32", "--quiet")
        return made[path]

    return convert


def from_gguf(path):
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32)


@pytest.mark.parametrize("name", MODELS)
def test_converted_tensors_are_those_that_transformers_loads(converted, name):
    expected = from_gguf(SAMPLES / "gguf" / name).state_dict()
    found = transformers.AutoModelForCausalLM.from_pretrained(
        converted(SAMPLES / "gguf" / name), dtype=torch.float32).state_dict()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("name", MODELS)
def test_converted_models_load_without_a_missing_tensor(converted, name):
    folder = converted(SAMPLES / "gguf" / name)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    stored = set(load_file(folder / "model.safetensors"))
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert stored == set(model.state_dict()) - tied


# transformers leaves the factors for frequencies of Llama 3 out.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "tiny-llama3.gguf"])
def test_converted_models_compute_what_transformers_computes(converted, name):
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        expected = from_gguf(SAMPLES / "gguf" / name)(ids).logits
        found = transformers.AutoModelForCausalLM.from_pretrained(
            converted(SAMPLES / "gguf" / name), dtype=torch.float32)(ids).logits
    assert torch.equal(found, expected)


def test_factors_for_frequencies_become_llama_3s_scaling(converted):
    path = SAMPLES / "gguf/tiny-llama3.gguf"
    model = transformers.AutoModelForCausalLM.from_pretrained(converted(path))
    factors = next(
        t.data for t in gguf.GGUFReader(path).tensors if t.name == "rope_freqs.weight")
    head = model.config.head_dim
    expected = 1.0 / 10000.0 ** (np.arange(0, head, 2) / head) / factors
    np.testing.assert_allclose(model.model.rotary_emb.inv_freq.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_converted_tokenizers_give_the_same_tokens(converted, name):
    folder = converted(SAMPLES / "gguf" / name)
    expected = transformers.AutoTokenizer.from_pretrained(SAMPLES / "gguf", gguf_file=name)
    found = transformers.AutoTokenizer.from_pretrained(folder)
    if "llama3" in name:
        # Llama 3's own tokenizer.json has it, and llama.cpp does it; transformers leaves it out.
        expected.backend_tokenizer.model.ignore_merges = True
    # Pieces without digits: transformers does not cut them as SmolLM does.
    for text in [TEXT, " " + TEXT, "", "\n\n", "thethe  "]:
        assert found(text)["input_ids"] == expected(text)["input_ids"], text
        ids = expected(text)["input_ids"]
        assert found.decode(ids) == expected.decode(ids)
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        assert getattr(found, key) == getattr(expected, key)
    assert found.get_vocab() == expected.get_vocab()
    assert found.chat_template == expected.chat_template


def test_dtypes_are_rounded_once(peftool, converted, tmp_path):
    path = SAMPLES / "gguf/tiny-llama.gguf"
    whole = load_file(converted(path) / "model.safetensors")
    for dtype, kind in [("f16", torch.float16), ("bf16", torch.bfloat16)]:
        peftool.check("convert", path, "-o", tmp_path / dtype, "--dtype", dtype)
        found = load_file(tmp_path / dtype / "model.safetensors")
        for key, tensor in whole.items():
            assert torch.equal(found[key], tensor.to(kind)), key


def test_parts_and_shards_hold_the_same_model(peftool, converted, tmp_path):
    whole = converted(SAMPLES / "gguf/tiny-llama.gguf")
    peftool.check(
        "convert", SAMPLES / "gguf/parts-00003-of-00003.gguf", "-o", tmp_path / "m",
        "--shard-size", "100KB", "--dtype", "f32")
    peftool.check("verify", tmp_path / "m")
    peftool.check("diff", whole, tmp_path / "m")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (whole / name).read_text() == (tmp_path / "m" / name).read_text()


def test_smollm2_says_the_same(converted, smollm2):
    folder = converted(smollm2)
    answers = []
    for model, tokenizer in [
        (from_gguf(smollm2), transformers.AutoTokenizer.from_pretrained(
            smollm2.parent, gguf_file=smollm2.name)),
        (transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
         transformers.AutoTokenizer.from_pretrained(folder)),
    ]:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Why is the sky blue?"}], tokenize=False,
            add_generation_prompt=True)
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        out = model.generate(ids, max_new_tokens=40, do_sample=False)
        answers.append((ids.tolist(), tokenizer.decode(out[0, ids.shape[1]:])))
    assert answers[0] == answers[1]
    assert "light" in answers[0][1]
