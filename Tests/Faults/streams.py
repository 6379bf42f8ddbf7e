"""Standard streams: full, closed, or with nobody at the other end."""

import hashlib
import os
import subprocess
from signal import SIGPIPE

from faults import Lab, Output, peftool, row, start

# A shell ends a pipe's writer by SIGPIPE; catching it and ending with 141 looks the same.
QUIET = (0, -SIGPIPE, 128 + SIGPIPE)


def to_reader(arguments, byte_count):
    """Runs peftool into a pipe whose reader takes so many bytes and goes."""
    read_end, write_end = os.pipe()
    process = start(*arguments, stdout=write_end)
    os.close(write_end)
    taken = b""
    while len(taken) < byte_count:
        part = os.read(read_end, byte_count - len(taken))
        if not part:
            break
        taken += part
    os.close(read_end)
    return process.wait(timeout=20), taken


@row(17, "standard output full")
def full(row):
    for arguments in (["inspect", Lab.small().base], ["inspect", Lab.small().base, "--json"],
                      ["verify", Lab.small().base], ["--help"],
                      ["merge", Lab.small().base, Lab.small().lora, "-o", "-", "--quiet"]):
        with open("/dev/full", "wb") as stream:
            run = peftool(*arguments, stdout=stream)
        row.check(arguments[0], run.not_status(2), run.not_one_line("No space left on device"))
    with Output(Lab.small(), "folder") as out, open("/dev/full", "wb") as stream:
        run = peftool(*out.merge[:-1], stdout=stream)
        # The summary cannot be printed; the model is there all the same.
        row.check("summary", run.not_status(0, 2), out.not_whole, out.not_tidy,
                  run.status == 0 and out.not_state("complete"))


@row(17, "standard streams closed")
def closed(row):
    for kind in ("folder", "file"):
        for closed_streams in ([0], [1], [2], [0, 1], [1, 2], [0, 1, 2]):
            for quiet in (True, False):
                with Output(Lab.small(), kind) as out:
                    def close():
                        for number in closed_streams:
                            os.close(number)

                    run = peftool(*(out.merge if quiet else out.merge[:-1]), prepare=close)
                    # Quiet, nothing needs the streams; otherwise the summary may fail.
                    row.check(f"{kind}, closed: {closed_streams}{', --quiet' * quiet}",
                              run.not_status(*((0,) if quiet else (0, 2))), out.not_whole,
                              out.not_tidy, run.status == 0 and out.not_state("complete"))
    run = peftool("merge", Lab.small().base, Lab.small().lora, "-o", "-",
                  prepare=lambda: os.close(1))
    row.check("stream, closed: [1]", run.not_status(2), run.not_one_line())


@row(17, "reader gone: quiet, and soon over")
def reader_gone(row):
    many = Lab.model("many", hidden=8, inner=8, layers=400, vocabulary=8)
    merge = ["merge", Lab.large().base, Lab.large().lora, "-o", "-"]
    for label, arguments, byte_count in (
            ("inspect", ["inspect", many.base], 20),
            ("inspect --json", ["inspect", many.base, "--json"], 20),
            ("merge, before anything is read", [*merge, "--quiet"], 0),
            ("merge, in the header", [*merge, "--quiet"], 100),
            ("merge, in the data", [*merge, "--quiet"], 1_000_000),
            ("merge, in the data, 1 thread", [*merge, "--quiet", "--threads", "1"], 1_000_000)):
        for _ in range(row.count(5, 1)):
            run, _ = to_reader(arguments, byte_count)
            row.check(label, run.not_status(*QUIET), run.stderr and f"stderr {run.stderr!r}")


@row(17, "a stream of a merge is the file of a merge")
def stream(row):
    for adapter in ("lora", "dora"):
        with Output(Lab.small(), "file", adapter) as out:
            command = [Lab.tool, *out.merge]
            command[command.index("-o") + 1] = "-"
            result = subprocess.run(command, stdout=subprocess.PIPE, check=False)
            digest = hashlib.sha256(result.stdout).hexdigest()
            row.check(adapter, result.returncode != 0 and f"status {result.returncode}",
                      digest != out.reference[""] and "other bytes than the file")
