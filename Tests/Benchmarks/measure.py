"""Times commands, and tables of what was measured."""

import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEFTOOL = Path(os.environ.get("PEFTOOL", ROOT / ".build/release/peftool")).resolve()


class Measurement:
    """One run: wall, user and system seconds, and the peak resident set.

    The peak is never below what this process itself holds (some 15 MB), which the kernel hands
    on to a child.
    """

    def __init__(self, seconds, usage):
        self.seconds, self.user, self.system = seconds, usage.ru_utime, usage.ru_stime
        self.peak_bytes = usage.ru_maxrss * 1024


def sync_tree(path):
    """fsync of every file and folder below the path: what peftool does before it ends."""
    for place in [*Path(path).rglob("*"), Path(path), Path(path).parent]:
        descriptor = os.open(place, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def measure(command, output=None, is_synced=False):
    """Runs a command to its end; with `is_synced`, the time until its output is on the disk."""
    if output:
        shutil.rmtree(output, ignore_errors=True)
    # Dirty pages of an earlier run must not be written on this one's time.
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    message = process.stderr.read().decode(errors="replace")
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: status {process.returncode}\n{message}")
    if is_synced:
        sync_tree(output)
    return Measurement(time.perf_counter() - started, usage)


def warm(path):
    """Reads every file, so that each run finds its input in memory."""
    for place in sorted(Path(path).rglob("*")):
        if place.is_file():
            with open(place, "rb") as file:
                while file.read(1 << 22):
                    pass


def median(runs):
    return statistics.median(run.seconds for run in runs)


def print_table(rows, baseline=None):
    """One line for each label: median, least and most seconds, processor time, peak, ratio."""
    ratio = "" if baseline is None else "   ratio"
    print(f"{'':<26}{'median':>9}{'min':>9}{'max':>9}{'user':>9}{'system':>9}{'peak':>9}{ratio}"
          f"   runs")
    for label, runs in rows.items():
        seconds = sorted(run.seconds for run in runs)
        user, system = (statistics.median(getattr(run, name) for run in runs)
                        for name in ("user", "system"))
        peak = max(run.peak_bytes for run in runs) / 1e6
        ratio = "" if baseline is None else f"{median(runs) / median(rows[baseline]):>8.2f}"
        print(f"{label:<26}{median(runs):>7.3f} s{seconds[0]:>7.3f} s{seconds[-1]:>7.3f} s"
              f"{user:>7.2f} s{system:>7.2f} s{peak:>6.0f} MB{ratio}{len(runs):>7}")
