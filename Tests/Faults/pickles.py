"""Pickles that attack: refused quickly, in little memory, and nothing in them is run."""

import io
import os
import pickle
import struct
import zipfile

from faults import Lab, Output, calls, peftool, row, traced, write_in_child
from refusals import check_refusal

LIST, DICTIONARY, NONE, MARK, TUPLE, APPENDS = b"]", b"}", b"N", b"(", b"t", b"e"
RUNNING = ["execve", "execveat", "fork", "vfork", "connect", "socket", "openat", "open"]


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


STORAGE = (b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu")
           + b"K\x04tQ")


def tensor(shape, strides):
    def numbers(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    return (b"ctorch._utils\n_rebuild_tensor_v2\nq\0(" + STORAGE + b"K\0" + numbers(shape)
            + numbers(strides) + b"\x89Ntq\1R")


def archive(pickled):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("m/data.pkl", pickled)
        file.writestr("m/data/0", bytes(16))
    return data.getvalue()


def bombs():
    """Name → what makes a pickle that asks for more than its size."""
    def many(part, count=90_000, groups=45):
        return lambda: MARK + (LIST + MARK + part * count + APPENDS) * groups + TUPLE

    doubling = DICTIONARY + b"q\0"
    for level in range(40):
        doubling += DICTIONARY + text(b"a") + b"h" + bytes([level]) + b"s"
        doubling += text(b"b") + b"h" + bytes([level]) + b"sq" + bytes([level + 1])
    bodies = {
        "4 million lists": many(LIST), "4 million dictionaries": many(DICTIONARY),
        "4 million tuples": many(b")"), "4 million values": many(NONE),
        "a million strings": many(text(b"a" * 16), 40_000, 30),
        "100,000 tensors of 64 dimensions": lambda: MARK + tensor([1] * 64, [1] * 64)
        + b"h\0h\1R" * 99_000 + TUPLE,
        "one string of 60 MB": lambda: text(b"a" * (60 << 20)),
        "dictionaries that double": lambda: MARK + doubling + TUPLE,
        "a dictionary in itself": lambda: DICTIONARY + b"q\0" + text(b"a") + b"h\0s",
        "2^40 elements by strides of 0": lambda: DICTIONARY + text(b"a")
        + tensor([1 << 20, 1 << 20], [0, 0]) + b"s",
    }
    return {name: lambda body=body: archive(b"\x80\2" + body() + b".")
            for name, body in bodies.items()}


class Attack:
    """What Python's own pickle would run when it is read."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def attacks(mark):
    """Name → a pickle that would make a file of that name."""
    code = f"open({str(mark)!r}, 'w')"
    return {
        "os.system": pickle.dumps({"a": Attack(os.system, f"touch {mark}")}, 2),
        "os.system, protocol 4": pickle.dumps({"a": Attack(os.system, f"touch {mark}")}, 4),
        "exec": pickle.dumps({"a": Attack(exec, code)}, 2),
        "eval": pickle.dumps({"a": Attack(eval, code)}, 3),
        "open": pickle.dumps({"a": Attack(open, str(mark), "w")}, 5),
        "INST": b"\x80\2(" + text(f"touch {mark}".encode()) + b"ios\nsystem\n.",
    }


@row(27, "pickles that ask for too much: refused within 1 s, 100 MB")
def bad_pickles(row):
    folder = Lab.folder / "bad-pickles"
    folder.mkdir()
    file = folder / "pytorch_model.bin"
    seconds, sizes = [], []
    with Output(Lab.small(), "folder") as out:
        for name, make in bombs().items():
            write_in_child(file, make)
            for arguments in (["inspect", file],
                              ["merge", folder, Lab.small().lora, "-o", out.path]):
                run = peftool(*arguments)
                check_refusal(row, f"{arguments[0]}, {name}", run, out)
                seconds.append(run.seconds)
                sizes.append(run.peak_bytes)
    row.note(f"slowest {max(seconds):.2f} s, largest {max(sizes) >> 20} MB")


@row(28, "code from pickles: nothing run, nothing else opened")
def code_from_pickles(row):
    folder = Lab.folder / "code"
    folder.mkdir()
    file, mark = folder / "model.pt", folder / "mark"
    for name, pickled in attacks(mark).items():
        file.write_bytes(archive(pickled))
        run = traced("inspect", file, calls=RUNNING)
        found = calls(run.log)
        # strace itself starts peftool.
        started = [call for call in found if call.name == "execve"][1:]
        foreign = [call for call in found if call.name not in ("execve", "openat", "open")]
        opened = {path for call in found if call.name in ("openat", "open")
                  for path in call.paths() if path.startswith(str(folder))}
        row.check(name, run.not_status(2), "would call" not in run.stderr and run.stderr,
                  mark.exists() and "ran", started and "started a program",
                  foreign and f"called {foreign[0].name}",
                  opened != {str(file)} and f"opened {sorted(opened)}")
        mark.unlink(missing_ok=True)
