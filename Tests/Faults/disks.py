"""Disks: full, limited, read-only, someone else's."""

import contextlib
import os
import resource
import signal
import subprocess
import tempfile

from faults import NOBODY, Lab, Output, calls, peftool, row, traced

PAGE = os.sysconf("SC_PAGESIZE")
FULL = "No space left on device"
# A refusal may read headers and configurations, but no weights.
MOST_BYTES_READ = 1 << 20


@contextlib.contextmanager
def tmpfs(byte_count):
    """A file system of that many bytes, or None where this user may not mount one."""
    folder = tempfile.mkdtemp(dir=Lab.folder)
    command = ["mount", "-t", "tmpfs", "-o", f"size={byte_count},mode=777", "tmpfs", folder]
    if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        os.rmdir(folder)


@row(7, "disk full: tmpfs of 1 to 99 % of the output, and one page short")
def full(row):
    model = Lab.large() if not row.short else Lab.small()
    for kind in row.kinds:
        with Output(model, kind) as out:
            # tmpfs counts whole pages.
            enough = sum(-(-size // PAGE) * PAGE for size in out.sizes)
        part = [enough * percent // 100 // PAGE * PAGE
                for percent in (1, 5, 10, 25, 50, 75, 90, 99)]
        for size in sorted({max(PAGE, size) for size in [*part, enough - PAGE]}) + [2 * enough]:
            with tmpfs(size) as disk:
                if not disk:
                    row.cannot("tmpfs", "needs root and mount")
                    return
                with Output(model, kind, parent=disk) as out:
                    run = peftool(*out.merge)
                    label = f"{kind}, {size} of {enough} bytes"
                    if size >= enough:
                        row.check(label, run.not_status(0), out.not_done)
                    else:
                        row.check(label, run.not_status(2), run.not_one_line(FULL), out.not_undone)


@row(7, "disk full while replacing with --force")
def full_with_force(row):
    for kind in row.kinds:
        with Output(Lab.large(), kind, old=True) as whole:
            old_size = sum(path.stat().st_size for path in whole.parent.rglob("*"))
            new_size = sum(whole.sizes)
        with tmpfs(old_size + new_size // 2) as disk:
            if not disk:
                row.cannot("tmpfs", "needs root and mount")
                return
            with Output(Lab.large(), kind, old=True, parent=disk) as out:
                run = peftool(*out.merge)
                row.check(kind, run.not_status(2), run.not_one_line(FULL), out.not_undone)


@row(8, "file-size limit, SIGXFSZ as it is and ignored")
def size_limit(row):
    for action in (signal.SIG_DFL, signal.SIG_IGN):
        for kind in row.kinds:
            largest = max(Lab.sizes(Lab.small(), kind, "lora"))
            for limit in (0, 1, PAGE, largest // 2, largest - 1):
                with Output(Lab.small(), kind) as out:
                    run = peftool(*out.merge, limits=[(resource.RLIMIT_FSIZE, limit)],
                                  prepare=lambda: signal.signal(signal.SIGXFSZ, action))
                    row.check(f"{kind}, {limit} bytes, {action.name}",
                              run.not_status(2), run.not_one_line(), out.not_undone)


def bytes_read(run, model):
    """How much of the base a traced run has read."""
    return sum(call.result or 0 for call in calls(run.log) if call.touches(model.base))


def refuses_early(row, label, out, **options):
    run = traced(*out.merge, calls=["read", "pread64", "readv", "preadv", "copy_file_range"],
                 **options)
    count = bytes_read(run, out.model)
    row.check(label, run.not_status(2), run.not_one_line(),
              count > MOST_BYTES_READ and f"read {count} bytes of the base first", out.not_undone)


@row(20, "read-only folder, unchangeable folder, another user's folder")
def read_only(row):
    if os.geteuid():
        row.cannot("read-only folders", "needs root")
        return
    for kind in ("folder", "file"):
        with tmpfs(1 << 20) as disk:
            if disk:
                with Output(Lab.large(), kind, parent=disk) as out:
                    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
                    try:
                        refuses_early(row, f"{kind}, mounted read-only", out)
                    finally:
                        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            else:
                row.cannot("mount -o ro", "needs mount")
        with Output(Lab.large(), kind) as out:
            if subprocess.run(["chattr", "+i", out.parent], stderr=subprocess.DEVNULL,
                              check=False).returncode:
                row.cannot("chattr +i", "not on this file system")
            else:
                try:
                    refuses_early(row, f"{kind}, chattr +i", out)
                finally:
                    subprocess.run(["chattr", "-i", out.parent], check=True)
        for old in (False, True):
            with Output(Lab.large(), kind, old=old) as out:
                out.parent.chmod(0o755)
                refuses_early(row, f"{kind}, as nobody{', --force' * old}", out, user=NOBODY)


@row(20, "folder that is not there, output that is there")
def wrong_place(row):
    for kind in ("folder", "file"):
        with Output(Lab.large(), kind) as out:
            out.path = out.parent / "none" / "out"
            refuses_early(row, f"{kind}, no such folder", out)
        with Output(Lab.large(), kind, old=True) as out:
            out.is_old = False  # No --force, but compared with what was there.
            before = out.old
            run = traced(*out.merge, calls=["read", "pread64", "copy_file_range"])
            out.is_old = True
            row.check(f"{kind}, exists", run.not_status(2), run.not_one_line("--force"),
                      bytes_read(run, out.model) > MOST_BYTES_READ and "read the base first",
                      out.not_undone, before != out.old and "the old output changed")
