"""Writes the inputs that the fuzz targets begin with: seeds.py TARGET FOLDER."""

import io
import json
import struct
import sys
import zipfile
from pathlib import Path
from warnings import catch_warnings, simplefilter

SAMPLES = Path(__file__).resolve().parents[2] / "Samples"
MOST_BYTES = 16384


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def framed(header, byte_count):
    text = header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))
    return struct.pack("<Q", len(text.encode())) + text.encode() + bytes(byte_count)


def unframed(header, byte_count):
    """A text whose first eight bytes are the length of its data, as the target also reads it."""
    return struct.pack("<Q", byte_count) + framed(header, 0)[8:]


def headers():
    one = json.dumps(entry())
    cases = [
        ({}, 0), ({"a": entry()}, 8), ({"__metadata__": {"format": "pt"}, "a": entry()}, 8),
        ('{"__metadata__":null,"a":["F32",[2],[0,8]]}', 8),
        ('{"a":{"dtype":{"F32":null},"shape":[2],"data_offsets":[0,8]}}', 8),
        ('{"a":{"x":[1,{"y":-1.5e3}],"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8),
        ({"a": entry("F4", [4], (0, 2)), "b": entry("BOOL", [], (2, 3))}, 3),
        ({"a": entry("F64", [0, 1 << 33, 1 << 33], (0, 0))}, 0),
        ('{"":%s,"a\\u0000b\\ud83d\\ude00\\n":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}'
         % one, 9),
        (' {"a":%s} \n' % one, 8),
        ('{"a":%s,"a":%s}' % (one, one), 8), ('{"a":%s,"b":%s}' % (one, one), 8),
        ('{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', 8),
        ('{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', 0),
        ({"a": entry("F32", [1 << 62, 4])}, 8), ({"a": entry("F33")}, 8),
        ('{"a":{"x":%s%s}}' % ("[" * 130, "]" * 130), 0), ('{"\\ud800":1}', 0),
        ("{}", 1), ('{"a":%s}' % one, 7),
    ]
    for header, byte_count in cases:
        yield framed(header, byte_count)
        yield unframed(header, byte_count)
    yield b"\xff" * 16
    for path in sorted(SAMPLES.glob("**/*.safetensors")):
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        if length <= MOST_BYTES and len(data) - 8 - length < 1 << 16:
            yield struct.pack("<Q", len(data) - 8 - length) + data[8:8 + length]


def indices():
    yield b'{"metadata":{"total_size":8},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}'
    yield b'{"weight_map":{"a":"../x","b":"","c":"a/b","d":"..","e":1}}'
    yield b'{"weight_map":{"a":"1","\\u0061":"2"}}'
    yield b'[1,-0,1.5e-3,18446744073709551620,true,false,null,"\\u00e9\\ud83d\\ude00\\n",{},[]]'
    yield b'{"\xc3\xa9":"\\u0000","e\xcc\x81":"\x7f"}'
    yield b"[" * 65 + b"]" * 65
    yield from (b"NaN", b"// no\n1", b"[1,]", b"1e999", b"01", b'"\\ud800"', b"\xef\xbb\xbf{}")
    yield from small("**/*.index.json")


def configurations():
    base = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    for change in (
        {}, {"use_rslora": True, "use_dora": True, "bias": "all"}, {"peft_type": "ADALORA",
        "init_r": 4, "rank_pattern": {"q_proj.lora_E": [True, False]}},
        {"rank_pattern": {"layers\\.0\\..*": 4, "(a|aa)+$": 2}, "alpha_pattern": {"^q": 1.5}},
        {"rank_pattern": {"(": 1}}, {"r": 0}, {"r": 1 << 62}, {"r": "4"}, {"lora_alpha": -1e300},
        {"layer_replication": [[0, 2], [1, 3]]}, {"layer_replication": [[-1, 1]]},
        {"trainable_token_indices": [0, 1]}, {"trainable_token_indices": {"embed": [1, 2]}},
        {"init_lora_weights": "pissa_niter_4"}, {"modules_to_save": ["lm_head"]},
        {"target_modules": "(a*)*b"}, {"peft_type": "TRAINABLE_TOKENS", "token_indices": [3]},
        {"peft_type": "IA3", "feedforward_modules": ["down_proj"]}, {"peft_type": None},
    ):
        yield json.dumps({**base, **change}).encode()
    yield from small("adapters/*/adapter_config.json")


def torch_files():
    """The samples, and archives of small pickles with what makes them be refused."""
    for path in sorted(SAMPLES.glob("torch/**/*.*")):
        if path.suffix in (".pt", ".pth", ".bin") and path.stat().st_size <= MOST_BYTES:
            yield path.read_bytes()
    for pickled in pickles():
        for change in (None, "compressed", "twice", "big"):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive, catch_warnings():
                simplefilter("ignore")
                method = zipfile.ZIP_DEFLATED if change == "compressed" else None
                archive.writestr("m/data.pkl", pickled, method)
                archive.writestr("m/byteorder", "big" if change == "big" else "little")
                archive.writestr("m/data/0", bytes(16))
                if change == "twice":
                    archive.writestr("m/data.pkl", pickled)
            yield file.getvalue()


def pickles():
    """Pickles of one tensor of four floats by other means, and of what is refused."""
    def number(value):
        if value >= 1 << 31:
            return b"\x8a\x08" + struct.pack("<q", value)
        return b"J" + struct.pack("<i", value)

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value

    def tensor(shape, strides, offset=0, more=b""):
        storage = (b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu")
                   + number(4) + more + b"tQ")
        return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset)
                + b"(" + b"".join(map(number, shape)) + b"t"
                + b"(" + b"".join(map(number, strides)) + b"t"
                + b"\x89ccollections\nOrderedDict\n)RtR")

    one = b"}" + text(b"a") + tensor([2, 2], [2, 1]) + b"s"
    for body in (
        one, one[:-1] + b"q\x00s" + text(b"b") + b"h\x00s",
        b"}(" + text(b"a") + tensor([2, 2], [1, 2], more=b"N") + b"u",
        b"}" + text(b"model") + one + b"s", b"](" + tensor([4], [0]) * 2 + b"e",
        b"}" + text(b"a") + tensor([1 << 20, 1 << 20], [0, 0]) + b"s",
        b"}" + text(b"a") + tensor([-1], [1], 3) + b"s",
        b"}" + text(b"a") + tensor([1, 2], [1 << 62, 2]) + b"s",
        b"}q\x00" + text(b"a") + b"h\x00s",
        b"cos\nsystem\n(" + text(b"id") + b"tR",
        b"\x8c\x02os\x8c\x06system\x93)R",
        b"ccollections\nOrderedDict\n)R}" + text(b"_metadata") + b"}sb",
        b"ctorch._utils\n_rebuild_parameter\n(" + tensor([4], [1]) + b"\x88NtR",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor\n"
        b"ctorch\nTensor\n)}tR",
        b"ctorch\nSize\n(" + number(1) + b"t\x85R", b"\x95" + bytes(8) + b"N\x94G" + bytes(8),
        b"ctorch\ndevice\n" + text(b"cpu") + b"\x85R", b"\x8a\x03\xff\xff\xffC\x01aB" + bytes(4),
        b"(ios\nsystem\n", b"U\x01aT\x01\0\0\0a\x86",
    ):
        yield b"\x80\x02" + body + b"."
    for path in sorted(SAMPLES.glob("torch/**/*.p*t*")):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield next(archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))


def small(pattern):
    for path in sorted(SAMPLES.glob(pattern)):
        if path.stat().st_size <= MOST_BYTES:
            yield path.read_bytes()


def gguf_string(text):
    return struct.pack("<Q", len(text)) + text


def gguf_file(pairs, tensors, byte_count, version=3):
    """Pairs of key, type and value; tensors of name, dimensions, type and offset."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    for key, kind, value in pairs:
        head += gguf_string(key) + struct.pack("<I", kind) + value
    for name, dimensions, kind, offset in tensors:
        head += gguf_string(name) + struct.pack("<I", len(dimensions))
        head += struct.pack(f"<{len(dimensions)}QIQ", *dimensions, kind, offset)
    return head + bytes(-len(head) % 32 + byte_count)


def gguf_files():
    architecture = (b"general.architecture", 8, gguf_string(b"llama"))
    strings = struct.pack("<IQ", 8, 2) + gguf_string(b"a") + gguf_string(b"")
    yield gguf_file([], [], 0)
    yield gguf_file([architecture], [(b"a", [8], 0, 0), (b"b", [32, 2], 2, 32)], 68)
    yield gguf_file([(b"general.alignment", 4, struct.pack("<I", 8))], [(b"a", [1], 0, 0)], 4)
    yield gguf_file([architecture, (b"t", 9, strings)], [], 0, version=2)
    yield gguf_file([(b"k%d" % n, n, bytes(8)[:size]) for n, size in enumerate(
        [1, 1, 2, 2, 4, 4, 4, 1, 8]) if n != 8], [], 0)
    yield gguf_file([(b"n", 9, struct.pack("<IQ3i", 5, 3, 1, -2, 3))], [(b"e", [0, 5], 3, 0)], 0)
    yield gguf_file([(b"n", 9, struct.pack("<IQ", 9, 1 << 62))], [(b"", [1 << 62, 4], 8, 7)], 1)
    yield from small("gguf/*.gguf")


def quantized_states():
    """What QuantizedState.swift takes: a byte of flags, a byte for each tensor of how it differs
    from what the state asks for, the state, NUL, bytes to fill the tensors with."""
    nested = {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05}
    for number, change in enumerate((
        {}, {"quant_type": "fp4"}, {"blocksize": 32, "shape": [3, 33]}, {"dtype": "float16"},
        nested, {**nested, "blocksize": 32, "shape": [130, 64], "dtype": "float32"},
        {"shape": [1, 1]}, {"shape": [1 << 40, 1 << 40]}, {"shape": [0, 4]}, {"shape": [64]},
        {"blocksize": 48}, {"nested_offset": 1e300}, {**nested, "nested_dtype": "float16"},
        {"group": 1}, {"shape": [16, -1]}, {"blocksize": 64.0},
    )):
        state = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16",
                            "shape": [8, 40]} | change).encode()
        for difference in (0, 1, 2, 3, 4, 5):
            differences = bytearray(6)
            differences[(number + difference) % 6] = difference
            for flags in (0, 2):
                yield bytes([flags]) + differences + state + b"\0" + bytes.fromhex("0000803f7f1d")
    for difference in range(6):
        yield bytes([1, difference, difference, 0, 0, 0, 0]) + b"\x03\x09\0" + b"\x00\x01\x81\x40"
    yield bytes(7) + b"[" * 99
    for config in (
        {"quantization": {"group_size": 32, "bits": 4}},
        {"quantization": {"group_size": 64, "bits": 4, "m": {"group_size": 32, "bits": 4}}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}},
        {"quantization_config": {"quant_method": "hqq"}},
        {"quantization_config": {
            "quant_method": "hqq", "quant_config": {"weight_quant_params": {"group_size": 32}}}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": -1,
                                 "desc_act": True, "checkpoint_format": "gptq_v2"}},
        {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32,
                                 "version": "gemm"}},
        {"quantization": {"group_size": 1 << 62, "bits": 4}},
    ):
        for flags, change, filling in (
                (8, 0, "00000b3c"), (10, 4, "01020304"), (12, 2, "02070b7f")):
            yield (bytes([flags, change, 0, 0, change, 0, 0]) + json.dumps(config).encode() + b"\0"
                   + bytes.fromhex(filling))


def content_checksum(data):
    """The end of a zstd frame: the low half of XXH64, of fewer than 32 bytes."""
    p1, p2, p3, p4, p5 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
                          0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
    mask = (1 << 64) - 1

    def rotated(value, count):
        return (value << count | value >> 64 - count) & mask

    assert len(data) < 32
    value, place = p5 + len(data), 0
    for size, step in ((8, lambda v, n: rotated(v ^ rotated(n * p2 & mask, 31) * p1 & mask, 27)
                        * p1 + p4),
                       (4, lambda v, n: rotated(v ^ n * p1 & mask, 23) * p2 + p3),
                       (1, lambda v, n: rotated(v ^ n * p5 & mask, 11) * p1)):
        while len(data) - place >= size:
            value = step(value, int.from_bytes(data[place:place + size], "little")) & mask
            place += size
    value = (value ^ value >> 33) * p2 & mask
    value = (value ^ value >> 29) * p3 & mask
    return struct.pack("<I", (value ^ value >> 32) & 0xFFFFFFFF)


def packed_files():
    """Files of stored frames, whose checksums the target puts right."""
    def frame(data):
        return (b"\x28\xb5\x2f\xfd\x24" + bytes([len(data)])
                + struct.pack("<I", len(data) << 3 | 1)[:3] + data + content_checksum(data))

    def file(files, frames, kinds=(), **more):
        beginnings, listed = b"", []
        for name, size, beginning in files:
            entry = {"name": name, "bytes": size}
            if beginning:
                entry["header"] = len(beginning)
            beginnings += beginning
            listed.append(entry)
        text = json.dumps({"files": listed, **more}, separators=(",", ":")).encode()
        rest = struct.pack("<Q", len(text)) + text + beginnings
        for number, data in enumerate(frames):
            rest += struct.pack("<QQII", 0, 0, len(data), kinds[number] if kinds else 0)
        return (b"\x50\x2a\x4d\x18" + struct.pack("<I", 16 + len(rest)) + b"PEFTPAK1" + bytes(8)
                + rest + b"".join(frames))

    one = framed({"a": entry()}, 0)
    three = framed({"a": entry("BF16", [3], (0, 6)), "b": entry("F64", [2], (6, 22)),
                    "c": entry("U8", [0], (22, 22))}, 0)
    model = ("m.safetensors", len(one) + 8, one)
    yield file([model], [frame(bytes(range(8)))])
    yield file([("m.safetensors", len(three) + 22, three), ("config.json", 2, b""),
                ("empty", 0, b"")], [frame(bytes(6)), frame(bytes(16)), frame(b"{}")])
    yield file([model, ("n.safetensors", len(three) + 22, three),
                ("m.safetensors.index.json", 2, b"")],
               [frame(bytes(8)), frame(bytes(6)), frame(bytes(16)), frame(b"{}")])
    yield file([model], [frame(bytes(8))], [1], base="base")
    yield file([model], [frame(bytes(8))], [2])
    yield file([model], [frame(bytes(4)) * 2])
    yield file([model], [b"\x28\xb5\x2f\xfd\x04\x88" + b"\x41\0\0" + bytes(8)
                         + content_checksum(bytes(8))])
    yield file([model], [b"\x28\xb5\x2f\xfd\x24\x08" + b"\x43\0\0" + b"\x07"
                         + content_checksum(b"\x07" * 8)])
    yield file([model], [b"\x28\xb5\x2f\xfd\x20\x08" + b"\x41\0\0" + bytes(8)])
    yield file([("../m", 9, one)], [])
    huge = framed({"a": entry("U8", [1 << 41], (0, 1 << 41))}, 0)
    yield file([("m.safetensors", len(huge) + (1 << 41), huge)], [frame(b"x")])
    # One that zstd has compressed: the example of Formats/packed.md, and whatever it says.
    text = (SAMPLES.parent / "Formats/packed.md").read_text().split("```hex\n")[1].split("```")[0]
    yield bytes.fromhex("".join(line.split("  ", 1)[1] for line in text.splitlines()))


def recipes():
    yield (SAMPLES.parent / "Formats/recipe.md").read_text().split("```yaml\n")[1].split("```")[
        0].encode()
    one = b"adapters: [{path: a}]\n"
    for more in (
        b"", b"method: della\ndensity: .5\nepsilon: 0.1\nseed: 18446744073709551615",
        b"sv_fro: 0.5", b"sv_ratio: 1e308", b"sv_cumulative: 1", b"effective: true",
        b"energy: 1e-3\nexact: false", b"rank: 4\nenergy: 0.5", b"rank: 65537", b"layers: 22",
        b"weight: [-1e308, 1e308, 0]", b"weight: &w [0, 1]\ndensity: *w", b"weight: []",
        b"weight:\n  - {filter: '*.{q,k}_proj', value: [0, 1]}\n"
        b"  - {filter: '[!a-z]*\\*', value: 2}\n  - value: 3",
        b"weight: [{filter: '{0-21}**?', value: 1}, 2]", b"density: 1.5",
        b"gamma: 0x1", b"majority_sign_method: frequency\nbase: ../b", b"? [a]\n: b", b"a: !!int 1",
        b"weight: &a [*a]", b"--- 1\n--- 2", b"'a\\u0000': \"\\0\"", b"base: |\n  a\n  b\n",
    ):
        yield one + more
    yield b"a: &a [1]\n" + b"".join(
        b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 10)) for n in range(98, 106))
    yield from (b"[" * 2000, b"{a: " * 40, b"- " * 500, b"\xff", b"\xef\xbb\xbf{}",
                b"%YAML 1.1\n---\n")


def json_lines():
    for name in ("texts", "prompts", "chats"):
        yield (SAMPLES / f"data/{name}.jsonl").read_bytes()
    turn = b'{"role": "assistant", "content": "<think>\\na\\n</think>\\n\\nb", "thinking": "c"}'
    yield b'\xef\xbb\xbf\r\n{"messages": [{"role": "user", "content": "\\u0085 x"}, %s]}\n' % turn
    yield b'{"messages": [{"role": "system", "content": ""}, %s, %s]}' % (turn, turn)
    yield from (b'{"text": "a"}\n{"prompt": "a", "completion": ""}', b'{"text": "\xff"}', b"[[[",
                b'{"text": null, "prompt": 3}', b'{"messages": [{"role": "tool"}]}')


def csv_tables():
    yield (SAMPLES / "data/prompts.csv").read_bytes()
    yield b'\xef\xbb\xbftext,"x"\r\n"a""b","c\r\n"\r\n\r\n'
    yield from (b"text\na\n", b'a"b', b'"a"b', b'"a',
                b"prompt,completion\n,\n", b"text,b\n1\n", b'"a"\r', b'"a"\r\n', b"a\r", b'""',
                b"text\n\xff\n", b"prompt,text\n")


def model_configurations():
    base = {"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
    scaled = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 64}
    for change in (
        {}, {"num_key_value_heads": 2, "head_dim": 2, "rms_norm_eps": 0, "attention_bias": True},
        {"model_type": "mistral", "num_key_value_heads": None, "sliding_window": 1},
        {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": -1},
        {"model_type": "qwen3", "num_key_value_heads": 1, "use_sliding_window": True,
         "layer_types": ["full_attention", "sliding_attention"]},
        {"rope_theta": 1e-300, "rope_scaling": {"type": "linear", "factor": 1e300}},
        {"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 0.5}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1, **scaled}},
        {"rope_theta": 1, "rope_scaling": {"rope_type": "yarn", **scaled, "beta_fast": 1e300}},
        {"rope_scaling": {"rope_type": "yarn", "factor": None, "mscale": 1, "truncate": False,
                          "mscale_all_dim": -9.5}, "original_max_position_embeddings": 1},
        {"rope_parameters": {"full_attention": {}}}, {"num_experts": 8}, {"logit_scale": 1.0},
        {"hidden_size": 1 << 62}, {"vocab_size": "4"}, {"hidden_act": "gelu"}, {"head_dim": -2},
    ):
        yield json.dumps({**base, **change}).encode()
    yield from small("**/bases/*/config.json")


def tokenizers():
    """A tokenizer.json, NUL, a text: those of the samples, and their parts in a small one."""
    texts = [row["text"].encode() for row in json.loads(
        (SAMPLES / "tokenizers/expected.json").read_text())["llama2"]]
    small = json.loads((SAMPLES.parent / "Formats/tokenizer-json.md").read_text().split(
        "```json\n")[1].split("```")[0])
    parts = {}
    for path in sorted((SAMPLES / "tokenizers").glob("*.json")):
        tree = json.loads(path.read_text())
        if "model" not in tree:
            continue
        if path.stat().st_size < MOST_BYTES - 64:
            yield path.read_bytes() + b"\0" + texts[len(parts) % len(texts)][:60]
        for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
            parts.setdefault(json.dumps([key, tree[key]]), (key, tree[key]))
    for number, (key, part) in enumerate(parts.values()):
        yield json.dumps(small | {key: part}).encode() + b"\0" + texts[number % len(texts)]
    more = [("normalizer", {"type": kind}) for kind in ("NFKD", "Lowercase", "StripAccents")]
    more += [("pre_tokenizer", {"type": "Metaspace", "replacement": "b", "prepend_scheme": scheme,
                                "split": True}) for scheme in ("first", "always", "never")]
    more += [("pre_tokenizer", {"type": "Split", "pattern": {"String": "b"}, "behavior": behavior,
                                "invert": behavior < "I"})
             for behavior in ("Removed", "Contiguous", "MergedWithNext", "MergedWithPrevious")]
    more += [("decoder", {"type": "Sequence", "decoders": [
        {"type": "Fuse"}, {"type": "Replace", "pattern": {"Regex": "a*"}, "content": "b"},
        {"type": "Strip", "content": "b", "start": 1, "stop": 1}]}),
        ("decoder", {"type": "BPEDecoder", "suffix": "b"}), ("decoder", {"type": "ByteFallback"})]
    for number, (key, part) in enumerate(more):
        yield json.dumps(small | {key: part}).encode() + b"\0" + texts[number]
    for key, value in (("unk_token", "b"), ("byte_fallback", True), ("ignore_merges", True),
                       ("end_of_word_suffix", "b"), ("continuing_subword_prefix", "a"),
                       ("merges", ["a b"]), ("fuse_unk", True)):
        tree = small | {"model": small["model"] | {key: value}, "pre_tokenizer": None}
        yield json.dumps(tree).encode() + b"\0ab ba xb<s>"
    for flag in ("single_word", "lstrip", "rstrip", "normalized"):
        tree = small | {"added_tokens": [small["added_tokens"][0] | {flag: True}]}
        yield json.dumps(tree).encode() + b"\0 a <s> <s>b<s>"


SEEDS = {"JSONLines": json_lines, "CSV": csv_tables, "GGUF": gguf_files,
         "Packed": packed_files, "SafetensorsHeader": headers, "Tokenizer": tokenizers,
         "ShardIndex": indices, "QuantizedState": quantized_states,
         "AdapterConfiguration": configurations, "Recipe": recipes, "TorchPickle": pickles,
         "TorchZip": torch_files, "ModelConfiguration": model_configurations}


def main():
    target, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]()):
        (folder / f"{number:03}").write_bytes(seed)


if __name__ == "__main__":
    main()
