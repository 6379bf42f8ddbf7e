"""Several programs at one output: readers that look all the time, and two writers."""

import hashlib
import os
import threading

from faults import Lab, Output, peftool, row, start


def look(out):
    """What a reader finds: 'absent', 'old', 'complete', or a description of something else."""
    try:
        if out.kind == "file":
            names = [""]
        else:
            names = sorted({*out.reference, *(out.old if out.is_old else ())} & set(
                os.listdir(out.path)))
        found = {}
        for name in names:
            found[name] = hash_again(os.path.join(out.path, name) if name else out.path)
    except FileNotFoundError:
        return "absent"
    if found == out.reference:
        return "complete"
    if out.is_old:
        if found == out.old:
            return "old"
        # While the folder is exchanged, a reader who opens file by file may see both, each whole.
        if out.kind == "folder" and all(
                digest in (out.old.get(name), out.reference.get(name))
                for name, digest in found.items()):
            return "old, then complete"
    return f"torn: {sorted(found)} of {sorted(out.reference)}"


def hash_again(path):
    """The hash of a file; a name that is just being exchanged is looked up a second time."""
    for final in (False, True):
        try:
            with open(path, "rb") as file:
                return hashlib.sha256(file.read()).hexdigest()
        except FileNotFoundError:
            if final:
                raise


@row(15, "8 readers of an output that is being written or replaced")
def readers(row):
    looks = 0
    for kind, old in (("folder", False), ("file", False), ("folder", True), ("file", True)):
        for _ in range(row.count(5, 1)):
            with Output(Lab.model("medium", hidden=256, inner=704), kind, old=old) as out:
                over, seen = threading.Event(), []

                def read():
                    while not over.is_set():
                        seen.append(look(out))

                threads = [threading.Thread(target=read) for _ in range(8)]
                for thread in threads:
                    thread.start()
                run = peftool(*out.merge)
                over.set()
                for thread in threads:
                    thread.join()
                before = {"old", "old, then complete"} if old else {"absent"}
                wrong = set(seen) - before - {"complete"}
                row.check(f"{kind}{', --force' * old}", run.not_status(0), out.not_done,
                          wrong and f"a reader saw: {sorted(wrong)[:3]}")
                looks += len(seen)
    row.note(f"{looks} looks")


@row(16, "two writers to one output, started together")
def writers(row):
    both = 0
    for kind, old in (("folder", False), ("file", False), ("folder", True), ("file", True)):
        for number in range(row.count(50, 5)):
            with Output(Lab.small(), kind, old=old) as out:
                other = Output(Lab.small(), kind, "dora", old=old, parent=out.parent)
                arguments = [out.merge, other.merge][::1 if number % 2 else -1]
                runs = [process.wait() for process in [start(*each) for each in arguments]]
                statuses = sorted(run.status for run in runs)
                both += statuses == [0, 0]
                row.check(
                    f"{kind}{', --force' * old} {number}",
                    # Without --force the later one finds the name taken; with it both may write.
                    statuses not in ([[0, 0]] if old else [[0, 2]]) and f"statuses {statuses}: "
                    + " ".join(run.stderr for run in runs),
                    *(run.status == 2 and run.not_one_line("exists") for run in runs),
                    out.state != "complete" and other.not_state("complete"), out.not_tidy)
    row.note(f"{both} times both wrote")
