"""Verbs that run a model and write no file: generate and evaluate."""

import json
import os
import random
import shutil
import signal

from checkpoints import tokenizer
from faults import NOBODY, Lab, Tracer, calls, peftool, row, signalled, traced, write_in_child
from inputs import CHANGED, READING, cut, rewrite
from refusals import MOST_SECONDS, bad_adapters, bad_files, bad_indexes, bad_tokenizers, too_much
from streams import QUIET, to_reader
from syscalls import FAILING

QUESTIONS = [{"prompt": "ab", "choices": ["a", "b"], "answer": 0},
             {"prompt": "b", "choices": ["ab", "aab"], "answer": "ab"}]


def copy_model(folder):
    """The small base, with a tokenizer that has text for all of its tokens."""
    shutil.copytree(Lab.small().base, folder)
    tokens = ["a", "b", "ab", *(f"t{number}" for number in range(3, Lab.small().vocabulary))]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "tokenizer.json").write_text(
        json.dumps(tokenizer(vocab=vocabulary) | {"added_tokens": []}))


class Place:
    """A folder with a model, an adapter and data, for a test to spoil."""

    def __init__(self, name):
        self.folder = Lab.folder / f"running-{name}"
        self.model, self.adapter = self.folder / "model", self.folder / "adapter"
        self.data = self.folder / "data.jsonl"
        self.restore()

    def restore(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        copy_model(self.model)
        shutil.copytree(Lab.small().dora, self.adapter)
        self.data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))

    def commands(self):
        """The verbs and their arguments."""
        common = ["--adapter", self.adapter, "--quiet", "--threads", 1]
        return {"generate": ["generate", self.model, "ab", "--max-tokens", 4, *common],
                "evaluate": ["evaluate", self.model, "--data", self.data, *common]}

    def check(self, row):
        """A case: undisturbed all is well. Otherwise no refusal would say anything."""
        for verb, arguments in self.commands().items():
            run = peftool(*arguments)
            row.check(f"{verb}, undisturbed", run.not_status(0), run.stderr,
                      not run.stdout and "no output")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)


def not_refused(run, *texts):
    """The problem where a run is no refusal: status 2, one line, and nothing on stdout."""
    return (run.not_status(2) or run.not_one_line(*texts)
            or (run.stdout and f"stdout {run.stdout[:100]!r}"))


def endless(folder):
    """A model that goes on for as long as it is let."""
    copy_model(folder)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 1_000_000
    (folder / "config.json").write_text(json.dumps(config))
    return ["generate", folder, "ab", "--max-tokens", 500_000]


@row(27, "running a model: what is missing is told by its name")
def missing(row):
    with Place("missing") as place:
        place.check(row)
        shard = place.model / Lab.small().shards[0].name
        for path, verbs in (
                (place.model, None), (place.model / "config.json", None),
                (place.model / "tokenizer.json", None), (shard, None), (place.adapter, None),
                (place.adapter / "adapter_config.json", None),
                (place.adapter / "adapter_model.safetensors", None), (place.data, ["evaluate"])):
            for verb, arguments in place.commands().items():
                if verbs and verb not in verbs:
                    continue
                place.restore()
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                run = peftool(*arguments)
                row.check(f"{verb} without {path.name}",
                          not_refused(run, path.name, path.parent.name))


@row(27, "running a model: damaged files are refused soon, in one line")
def damaged(row):
    with Place("damaged") as place:
        place.check(row)
        # Both verbs read a model by the same way: they take turns.
        commands, turn = list(place.commands().items()), 0
        files = {
            "tokenizer.json": bad_tokenizers(),
            "model.safetensors.index.json": bad_indexes(Lab.small().base),
            Lab.small().shards[0].name: bad_files(),
            "generation_config.json": {
                "no JSON": lambda: "{", "an array": lambda: "[]",
                "an eos token below 0": lambda: '{"eos_token_id": -1e99}',
                "an eos token that is a text": lambda: '{"eos_token_id": "</s>"}',
                "nested": lambda: '{"eos_token_id": ' + "[" * 1_000_000},
            "tokenizer_config.json": {
                "no JSON": lambda: "{", "an array": lambda: "[]",
                "a number for a token": lambda: '{"eos_token": 4}',
                "nested": lambda: "[" * 1_000_000},
            "config.json": {
                "empty": lambda: "", "no JSON": lambda: "{", "an array": lambda: "[]",
                "another model": lambda: '{"model_type": "bert"}',
                "a hidden_size of 2^62": lambda: json.dumps(
                    config | {"hidden_size": 1 << 62}),
                "heads of 0": lambda: json.dumps(config | {"num_attention_heads": 0}),
                "a million layers": lambda: json.dumps(
                    config | {"num_hidden_layers": 1_000_000}),
                "another vocab_size": lambda: json.dumps(config | {"vocab_size": 8}),
            }}
        config = json.loads((Lab.small().base / "config.json").read_text())
        for name, makes in files.items():
            for label, make in makes.items():
                if row.short and " MB of " in label:
                    continue
                place.restore()
                write_in_child(place.model / name, make)
                turn += 1
                verb, arguments = commands[turn % 2]
                run = peftool(*arguments)
                row.check(f"{verb}, {name}: {label}", not_refused(run), too_much(run),
                          len(run.stderr) > 2000 and "a long message",
                          any(c < " " and c != "\n" or c in "\x7f\u202e" for c in run.stderr)
                          and "raw control characters on stderr")
        good = json.loads((Lab.small().dora / "adapter_config.json").read_text())
        for label, make in bad_adapters().items():
            if label.startswith("use_dora without"):
                continue  # The adapter here has them.
            place.restore()
            write_in_child(place.adapter / "adapter_config.json",
                           lambda make=make: json.dumps({**good, **make()}))
            for verb, arguments in commands:
                row.check(f"{verb}, adapter: {label}", not_refused(peftool(*arguments)))


@row(27, "evaluate: data that are none")
def bad_data(row):
    with Place("data") as place:
        fifo, zero = place.folder / "fifo.jsonl", place.folder / "zero.jsonl"
        os.mkfifo(fifo)
        zero.symlink_to("/dev/zero")
        for label, path, text in (
                ("empty", place.data, ""), ("no JSON", place.data, "{"),
                ("cut in a line", place.data, json.dumps(QUESTIONS[0])[:-3]),
                ("no UTF-8", place.data, b'{"text": "\xff"}'),
                ("one choice", place.data, '{"prompt": "a", "choices": [], "answer": 0}'),
                ("the answer is none", place.data,
                 '{"prompt": "a", "choices": ["a"], "answer": "b"}'),
                ("nested", place.data, "[" * 1_000_000),
                ("a second line", place.data, json.dumps(QUESTIONS[0]) + "\n{}\n"),
                ("a folder", place.folder, None), ("a fifo", fifo, None), ("zeros", zero, None)):
            if text is not None:
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
            run = peftool("evaluate", place.model, "--data", path, "--data-format", "jsonl",
                          timeout=20)
            row.check(label, not_refused(run), run.seconds > MOST_SECONDS and "too long")


@row(27, "running a model: unreadable files, as nobody")
def unreadable(row):
    if os.geteuid():
        row.cannot("unreadable files", "needs root, to become nobody")
        return
    with Place("unreadable") as place:
        place.check(row)
        for path in (place.model / "tokenizer.json", place.model / "config.json",
                     place.model / Lab.small().shards[0].name,
                     place.adapter / "adapter_model.safetensors"):
            path.chmod(0)
            for verb, arguments in place.commands().items():
                row.check(f"{verb}, {path.name}", not_refused(
                    peftool(*arguments, user=NOBODY), "Permission denied"))
            path.chmod(0o644)


@row(9, "running a model: a failure of the n-th call of each kind")
def failing(row):
    with Place("failing") as place:
        place.check(row)
        for verb, arguments in place.commands().items():
            expected = peftool(*arguments)
            for name in ("openat", "pread64", "read", "fstat", "newfstatat", "getdents64"):
                counts, first = {}, None
                for call in calls(traced(*arguments, calls=[name]).log):
                    counts[call.pid] = counts.get(call.pid, 0) + 1
                    if call.touches(place.folder):
                        first = min(first or counts[call.pid], counts[call.pid])
                if first is None:
                    continue
                for error in FAILING[name]:
                    for n in range(first, first + row.count(1000, 3)):
                        run = traced(*arguments, calls=[name],
                                     inject=[f"{name}:error={error}:when={n}"])
                        injected = [call for call in calls(run.log) if call.injected]
                        if not injected:
                            break
                        label = f"{verb}, {name} {n} {error} [{injected[0]}]"
                        same = run.not_status(0) or (
                            verb == "generate" and run.stdout != expected.stdout
                            and f"stdout {run.stdout!r}")
                        if not any(call.touches(place.folder) for call in injected):
                            row.check(label, run.hung and "hung")
                        elif error == "EINTR":
                            row.check(label, same)
                        else:
                            row.check(label, not_refused(run))


@row(13, "running a model: input cut short or rewritten at its n-th read")
def changed(row):
    """Whatever is changed while it is read is seen before the first word is printed."""
    with Place("changed") as place:
        place.check(row)
        for verb, arguments in place.commands().items():
            for path in (place.model / Lab.small().shards[-1].name,
                         place.adapter / "adapter_model.safetensors"):
                for label, change, text in (
                        ("cut to nothing", cut(lambda size: 0), None),
                        ("cut by a byte", cut(lambda size: size - 1), None),
                        ("rewritten", rewrite, CHANGED)):
                    # At the first read it may not yet be known what kind of file it is.
                    for n in range(2, row.count(1000, 4)):
                        place.restore()
                        run = Tracer(*arguments, calls=READING,
                                     inject=[f"pread64:signal=STOP:when={n}"], only=[path])
                        if not run.wait_until_stopped():
                            run.wait()
                            break
                        change(path)
                        run.proceed()
                        ended = run.wait()
                        row.check(f"{verb}, {path.name} {label} at read {n}",
                                  not_refused(ended, path.name),
                                  text and ended.not_one_line(text))


@row(6, "running a model: SIGTERM, SIGINT, SIGHUP at random times")
def at_random(row):
    folder = Lab.folder / "endless"
    arguments = endless(folder)
    rng = random.Random(6)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        for _ in range(row.count(10, 2)):
            after = rng.uniform(0, 1.5)
            run = signalled(number, after, *arguments)
            row.check(f"{number.name} after {after:.3f} s",
                      run.not_status(128 + number, -number),
                      run.seconds > MOST_SECONDS and f"took {run.seconds:.1f} s to end")
    shutil.rmtree(folder)


@row(17, "running a model: standard output full, closed, its reader gone")
def streams(row):
    with Place("streams") as place:
        place.check(row)
        for verb, arguments in place.commands().items():
            for flags in ([], ["--json"]):
                with open("/dev/full", "wb") as stream:
                    run = peftool(*arguments, *flags, stdout=stream)
                row.check(f"{verb} {flags}, full", run.not_status(2),
                          run.not_one_line("No space left on device"))
                run = peftool(*arguments, *flags, prepare=lambda: os.close(1))
                row.check(f"{verb} {flags}, closed", run.not_status(2), run.not_one_line())
                run, _ = to_reader([*arguments, *flags], 0)
                row.check(f"{verb} {flags}, reader gone", run.not_status(*QUIET),
                          run.stderr and f"stderr {run.stderr!r}")
    folder = Lab.folder / "endless"
    run, taken = to_reader(endless(folder), 50)
    row.check("generate, reader gone in the text", run.not_status(*QUIET),
              run.stderr and f"stderr {run.stderr!r}", len(taken) < 50 and "too little text")
    shutil.rmtree(folder)
    with Place("closed") as place:
        run = peftool("generate", place.model, "-", "--quiet", prepare=lambda: os.close(0))
        row.check("generate -, standard input closed", not_refused(run))
        run = peftool("generate", place.model, "-", "--quiet")
        row.check("generate -, standard input empty", not_refused(run, "the prompt is empty"))
