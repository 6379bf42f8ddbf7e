"""GGUF files that peftool writes, against the gguf package, transformers and llama.cpp's own."""

import json
import shutil

import gguf
import gguf.quants
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from conftest import SAMPLES
from test_gguf import MODELS, TEXT, TYPES

FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9}


def fields(path):
    """The pairs of metadata with their types, and the tensors, by names."""
    reader = gguf.GGUFReader(path)
    pairs = {
        key: (field.types[0].name, field.types[-1].name, field.contents())
        for key, field in reader.fields.items() if not key.startswith("GGUF.")
    }
    return pairs, {t.name: t for t in reader.tensors}


# --- There and back ---------------------------------------------------------------------------

# Keys that a model without them lacks, because it was written by hand or by an older converter.
ADDED = {
    "general.type", "general.size_label", "general.quantization_version",
    "tokenizer.ggml.add_eos_token", "llama.attention.key_length", "llama.attention.value_length",
}
# Keys that llama.cpp's converter writes for no such model, or that a directory has no place for.
LEFT_OUT = {
    "qwen2.vocab_size", "qwen2.rope.dimension_count", "qwen3.vocab_size",
    "qwen3.rope.dimension_count", "general.organization", "general.finetune", "general.license",
    "general.languages", "tokenizer.ggml.add_space_prefix",
}


def assert_comes_back(peftool, path, folder, dtype, through):
    peftool.check("convert", path, "-o", folder, "--dtype", through, "--quiet")
    again = folder.parent / "again.gguf"
    peftool.check("convert", folder, "-o", again, "--dtype", dtype, "--quiet")
    expected, tensors = fields(path)
    found, others = fields(again)
    assert found.keys() - expected.keys() <= ADDED
    assert expected.keys() - found.keys() <= LEFT_OUT
    for key in expected.keys() & found.keys():
        # A folder has a name, and no other.
        if key not in ("general.name", "general.finetune", "general.basename"):
            assert found[key] == expected[key], key
    assert others.keys() == tensors.keys()
    return tensors, others


@pytest.mark.parametrize("name", MODELS)
def test_models_come_back(peftool, tmp_path, name):
    """Also through f32: coding the values of blocks again gives the same blocks."""
    path = SAMPLES / "gguf" / name
    dtype = fields(path)[1]["blk.0.attn_q.weight"].tensor_type.name.lower()
    tensors, others = assert_comes_back(peftool, path, tmp_path / "model", dtype, "f32")
    for key, tensor in tensors.items():
        assert others[key].tensor_type == tensor.tensor_type, key
        assert others[key].data.tobytes() == tensor.data.tobytes(), key


def test_a_file_of_llama_cpps_converter_comes_back(peftool, tmp_path, smollm2):
    tensors, others = assert_comes_back(peftool, smollm2, tmp_path / "SmolLM2-135M", "q4_1", "f32")
    for key, tensor in tensors.items():
        # llama-quantize gives the embedding more bits.
        if key != "token_embd.weight":
            assert others[key].tensor_type == tensor.tensor_type, key
            assert others[key].data.tobytes() == tensor.data.tobytes(), key


# --- Models of transformers -------------------------------------------------------------------

SIZES = dict(
    hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256)
KINDS = {
    "llama": (transformers.LlamaConfig, "tiny-llama.gguf", {}),
    "llama-odd": (
        transformers.LlamaConfig, "tiny-llama.gguf",
        dict(head_dim=32, attention_bias=True, mlp_bias=True, num_key_value_heads=4)),
    "mistral": (transformers.MistralConfig, "tiny-mistral.gguf", {}),
    "qwen2": (transformers.Qwen2Config, "tiny-qwen2.gguf", dict(tie_word_embeddings=True)),
    # transformers takes a Qwen3 in GGUF for one with heads of 128.
    "qwen3": (transformers.Qwen3Config, "tiny-qwen3.gguf", dict(head_dim=128)),
}


@pytest.fixture(scope="module")
def models(peftool, tmp_path_factory):
    """Directories as transformers saves them, with a tokenizer."""
    made = {}

    def make(kind, dtype=torch.float32, **settings):
        key = (kind, dtype, json.dumps(settings))
        if key in made:
            return made[key]
        config_class, tokenizer, own = KINDS[kind]
        # peftool knows a Mistral in GGUF by its name.
        folder = tmp_path_factory.mktemp("models") / f"tiny-{kind}"
        peftool.check("convert", SAMPLES / "gguf" / tokenizer, "-o", folder, "--quiet")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        config = config_class(
            vocab_size=len(tokenizer) + 7, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=None, **(SIZES | own | settings))
        torch.manual_seed(len(kind))
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.normal_(std=0.3 if value.dim() > 1 else 1)
        shutil.rmtree(folder)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made[key] = folder
        return folder

    return make


def loaded(path):
    """A model that transformers loads from a GGUF file."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_computes_the_same(peftool, models, tmp_path, kind):
    folder = models(kind)
    # A bias of a Llama has no place in transformers' reader.
    path = tmp_path / f"tiny-{kind}.gguf"
    peftool.check("convert", folder, "-o", path, "--dtype", "f32", "--quiet")
    peftool.check("verify", path)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if kind != "llama-odd":
        other = loaded(path)
        # A Mistral is a Llama to llama.cpp.
        assert kind == "mistral" or type(other) is type(model)
        ids = torch.arange(3, 43)[None]
        with torch.no_grad():
            assert torch.equal(other(ids).logits, model(ids).logits)
        assert torch.equal(
            other.generate(ids, max_new_tokens=20, do_sample=False),
            model.generate(ids, max_new_tokens=20, do_sample=False))
    # And peftool gives every bit of it back.
    peftool.check("convert", path, "-o", tmp_path / "back", "--quiet", "--dtype", "f32")
    expected = load_file(folder / "model.safetensors")
    found = load_file(tmp_path / "back/model.safetensors")
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key].view(torch.int32), tensor.view(torch.int32)), key


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_the_same_tokens(peftool, models, tmp_path, kind):
    folder = models(kind)
    path = tmp_path / f"tiny-{kind}.gguf"
    peftool.check("convert", folder, "-o", path, "--quiet")
    expected = transformers.AutoTokenizer.from_pretrained(folder)
    found = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in [TEXT, " " + TEXT, "", "\n\n", "thethe  "]:
        assert found(text)["input_ids"] == expected(text)["input_ids"], text
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        assert getattr(found, key) == getattr(expected, key)
    assert found.chat_template == expected.chat_template
    pairs, _ = fields(path)
    tokens = pairs["tokenizer.ggml.tokens"][2]
    size = expected.vocab_size if kind == "mistral" else len(expected)
    assert len(tokens) == len(expected) + 7 and tokens[-1] == f"[PAD{len(tokens) - 1}]"
    assert [expected.convert_ids_to_tokens(n) for n in range(size)] == tokens[:size]


def permuted(tensor, heads):
    """llama.cpp's order of the rows of q and k."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


@pytest.mark.parametrize("dtype", FILE_TYPES)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_are_what_the_package_makes_of_them(peftool, models, tmp_path, dtype, stored):
    folder = models("llama", stored)
    path = tmp_path / "model.gguf"
    peftool.check("convert", folder, "-o", path, "--dtype", dtype, "--quiet")
    pairs, tensors = fields(path)
    assert pairs["general.file_type"][2] == FILE_TYPES[dtype]
    assert list(pairs)[:2] == ["general.architecture", "general.type"]
    weights = load_file(folder / "model.safetensors")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    assert len(tensors) == len(weights)
    for name, weight in weights.items():
        values = weight.float().numpy()
        for part, heads in (("q_proj", 4), ("k_proj", 2)):
            if part in name:
                values = permuted(values, heads)
        kind = TYPES[dtype.upper()] if values.ndim > 1 else TYPES.F32
        found = tensors[names.get_name(name, try_suffixes=(".weight",))]
        assert found.tensor_type == kind, name
        expected = gguf.quants.quantize(np.ascontiguousarray(values), kind)
        assert found.data.tobytes() == expected.tobytes(), name


@pytest.mark.parametrize(
    "stored, expected",
    [(torch.float32, "F16"), (torch.bfloat16, "BF16"), (torch.float16, "F16")])
def test_without_a_dtype_it_is_the_models_own(peftool, models, tmp_path, stored, expected):
    peftool.check("convert", models("qwen2", stored), "-o", tmp_path / "m.gguf", "--quiet")
    _, tensors = fields(tmp_path / "m.gguf")
    assert tensors["blk.0.attn_q.weight"].tensor_type.name == expected
    assert tensors["blk.0.attn_q.bias"].tensor_type.name == "F32"


def test_rows_without_whole_blocks_are_f16(peftool, models, tmp_path):
    folder = models("qwen2", hidden_size=72, intermediate_size=64)
    report = json.loads(peftool.check(
        "convert", folder, "-o", tmp_path / "m.gguf", "--dtype", "q4_0", "--json", "--quiet"))
    _, tensors = fields(tmp_path / "m.gguf")
    kinds = {name: t.tensor_type.name for name, t in tensors.items() if len(t.shape) > 1}
    assert {name for name, kind in kinds.items() if kind == "Q4_0"} == {
        "blk.0.ffn_down.weight", "blk.1.ffn_down.weight"}
    assert set(kinds.values()) == {"Q4_0", "F16"}
    assert any("as F16" in note for note in report["notes"])


ROPES = {
    "linear": (
        dict(rope_type="linear", factor=2.5, rope_theta=10000.0),
        {"type": "linear", "factor": 2.5}),
    "yarn": (
        dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=16.0,
             beta_slow=2.0, attention_factor=1.25, rope_theta=1e6),
        {"type": "yarn", "factor": 4.0, "original_context_length": 64, "yarn_attn_factor": 1.25,
         "yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0}),
    "llama3": (
        dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
             original_max_position_embeddings=64, rope_theta=10000.0), {}),
}


@pytest.mark.parametrize("name", ROPES)
def test_positions_are_scaled(peftool, models, tmp_path, name):
    settings, expected = ROPES[name]
    folder = models("llama", rope_parameters=settings)
    path = tmp_path / "m.gguf"
    peftool.check("convert", folder, "-o", path, "--quiet")
    pairs, tensors = fields(path)
    found = {
        key.removeprefix("llama.rope.scaling."): value[2] for key, value in pairs.items()
        if key.startswith("llama.rope.scaling.")
    }
    assert found == expected
    assert pairs["llama.rope.freq_base"][2] == settings["rope_theta"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    if name == "llama3":
        factors = tensors["rope_freqs.weight"]
        assert factors.tensor_type.name == "F32"
        head = model.config.head_dim
        plain = 1.0 / settings["rope_theta"] ** (np.arange(0, head, 2) / head)
        np.testing.assert_allclose(
            plain / factors.data, model.model.rotary_emb.inv_freq.numpy(), rtol=1e-6)
    else:
        assert "rope_freqs.weight" not in tensors
    peftool.check("convert", path, "-o", tmp_path / "back", "--quiet")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    torch.testing.assert_close(
        back.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq, rtol=1e-6, atol=0)


def test_tokenizers_say_who_they_are(peftool, models, tmp_path):
    """Ways of cutting as the models' own `tokenizer.json` have them."""
    folder = tmp_path / "m"
    shutil.copytree(models("llama"), folder)
    text = json.loads((folder / "tokenizer.json").read_text())
    split = transformers.AutoTokenizer.from_pretrained(models("qwen2"))
    qwen = json.loads(split.backend_tokenizer.to_str())["pre_tokenizer"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    for expected, change in {
        "gpt-2": {"pre_tokenizer": byte_level},
        "smollm": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, byte_level | {"use_regex": True}]}},
        "qwen2": {"pre_tokenizer": qwen, "normalizer": {"type": "NFC"}},
        "deepseek-r1-qwen": {"pre_tokenizer": qwen},
    }.items():
        changed = text | {"normalizer": None} | change
        (folder / "tokenizer.json").write_text(json.dumps(changed))
        peftool.check("convert", folder, "-o", tmp_path / "m.gguf", "--force", "--quiet")
        assert fields(tmp_path / "m.gguf")[0]["tokenizer.ggml.pre"][2] == expected
    (folder / "tokenizer.json").write_text(json.dumps(text | {"normalizer": {"type": "NFKC"}}))
    done = peftool.run("convert", folder, "-o", tmp_path / "m.gguf", "--force")
    assert done.returncode == 2 and "it knows gpt-2, smollm, llama-bpe" in done.stderr


def test_settings_for_sampling_and_templates_are_kept(peftool, models, tmp_path):
    folder = tmp_path / "Tiny-Llama-1.5-96K-Chat"
    shutil.copytree(models("llama"), folder)
    (folder / "generation_config.json").write_text(
        json.dumps({"temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [1, 2]}))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = [
        {"name": "default", "template": "a"}, {"name": "tool use", "template": "b"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    peftool.check("convert", folder, "-o", tmp_path / "m.gguf", "--quiet")
    pairs, _ = fields(tmp_path / "m.gguf")
    assert pairs["general.sampling.temp"][::2] == ("FLOAT32", np.float32(0.6))
    assert pairs["general.sampling.top_k"][::2] == ("INT32", 20)
    assert pairs["tokenizer.chat_template"][2] == "a"
    assert pairs["tokenizer.chat_template.tool_use"][2] == "b"
    assert pairs["tokenizer.chat_templates"][2] == ["tool_use"]
    metadata = gguf.Metadata.load(None, folder, None, 98_000)
    for key in ("name", "organization", "basename", "finetune", "version", "size_label"):
        assert pairs.get(f"general.{key}", (0, 0, None))[2] == getattr(metadata, key), key


def test_writing_takes_no_more_than_blocks(peftool, models, tmp_path):
    """Same bytes whatever the threads, and an output that replaces only with --force."""
    folder = models("llama")
    for threads in (1, 2, 5):
        peftool.check(
            "convert", folder, "-o", tmp_path / f"{threads}.gguf", "--threads", threads, "--quiet")
    first = (tmp_path / "1.gguf").read_bytes()
    assert all((tmp_path / f"{n}.gguf").read_bytes() == first for n in (2, 5))
    assert peftool.run("convert", folder, "-o", tmp_path / "1.gguf").returncode == 2


def test_numbers_that_are_too_large_are_refused(peftool, models, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(models("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][5, 7] = 1e30
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for dtype, refused in [
        ("f32", False), ("bf16", False), ("f16", True), ("q8_0", True), ("q4_1", True)
    ]:
        done = peftool.run(
            "convert", folder, "-o", tmp_path / f"{dtype}.gguf", "--dtype", dtype, "--quiet")
        assert done.returncode == (2 if refused else 0), done.stderr
        assert not refused or "model.layers.0.mlp.up_proj.weight" in done.stderr
        assert (tmp_path / f"{dtype}.gguf").exists() != refused
