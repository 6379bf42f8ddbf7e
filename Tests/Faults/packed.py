"""Packed files: bits that flip, kills, full disks, threads, and files that are refused."""

import random
import shutil
import tempfile
from pathlib import Path
from signal import SIGKILL

from disks import FULL, PAGE, tmpfs
from faults import Lab, contents, peftool, remove, row, signalled
from refusals import too_much


def packing(model, path):
    return ["convert", model.base, "-o", path, "--quiet"]


def packed(model):
    """A packed file of the model, made undisturbed, and its folder."""
    path = Path(tempfile.mkdtemp(dir=Lab.folder)) / "model.safetensors.zst"
    run = peftool(*packing(model, path))
    if run.status:
        raise RuntimeError(f"{run}")
    return path


@row(23, "bit rot in packed files: verify finds each bit")
def bit_rot(row):
    path, rng = packed(Lab.small()), random.Random(23)
    data = path.read_bytes()
    changed = path.with_name("changed.zst")
    for _ in range(row.count(1000, 40)):
        bit = rng.randrange(8 * len(data))
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        changed.write_bytes(spoilt)
        # Where the file is not even known as a packed one, it is no checkpoint at all.
        run = peftool("verify", changed, "--quiet")
        row.check(f"bit {bit % 8} of byte {bit // 8}",
                  run.not_status(*((1, 2) if bit < 16 * 8 else (1,))), too_much(run))
    shutil.rmtree(path.parent)


@row(3, "kill -9 at random while packing and unpacking")
def killed(row):
    model, rng = Lab.large(), random.Random(3)
    whole = packed(model)
    out = whole.with_name("out")
    for command, reference in (
            (packing(model, out.with_suffix(".zst")), contents(whole)),
            (["convert", whole, "-o", out, "--quiet"], contents(model.base))):
        path, kills = command[3], 0
        length = peftool(*command).seconds
        for number in range(row.count(100, 8)):
            remove(path)
            run = signalled(SIGKILL, rng.uniform(0, 1.2 * length), *command)
            kills += run.status == -SIGKILL
            found = contents(path)
            row.check(f"{path.name}, try {number}", run.not_status(0, -SIGKILL),
                      found not in (None, reference) and "the output is torn")
        remove(path)
        run = peftool(*command)
        left = [name for name in whole.parent.iterdir() if name not in (whole, path)]
        row.check(f"{path.name}, the next run", run.not_status(0),
                  contents(path) != reference and "the output is torn",
                  left and f"left behind: {left}")
        remove(path)
        row.note(f"{kills} killed")
    shutil.rmtree(whole.parent)


@row(7, "disk full while packing and unpacking")
def full(row):
    model = Lab.small()
    whole = packed(model)
    size = sum(-(-path.stat().st_size // PAGE) * PAGE for path in model.base.iterdir())
    for name, byte_count, command in (
            ("x.zst", whole.stat().st_size, ["convert", model.base]),
            ("out", size, ["convert", whole])):
        for percent in (1, 25, 50, 75, 95):
            with tmpfs(max(PAGE, byte_count * percent // 100 // PAGE * PAGE)) as disk:
                if not disk:
                    row.cannot("tmpfs", "needs root and mount")
                    return
                run = peftool(*command, "-o", Path(disk) / name, "--quiet")
                row.check(f"{name}, {percent} %", run.not_status(2), run.not_one_line(FULL),
                          list(Path(disk).iterdir()) and "something is left")
    shutil.rmtree(whole.parent)


@row(26, "the same packed bytes with 1, 2 and 7 threads, again and again")
def repeated(row):
    model = Lab.model("medium", hidden=256, inner=704)
    whole = packed(model)
    reference = whole.read_bytes()
    for number in range(row.count(100, 6)):
        threads = (1, 2, 7)[number % 3]
        run = peftool(*packing(model, whole), "--force", "--threads", threads)
        row.check(f"{threads} threads", run.not_status(0),
                  whole.read_bytes() != reference and "other bytes")
    shutil.rmtree(whole.parent)


@row(27, "cut packed files: refused soon, in 100 MB, one line")
def cut(row):
    path, rng = packed(Lab.small()), random.Random(27)
    data = path.read_bytes()
    short = path.with_name("short.zst")
    for count in [0, 1, 8, 16, 31, 32, len(data) - 1,
                  *(rng.randrange(len(data)) for _ in range(row.count(200, 10)))]:
        short.write_bytes(data[:count])
        run = peftool("convert", short, "-o", path.with_name("out"))
        row.check(f"{count} bytes", run.not_status(2), run.not_one_line(), too_much(run),
                  path.with_name("out").exists() and "an output is there")
    shutil.rmtree(path.parent)
