"""Inputs that another program changes while they are read."""

import os
import shutil
import tempfile
import threading
from pathlib import Path

from checkpoints import INPUTS
from faults import COMMANDS, Lab, Output, Tracer, inputs, remove, row, start

READING = ["read", "pread64", "readv", "preadv", "copy_file_range"]
CHANGED = "changed while it was read"


class Copy:
    """What a kind of command reads of a model, for a test to spoil; the outputs are the same."""

    def __init__(self, model, kind):
        self.folder = Path(tempfile.mkdtemp(dir=Lab.folder))
        self.original, self.kind = model, kind
        self.names = [INPUTS[name] for name in inputs(COMMANDS[kind][0])]
        # Its inputs are made for an output that is not disturbed.
        Lab.reference(model, kind, "lora")
        self.restore()

    def restore(self):
        for name in self.names:
            remove(self.folder / name)
            original = self.original.folder / name
            copy = shutil.copytree if original.is_dir() else shutil.copy
            copy(original, self.folder / name)

    def output(self):
        out = Output(self.original, self.kind)
        out.model = self
        return out

    @property
    def files(self):
        """The files with tensors, those of the adapter last."""
        found = []
        for name in self.names:
            path = self.folder / name
            found += sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)


def cut(length):
    return lambda path: os.truncate(path, length(path.stat().st_size))


def rewrite(path):
    """Other bytes in the same place: data in every file, though a zip archive ends in its names."""
    with open(path, "r+b") as file:
        place = path.stat().st_size // 2 if path.suffix == ".bin" else -2
        file.seek(place, os.SEEK_SET if place > 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def lengthen(path):
    with open(path, "ab") as file:
        file.write(b"\0")


def replace(path):
    """Another file under the name: the one that is open stays as it was."""
    other = path.with_name("other")
    shutil.copy(path, other)
    rewrite(other)
    os.replace(other, path)


def change_at(out, path, call, n, change):
    """Stops peftool at the n-th such call on the file, changes the file, lets it go on."""
    run = Tracer(*out.merge, "--threads", 1, calls=READING + ["fsync", "renameat2"],
                 inject=[f"{call}:signal=STOP:when={n}"], only=[path])
    if not run.wait_until_stopped():
        return run.wait(), False
    change(path)
    run.proceed()
    return run.wait(), True


def is_shard(path):
    return path.name.startswith("model-")


def first_seen(path):
    """The first read after which a change must be seen.

    At the first read of all it comes too early for an adapter, or for a file that is the whole
    input: that one tells what kind of file it is, and then it is opened for good.
    """
    return 1 if is_shard(path) else 2


def check_changes(row, changes, text):
    """Changes a file with tensors at its first, second, … read.

    Whatever is changed before the last read must be seen, as the look at size and times comes
    after that: status 2, the file named, nothing left.
    """
    for kind in row.kinds:
        with Copy(Lab.small(), kind) as copy:
            shards = list(filter(is_shard, copy.files))
            paths = copy.files if not row.short else copy.files[max(0, len(shards) - 1):]
            for path in paths:
                for name, change in changes.items():
                    for call in ("pread64", "copy_file_range"):
                        first = first_seen(path) if call == "pread64" else 1
                        for n in range(first, row.count(1000, first + 1)):
                            copy.restore()
                            with copy.output() as out:
                                run, stopped = change_at(out, path, call, n, change)
                                if not stopped:
                                    break
                                row.check(f"{kind}, {path.name} {name} at {call} {n}",
                                          run.not_status(2), run.not_one_line(path.name),
                                          text and run.not_one_line(text), out.not_undone)


@row(13, "input cut short at its n-th read")
def truncated(row):
    check_changes(row, {"to half": cut(lambda size: size // 2), "to nothing": cut(lambda size: 0),
                        "by one byte": cut(lambda size: size - 1)}, None)


@row(14, "input rewritten or lengthened at its n-th read")
def rewritten(row):
    check_changes(row, {"rewritten": rewrite, "lengthened": lengthen}, CHANGED)


@row(13, "input cut short when nothing is left to read")
def truncated_late(row):
    """Stopped at the sync or rename of the output: undone and named, or done with right bytes."""
    for kind in row.kinds:
        with Copy(Lab.small(), kind) as copy:
            path = copy.files[0]
            for call in ("fsync", "renameat2"):
                copy.restore()
                with copy.output() as out:
                    run = Tracer(*out.merge, calls=["fsync", "renameat2"],
                                 inject=[f"{call}:signal=STOP:when=1"])
                    if not run.wait_until_stopped():
                        run.wait()
                        row.check(f"{kind}, {call}", f"{call} is never called")
                        continue
                    os.truncate(path, 0)
                    run.proceed()
                    ended = run.wait()
                    row.check(f"{kind}, {call}", out.not_right(ended),
                              ended.status == 2 and ended.not_one_line(path.name))


@row(14, "input replaced by rename at its n-th read")
def replaced(row):
    """The file that is open has not changed, so both answers are honest."""
    for kind in row.kinds:
        with Copy(Lab.small(), kind) as copy:
            path = copy.files[0]
            first = first_seen(path)
            for n in range(first, row.count(1000, first + 1)):
                copy.restore()
                with copy.output() as out:
                    run, stopped = change_at(out, path, "pread64", n, replace)
                    if not stopped:
                        break
                    row.check(f"{kind}, at read {n}", out.not_right(run),
                              run.status == 2 and run.not_one_line(path.name))


@row(14, "input rewritten again and again during the run")
def rewritten_all_the_time(row):
    for kind in row.kinds:
        with Copy(Lab.large(), kind) as copy:
            path = copy.files[0]
            for _ in range(row.count(20, 3)):
                with copy.output() as out:
                    over = threading.Event()

                    def disturb():
                        while not over.wait(0.001):
                            rewrite(path)

                    thread = threading.Thread(target=disturb)
                    thread.start()
                    try:
                        run = start(*out.merge).wait()
                    finally:
                        over.set()
                        thread.join()
                    row.check(f"{kind}, rewritten", run.not_status(2), run.not_one_line(CHANGED),
                              run.not_one_line(path.name), out.not_undone)
