"""Writes Samples/chat/conversations.json: conversations as transformers makes text of them; and
Samples/data: files of training data, with the tokens and labels that transformers and TRL make.

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
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SAMPLES = pathlib.Path(__file__).resolve().parent
CHAT = SAMPLES / "chat"
DATA = SAMPLES / "data"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CONTENTS = [
    "", " ", "\n", "Hello", "What is 2+2?", "  padded \n", "\n\nIt leads\n", "a</s>b", "<|im_end|>",
    "<|eot_id|>x", "[INST] hi [/INST]", "<<SYS>>\nno\n<</SYS>>", "{{ 7 * 7 }}{% if x %}",
    "é e\u0301",
    "\u00a0wide\u3000", "\u001cpart\u001f", "\r\nlines\r\n", "\n\u0301mark\n\u0301", "👍🏽",
    "\u200bzero",
    "<think>\n\nWhy?\n\n</think>\n\nSo.", "<think>a</think>b<think>c</think>\nd", "no</think>open",
    "<think>not closed", "</think>", "<think></think>", "\n<think>\nx\n</think>\n\n\n y ",
    "<tool_response>3</tool_response>", "<tool_response>", "</tool_response>",
    "日本語の\tテキスト",
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


TEXTS = [
    "The cat sat on the mat.", "", "Two lines:\nand the other one.\n", "Ends by itself.</s>",
    "<s>begins", "naïve café, e\u0301 and 日本語", "  spaces  around  ", "the the the the",
]
PROMPTS = [
    ("What is 2+2? ", "4"), ("The cat", " sat on the mat."), ("the ca", "t sat"), ("", "all of it"),
    ("Nothing follows.", ""), ("Line\n", "\nbehind lines"), ("a</s>", "b"), ("x", "ends</s>"),
    ("Q: é", "\u0301 is a mark"),
]
CHATS = [
    [("user", "Hello"), ("assistant", "The cat sat on the mat.")],
    [("system", "Be brief."), ("user", "Why?"), ("assistant", "\nSo.\n"), ("user", "And?"),
     ("assistant", "<|im_end|> the end")],
    [("user", "the ca"), ("assistant", "t sat"), ("user", ""), ("assistant", "")],
    [("user", "\u65e5"), ("assistant", " \u672c "), ("user", "unanswered")],
]
# Where an answer begins and ends is said with `generation`, and nothing else is new in these.
MARKED = {
    "chatml": "{%- for turn in messages -%}{{ '<|im_start|>' ~ turn.role ~ '\\n' }}"
    "{%- if turn.role == 'assistant' -%}"
    "{%- generation -%}{{ turn.content ~ '<|im_end|>' }}{%- endgeneration -%}"
    "{%- else -%}{{ turn.content ~ '<|im_end|>' }}{%- endif -%}{{ '\\n' }}{%- endfor -%}",
    "mistral-v1": "{%- set first = messages[0].role == 'system' -%}{{- bos_token -}}"
    "{%- for turn in (messages[1:] if first else messages) -%}"
    "{%- if turn.role == 'user' -%}{{ ' [INST] ' ~ (messages[0].content ~ '\\n\\n' "
    "if loop.first and first else '') ~ turn.content ~ ' [/INST]' }}{%- else -%}"
    "{%- generation -%}{{ ' ' ~ turn.content ~ eos_token }}{%- endgeneration -%}"
    "{%- endif -%}{%- endfor -%}",
}


def small_tokenizer():
    """A byte-level BPE of some 400 tokens that merges over spaces and newlines."""
    one = Tokenizer(models.BPE())
    one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    one.decoder = decoders.ByteLevel()
    lines = [*TEXTS, *(a + b for a, b in PROMPTS), "assistant\nuser\nassistant\n\nSo"] * 3
    one.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"]))
    one.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)])
    return one


def labelled(ids, learnt):
    labels = [number if on else -100 for number, on in zip(ids, learnt, strict=True)]
    return {"ids": ids, "labels": labels}


def answers(one, name):
    """Each chat's tokens, and as labels those of the answers.

    None where transformers loses answers: it stops at the first whose first character, a space, is
    in no token's offsets, because these are trimmed.
    """
    found = []
    for chat in CHATS:
        chat = [{"role": role, "content": text} for role, text in chat]
        made = one.apply_chat_template(chat, chat_template=MARKED[name], return_dict=True,
                                       return_assistant_tokens_mask=True, **TOKENS)
        plain = one.apply_chat_template(
            chat, chat_template=templates()[name], tokenize=False, **TOKENS)
        assert made["input_ids"] == one(plain, add_special_tokens=False)["input_ids"]
        mask = made["assistant_masks"]
        count = sum(a < b for a, b in zip([0, *mask], mask))
        is_whole = count == sum(message["role"] == "assistant" for message in chat)
        found.append(labelled(made["input_ids"], mask) if is_whole else None)
    return found


def write_data():
    DATA.mkdir(exist_ok=True)
    small_tokenizer().save(str(DATA / "tokenizer.json"), pretty=False)
    one = PreTrainedTokenizerFast(tokenizer_file=str(DATA / "tokenizer.json"), **TOKENS)
    (DATA / "tokenizer_config.json").write_text(json.dumps(TOKENS, indent=2) + "\n")

    def lines(name, examples):
        (DATA / name).write_text("".join(
            json.dumps(example, ensure_ascii=False) + "\n" for example in examples))

    lines("texts.jsonl", [{"text": text, "source": "here"} for text in TEXTS])
    lines("prompts.jsonl", [{"prompt": a, "completion": b} for a, b in PROMPTS])
    lines("chats.jsonl", [
        {"messages": [{"role": role, "content": text} for role, text in chat]} for chat in CHATS])
    quoted = ['"' + field.replace('"', '""') + '"' for pair in PROMPTS for field in pair]
    rows = [f"{a},{n},{b}" for n, (a, b) in enumerate(zip(quoted[::2], quoted[1::2]))]
    (DATA / "prompts.csv").write_text("\r\n".join(["prompt,number,completion", *rows]), newline="")
    (DATA / "story.txt").write_text("The cat sat on the mat.\n" * 5)

    def ended(text):
        return text if text.endswith(one.eos_token) else text + one.eos_token

    expected = {"texts": [], "prompts": []}
    for text in TEXTS:
        ids = one(ended(text))["input_ids"]
        expected["texts"].append(labelled(ids, [1] * len(ids)))
    for prompt, completion in PROMPTS:
        # TRL's SFTTrainer masks as many tokens as the prompt has; here as many as are the same.
        ids, given = one(prompt + ended(completion))["input_ids"], one(prompt)["input_ids"]
        same = next((n for n, (a, b) in enumerate(zip(ids, given)) if a != b), len(given))
        expected["prompts"].append(labelled(ids, [n >= same for n in range(len(ids))]))
    expected["chats"] = {name: answers(one, name) for name in MARKED}
    for path in sorted((SAMPLES / "tokenizers").glob("*.json")):
        if path.stem != "expected":
            # Without names for tokens, of which those that it has not would be added to it.
            other = PreTrainedTokenizerFast(tokenizer_file=str(path))
            expected["chats"][path.stem] = {name: answers(other, name) for name in MARKED}
    story = ended((DATA / "story.txt").read_text())
    expected["story"] = one(story)["input_ids"]
    (DATA / "expected.json").write_text(json.dumps(expected) + "\n")

    rows = [example["ids"][:12] for example in expected["texts"][:3]]
    padded = [row + [0] * (12 - len(row)) for row in rows]
    labels = [row + [-100] * (12 - len(row)) for row in rows]
    save_file({"input_ids": torch.tensor(padded), "labels": torch.tensor(labels)},
              str(DATA / "tokens.safetensors"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compare", type=pathlib.Path)
    folder = parser.parse_args().compare
    if folder is None:
        text = json.dumps(golden(), ensure_ascii=False, indent=0)
        (CHAT / "conversations.json").write_text(text + "\n")
        write_data()
        return
    for path in sorted(folder.glob("*.jinja")):
        with open(path, newline="") as file:
            print(path.name, compare(path.name.split("#")[0].removesuffix(".jinja"), file.read()))


if __name__ == "__main__":
    main()
