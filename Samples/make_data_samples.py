"""Writes Samples/chat/conversations.json: conversations as transformers makes text of them.

    make_data_samples.py [--compare FOLDER]

The templates in Samples/chat are our own; each writes what the one of its family on the Hugging
Face Hub writes, and raises besides where that one leaves a message out. With --compare the texts
of FOLDER are put beside ours, by the part of their names before '#': `qwen3#1.jinja`.
"""

import argparse
import json
import pathlib
import random

import jinja2
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

CHAT = pathlib.Path(__file__).resolve().parent / "chat"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CONTENTS = [
    "", " ", "\n", "Hello", "What is 2+2?", "  padded \n", "\n\nIt leads\n", "a</s>b", "<|im_end|>",
    "<|eot_id|>x", "[INST] hi [/INST]", "<<SYS>>\nno\n<</SYS>>", "{{ 7 * 7 }}{% if x %}", "é e\u0301",
    "\u00a0wide\u3000", "\u001cpart\u001f", "\r\nlines\r\n", "\n\u0301mark\n\u0301", "👍🏽", "\u200bzero",
    "<think>\n\nWhy?\n\n</think>\n\nSo.", "<think>a</think>b<think>c</think>\nd", "no</think>open",
    "<think>not closed", "</think>", "<think></think>", "\n<think>\nx\n</think>\n\n\n y ",
    "<tool_response>3</tool_response>", "<tool_response>", "</tool_response>", "日本語の\tテキスト",
    "\u0085next\u2028", "long " * 12,
]


def conversation(rng):
    """Mostly turns in order, sometimes not; messages with what users really write and worse."""
    count = rng.choice([1, 1, 2, 2, 3, 4, 5, 6])
    if rng.random() < 0.8:
        roles = ["user", "assistant"] * count
        roles = (["system"] if rng.random() < 0.5 else []) + roles[:count]
    else:
        roles = rng.choices(["system", "user", "assistant"], k=count)
    messages = [{"role": role, "content": rng.choice(CONTENTS)} for role in roles]
    for message in messages:
        if message["role"] == "assistant" and rng.random() < 0.2:
            message["reasoning_content"] = rng.choice(["", "\nbecause\n", "so"])
    return {"messages": messages, "prompt": rng.random() < 0.5, "thinking": rng.random() < 0.7,
            "date": rng.choice(["26 Jul 2024", "01 Feb 2026"])}


def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **TOKENS)


def rendered(tokenizer, template, case):
    """The text that transformers makes, None where the template raises."""
    options = {} if case["thinking"] else {"enable_thinking": False}
    try:
        return tokenizer.apply_chat_template(
            case["messages"], chat_template=template, tokenize=False, date_string=case["date"],
            add_generation_prompt=case["prompt"], **options)
    except jinja2.exceptions.TemplateError:
        return None


def templates():
    return {path.stem: path.read_text() for path in sorted(CHAT.glob("*.jinja"))}


def golden():
    rng = random.Random(7)
    cases = [conversation(rng) for _ in range(48)]
    one = tokenizer()
    return {"tokens": TOKENS, "conversations": cases, "texts": {
        name: [rendered(one, template, case) for case in cases]
        for name, template in templates().items()}}


def compare(name, text, count=2000, seed=1):
    """Counts the conversations of which a text makes what ours makes, and fails where it does not.

    Ours may raise where the other leaves out a message; then the other's text is without it.
    """
    one, rng, ours, equal = tokenizer(), random.Random(seed), templates()[name], 0
    for _ in range(count):
        case = conversation(rng)
        mine, theirs = rendered(one, ours, case), rendered(one, text, case)
        if mine is None and theirs is not None:
            rest = case["messages"][1:] if case["messages"][0]["role"] == "system" else None
            assert rest == [] or any(
                message["role"] == "system" for message in case["messages"][1:]), (name, case)
            continue
        assert mine == theirs, (name, case, mine, theirs)
        equal += theirs is not None
    return equal


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compare", type=pathlib.Path)
    folder = parser.parse_args().compare
    if folder is None:
        text = json.dumps(golden(), ensure_ascii=False, indent=0)
        (CHAT / "conversations.json").write_text(text + "\n")
        return
    for path in sorted(folder.glob("*.jinja")):
        with open(path, newline="") as file:
            print(path.name, compare(path.name.split("#")[0].removesuffix(".jinja"), file.read()))


if __name__ == "__main__":
    main()
