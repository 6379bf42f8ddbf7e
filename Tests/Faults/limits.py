"""Too little memory, too few descriptors, too few threads."""

import os
import re
import resource
import time
from pathlib import Path

from faults import NOBODY, Lab, Output, peftool, remove, row, start

MEGABYTE = 1 << 20
# Beyond what a good run maps: the loader and the allocator round up.
MARGIN = 64 * MEGABYTE


def peak_address_space(out):
    """The most that an undisturbed run maps, looked at all the while."""
    process, peak = start(*out.merge), 0
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        found = re.search(r"VmPeak:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        peak = max(peak, int(found[1]) * 1024 if found else 0)
        time.sleep(0.0005)
    process.wait()
    out.reset()
    return peak


@row(18, "address space from 64 MB up in steps of 16 MB")
def memory(row):
    for kind in ("folder", "file"):
        with Output(Lab.large(), kind) as out:
            peak = peak_address_space(out)
            step = row.count(16 * MEGABYTE, max(16 * MEGABYTE, peak // 8))
            sizes = [*range(64 * MEGABYTE, peak + MARGIN, step), peak + MARGIN]
            least = None
            for size in sizes:
                out.reset()
                run = peftool(*out.merge, limits=[(resource.RLIMIT_AS, size)])
                least = least or (run.status == 0 and size)
                if run.status < 0 or run.status > 2:
                    # A failed allocation may trap; the next run clears up after it.
                    problem = out.not_whole
                    remove(out.path)
                    row.check(f"{kind}, {size >> 20} MB", run.hung and "hung", problem,
                              peftool(*out.merge).not_status(0), out.not_done)
                else:
                    row.check(f"{kind}, {size >> 20} MB", out.not_right(run),
                              size == sizes[-1] and run.not_status(0))
            row.note(f"{kind}: done from {(least or 0) >> 20} MB on, maps {peak >> 20} MB")


@row(19, "few descriptors: ulimit -n 16, 100 shards")
def descriptors(row):
    model = Lab.model("shards", hidden=16, inner=32, layers=40, vocabulary=32, shards=100)
    assert len(model.shards) >= 60, len(model.shards)
    for kind in row.kinds:
        for count in row.count([4, 5, 6, 8, 12, 16, 32, 64, 128], [8, 16, 64]):
            with Output(model, kind) as out:
                run = peftool(*out.merge, limits=[(resource.RLIMIT_NOFILE, count)])
                # Below about 8 the loader itself may have too few.
                row.check(f"{kind}, {count}", count >= 8 and out.not_right(run), out.not_whole,
                          out.not_tidy, run.status == 2 and run.not_one_line("Too many open files"))


@row(19, "few threads: as nobody, who may start none")
def threads(row):
    if os.geteuid():
        row.cannot("RLIMIT_NPROC", "needs root, to become nobody")
        return
    for kind in row.kinds:
        for count in (1, 2, 3):
            with Output(Lab.small(), kind) as out:
                out.parent.chmod(0o777)
                run = peftool(*out.merge, "--threads", 4, user=NOBODY, timeout=20,
                              limits=[(resource.RLIMIT_NPROC, count)])
                row.check(f"{kind}, {count}", out.not_right(run),
                          run.status == 2 and run.not_one_line("thread"))
