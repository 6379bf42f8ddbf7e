"""The same files for the safetensors library and for peftool: both take a file or both refuse it.

The differences that SafetensorsHeader states, each with its test: a name that stands twice, and
sizes past 2^63 - 1.
"""

import json
import random
import struct

import pytest
from safetensors import SafetensorError, safe_open

BYTES = {
    "F64": 8, "C64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2,
    "I16": 2, "U16": 2, "F8_E5M2": 1, "F8_E4M3": 1, "I8": 1, "U8": 1, "BOOL": 1,
}


def framed(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin, end, shape, dtype="F32", **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


def raw(dtype='"F32"', shape="[1]", offsets="[0,4]", more=""):
    """One entry as text, for values that json.dumps does not write."""
    return f'{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{more}}}}}'.encode()


ONE = {"a": entry(0, 4, [1])}
FOUR = bytes(4)

FILES = {
    "one tensor": framed(ONE, FOUR),
    "no tensor": framed({}),
    "empty file": b"",
    "seven bytes": bytes(7),
    "no header": bytes(8),
    "header of spaces": framed(b"    "),
    "length past the end": framed(ONE, FOUR, length=10_000),
    "length too small": framed(ONE, FOUR, length=10),
    "length of 2^64 - 1": framed(ONE, FOUR, length=2**64 - 1),
    "length over the cap": framed(ONE, FOUR, length=100_000_001),
    "garbage": bytes(range(256)) * 4,
    # JSON.
    "spaces after": framed(json.dumps(ONE).encode() + b"   \n\t\r ", FOUR),
    "space before": framed(b" " + json.dumps(ONE).encode(), FOUR),
    "line feed before": framed(b"\n" + json.dumps(ONE).encode(), FOUR),
    "byte order mark": framed(b"\xef\xbb\xbf" + json.dumps(ONE).encode(), FOUR),
    "NUL after": framed(json.dumps(ONE).encode() + b"\0", FOUR),
    "NUL padding": framed(json.dumps(ONE).encode() + bytes(8), FOUR),
    "two values": framed(json.dumps(ONE).encode() * 2, FOUR),
    "comma after": framed(json.dumps(ONE).encode() + b",", FOUR),
    "trailing comma": framed(raw()[:-1] + b",}", FOUR),
    "comment": framed(b"/* */" + raw(), FOUR),
    "comment inside": framed(raw(more="/* */"), FOUR),
    "single quotes": framed(raw().replace(b'"', b"'"), FOUR),
    "array": framed(b"[]"),
    "number": framed(b"1"),
    "null": framed(b"null"),
    "string": framed(b'"a"'),
    "cut short": framed(raw()[:-5], FOUR),
    "not UTF-8": framed(b'{"\xff":' + raw()[5:-1] + b"}", FOUR),
    "overlong UTF-8": framed(b'{"\xc0\xaf":' + raw()[5:-1] + b"}", FOUR),
    "surrogate as UTF-8": framed(b'{"\xed\xa0\x80":' + raw()[5:-1] + b"}", FOUR),
    "escaped name": framed(rb'{"\u0061\n\"":' + raw()[5:-1] + b"}", FOUR),
    "escaped pair": framed(rb'{"\ud83d\ude00":' + raw()[5:-1] + b"}", FOUR),
    "lone surrogate": framed(rb'{"\ud800":' + raw()[5:-1] + b"}", FOUR),
    "lone low surrogate": framed(rb'{"\udc00x":' + raw()[5:-1] + b"}", FOUR),
    "bad escape": framed(rb'{"\x61":' + raw()[5:-1] + b"}", FOUR),
    "escaped NUL": framed(rb'{"a\u0000b":' + raw()[5:-1] + b"}", FOUR),
    "control character": framed(b'{"a\nb":' + raw()[5:-1] + b"}", FOUR),
    "delete character": framed(b'{"a\x7fb":' + raw()[5:-1] + b"}", FOUR),
    "empty name": framed({"": entry(0, 4, [1])}, FOUR),
    "long name": framed({"a" * 100_000: entry(0, 4, [1])}, FOUR),
    "deep": framed(raw(more=',"x":' + "[" * 100 + "]" * 100), FOUR),
    "depth 127": framed(raw(more=',"x":' + "[" * 125 + "]" * 125), FOUR),
    "depth 128": framed(raw(more=',"x":' + "[" * 126 + "]" * 126), FOUR),
    "too deep": framed(raw(more=',"x":' + "[" * 5000 + "]" * 5000), FOUR),
    "objects too deep": framed(raw(more=',"x":' + '{"a":' * 5000 + "1" + "}" * 5000), FOUR),
    "NaN": framed(raw(more=',"x":NaN'), FOUR),
    "Infinity": framed(raw(more=',"x":Infinity'), FOUR),
    "number too large": framed(raw(more=',"x":1e400'), FOUR),
    "number too long": framed(raw(more=',"x":' + "9" * 400), FOUR),
    "number too small": framed(raw(more=',"x":1e-400'), FOUR),
    "leading zero": framed(raw(more=',"x":01'), FOUR),
    "plus sign": framed(raw(more=',"x":+1'), FOUR),
    "bare point": framed(raw(more=',"x":1.'), FOUR),
    "True": framed(raw(more=',"x":True'), FOUR),
    # Entries.
    "other key": framed({"a": entry(0, 4, [1], extra={"b": [1, None, True, "x"]})}, FOUR),
    "no dtype": framed({"a": {"shape": [1], "data_offsets": [0, 4]}}, FOUR),
    "no shape": framed({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, FOUR),
    "no offsets": framed({"a": {"dtype": "F32", "shape": [1]}}, FOUR),
    "entry null": framed({"a": None}, FOUR),
    "entry a string": framed({"a": "b"}, FOUR),
    "entry an array": framed({"a": ["F32", [1], [0, 4]]}, FOUR),
    "entry a longer array": framed({"a": ["F32", [1], [0, 4], 1]}, FOUR),
    "entry a shorter array": framed({"a": ["F32", [1]]}, FOUR),
    "dtype unknown": framed({"a": entry(0, 4, [1], "F33")}, FOUR),
    "dtype small": framed({"a": entry(0, 4, [1], "f32")}, FOUR),
    "dtype null": framed({"a": entry(0, 4, [1], None)}, FOUR),
    "dtype number": framed({"a": entry(0, 4, [1], 5)}, FOUR),
    "dtype object": framed({"a": entry(0, 4, [1], {"F32": None})}, FOUR),
    "dtype object of two": framed({"a": entry(0, 4, [1], {"F32": None, "F16": None})}, FOUR),
    "dtype object of a number": framed({"a": entry(0, 4, [1], {"F32": 1})}, FOUR),
    "dtype twice": framed(raw(more=',"dtype":"F32"'), FOUR),
    "shape twice": framed(raw(more=',"shape":[1]'), FOUR),
    "offsets twice": framed(raw(more=',"data_offsets":[0,4]'), FOUR),
    "other key twice": framed(raw(more=',"x":1,"x":2'), FOUR),
    "escaped key": framed(raw().replace(b'"shape"', rb'"\u0073hape"'), FOUR),
    "shape null": framed({"a": entry(0, 4, None)}, FOUR),
    "shape number": framed({"a": entry(0, 4, 1)}, FOUR),
    "shape of strings": framed({"a": entry(0, 4, ["1"])}, FOUR),
    "shape nested": framed({"a": entry(0, 4, [[1]])}, FOUR),
    "shape negative": framed({"a": entry(0, 4, [-1])}, FOUR),
    "shape two negatives": framed({"a": entry(0, 4, [-1, -1])}, FOUR),
    "shape minus zero": framed(raw(shape="[-0]", offsets="[0,0]")),
    "shape 1.0": framed(raw(shape="[1.0]"), FOUR),
    "shape 1e0": framed(raw(shape="[1e0]"), FOUR),
    "shape true": framed(raw(shape="[true]"), FOUR),
    "shape 2^64 + 1": framed(raw(shape=f"[{2**64 + 1}]"), FOUR),
    "shape overflows": framed({"a": entry(0, 0, [2**33, 2**33])}),
    "shape overflows to 1": framed({"a": entry(0, 4, [2**32 + 1, 2**32 - 1, 1])}, FOUR),
    "bytes overflow": framed({"a": entry(0, 0, [2**62])}),
    "shape overflows before a zero": framed({"a": entry(0, 0, [2**40, 2**40, 0])}),
    "zero before an overflow": framed({"a": entry(0, 0, [0, 2**40, 2**40])}),
    "scalar": framed({"a": entry(0, 4, [])}, FOUR),
    "many dimensions": framed({"a": entry(0, 4, [1] * 1000)}, FOUR),
    "empty tensor": framed({"a": entry(0, 0, [0])}),
    "empty tensors": framed({k: entry(0, 0, [0, 3]) for k in "abc"}),
    "empty at the end": framed(ONE | {"b": entry(4, 4, [0])}, FOUR),
    "empty past the end": framed(ONE | {"b": entry(8, 8, [0])}, FOUR),
    "empty in the middle of another": framed(ONE | {"b": entry(2, 2, [0])}, FOUR),
    "offsets one": framed(raw(offsets="[4]"), FOUR),
    "offsets three": framed(raw(offsets="[0,4,4]"), FOUR),
    "offsets negative": framed(raw(offsets="[-4,0]"), FOUR),
    "offsets minus zero": framed(raw(offsets="[-0,4]"), FOUR),
    "offsets backwards": framed(raw(offsets="[4,0]"), FOUR),
    "offsets floats": framed(raw(offsets="[0.0,4.0]"), FOUR),
    "offsets as an object": framed(raw(offsets='{"0":0,"1":4}'), FOUR),
    "offsets of 2^64 - 1": framed(raw(offsets=f"[{2**64 - 4},{2**64 - 1}]"), FOUR),
    "offsets wrap": framed(raw(offsets=f"[0,{2**64 + 4}]"), FOUR),
    "size too small": framed({"a": entry(0, 4, [2])}, FOUR),
    "size too large": framed({"a": entry(0, 8, [1])}, bytes(8)),
    # The file.
    "data short": framed(ONE, bytes(3)),
    "data long": framed(ONE, bytes(5)),
    "data without tensor": framed({}, FOUR),
    "hole at the start": framed({"a": entry(4, 8, [1])}, bytes(8)),
    "hole": framed(ONE | {"b": entry(8, 12, [1])}, bytes(12)),
    "overlap": framed(ONE | {"b": entry(2, 6, [1])}, bytes(6)),
    "same bytes": framed(ONE | {"b": entry(0, 4, [1])}, FOUR),
    "other order": framed({"b": entry(4, 8, [1]), "a": entry(0, 4, [1])}, bytes(8)),
    "misaligned": framed({"a": entry(0, 1, [1], "U8"), "b": entry(1, 5, [1])}, bytes(5)),
    "header misaligned": framed(json.dumps(ONE).encode() + b" ", FOUR),
    # Metadata.
    "metadata": framed(ONE | {"__metadata__": {"format": "pt"}}, FOUR),
    "metadata alone": framed({"__metadata__": {"format": "pt"}}),
    "metadata empty": framed(ONE | {"__metadata__": {}}, FOUR),
    "metadata null": framed(ONE | {"__metadata__": None}, FOUR),
    "metadata array": framed(ONE | {"__metadata__": []}, FOUR),
    "metadata string": framed(ONE | {"__metadata__": "a"}, FOUR),
    "metadata of a number": framed(ONE | {"__metadata__": {"a": 1}}, FOUR),
    "metadata of null": framed(ONE | {"__metadata__": {"a": None}}, FOUR),
    "metadata nested": framed(ONE | {"__metadata__": {"a": {"b": "c"}}}, FOUR),
    "metadata an entry": framed({"__metadata__": entry(0, 4, [1])}, FOUR),
    "metadata twice": framed(b'{"__metadata__":{"a":"b"},"__metadata__":{"a":"c"}}'),
    "metadata key twice": framed(b'{"__metadata__":{"a":"b","a":"c"}}'),
    "metadata escaped": framed(rb'{"__met\u0061data__":{"a":"b"}}'),
}
for dtype, size in BYTES.items():
    FILES[dtype] = framed({"a": entry(0, 3 * size, [3], dtype)}, bytes(3 * size))
    FILES[f"{dtype} short"] = framed({"a": entry(0, 3 * size - 1, [3], dtype)}, bytes(3 * size - 1))
for dtype, bits in {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8}.items():
    FILES[dtype] = framed({"a": entry(0, bits, [8], dtype)}, bytes(bits))
    FILES[f"{dtype} of a part of a byte"] = framed({"a": entry(0, 1, [1], dtype)}, bytes(1))
    FILES[f"{dtype} of 3"] = framed({"a": entry(0, 2, [3], dtype)}, bytes(2))
for dtype in ("F8_E4M3FNUZ", "F8_E5M2FNUZ", "C128", "U4", "I4", "F128", "", "BF32", "F8_E3M4"):
    FILES[f"dtype {dtype}"] = framed({"a": entry(0, 2, [2], dtype)}, bytes(2))

# What peftool alone refuses, and says so in SafetensorsHeader.
STRICTER = {
    "name twice": framed(b'{"a":' + raw()[5:-1] + b',"a":' + raw()[5:-1] + b"}", FOUR),
    "name twice, once escaped": framed(
        rb'{"a":' + raw()[5:-1] + rb',"\u0061":' + raw()[5:-1] + b"}", FOUR),
    "shape of 2^63": framed(raw(shape=f"[0,{2**63}]", offsets="[0,0]")),
}


def reference_takes(path):
    try:
        with safe_open(path, "np") as file:
            file.metadata()
            for name in file.keys():
                file.get_slice(name).get_shape()
        return True
    except SafetensorError:
        return False


def peftool_takes(peftool, path):
    """inspect and verify agree, and a refusal is one line."""
    inspected, verified = peftool.run("inspect", path), peftool.run("verify", path)
    assert inspected.returncode in (0, 2), inspected.stderr
    if inspected.returncode == 2:
        assert inspected.stderr.startswith("peftool: ") and inspected.stderr.count("\n") == 1
        assert verified.returncode in (1, 2), "inspect refuses what verify takes"
    else:
        assert verified.returncode == 0, verified.stdout + verified.stderr
    return inspected.returncode == 0


@pytest.mark.parametrize("name", list(FILES))
def test_both_take_or_both_refuse(peftool, tmp_path, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(FILES[name])
    assert peftool_takes(peftool, path) == reference_takes(path)


@pytest.mark.parametrize("name", list(STRICTER))
def test_peftool_is_stricter(peftool, tmp_path, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(STRICTER[name])
    assert reference_takes(path) and not peftool_takes(peftool, path)


def random_file(source):
    """A sound file of a few tensors, in any order, with or without metadata."""
    header, position = {}, 0
    if source.random() < 0.5:
        header["__metadata__"] = {f"k{i}": "välue\n" for i in range(source.randrange(3))}
    for index in range(source.randrange(1, 7)):
        dtype = source.choice(list(BYTES))
        shape = [source.randrange(0, 5) for _ in range(source.randrange(0, 4))]
        count = BYTES[dtype]
        for size in shape:
            count *= size
        header[f"layer.{index}.wéight"] = entry(position, position + count, shape, dtype)
        position += count
    items = list(header.items())
    source.shuffle(items)
    return json.dumps(dict(items), ensure_ascii=source.random() < 0.5).encode(), bytes(position)


def damage(source, text, data):
    """Changes a byte or a number of a sound file, or its length."""
    text = bytearray(text)
    kind = source.randrange(4)
    if kind == 0:
        text[source.randrange(len(text))] = source.randrange(256)
    elif kind == 1:
        digits = [i for i, c in enumerate(text) if 0x30 <= c <= 0x39]
        text[source.choice(digits)] = source.choice(b"0123456789-.e")
    elif kind == 2:
        data = data[: max(0, len(data) + source.choice([-1, 1, 8]))] + bytes(source.randrange(2))
    else:
        place = source.randrange(len(text))
        del text[place : place + source.randrange(1, 4)]
    return bytes(text), data


@pytest.mark.parametrize("seed", range(120))
def test_random_files(peftool, tmp_path, seed):
    source = random.Random(seed)
    path = tmp_path / "model.safetensors"
    text, data = random_file(source)
    path.write_bytes(framed(text, data))
    assert reference_takes(path) and peftool_takes(peftool, path)
    for _ in range(2):
        path.write_bytes(framed(*damage(source, text, data)))
        # Damage may make one name of two.
        if "stands twice in the header" not in peftool.run("inspect", path).stderr:
            assert peftool_takes(peftool, path) == reference_takes(path)
