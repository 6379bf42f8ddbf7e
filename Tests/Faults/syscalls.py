"""Failing system calls: the n-th of each kind, n = 1, 2, … until the fault is never met."""

from faults import Lab, Output, calls, row, traced

FAILING = {
    "openat": ["EIO", "EMFILE", "EINTR"],
    "read": ["EIO", "EINTR"],
    "pread64": ["EIO", "EINTR"],
    "fstat": ["EIO"],
    "newfstatat": ["EIO"],
    "getdents64": ["EIO"],
    "mkdir": ["EIO", "ENOSPC", "EINTR"],
    "mkdirat": ["EIO", "ENOSPC", "EINTR"],
    "flock": ["EIO", "EINTR"],
    "fallocate": ["EIO", "ENOSPC", "EINTR"],
    "ftruncate": ["EIO", "EINTR"],
    "write": ["EIO", "ENOSPC", "EINTR"],
    "pwrite64": ["EIO", "ENOSPC", "EINTR"],
    "copy_file_range": ["EIO", "ENOSPC", "EINTR"],
    "fsync": ["EIO", "ENOSPC", "EINTR"],
    "rename": ["EIO", "EINTR"],
    "renameat": ["EIO", "EINTR"],
    "renameat2": ["EIO", "EINTR"],
    "unlink": ["EIO", "EINTR"],
    "unlinkat": ["EIO", "EINTR"],
    "rmdir": ["EIO", "EINTR"],
    "close": ["EIO", "EINTR"],
}
SHORT = {"pwrite64": ["EIO", "EINTR"], "copy_file_range": ["EIO"], "fsync": ["EIO", "EINTR"],
         "renameat2": ["EIO"], "mkdir": ["EIO"], "pread64": ["EINTR"]}
WRITING = ["write", "pwrite64", "writev", "pwritev", "copy_file_range", "ftruncate", "fallocate"]
SYNCING = ["fsync", "fdatasync"]
RENAMING = ["rename", "renameat", "renameat2"]


def first_own_call(out, name):
    """The number, in its thread, of the first such call on our files; the loader's come before."""
    counts, first = {}, None
    for call in calls(traced(*out.merge, calls=[name]).log):
        counts[call.pid] = counts.get(call.pid, 0) + 1
        if call.touches(out.parent) or call.touches(out.model.folder):
            first = min(first or counts[call.pid], counts[call.pid])
    return first


def renamed(out, found):
    """The call that gave the output its name."""
    return next((call for call in found if call.name in RENAMING and call.result == 0
                 and call.paths()[-1:] == [str(out.path)]), None)


def not_final(out, found):
    """The problem where a failed fsync was tried again, or something was renamed after it."""
    failed = next((call for call in found if call.name in SYNCING and call.injected), None)
    if failed is None or failed.result != -1:
        return None
    later = [call for call in found if call.begin > failed.begin]
    if any(call.name in SYNCING and call.paths() == failed.paths() for call in later):
        return "fsync was tried again after it had failed"
    return renamed(out, later) and "renamed though fsync had failed"


def check_failures(row, out, table, most):
    seen = ["openat", *SYNCING, *RENAMING]
    for name, errors in table.items():
        out.reset()
        first = first_own_call(out, name)
        if first is None:
            continue
        for error in errors:
            for n in range(first, first + most):
                out.reset()
                run = traced(*out.merge, calls=[*{*seen, name}],
                             inject=[f"{name}:error={error}:when={n}"])
                found = calls(run.log)
                injected = [call for call in found if call.injected]
                label = f"{name} {n} {error}"
                if not injected:
                    row.check(f"{label}, never met", run.not_status(0), out.not_done)
                    break
                label += f" [{injected[0]}]"
                end = renamed(out, found)
                if not any(call.touches(out.parent) or call.touches(out.model.folder)
                           for call in injected):
                    # The loader's own files, standard output: any failure, but whole or absent.
                    row.check(label, run.hung and "hung", out.not_whole, out.not_tidy,
                              run.status == 0 and out.not_state("complete"))
                elif error == "EINTR":
                    row.check(label, run.not_status(0), out.not_done)
                elif end and end.begin < injected[0].begin:
                    # It has its name by now: whole, and an error where its durability is open.
                    # What could not be removed, the next run removes.
                    row.check(label, run.not_status(0, 2), out.not_state("complete"),
                              name not in ("unlink", "rmdir", "openat", "getdents64", "newfstatat")
                              and out.not_tidy)
                else:
                    row.check(label, out.not_right(run), run.status == 2 and run.not_one_line(),
                              name in SYNCING and run.not_status(2), not_final(out, found))


@row(9, "a failure of the n-th call of each kind")
def failing(row):
    for kind in row.kinds:
        with Output(Lab.small(), kind) as out:
            check_failures(row, out, SHORT if row.short else FAILING, row.count(1000, 2))


@row(9, "a failure of the n-th call while replacing with --force")
def failing_with_force(row):
    names = ["renameat2", "unlink", "rmdir", "fsync", "openat", "close", "getdents64"]
    table = {name: FAILING[name] for name in (names[:2] if row.short else names)}
    for kind in row.kinds:
        with Output(Lab.small(), kind, old=True) as out:
            check_failures(row, out, table, row.count(1000, 3))


# Kinds that let no bytes pass as they are: all goes through conversions, or is computed.
WITHOUT_COPIES = {"gguf", "combine", "resize", "prune", "extract", "convert --to"}


@row(10, "no copy_file_range: the same bytes by another way")
def no_copy_file_range(row):
    errors = ["EXDEV", "EOPNOTSUPP", "EINVAL", "ENOSYS"]
    for kind in row.kinds:
        if kind in WITHOUT_COPIES:
            continue
        for error in errors:
            # All of them, and from the second on: a copy that has begun goes on elsewhere.
            for when in ("1+", "2+"):
                with Output(Lab.small(), kind) as out:
                    run = traced(*out.merge, calls=["copy_file_range"],
                                 inject=[f"copy_file_range:error={error}:when={when}"])
                    row.check(f"{kind} {error} {when}", run.not_status(0), out.not_done,
                              "INJECTED" not in run.log and "copy_file_range is never called")


@row(10, "a copy or a write that does less than asked, again and again")
def short_writes(row):
    for kind in row.kinds:
        for name in ("copy_file_range", "pwrite64"):
            if name == "copy_file_range" and kind in WITHOUT_COPIES:
                continue
            with Output(Lab.small(), kind) as out:
                # A return value of 0 without the work done: the end of a file, or a full disk.
                run = traced(*out.merge, calls=[name], inject=[f"{name}:retval=0:when=1"])
                row.check(f"{kind} {name} returns 0", out.not_right(run),
                          "INJECTED" not in run.log and f"{name} is never called")


def misordered(out, found):
    """The problem in the order of writing, syncing and renaming."""
    end = renamed(out, found)
    if end is None:
        return "no rename to the output"
    temporary = end.paths()[0]
    written, synced = {}, {}
    for call in found:
        path = (call.paths() or [""])[-1 if call.name == "copy_file_range" else 0]
        inside = path == temporary or path.startswith(temporary + "/")
        if not inside and not path.startswith(str(out.path)):
            continue
        if call.begin > end.begin:
            if call.name in WRITING:
                return f"written after the rename: {call}"
        elif call.name in WRITING:
            written[path] = call.end
        elif call.name == "openat" and "O_CREAT" in call.text:
            written.setdefault(path, call.end)
        elif call.name in SYNCING and call.result == 0 and call.end < end.begin:
            synced[path] = call.begin
    if not written:
        return "nothing was written"
    if out.kind == "folder":
        written[temporary] = max(written.values())
    for path, line in written.items():
        if synced.get(path, -1) < line:
            return f"not synced before the rename: {path}"
    after = [call for call in found if call.begin > end.end and call.name in SYNCING
             and call.result == 0]
    if not any(call.paths() == [str(out.parent)] for call in after):
        return "the folder was not synced after the rename"
    return None


@row(11, "every file synced before the rename, the folder after")
def order(row):
    names = ["openat", "mkdir", *WRITING, *SYNCING, *RENAMING]
    for kind in row.kinds:
        for old in (False, True):
            for threads in (1, 4):
                with Output(Lab.small(), kind, old=old) as out:
                    run = traced(*out.merge, "--threads", threads, calls=names)
                    row.check(f"{kind}{', --force' * old}, {threads} threads",
                              run.not_status(0), out.not_done, misordered(out, calls(run.log)))
