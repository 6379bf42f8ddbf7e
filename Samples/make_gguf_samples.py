#!/usr/bin/env python3
"""Makes Samples/gguf with the Python package gguf, in the environment of the interop tests.

    .build/interop/bin/python Samples/make_gguf_samples.py

Files of the same bytes on every run:
    types.gguf             a tensor of two blocks for each of ggml's types, random bytes
    types.safetensors      their values, as the package computes them
    tiny-NAME.gguf         a model of two layers, one a family, with a tokenizer
    parts-0000N-of-00003   tiny-llama.gguf in three files
    quantized.gguf         numbers in F32, and what the package makes of them in each type that it
                           and peftool write
"""

import pathlib
import shutil
import tempfile

import gguf
import gguf.quants
import numpy as np
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parent / "gguf"
TYPES = gguf.GGMLQuantizationType

# The package has no values for these, and of Q8_1 a size that ggml left in 2023.
WITHOUT_VALUES = {TYPES.Q8_1, TYPES.Q8_K, TYPES.Q1_0}
PLAIN = {
    TYPES.F32: np.float32, TYPES.F16: np.float16, TYPES.F64: np.float64, TYPES.I8: np.int8,
    TYPES.I16: np.int16, TYPES.I32: np.int32, TYPES.I64: np.int64,
}


def make_types():
    random = np.random.default_rng(4)
    writer = gguf.GGUFWriter(OUT / "types.gguf", "llama")
    writer.add_array("test.strings", ["a", "", "ü"])
    writer.add_array("test.integers", [1, -2, 3])
    writer.add_array("test.numbers", [0.5, -2.0])
    for name, value in [("uint8", 200), ("int8", -3), ("uint16", 60000), ("int16", -4),
                        ("uint32", 4000000000), ("int32", -5), ("uint64", 2**63), ("int64", -6),
                        ("float32", 0.25), ("float64", 0.1), ("bool", True)]:
        getattr(writer, f"add_{name}")(f"test.{name}", value)
    values = {}
    for kind in TYPES:
        if kind in WITHOUT_VALUES:
            continue
        elements, byte_count = gguf.GGML_QUANT_SIZES[kind]
        if kind in PLAIN:
            data = random.integers(-100, 100, 6).reshape(2, 3).astype(PLAIN[kind])
            writer.add_tensor(kind.name, data)
            values[kind.name] = data
            continue
        data = random.integers(0, 256, (2, byte_count * (1 if elements > 1 else 3)), np.uint8)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        with np.errstate(all="ignore"):
            values[kind.name] = gguf.quants.dequantize(data, kind)
    close(writer)
    save_file(values, OUT / "types.safetensors")
    (OUT / "types.safetensors").chmod(0o644)


def hard_rows():
    """Rows of two blocks: plain, tiny, huge, with halves of steps, and zeros."""
    random = np.random.default_rng(5)
    scales = (-44, -38, -20, -2, 0, 3, 37)
    rows = [random.standard_normal((8, 64)) * 10.0**scale for scale in scales]
    for largest in (-127, 127, -8, -16, 15, 31):
        halves = random.integers(-2 * abs(largest), 2 * abs(largest) + 1, (2, 64)) / 2
        halves[:, ::16] = largest
        rows.append(halves * 0.125)
    return np.concatenate([*rows, np.zeros((1, 64))]).astype(np.float32)


def make_quantized():
    values = hard_rows()
    writer = gguf.GGUFWriter(OUT / "quantized.gguf", "llama")
    writer.add_tensor("values", values)
    for kind in (TYPES.F16, TYPES.BF16, TYPES.Q8_0, TYPES.Q4_0, TYPES.Q4_1, TYPES.Q5_0, TYPES.Q5_1):
        with np.errstate(all="ignore"):
            writer.add_tensor(kind.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    close(writer)


def close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# Bytes as GPT-2's vocabularies spell them.
def byte_letters():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + n) for n, b in enumerate(rest)}


BPE_PIECES = ["th", "he", "in", "Ġt", "Ġthe", "er"]
BPE_MERGES = ["t h", "h e", "i n", "Ġ t", "Ġt he", "e r"]
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"


def add_bpe_tokenizer(writer, pre):
    tokens = ["<|endoftext|>", "<|user|>", *byte_letters().values(), *BPE_PIECES, "<tool>"]
    kinds = [3, 3] + [1] * (len(tokens) - 3) + [4]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(BPE_MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    return len(tokens)


def add_sentencepiece_tokenizer(writer):
    pieces = ["▁t", "▁th", "▁the", "th", "he", "in", "er", "▁", *"theinrsaoü"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces]
    scores = [0.0] * 259 + [-float(n) for n in range(len(pieces))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(pieces))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    return len(tokens)


HIDDEN, INNER, HEADS, KEY_HEADS, HEAD = 64, 96, 4, 2, 16


def make_model(name, architecture, vocabulary, *, biases=False, norms=False, tied=False,
               kind=TYPES.Q8_0, general_name=None, scaling=False, head=HEAD):
    random = np.random.default_rng(len(name))
    writer = gguf.GGUFWriter(OUT / f"tiny-{name}.gguf", architecture)
    writer.add_name(general_name or f"Tiny {name}")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_file_type(
        {TYPES.Q8_0: 7, TYPES.F16: 1, TYPES.Q4_0: 2, TYPES.BF16: 32}[kind])
    count = vocabulary(writer)
    writer.add_vocab_size(count)

    def tensor(name, *shape, as_kind=None):
        data = random.standard_normal(shape).astype(np.float32) / 8
        as_kind = as_kind or (kind if len(shape) > 1 else TYPES.F32)
        if as_kind == TYPES.F32:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, as_kind), raw_dtype=as_kind)

    tensor("token_embd.weight", count, HIDDEN)
    for layer in range(2):
        block = f"blk.{layer}."
        tensor(block + "attn_norm.weight", HIDDEN)
        tensor(block + "attn_q.weight", HEADS * head, HIDDEN)
        tensor(block + "attn_k.weight", KEY_HEADS * head, HIDDEN)
        tensor(block + "attn_v.weight", KEY_HEADS * head, HIDDEN)
        tensor(block + "attn_output.weight", HIDDEN, HEADS * head)
        if biases:
            tensor(block + "attn_q.bias", HEADS * head)
            tensor(block + "attn_k.bias", KEY_HEADS * head)
            tensor(block + "attn_v.bias", KEY_HEADS * head)
        if norms:
            tensor(block + "attn_q_norm.weight", head)
            tensor(block + "attn_k_norm.weight", head)
        tensor(block + "ffn_norm.weight", HIDDEN)
        tensor(block + "ffn_gate.weight", INNER, HIDDEN)
        tensor(block + "ffn_up.weight", INNER, HIDDEN)
        tensor(block + "ffn_down.weight", HIDDEN, INNER)
    tensor("output_norm.weight", HIDDEN)
    if scaling:
        # What llama.cpp's converter makes of Llama 3's rope_scaling.
        writer.add_tensor("rope_freqs.weight", llama3_factors(head))
    if not tied:
        tensor("output.weight", count, HIDDEN)
    close(writer)


def llama3_factors(head, base=10000.0, factor=8.0, low=1.0, high=4.0, context=64):
    factors = []
    for frequency in 1.0 / base ** (np.arange(0, head, 2) / head):
        length = 2 * np.pi / frequency
        if length < context / high:
            factors.append(1.0)
        elif length > context / low:
            factors.append(factor)
        else:
            smooth = (context / length - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def make_parts():
    """tiny-llama.gguf once more, as `gguf-split` cuts it."""
    with tempfile.TemporaryDirectory() as folder:
        reader = gguf.GGUFReader(OUT / "tiny-llama.gguf")
        writer = gguf.GGUFWriter(
            pathlib.Path(folder) / "parts.gguf", "llama", split_max_tensors=8)
        for field in reader.fields.values():
            if field.name.startswith("GGUF.") or field.name == "general.architecture":
                continue
            kind = field.types[0]
            writer.add_key_value(
                field.name, field.contents(), kind,
                field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
        for tensor in reader.tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        close(writer)
        for path in pathlib.Path(folder).iterdir():
            shutil.copy(path, OUT / path.name)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    make_types()
    make_quantized()
    make_model("llama", "llama", lambda w: add_bpe_tokenizer(w, "smollm"))
    make_model("llama3", "llama", lambda w: add_bpe_tokenizer(w, "llama-bpe"), scaling=True,
               tied=True, kind=TYPES.F16)
    make_model("mistral", "llama", add_sentencepiece_tokenizer, general_name="Tiny Mistral",
               kind=TYPES.Q4_0, head=32)
    make_model("qwen2", "qwen2", lambda w: add_bpe_tokenizer(w, "qwen2"), biases=True, tied=True,
               kind=TYPES.BF16)
    # transformers takes a Qwen3 in GGUF for one with heads of 128.
    make_model("qwen3", "qwen3", lambda w: add_bpe_tokenizer(w, "qwen2"), norms=True, head=128)
    make_parts()


if __name__ == "__main__":
    main()
