"""Files that are refused: quickly, in little memory, in one line. And files that are no files."""

import json
import os
import shutil
import struct

from checkpoints import header, tokenizer
from faults import NOBODY, Lab, Output, peftool, row, write_in_child

# A refusal takes less than a second on a free machine, as the notes show; on a busy one time says
# little, and what would take for ever still fails.
MOST_SECONDS = 20.0
MOST_BYTES = 100 << 20  # Beyond what peftool takes to say its version.
HEADER_CAP = 100_000_000  # That of safetensors.
BIG = 99_000_000
QUICK = ("99 MB of spaces", "99 MB of nested objects", "99 MB of empty entries")


def framed(text, data=b""):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def bad_files():
    """Name → what makes the bytes. Each breaks one rule; some are as large as a header may be."""
    one = entry([2, 2], 0, 16)
    return {
        "empty file": lambda: b"",
        "seven bytes": lambda: b"\0" * 7,
        "length past the end": lambda: struct.pack("<Q", 1000) + b"{}",
        "length of 2^64-1": lambda: b"\xff" * 8 + b"{}",
        "length of 2^63": lambda: struct.pack("<Q", 1 << 63) + b"{}",
        "length over the cap": lambda: struct.pack("<Q", HEADER_CAP + 1) + b"{}",
        "garbage length": lambda: b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        "a text file": lambda: b"Not a checkpoint at all.\n" * 100,
        "no JSON": lambda: framed(b"xxxxxxxx"),
        "JSON cut short": lambda: framed(b'{"a": {"dtype": "F32", "sha'),
        "an array": lambda: framed([1, 2, 3]),
        "no UTF-8": lambda: framed(b'{"\xff\xfe": 1}'),
        "entry without dtype": lambda: framed(
            {"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        "unknown dtype": lambda: framed({"a": entry([1], 0, 4, "F33")}, bytes(4)),
        "data cut short": lambda: framed({"a": one}, bytes(15)),
        "data too long": lambda: framed({"a": one}, bytes(17)),
        "no data": lambda: framed({"a": one}),
        "a hole": lambda: framed({"a": one, "b": entry([1], 20, 24)}, bytes(24)),
        "an overlap": lambda: framed({"a": one, "b": entry([1], 12, 16)}, bytes(16)),
        "offsets the wrong way": lambda: framed({"a": entry([1], 4, 0)}, bytes(4)),
        "offsets past the end": lambda: framed({"a": entry([1 << 40], 0, 4 << 40)}, bytes(4)),
        "shape against size": lambda: framed({"a": entry([3, 2], 0, 16)}, bytes(16)),
        "shape that overflows": lambda: framed({"a": entry([1 << 33, 1 << 33], 0, 16)}, bytes(16)),
        "negative size": lambda: framed({"a": entry([-2, -2], 0, 16)}, bytes(16)),
        "size 4.0": lambda: framed(
            b'{"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}}', bytes(16)),
        "size 2^64+4": lambda: framed(
            b'{"a":{"dtype":"F32","shape":[18446744073709551620],"data_offsets":[0,16]}}',
            bytes(16)),
        "a name twice": lambda: framed(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "control characters in a name": lambda: framed(
            {"\x1b[31m\u202eevil": entry([3], 0, 4)}, bytes(4)),
        "a name of 1 MB": lambda: framed({"n" * 1_000_000: entry([3], 0, 4)}, bytes(4)),
        "20,000 overlaps": lambda: framed({f"t{n}": one for n in range(20_000)}, bytes(16)),
        "20,000 tensors, no data": lambda: framed(
            {f"t{n}": entry([1], 4 * n, 4 * n + 4) for n in range(20_000)}),
        "a million sizes": lambda: framed({"a": entry([1] * 1_000_000, 0, 8)}, bytes(8)),
        "99 MB of spaces": lambda: framed(b" " * BIG),
        "99 MB of spaces in a brace": lambda: framed(b"{" + b" " * BIG),
        "99 MB of brackets": lambda: framed(b"[" * BIG),
        "99 MB of nested objects": lambda: framed((b'{"a":' * (BIG // 5))),
        "99 MB of nested sizes": lambda: framed(b'{"a":{"dtype":"F32","shape":' + b"[" * BIG),
        "99 MB of one string": lambda: framed(b'{"' + b"n" * BIG),
        "99 MB of digits": lambda: framed(b'{"a":{"dtype":"F32","shape":[' + b"1" * BIG),
        "99 MB of sizes": lambda: framed(b'{"a":{"dtype":"F32","shape":[' + b"1," * (BIG // 2)),
        "99 MB of commas": lambda: framed(b"{" + b"," * BIG),
        "99 MB of empty entries": lambda: framed(b"{" + b'"":{},' * (BIG // 6)),
        "99 MB of backslashes": lambda: framed(b'{"' + b"\\\\" * (BIG // 2)),
        "99 MB of metadata": lambda: framed(b'{"__metadata__":{' + b",".join(
            b'"%d":""' % n for n in range(BIG // 12)) + b"}"),
    }


def too_much(run):
    """The problem where a run took more time or memory than reading a header may."""
    if run.seconds > MOST_SECONDS:
        return f"took {run.seconds:.2f} s"
    byte_count = run.peak_bytes - Lab.own_bytes
    return byte_count > MOST_BYTES and f"{byte_count >> 20} MB resident"


def check_refusal(row, label, run, out):
    row.check(label, run.not_status(2), run.not_one_line(), out.not_undone, too_much(run),
              len(run.stderr) > 2000 and f"a message of {len(run.stderr)} characters",
              any(c < " " and c != "\n" or c in "\x7f\u202e" for c in run.stderr)
              and "raw control characters on stderr")
    out.reset()


@row(27, "bad files: refused soon, in 100 MB, one line")
def bad(row):
    folder = Lab.folder / "bad"
    folder.mkdir()
    file = folder / "model.safetensors"
    (folder / "config.json").write_text('{"model_type": "llama"}')
    seconds, sizes = [], []
    with Output(Lab.small(), "folder") as out:
        for name, make in bad_files().items():
            if row.short and name.startswith("99 MB") and name not in QUICK:
                continue
            write_in_child(file, make)
            for arguments in (["inspect", file],
                              ["merge", folder, Lab.small().lora, "-o", out.path]):
                run = peftool(*arguments)
                check_refusal(row, f"{arguments[0]}, {name}", run, out)
                seconds.append(run.seconds)
                sizes.append(run.peak_bytes)
    row.note(f"slowest {max(seconds):.2f} s, largest {max(sizes) >> 20} MB")


def bad_adapters():
    """Name → what makes the changes to a good configuration."""
    return {
        "rank 0": lambda: {"r": 0},
        "rank -1": lambda: {"r": -1},
        "rank 2^62": lambda: {"r": 1 << 62},
        "rank 4.5": lambda: {"r": 4.5},
        "rank text": lambda: {"r": "4"},
        "alpha infinite": lambda: {"lora_alpha": float("inf")},
        "alpha NaN": lambda: {"lora_alpha": float("nan")},
        "another method": lambda: {"peft_type": "IA3"},
        "use_dora without magnitudes": lambda: {"use_dora": True},
        "use_dora a text": lambda: {"use_dora": "false"},
        "replicated layers": lambda: {"layer_replication": [[-1, 1]]},
        "a pattern that is none": lambda: {"rank_pattern": {"(": 4}},
        "a million patterns": lambda: {"rank_pattern": {f"x{n}": 4 for n in range(1_000_000)}},
    }


@row(27, "bad configurations: refused soon, in 100 MB, one line")
def bad_configurations(row):
    small = Lab.small()
    folder = Lab.folder / "bad-adapter"
    shutil.copytree(small.lora, folder)
    good = json.loads((folder / "adapter_config.json").read_text())
    texts = {name: lambda changes=changes: json.dumps({**good, **changes()})
             for name, changes in bad_adapters().items()}
    texts.update({
        "empty": lambda: "", "an array": lambda: "[]", "cut short": lambda: json.dumps(good)[:-5],
        "nested 10 MB": lambda: '{"a":' * 2_000_000,
        "a key twice": lambda: '{"r": 8, ' + json.dumps(good)[1:]})
    with Output(small, "folder") as out:
        for name, make in texts.items():
            write_in_child(folder / "adapter_config.json", make)
            run = peftool("merge", small.base, folder, "-o", out.path)
            check_refusal(row, name, run, out)


@row(27, "patterns that take for ever to match: an end within 1 s")
def evil_patterns(row):
    small = Lab.small()
    folder = Lab.folder / "evil-adapter"
    shutil.copytree(small.lora, folder)
    good = json.loads((folder / "adapter_config.json").read_text())
    for pattern in ("(a*)*b(a+)+(.*)*" * 50, "(.*)*" * 20 + "x", "(.|.)*(.|.)*z", "(.*.*.*.*.*)*Q"):
        for name in ("rank_pattern", "alpha_pattern", "target_modules"):
            changed = pattern if name == "target_modules" else {pattern: 4}
            (folder / "adapter_config.json").write_text(json.dumps({**good, name: changed}))
            with Output(small, "folder") as out:
                # The names in the file say what is merged, so target_modules is not even compiled.
                run = peftool("merge", small.base, folder, "-o", out.path)
                row.check(f"{name} {pattern[:20]}", out.not_right(run), too_much(run),
                          run.status == 2 and run.not_one_line("takes too many steps"))


def bad_indexes(base):
    first = sorted(base.glob("*.safetensors"))[0].name
    index = json.loads((base / "model.safetensors.index.json").read_text())
    weight_map = index["weight_map"]
    name = next(iter(weight_map))

    def mapped(**changes):
        return json.dumps({**index, "weight_map": {**weight_map, **changes}})

    return {
        "no JSON": lambda: "{",
        "no weight_map": lambda: "{}",
        "weight_map an array": lambda: '{"weight_map": []}',
        "a shard that is not there": lambda: mapped(**{name: "none.safetensors"}),
        "a path upwards": lambda: mapped(**{name: "../base/" + first}),
        "an absolute path": lambda: mapped(**{name: "/etc/passwd"}),
        "a NUL in a name": lambda: mapped(**{name: first + "\0"}),
        "a number for a name": lambda: mapped(**{name: 4}),
        "a tensor in no shard": lambda: mapped(nothing=first),
        "a tensor in another shard": lambda: mapped(**{name: sorted(set(weight_map.values()))[-1]}),
        "the index as its own shard": lambda: mapped(**{name: "model.safetensors.index.json"}),
        "a million entries": lambda: mapped(**{f"x{n}": first for n in range(1_000_000)}),
    }


@row(27, "bad indexes: refused soon, in 100 MB, one line")
def bad_index(row):
    folder = Lab.folder / "bad-index"
    shutil.copytree(Lab.small().base, folder)
    with Output(Lab.small(), "folder") as out:
        for name, make in bad_indexes(Lab.small().base).items():
            write_in_child(folder / "model.safetensors.index.json", make)
            for arguments in (["inspect", folder],
                              ["merge", folder, Lab.small().lora, "-o", out.path]):
                check_refusal(row, f"{arguments[0]}, {name}", peftool(*arguments), out)


def bad_tokenizers():
    """Name → what makes the text of a `tokenizer.json`; some are as large as one may be."""
    def text(**changes):
        return json.dumps(tokenizer() | changes)

    return {
        "an empty file": lambda: "",
        "no model": lambda: text(model={}),
        "a number for a vocabulary": lambda: json.dumps(tokenizer(vocab=4)),
        "an id of 2^62": lambda: json.dumps(tokenizer(vocab={"a": 1 << 62})),
        "an id below 0": lambda: json.dumps(tokenizer(vocab={"a": -1})),
        "a merge of three": lambda: json.dumps(tokenizer(merges=["a b c"])),
        "nesting": lambda: text(normalizer=None)[:-1] + ', "x": ' + "[" * 5_000_000,
        "an unknown pre_tokenizer": lambda: text(pre_tokenizer={"type": "Whitespace"}),
        "a name with control characters": lambda: json.dumps(
            tokenizer(vocab={"\x1b[2J\u202e": 1 << 40})),
        "33 MB of spaces": lambda: " " * (33 << 20),
        "31 MB of spaces": lambda: " " * (31 << 20),
        "a million tokens": lambda: json.dumps(
            tokenizer(vocab={f"t{n}": n for n in range(1_000_000)})),
        "two million tokens": lambda: json.dumps(
            tokenizer(vocab={f"t{n}": 0 for n in range(2_000_000)})),
        "600,000 merges": lambda: json.dumps(tokenizer(merges=[["a", "b"]] * 600_000, vocab={})),
        "200,000 added tokens": lambda: text(added_tokens=[{"id": 9, "content": "x"}] * 200_000),
        "a million normalizers": lambda: text(normalizer=[{}] * 1_000_000),
    }


@row(27, "bad tokenizers: refused soon, in 100 MB, one line")
def bad_tokenizer(row):
    folder = Lab.folder / "bad-tokenizer"
    shutil.copytree(Lab.small().base, folder)
    seconds, sizes = [], []
    with Output(Lab.small(), "gguf") as out:
        for name, make in bad_tokenizers().items():
            write_in_child(folder / "tokenizer.json", make)
            run = peftool("convert", folder, "-o", out.path, "--quiet")
            check_refusal(row, name, run, out)
            seconds.append(run.seconds)
            sizes.append(run.peak_bytes)
    row.note(f"slowest {max(seconds):.2f} s, largest {max(sizes) >> 20} MB")


@row(27, "no files: fifos, devices, loops, nothing at all")
def odd_inputs(row):
    small, folder = Lab.small(), Lab.folder / "odd"
    folder.mkdir()
    os.mkfifo(folder / "fifo.safetensors")
    os.symlink("loop.safetensors", folder / "loop.safetensors")
    os.symlink("/dev/zero", folder / "zero.safetensors")
    os.symlink("gone", folder / "dangling.safetensors")
    (folder / "empty").mkdir()
    paths = [*sorted(folder.iterdir()), "/dev/zero", "/dev/null", "/proc/self/mem", "/",
             folder / "none", "", "x" * 5000, small.base / "config.json" / "x"]
    with Output(small, "folder") as out:
        for path in paths:
            label = str(path)[-40:]
            for arguments in (["inspect", path], ["verify", path],
                              ["merge", path, small.lora, "-o", out.path],
                              ["merge", small.base, path, "-o", out.path]):
                run = peftool(*arguments, timeout=10)
                # An empty name is a mistake in usage, too.
                allowed = (2, 64) if path == "" else (2,)
                row.check(f"{arguments[0]} {label!r}", run.not_status(*allowed),
                          run.status == 2 and run.not_one_line(), out.not_undone,
                          run.seconds > MOST_SECONDS and f"took {run.seconds:.2f} s")
                out.reset()


@row(27, "model folders with a fifo, a loop or a dead link in them")
def odd_folders(row):
    """What lies beside the weights may be carried along or refused; nothing may hang."""
    for name, spoil in {
            "fifo": lambda base: os.mkfifo(base / "pipe"),
            "fifo for a configuration": lambda base: (
                (base / "config.json").unlink(), os.mkfifo(base / "config.json")),
            "fifo for a shard": lambda base: (
                sorted(base.glob("*.safetensors"))[0].unlink(),
                os.mkfifo(base / sorted(Lab.small().base.glob("*.safetensors"))[0].name)),
            "link to the folder itself": lambda base: os.symlink(".", base / "again"),
            "link to the folder above": lambda base: os.symlink("..", base / "up"),
            "dead link": lambda base: os.symlink("gone", base / "dead"),
            "link to /dev/zero": lambda base: os.symlink("/dev/zero", base / "zero")}.items():
        base = Lab.folder / "odd-folder"
        shutil.copytree(Lab.small().base, base)
        spoil(base)
        try:
            with Output(Lab.small(), "folder") as out:
                arguments = [base if part == Lab.small().base else part for part in out.merge]
                run = peftool(*arguments, timeout=10)
                shards = {shard.name for shard in Lab.small().shards}
                row.check(name, run.not_status(0, 2), run.status == 2 and (
                    run.not_one_line() or out.not_undone), out.not_tidy,
                    run.status == 0 and not shards <= {p.name for p in out.path.iterdir()}
                    and "shards are missing")
        finally:
            shutil.rmtree(base)


@row(27, "output into or onto an input")
def onto_inputs(row):
    model = Lab.model("own", hidden=32, inner=64)
    before = {path: path.read_bytes() for path in model.folder.rglob("*") if path.is_file()}
    shard = model.shards[0]
    for label, path in (("the base", model.base), ("the adapter", model.lora),
                        ("a shard", shard), ("a folder in the base", model.base / "out"),
                        ("the adapter's file", model.lora / "adapter_model.safetensors")):
        for force in ([], ["--force"]):
            run = peftool("merge", model.base, model.lora, "-o", path, *force)
            after = {path: path.read_bytes() for path in model.folder.rglob("*") if path.is_file()}
            inside = path == model.base / "out"
            row.check(f"{label} {force}", run.not_status(*((0, 2) if inside else (2,))),
                      run.status == 2 and run.not_one_line(),
                      any(after.get(path) != data for path, data in before.items())
                      and "an input was changed")
            if inside and path.exists():
                shutil.rmtree(path)


@row(27, "unreadable files, as nobody")
def unreadable(row):
    if os.geteuid():
        row.cannot("unreadable files", "needs root, to become nobody")
        return
    base = Lab.folder / "closed"
    shutil.copytree(Lab.small().base, base)
    for path in (sorted(base.iterdir())[-1], base / "config.json",
                 base / "model.safetensors.index.json", base):
        mode = path.stat().st_mode & 0o777
        path.chmod(0)
        try:
            with Output(Lab.small(), "folder") as out:
                out.parent.chmod(0o777)
                arguments = [base if part == Lab.small().base else part for part in out.merge]
                run = peftool(*arguments, user=NOBODY)
                row.check(path.name, run.not_status(2), run.not_one_line("Permission denied"),
                          out.not_undone)
        finally:
            path.chmod(mode)


@row(27, "a header of 20,000 tensors is no bad file")
def many_tensors(row):
    path = Lab.folder / "many.safetensors"
    tensors = [(f"layer.{n}.weight", "F32", (1,)) for n in range(20_000)]
    path.write_bytes(header(tensors) + bytes(4 * len(tensors)))
    for verb in ("inspect", "verify"):
        run = peftool(verb, path)
        row.check(verb, run.not_status(0), too_much(run))


@row(27, "a head of 180 long strings is no bad file")
def long_strings(row):
    path = Lab.folder / "long.gguf"
    text = b"x" * ((1 << 18) + 1)
    strings = (struct.pack("<Q", len(text)) + text) * 180
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a"
                     + struct.pack("<IIQ", 9, 8, 180) + strings + bytes(64))
    run = peftool("inspect", path)
    row.check("inspect", run.not_status(0),
              run.seconds > MOST_SECONDS and f"took {run.seconds:.2f} s")
