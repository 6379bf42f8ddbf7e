"""Runs peftool under faults and judges what it leaves: the one module behind every fault test.

A test is a function marked `@row(number, title)`. It runs peftool (`peftool`, or `traced` under
strace), and gives `Row.check` a label and problems: texts, or None where all is well.
"""

import contextlib
import hashlib
import os
import pwd
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from checkpoints import INPUTS, Model

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
ROWS = []


# Rows and their cases

class Row:
    """One line of the report: a fault, how often it was tried, and what went wrong."""

    def __init__(self, number, title, body):
        self.number, self.title, self.body = number, title, body

    def run(self, short, only=()):
        self.short, self.only = short, list(only)
        self.passed, self.failures, self.skipped, self.notes = 0, [], [], []
        started = time.monotonic()
        try:
            self.body(self)
        except Exception as error:  # A broken test is a failed test; the other rows go on.
            self.failures.append(f"the test itself: {type(error).__name__}: {error}")
        if not self.passed and not self.failures and not self.skipped:
            self.failures.append("no case ran")
        self.seconds = time.monotonic() - started

    @property
    def kinds(self):
        """The kinds of commands to try: in a short run those that merge, and one of the others."""
        if self.only:
            return self.only
        return KINDS[:2] + [KINDS[2 + self.number % len(KINDS[2:])]] if self.short else KINDS

    def count(self, full, short):
        return short if self.short else full

    def check(self, label, *problems):
        problems = [problem for problem in problems if problem]
        if problems:
            text = f"{label}: {'; '.join(problems)}"
            self.failures.append(text.replace(f"{Lab.folder}/", ""))
        else:
            self.passed += 1

    def note(self, text):
        self.notes.append(text)

    def cannot(self, what, reason):
        """A case that this machine cannot run: a failure in a full run."""
        self.skipped.append(f"not run: {what}: {reason}")


def row(number, title):
    def register(body):
        ROWS.append(Row(number, title, body))
        return body
    return register


# Running peftool

class Run:
    """How a run ended: `status` as a shell shows it, but negative where a signal killed it."""

    def __init__(self, status, stdout, stderr, seconds, peak_bytes, log=""):
        self.status, self.stdout, self.stderr = status, stdout, stderr
        self.seconds, self.peak_bytes, self.log = seconds, peak_bytes, log
        self.hung = False

    def __str__(self):
        return f"status {self.status}, stderr {self.stderr[-300:]!r}"

    def not_status(self, *allowed):
        """The problem where the status is none of those allowed."""
        if self.hung:
            return f"still running after {self.seconds:.0f} s"
        if self.status not in allowed:
            return f"status {self.status}, expected {allowed}; stderr {self.stderr[-300:]!r}"
        return None

    def not_one_line(self, *texts):
        """The problem where stderr is not one line of peftool's that holds one of the texts."""
        lines = self.stderr.splitlines()
        if len(lines) != 1 or not lines[0].startswith("peftool: "):
            return f"expected one line 'peftool: …' on stderr, got {self.stderr[-300:]!r}"
        if texts and not any(str(text) in lines[0] for text in texts):
            return f"expected {' or '.join(map(repr, map(str, texts)))} in {lines[0]!r}"
        return None


class Process:
    """A started process; nobody has to read its output meanwhile.

    Standard output goes to a file, standard error to a pipe: it must fit there, and a limit on
    the size of files must not cut it short.
    """

    def __init__(self, command, limits=(), user=None, prepare=None, stdin=subprocess.DEVNULL,
                 stdout=None):
        self.stdout = tempfile.TemporaryFile()
        self.stderr, write_end = os.pipe()
        os.set_blocking(self.stderr, False)

        def before():
            for kind, amount in limits:
                resource.setrlimit(kind, (amount, amount))
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            if prepare:
                prepare()

        self.started = time.monotonic()
        self.popen = subprocess.Popen(
            list(map(str, command)), stdin=stdin,
            stdout=stdout or self.stdout, stderr=write_end, preexec_fn=before)
        os.close(write_end)
        self.pid = self.popen.pid

    def send(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout=60):
        """Waits for the end, by force once the time is over."""
        hung = threading.Event()

        def end():
            hung.set()
            self.send(signal.SIGKILL)

        timer = threading.Timer(timeout, end)
        timer.start()
        try:
            _, code, usage = os.wait4(self.pid, 0)
        except BaseException:  # This program is being ended: so is what it started.
            self.send(signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        seconds = time.monotonic() - self.started
        self.popen.returncode = os.waitstatus_to_exitcode(code)
        with self.stdout, open(self.stderr, "rb") as stderr:
            self.stdout.seek(0)
            texts = [(file.read(1 << 20) or b"").decode(errors="replace")
                     for file in (self.stdout, stderr)]
        run = Run(self.popen.returncode, *texts, seconds, usage.ru_maxrss * 1024)
        run.hung = hung.is_set()
        return run


def start(*arguments, **options):
    return Process([Lab.tool, *arguments], **options)


def peftool(*arguments, timeout=60, **options):
    """Runs peftool to its end. `limits`: pairs for setrlimit; `user`: runs as that user."""
    return start(*arguments, **options).wait(timeout)


def signalled(number, after, *arguments, **options):
    """Runs peftool and sends it a signal after so many seconds; `seconds` count from then on."""
    process = start(*arguments, **options)
    time.sleep(after)
    sent = time.monotonic()
    process.send(number)
    run = process.wait()
    run.seconds -= sent - process.started
    return run


# Running it under strace

class Tracer(Process):
    """peftool under strace: `inject` as strace takes it, such as 'fsync:error=EIO:when=2'.

    Faults hit only calls on the paths in `only`, where there are some. Calls are counted by thread.
    """

    def __init__(self, *arguments, calls, inject=(), only=(), user=None, **options):
        handle, self.log_path = tempfile.mkstemp(dir=Lab.folder, suffix=".strace")
        os.close(handle)
        command = ["strace", "-f", "-y", "-qq", "-s", "0", "-o", self.log_path,
                   "-e", "trace=" + ",".join(f"?{name}" for name in calls)]
        for fault in inject:
            command += ["-e", f"inject=?{fault}"]
        for path in only:
            command += ["-P", path]
        if user is not None:  # strace itself stays who it is.
            command += ["-u", pwd.getpwuid(user).pw_name]
        super().__init__([*command, Lab.tool, *arguments], **options)

    def log(self):
        return Path(self.log_path).read_text(errors="replace")

    def wait(self, timeout=60):
        run = super().wait(timeout)
        run.log = self.log()
        os.unlink(self.log_path)
        return run

    def wait_until_stopped(self, timeout=20):
        """Waits for an injected SIGSTOP; false where the run ends without one."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if "stopped by SIGSTOP" in self.log():
                return True
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return False
            time.sleep(0.005)
        raise TimeoutError("neither stopped nor ended")

    def proceed(self):
        """Lets a stopped run go on."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGCONT)


def traced(*arguments, timeout=60, **options):
    """Runs peftool under strace to its end; `run.log` is what strace saw."""
    return Tracer(*arguments, **options).wait(timeout)


class Call:
    """A system call in a log: when it began and ended (line numbers), and how."""

    def __init__(self, pid, name, text, begin):
        self.pid, self.name, self.text, self.begin = pid, name, text, begin
        self.end, self.result, self.injected = None, None, False

    def finish(self, text, line):
        self.text += text
        found = re.search(r"\)\s+= (-?\d+|\?)", text)
        self.result = None if not found or found[1] == "?" else int(found[1])
        self.injected = "(INJECTED)" in text
        self.end = line

    def paths(self):
        """The paths in it: those of its descriptors, and its arguments."""
        return re.findall(r"\d+<(/[^>]*)>", self.text) + re.findall(r'"(/[^"]*)"', self.text)

    def touches(self, folder):
        return str(folder) in self.text

    def __str__(self):
        return f"{self.name}{self.text.strip()}"


def calls(log):
    """The system calls of a log, in the order in which they began."""
    found, open_calls = [], {}
    for number, line in enumerate(log.splitlines()):
        resumed = re.match(r"(\d+)\s+<\.\.\. (\w+) resumed>(.*)", line)
        begun = re.match(r"(\d+)\s+(\w+)(\(.*)", line)
        if resumed and resumed[1] in open_calls:
            open_calls.pop(resumed[1]).finish(resumed[3], number)
        elif begun:
            call = Call(begun[1], begun[2], begun[3], number)
            found.append(call)
            if "<unfinished ...>" in line:
                open_calls[begun[1]] = call
            else:
                call.text = ""
                call.finish(begun[3], number)
    return found


# Places for outputs

def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def contents(path):
    """Relative path → sha256 of every file of an output, or None where there is none."""
    path = Path(path)
    if not os.path.lexists(path):
        return None
    if not path.is_dir():
        return {"": sha256(path)}
    return {str(file.relative_to(path)): sha256(file) if file.is_file() else "a folder"
            for file in sorted(path.rglob("*"))}


def write_in_child(path, make):
    """Writes what `make` gives, made in another process.

    A child's peak of memory starts at what its parent holds, so this process must stay small.
    """
    child = os.fork()
    if child == 0:
        try:
            data = make()
            Path(path).write_bytes(data if isinstance(data, bytes) else data.encode())
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"cannot make {path}")


def remove(path):
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# What is run, by its kind: a command that writes an output, and one that writes another for it to
# replace. {NAME} stands for the path of an input.
COMMANDS = {
    "folder": ("merge {base} {lora}", "merge {base} {dora}"),
    "file": ("merge {base} {lora}", "merge {base} {dora}"),
    "gguf": ("convert {base} --dtype bf16", "convert {base} --dtype q8_0"),
    "quantize": ("quantize {base}", "quantize {base} --type int8"),
    "dequantize": ("dequantize {nf4}", "dequantize {int8}"),
    "merge --quantize":
        ("merge {base} {lora} --quantize nf4", "merge {base} {dora} --quantize nf4"),
    "merge of NF4": ("merge {nf4} {lora}", "merge {nf4} {dora}"),
    "merge --simulate":
        ("merge {base} {lora} --simulate nf4", "merge {base} {dora} --simulate nf4"),
    "convert of GGUF": ("convert {gguf}", "convert {gguf} --dtype f32"),
    "convert of torch": ("convert {torch}", "convert {torch} --dtype f32"),
    "convert --dtype": ("convert {base} --dtype f32", "convert {base} --dtype f64"),
    "combine": ("combine {lora} {dora} --base {base}", "combine {dora} --base {base}"),
    "resize": ("resize {lora} --rank 2", "resize {lora} --rank 3"),
    "extract": ("extract {base} {tuned} --rank 2", "extract {base} {tuned} --rank 3 --dora"),
    "convert --to": ("convert {lora} --to dora --base {base}",
                     "convert {dora} --to lora --rank 3 --base {base}"),
    "prune": ("prune {lora} --density 0.5", "prune {dora} --density 0.3 --base {base}"),
}
NAMES = {"file": "out.safetensors", "gguf": "out.gguf", "convert of torch": "out.safetensors"}
KINDS = list(COMMANDS)
# How inputs are made that peftool itself makes of others.
MADE = {"nf4": "quantize {base}", "int8": "quantize {base} --type int8", "gguf": "convert {base}",
        "tuned": "merge {base} {lora}"}


def inputs(command):
    """The names of the inputs of a command."""
    return re.findall(r"{(\w+)}", command)


def words(model, command):
    """The words of a command, with the paths of a model's inputs."""
    places = {f"{{{name}}}": model.folder / place for name, place in INPUTS.items()}
    return [places.get(word, word) for word in command.split()]


def writing(model, kind, adapter, path):
    """The arguments that write an output; of two adapters they write two."""
    command = COMMANDS[kind][("lora", "dora").index(adapter)]
    return [*words(model, command), "-o", path, "--quiet"]


class Output:
    """A fresh folder for one output of a kind of `KINDS`; gone when the `with` ends."""

    def __init__(self, model, kind, adapter="lora", old=False, parent=None):
        self.model, self.kind, self.adapter, self.is_old = model, kind, adapter, old
        self.parent = Path(parent or tempfile.mkdtemp(dir=Lab.folder))
        self.keeps_parent = parent is not None
        self.path = self.parent / NAMES.get(kind, "out")
        self.reference = Lab.reference(model, kind, adapter)
        self.sizes = Lab.sizes(model, kind, adapter)
        if old:
            self.old_source, self.old = Lab.old(kind)
        self.reset()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.keeps_parent:
            self.clear()
        else:
            shutil.rmtree(self.parent, ignore_errors=True)

    def clear(self):
        for path in self.parent.iterdir():
            remove(path)

    def reset(self):
        """An empty folder, or one with the old output in it."""
        self.clear()
        if self.is_old:
            copy = shutil.copytree if self.old_source.is_dir() else shutil.copy
            copy(self.old_source, self.path)

    @property
    def merge(self):
        """The arguments of the merge, or of the conversion, that writes it."""
        force = ["--force"] if self.is_old else []
        *first, quiet = writing(self.model, self.kind, self.adapter, self.path)
        return [*first, *force, quiet]

    @property
    def state(self):
        found = contents(self.path)
        if found is None:
            return "absent"
        if found == self.reference:
            return "complete"
        if self.is_old and found == self.old:
            return "old"
        wrong = [name for name in {*found, *self.reference}
                 if found.get(name) != self.reference.get(name)]
        return f"torn ({len(found)} of {len(self.reference)} files, wrong: {sorted(wrong)[:3]})"

    def not_state(self, *allowed):
        """The problem where the output is in none of those states."""
        state = self.state
        return None if state in allowed else f"output is {state}, expected {' or '.join(allowed)}"

    @property
    def not_whole(self):
        """The problem where the output is torn: absent (or old) and complete are the states."""
        return self.not_state("old" if self.is_old else "absent", "complete")

    @property
    def not_undone(self):
        """The problem where anything has changed."""
        return self.not_state("old" if self.is_old else "absent") or self.not_tidy

    @property
    def not_done(self):
        return self.not_state("complete") or self.not_tidy

    @property
    def not_tidy(self):
        """The problem where something lies beside the output."""
        others = sorted(path.name for path in self.parent.iterdir() if path != self.path)
        return f"left behind: {others}" if others else None

    def not_right(self, run):
        """The problem where status and output do not agree: 0 and complete, or 2 and nothing."""
        return run.not_status(0, 2) or (self.not_done if run.status == 0 else self.not_undone)


# The place where all happens

class Lab:
    """The temporary folder with the models, and what an undisturbed run makes of them."""

    @classmethod
    def open(cls, tool):
        cls.folder = Path(tempfile.mkdtemp(prefix="peftool-faults-")).resolve()
        cls.folder.chmod(0o755)
        # A copy: any user may run it, and a rebuild does not disturb a run.
        cls.tool = cls.folder / "peftool"
        shutil.copy(tool, cls.tool)
        cls.tool.chmod(0o755)
        cls.models, cls.references, cls.seconds = {}, {}, {}
        cls.own_bytes = peftool("--version").peak_bytes

    @classmethod
    def close(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    @classmethod
    def small(cls):
        return cls.model("small")

    @classmethod
    def large(cls):
        """About 50 MB, so that a merge lasts long enough to be disturbed."""
        return cls.model("large", hidden=768, inner=2048, layers=3, vocabulary=2000)

    @classmethod
    def model(cls, name, **shape):
        if name not in cls.models:
            cls.models[name] = Model(cls.folder / f"model-{name}", **shape)
        return cls.models[name]

    @classmethod
    def reference(cls, model, kind, adapter):
        """The contents that an undisturbed run writes."""
        return cls._undisturbed(model, kind, adapter)[1]

    @classmethod
    def sizes(cls, model, kind, adapter):
        """The sizes of the files that an undisturbed run writes."""
        path = cls._undisturbed(model, kind, adapter)[0]
        return [file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()]

    @classmethod
    def old(cls, kind):
        """An output that a later run replaces: its path and contents."""
        return cls._undisturbed(cls.small(), kind, "dora")

    @classmethod
    def _make_inputs(cls, model, kind, adapter):
        for name in inputs(COMMANDS[kind][("lora", "dora").index(adapter)]):
            path = model.folder / INPUTS[name]
            if path.exists():
                continue
            if name == "torch":
                model.write_torch()
                continue
            run = peftool(*words(model, MADE[name]), "-o", path, "--quiet")
            if run.status != 0:
                raise RuntimeError(f"cannot make {name}: {run}")

    @classmethod
    def _undisturbed(cls, model, kind, adapter):
        key = model, kind, adapter
        if key not in cls.references:
            folder = cls.folder / f"reference-{len(cls.references)}"
            folder.mkdir(exist_ok=True)  # There after a failure.
            path = folder / NAMES.get(kind, "out")
            cls._make_inputs(model, kind, adapter)
            run = peftool(*writing(model, kind, adapter, path))
            if run.status != 0:
                raise RuntimeError(f"an undisturbed run failed: {run}")
            cls.seconds[key] = run.seconds
            cls.references[key] = path, contents(path)
        return cls.references[key]

    @classmethod
    def duration(cls, output):
        """The seconds of a quick undisturbed run."""
        key = output.model, output.kind, output.adapter
        for _ in range(3):
            output.reset()
            cls.seconds[key] = min(cls.seconds[key], peftool(*output.merge).seconds)
        output.reset()
        return cls.seconds[key]
