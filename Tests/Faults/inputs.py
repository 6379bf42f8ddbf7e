"""Inputs that another program changes while they are read."""

import os
import shutil
import tempfile
import threading
from pathlib import Path

from faults import Lab, Output, Tracer, row, start

READING = ["read", "pread64", "readv", "preadv", "copy_file_range"]
CHANGED = "changed while it was read"


class Copy:
    """A model of its own that a test may spoil; the outputs of the two are the same."""

    def __init__(self, model):
        self.folder = Path(tempfile.mkdtemp(dir=Lab.folder))
        self.original = model
        self.base, self.lora, self.dora = (self.folder / name for name in ("base", "lora", "dora"))
        self.restore()

    def restore(self):
        for name in ("base", "lora", "dora"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            shutil.copytree(self.original.folder / name, self.folder / name)

    def output(self, kind, adapter="lora"):
        out = Output(self.original, kind, adapter)
        out.model = self
        return out

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)


def cut(length):
    return lambda path: os.truncate(path, length(path.stat().st_size))


def rewrite(path):
    """Other bytes in the same place: the last ones, which are data in every file."""
    with open(path, "r+b") as file:
        file.seek(-2, os.SEEK_END)
        last = file.read(2)
        file.seek(-2, os.SEEK_END)
        file.write(bytes([last[0] ^ 1, last[1]]))


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


def check_changes(row, changes, text):
    """Changes a shard or the adapter at its first, second, … read.

    Whatever is changed before the last read must be seen, as the look at size and times comes
    after that: status 2, the file named, nothing left. A change at the first read of the adapter
    comes too early: that one tells what kind of file it is, and then it is opened for good.
    """
    with Copy(Lab.small()) as copy:
        paths = [copy.base / Lab.small().shards[0].name, copy.base / Lab.small().shards[-1].name,
                 copy.lora / "adapter_model.safetensors"]
        for kind in ("folder", "file"):
            for path in paths[1:] if row.short else paths:
                for name, change in changes.items():
                    for call in ("pread64", "copy_file_range"):
                        first = 2 if path == paths[-1] and call == "pread64" else 1
                        for n in range(first, row.count(1000, first + 1)):
                            copy.restore()
                            with copy.output(kind) as out:
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
    with Copy(Lab.small()) as copy:
        path = copy.base / Lab.small().shards[-1].name
        for kind in ("folder", "file"):
            for call in ("fsync", "renameat2"):
                copy.restore()
                with copy.output(kind) as out:
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
    with Copy(Lab.small()) as copy:
        path = copy.base / Lab.small().shards[0].name
        for n in range(1, row.count(1000, 2)):
            copy.restore()
            with copy.output("folder") as out:
                run, stopped = change_at(out, path, "pread64", n, replace)
                if not stopped:
                    break
                row.check(f"at read {n}", out.not_right(run),
                          run.status == 2 and run.not_one_line(path.name))


@row(14, "input rewritten again and again during the merge")
def rewritten_all_the_time(row):
    with Copy(Lab.large()) as copy:
        path = copy.base / Lab.large().shards[-1].name
        for _ in range(row.count(20, 3)):
            with copy.output("folder") as out:
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
                row.check("rewritten", run.not_status(2), run.not_one_line(CHANGED),
                          run.not_one_line(path.name), out.not_undone)
