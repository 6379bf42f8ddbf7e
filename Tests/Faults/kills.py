"""kill -9: at random times, at each system call that changes a file, and while replacing."""

import random
from signal import SIGKILL

from faults import Lab, Output, peftool, remove, row, signalled, traced

CHANGING = ["openat", "mkdir", "mkdirat", "fallocate", "ftruncate", "pwrite64", "write",
            "copy_file_range", "sync_file_range", "fsync", "fdatasync", "rename", "renameat",
            "renameat2", "unlink", "unlinkat", "rmdir", "flock", "close"]
SHORT = ["pwrite64", "copy_file_range", "fsync", "renameat2", "mkdir", "unlink", "rmdir"]


def next_run_clears(out):
    """The problem where the next run to the same output does not end well, or leaves something."""
    if not out.is_old:
        remove(out.path)
    run = peftool(*out.merge)
    return run.not_status(0) or out.not_done


def at_random(check, out, tries, seed):
    rng, killed = random.Random(seed), 0
    length = Lab.duration(out)
    for number in range(tries):
        out.reset()
        run = signalled(SIGKILL, rng.uniform(0, 1.2 * length), *out.merge)
        killed += run.status == -SIGKILL
        check(f"try {number}", run.not_status(0, -SIGKILL), out.not_whole, next_run_clears(out))
    return killed


def at_each_call(check, out, names, most):
    """Kills before the n-th call of each kind, n = 1, 2, … until the run ends by itself."""
    for name in names:
        for n in range(1, most + 1):
            out.reset()
            run = traced(*out.merge, calls=[name], inject=[f"{name}:signal=KILL:when={n}"])
            if run.status != -SIGKILL:
                check(f"{name} never {n} times", run.not_status(0), out.not_done)
                break
            check(f"{name} {n}", out.not_whole, next_run_clears(out))


@row(3, "kill -9 at random")
def randomly(row):
    killed = 0
    for kind in row.kinds:
        with Output(Lab.large(), kind) as out:
            killed += at_random(row.check, out, row.count(100, 3), kind)
    row.note(f"{killed} killed")


@row(4, "kill -9 at each system call that changes files")
def systematically(row):
    for kind in row.kinds:
        with Output(Lab.small(), kind) as out:
            at_each_call(row.check, out, SHORT if row.short else CHANGING, row.count(1000, 3))


@row(5, "kill -9 while replacing with --force")
def replacing(row):
    killed = 0
    for kind in row.kinds:
        with Output(Lab.large(), kind, old=True) as out:
            killed += at_random(row.check, out, row.count(50, 2), kind)
        with Output(Lab.small(), kind, old=True) as out:
            names = ["renameat2", "unlink", "rmdir"] if row.short else CHANGING
            at_each_call(row.check, out, names, row.count(1000, 4))
    row.note(f"{killed} killed at random")
