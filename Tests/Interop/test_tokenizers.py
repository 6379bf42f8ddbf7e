"""Tokens and text against the library tokenizers: samples, a real tokenizer, random ones."""

import json
import os
import random
import subprocess
import unicodedata

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import transformers
from conftest import SAMPLES
from make_tokenizer_samples import LLAMA3, QWEN2, TEKKEN, TEXTS
from texts import ODD, Texts, is_known
from tokenizers import Tokenizer, pre_tokenizers

NAMES = ["gpt2", "smollm", "llama3", "qwen2", "nemo", "mistral", "llama2", "tinyllama"]
LONG = 5_000_000


def piped(peftool, data, *arguments):
    """Standard output as bytes, of a run that may fail: then its line is raised."""
    done = subprocess.run([peftool.path, "tokenize", *map(str, arguments)], input=data,
                          capture_output=True, timeout=600)
    if done.returncode:
        raise ValueError(done.stderr.decode())
    return done.stdout


def encoded(peftool, path, texts, *options):
    """The tokens of texts, none of which has a zero in it."""
    data = "".join(text + "\0" for text in texts).encode()
    lines = piped(peftool, data, path, "--null", *options).decode().split("\n")
    assert lines.pop() == "" and len(lines) == len(texts)
    return [list(map(int, line.split())) for line in lines]


def decoded(peftool, path, rows, *options):
    data = "".join(" ".join(map(str, row)) + "\0" for row in rows).encode()
    # As JSON: a text may have a zero in it.
    report = json.loads(piped(peftool, data, path, "--decode", "--null", "--json", *options))
    assert [text["ids"] for text in report["texts"]] == [list(row) for row in rows]
    return [text["text"] for text in report["texts"]]


def answer(function, *arguments, **options):
    """What the library makes of it; None where that panics in it."""
    try:
        return function(*arguments, **options)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return None


def compare(peftool, path, texts, rows=()):
    """Everything that both can do with these texts, and with these numbers."""
    theirs = Tokenizer.from_file(str(path))
    rows, panics = list(rows), 0
    for options, special in ([], True), (["--no-special-tokens"], False):
        for text, ours in zip(texts, encoded(peftool, path, texts, *options)):
            found = answer(theirs.encode, text, add_special_tokens=special)
            if found is None:
                panics += 1
                continue
            assert ours == found.ids, repr(text[:200])
            if special:
                rows.append(ours)
    for options, skips in ([], False), (["--no-special-tokens"], True):
        for row, ours in zip(rows, decoded(peftool, path, rows, *options)):
            assert ours == theirs.decode(row, skip_special_tokens=skips), row[:50]
    # Where one token of several that overlap ends before it begins, the library gives up.
    assert panics <= len(texts) / 10


def compare_long(peftool, path, text):
    theirs = Tokenizer.from_file(str(path))
    ids = theirs.encode(text).ids
    ours = piped(peftool, text.encode(), path).split()
    assert list(map(int, ours)) == ids
    back = piped(peftool, " ".join(map(str, ids)).encode(), path, "--decode")
    assert back.decode() == theirs.decode(ids, skip_special_tokens=False)


def random_rows(path, seed, count=40):
    """Numbers in any order, so that bytes and characters come apart."""
    ids = sorted(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True).values())
    chooser = random.Random(seed)
    return [chooser.choices(ids, k=chooser.randint(0, 30)) for _ in range(count)]


@pytest.fixture(scope="module")
def corpus():
    return Texts(1).long(LONG)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_with_many_texts(peftool, name):
    path = SAMPLES / f"tokenizers/{name}.json"
    texts = Texts(2)
    hard = [text for text in TEXTS if "\0" not in text]
    compare(peftool, path, hard + [texts.short().replace("\0", "\x01") for _ in range(2000)],
            random_rows(path, 3))


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_with_a_long_text(peftool, name, corpus):
    compare_long(peftool, SAMPLES / f"tokenizers/{name}.json", corpus)


def test_smollm2(peftool, smollm2, tmp_path, corpus):
    path = tmp_path / "tokenizer.json"
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    tokenizer.backend_tokenizer.save(str(path))
    compare_long(peftool, path, corpus)
    # Its own file cuts digits apart, which transformers loses on the way from GGUF.
    tree = json.loads(path.read_text())
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, tree["pre_tokenizer"]]}
    own = tmp_path / "own.json"
    own.write_text(json.dumps(tree))
    compare_long(peftool, own, corpus)
    compare(peftool, own, [], random_rows(own, 4))


def compare_tokens(peftool, path, texts):
    """The tokens of many texts, for which the library has a quicker way."""
    theirs = Tokenizer.from_file(str(path)).encode_batch_fast(texts)
    for text, ours, found in zip(texts, encoded(peftool, path, texts), theirs):
        assert ours == found.ids, repr(text)


def every_character(condition):
    """All characters up to the third plane, and some of the others, which are all alike."""
    codes = [*range(1, 0xD800), *range(0xE000, 0x34000), *range(0x34000, 0x110000, 257),
             *range(0xE0000, 0xE0200)]
    return [chr(code) for code in codes if condition(chr(code))]


# Each with all characters: between letters, and before marks and spaces. The patterns of
# Oniguruma know those that its version of Unicode has, as does Python's.
@pytest.mark.parametrize("part", [
    {"normalizer": {"type": "NFC"}}, {"normalizer": {"type": "NFD"}},
    {"normalizer": {"type": "NFKC"}}, {"normalizer": {"type": "NFKD"}},
    {"normalizer": {"type": "Lowercase"}}, {"normalizer": {"type": "StripAccents"}},
    {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},
    {"pre_tokenizer": {"type": "Digits", "individual_digits": False}},
    {"pre_tokenizer": {"type": "Punctuation", "behavior": "Removed"}},
    {"pre_tokenizer": {"type": "Whitespace"}}, {"pre_tokenizer": {"type": "WhitespaceSplit"}},
    {"pre_tokenizer": {"type": "BertPreTokenizer"}},
    {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}},
    {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated",
                       "invert": False}},
    {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": TEKKEN}, "behavior": "Removed",
                       "invert": True}},
], ids=lambda part: next(iter(part.values()))["type"])
def test_every_character(peftool, tmp_path, part):
    """A model that has a token for each byte shows what the part has done."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: id for id, token in enumerate(alphabet)}
    # Two of a kind side by side become one token, unless they have been cut apart.
    merges = [["Ð", "°"], ["a", "a"], ["aa", "a"]]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                "use_regex": False}
    own = part.get("pre_tokenizer")
    # A sign before each piece shows where it begins.
    mark = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always",
            "split": False}
    tree = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": None, "post_processor": None, "decoder": {"type": "ByteLevel",
            "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "vocab": vocabulary, "merges": merges}, **part}
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        *([own, mark] if own else []), bytes_of]}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tree))
    characters = every_character(
        is_known if own and own["type"] in ("Split", "ByteLevel") else lambda _: True)
    texts = []
    for start in range(0, len(characters), 512):
        some = characters[start:start + 512]
        texts += ["a" + "a".join(some), "".join("1" + c + "\u0323\u0301 " for c in some)]
    compare_tokens(peftool, path, texts)


def test_numbers_and_order_of_marks(peftool, tmp_path):
    """Runs of marks of all classes, in any order, composed and not."""
    marks = [c for c in every_character(is_known) if unicodedata.combining(c)]
    chooser = random.Random(5)
    texts = ["".join(chooser.choice("aeouAEOUSsक가ᄀ가") + "".join(
        chooser.choices(marks + ["\u1161", "\u11a8"], k=chooser.randint(0, 6)))
        for _ in range(30)) for _ in range(400)]
    tree = json.loads((SAMPLES / "tokenizers/qwen2.json").read_text())
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        tree["normalizer"] = {"type": form}
        path = tmp_path / f"{form}.json"
        path.write_text(json.dumps(tree))
        compare(peftool, path, texts)


class Parts:
    """Parts of a tokenizer.json, at random."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def some(self, makers, most):
        return [self.random.choice(makers)() for _ in range(self.random.randint(0, most))]

    def flag(self):
        return self.random.random() < 0.5

    def sequence(self, parts, key):
        if not parts:
            return None
        if len(parts) == 1 and self.flag():
            return parts[0]
        return {"type": "Sequence", key: parts}

    def pattern(self):
        return self.random.choice([
            {"String": " "}, {"String": "a"}, {"String": "▁"}, {"String": "ab"}, {"Regex": "\\s+"},
            {"Regex": "[aeiou]"}, {"Regex": "(?<=a)b"}, {"Regex": "\\p{L}+"}, {"Regex": "x*"},
            {"Regex": "(?i)E"}, {"Regex": " {2,}"}, {"Regex": "[^a-z]"}, {"Regex": "\\d"},
            {"Regex": QWEN2}, {"Regex": "."}, {"Regex": "\\b"}, {"Regex": "a|\\Z"}])

    def normalizer(self):
        makers = [
            lambda: {"type": "Prepend", "prepend": self.random.choice(["▁", " ", "ab", "é"])},
            # An empty match at the beginning makes the library fail in what comes after it.
            lambda: {"type": "Replace", "pattern": self.random.choice([
                {"String": " "}, {"String": "a"}, {"Regex": "\\s+"}, {"Regex": "[aeiou]+"},
                {"Regex": "(?<=a)b"}, {"String": "é"}, {"Regex": "^a"}]),
                "content": self.random.choice(["▁", "", "x", "é ", "aa", "日本"])},
            lambda: {"type": self.random.choice(["NFC", "NFD", "NFKC", "NFKD"])},
            lambda: {"type": "Lowercase"}, lambda: {"type": "StripAccents"},
            lambda: {"type": "Strip", "strip_left": self.flag(), "strip_right": self.flag()},
        ]
        return self.sequence(self.some(makers, 3), "normalizers")

    def pre_tokenizer(self):
        behaviors = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
        makers = [
            lambda: {"type": "ByteLevel", "add_prefix_space": self.flag(), "trim_offsets": True,
                     "use_regex": self.flag()},
            lambda: {"type": "Split", "pattern": self.pattern(),
                     "behavior": self.random.choice(behaviors), "invert": self.flag()},
            lambda: {"type": "Split", "pattern": self.pattern(),
                     "behavior": self.random.choice(behaviors), "invert": self.flag()},
            lambda: {"type": "Digits", "individual_digits": self.flag()},
            lambda: {"type": "Metaspace", "replacement": "▁", "split": self.flag(),
                     "prepend_scheme": self.random.choice(["first", "always", "never"])},
            lambda: {"type": "Metaspace", "replacement": "▁", "split": self.flag(),
                     "prepend_scheme": "first"},
            lambda: {"type": "Whitespace"}, lambda: {"type": "WhitespaceSplit"},
            lambda: {"type": "Punctuation", "behavior": self.random.choice(behaviors)},
            lambda: {"type": "BertPreTokenizer"},
        ]
        return self.sequence(self.some(makers, 3), "pretokenizers")

    def decoder(self):
        makers = [
            lambda: {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                     "use_regex": True},
            lambda: {"type": "ByteFallback"}, lambda: {"type": "Fuse"},
            # The library fails on an empty token of which something is to be cut off the end.
            lambda: {"type": "Strip", "content": self.random.choice(" a▁é"),
                     "start": self.random.randint(0, 2), "stop": 0},
            lambda: {"type": "Replace", "pattern": self.pattern(),
                     "content": self.random.choice([" ", "", "b", "é"])},
            lambda: {"type": "Metaspace", "replacement": "▁", "split": True,
                     "prepend_scheme": self.random.choice(["first", "always", "never"])},
            lambda: {"type": "BPEDecoder", "suffix": self.random.choice(["</w>", "a", "▁"])},
        ]
        return self.sequence(self.some(makers, 4), "decoders")

    def post_processor(self, ids):
        token, id = self.random.choice(ids)
        element = {"SpecialToken": {"id": token, "type_id": 0}}
        text = {"Sequence": {"id": "A", "type_id": 0}}
        return self.random.choice([
            None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
                   "use_regex": True},
            {"type": "BertProcessing", "sep": [token, id], "cls": [token, id]},
            {"type": "RobertaProcessing", "sep": [token, id], "cls": [token, id],
             "trim_offsets": True, "add_prefix_space": True},
            {"type": "TemplateProcessing",
             "single": self.random.choice([[element, text], [text, element], [text, text],
                                           [element, text, element]]),
             "pair": [text, {"Sequence": {"id": "B", "type_id": 0}}],
             "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}}}])

    def model(self):
        """Characters, some of them only, with an affix or without, and random merges."""
        prefix = self.random.choice([None, None, None, "", "##", "a"])
        suffix = self.random.choice([None, None, None, "", "</w>"])
        alphabet = sorted(set(self.random.sample(
            [*map(chr, range(0x21, 0x7F)), *"éàüßабвгдежз日本語▁ĠĊ가각 \n\t.aaa"], 70)
            + list("ab▁Ġ ")))
        if self.flag():
            alphabet = sorted({*alphabet, *pre_tokenizers.ByteLevel.alphabet()})
        tokens = dict.fromkeys(alphabet)
        for character in alphabet:
            for first in {"", prefix or ""}:
                for last in {"", suffix or ""}:
                    if self.random.random() < 0.8:
                        tokens[first + character + last] = None
        merges = []
        for _ in range(self.random.choice([0, 20, 200])):
            left, right = self.random.choices(list(tokens), k=2)
            # The library cuts off as many bytes as the prefix has, whatever they are.
            if not right.startswith(prefix or ""):
                continue
            whole = left + right[len(prefix or ""):]
            if len(whole) < 12:
                tokens[whole] = None
                merges.append([left, right])
        fallback = self.random.choice([None, False, True, True])
        if fallback:
            for byte in range(256):
                if self.random.random() < (0.999 if self.flag() else 0.9):
                    tokens[f"<0x{byte:02X}>"] = None
        tokens["<unk>"] = None
        order = list(tokens)
        self.random.shuffle(order)
        # Lines of merges were strings with a space before 0.20; parts with a space need the pair.
        if self.flag() and not any(" " in left + right for left, right in merges):
            merges = [" ".join(pair) for pair in merges]
        return {"type": "BPE", "dropout": self.random.choice([None, 0.0]),
                "unk_token": self.random.choice([None, "<unk>", "<unk>"]),
                "continuing_subword_prefix": prefix, "end_of_word_suffix": suffix,
                "fuse_unk": self.flag(), "byte_fallback": bool(fallback),
                "ignore_merges": self.flag(),
                "vocab": {token: id for id, token in enumerate(order)}, "merges": merges}

    def added_tokens(self, vocabulary):
        tokens, ids = [], {}
        contents = ["<s>", "</s>", "<mask>", "NEW", "new", "ab", " ", "  ", "é", "É", "a b", "日",
                    "<unk>", "▁", "x", "<s", "s>", "\n", "1", "e\u0301", "..."]
        for content in self.random.sample(contents, self.random.randint(1, 8)):
            ids[content] = vocabulary.get(content, len(vocabulary) + sum(
                known not in vocabulary for known in ids))
            tokens.append({"id": ids[content], "content": content, "single_word": self.flag(),
                           "lstrip": self.flag(), "rstrip": self.flag(),
                           "normalized": self.flag(), "special": self.flag()})
        return tokens

    def tree(self):
        model = self.model()
        added = self.added_tokens(model["vocab"])
        ids = [(token["content"], token["id"]) for token in added]
        return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                "normalizer": self.normalizer(), "pre_tokenizer": self.pre_tokenizer(),
                "post_processor": self.post_processor(ids), "decoder": self.decoder(),
                "model": model}


SHARED = [
    "", " ", "a", "  a b  ", "ab ab", "½ab½", "ﬁ", "É é e\u0301", "<s>ab</s>", " <mask> NEW new",
    "日本語 日", "a\nb\n\n", "...1.2", "x<s x s>", "ÅÉ\u0301\u0323", "▁a▁ ▁", "12 345", "ĠaĊ",
    "\u0301\u0323a", "İI ẞ", "    ", "A  NEWb aNEW NEW  ", "가각힣", "x" * 100,
]


@pytest.mark.parametrize("first", range(0, 600, 50))
def test_random_tokenizers(peftool, tmp_path, first):
    counts = {"compared": 0, "refused": 0}
    for seed in range(first, first + 50):
        path = tmp_path / f"{seed}.json"
        path.write_text(json.dumps(Parts(seed).tree()))
        texts = Texts(seed)
        some = SHARED + [texts.short().replace("\0", "") for _ in range(30)]
        # What the library makes two things of, by chance, peftool refuses by name.
        try:
            encoded(peftool, path, [""])
        except ValueError as error:
            assert str(error).endswith(" after the normalizer\n"), (seed, error)
            counts["refused"] += 1
            continue
        try:
            compare(peftool, path, some, random_rows(path, seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        counts["compared"] += 1
    assert counts["compared"] > 40, counts


def test_odd_characters(peftool):
    path = SAMPLES / "tokenizers/smollm.json"
    compare(peftool, path, [a + "x" + b for a in ODD if a != "\0" for b in ODD if b != "\0"])
    # A zero is a character like any other where it does not end a text.
    theirs = Tokenizer.from_file(str(path)).encode("a\0b\0").ids
    assert list(map(int, piped(peftool, b"a\0b\0", path).split())) == theirs


@pytest.mark.parametrize("name", ["smollm", "llama2", "qwen2", "nemo"])
@pytest.mark.parametrize("run", [" ", "a", "\n", "1", "é", "가", "\u0301", "-", "ab ", "▁"])
def test_long_runs(peftool, name, run):
    path = SAMPLES / f"tokenizers/{name}.json"
    text = "x" + run * (100_000 // len(run.encode())) + "y"
    compare_long(peftool, path, text)
