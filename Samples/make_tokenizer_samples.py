#!/usr/bin/env python3
"""Makes Samples/tokenizers with the library tokenizers, in the environment of the interop tests.

    .build/interop/bin/python Samples/make_tokenizer_samples.py

A small tokenizer.json for each of the families, trained on the text below, and expected.json: what
the library makes of hard texts. The same bytes on every run.
"""

import json
import pathlib

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

OUT = pathlib.Path(__file__).resolve().parent / "tokenizers"

CORPUS = """
An adapter changes a model without a copy of it: two small matrices beside each weight, whose
product is what training has learned. Merging adds that product to the weight once and for all.
They're small, it's quick, we've measured: 1, 12, 345, 6789 and 2024-12-31, 3.14159, 0x1F.
def merge(weight, a, b, scaling):\n    return weight + scaling * (b @ a)  # rounds once\n
{"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}\n\n\tTabs\tand\r\n
Ein Adapter ändert ein Modell, ohne es zu kopieren. Über größere Maße läßt sich später streiten.
Un adaptateur change un modèle sans le copier ; c'est déjà très utile à l'été où tout était gelé.
El niño comió piñas y camarón; ¿qué más? ¡Nada! Coração, avó, São Paulo, ação e reação.
Адаптер меняет модель, не копируя её. Привет, мир! Это было бы хорошо. Ο προσαρμογέας αλλάζει.
适配器改变模型而不复制它。你好，世界！モデルをコピーせずに変える。これはテストです。어댑터는 모델을 바꾼다.
المحول يغير النموذج دون نسخه. שלום עולם. नमस्ते दुनिया। สวัสดีชาวโลก 👍🏽 👨‍👩‍👧 🎉🎉 ½ ﬁ
"""

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
          r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

TEXTS = [
    "", "a", " a", "a ", "Hello, world!", "  leading and   inner   spaces  ",
    "tabs\tand\nnewlines\r\n\r\nend", "I'll say it's 'quoted' WE'RE don'T ſ'S",
    "1234567890 3.14159 1,000,000 ٣٤٥ Ⅷ½²", "naïve café Ångström größere Maße",
    "e\u0301 é ḍ̇ d\u0323\u0307",
    "日本語のテキスト。漢字", "Привет, мир", "مرحبا بالعالم", "नमस्ते दुनिया", "어댑터 각",
    "👍🏽👨‍👩‍👧 emoji 🎉", "\u200bzero\u200bwidth\ufeff\u2060", "<|im_start|>user\nhi<|im_end|>\n",
    "a<|endoftext|>b", " <|im_end|> ", "<|im_start", "<s>a</s> <s> b </s>", "<unk>x<0x41><0xC3>",
    "def f(x):\n    return x**2  # comment\n", "http://example.org/a?b=c&d=%20", "A" * 300,
    " " * 64, "\n" * 20, "ab" * 200, "ab\x00cd\x01\x7f\x85", "\xa0nbsp\u3000ideographic\u2028line",
    "ﬁ ligature", "x\u0301\u0302\u0303", "\u0301x", "𝒳 math 𝔘", "MixedCASE CamelCase ALLCAPS",
    "▁▁a ▁b", "word<mask>word <mask> word", "xNEWy NEW yNEW newer", "Ġ Ċ ĊĊ", "\ufffd \u1fff",
    "The quick brown fox jumps over the lazy dog.",
]


def trained(tokenizer, special, **options):
    trainer = trainers.BpeTrainer(
        vocab_size=720, special_tokens=special, show_progress=False, **options)
    # One text a line, as no pre-tokenizer cuts some of these.
    tokenizer.train_from_iterator(CORPUS.splitlines(keepends=True) * 2, trainer)
    return tokenizer


def byte_level(cut, normalizer=None, ignore_merges=False,
               special=("<|endoftext|>", "<|im_start|>", "<|im_end|>")):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    return trained(tokenizer, list(special),
                   initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))


def split(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentence_piece():
    """A BPE with byte fallback over a text in which ▁ stands for each space."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer = trained(
        tokenizer, ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)])
    # The trainer makes added tokens of what only has to be in the vocabulary.
    tree = json.loads(tokenizer.to_str())
    tree["added_tokens"] = tree["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tokenizer


def families():
    yield "gpt2", byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))

    smollm = byte_level(pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)]))
    smollm.add_tokens([AddedToken("NEW", single_word=True, lstrip=True, rstrip=True)])
    smollm.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    yield "smollm", smollm

    llama3 = byte_level(split(LLAMA3), ignore_merges=True,
                        special=("<|begin_of_text|>", "<|end_of_text|>"))
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(
            single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
            special_tokens=[("<|begin_of_text|>", 0)])])
    yield "llama3", llama3

    yield "qwen2", byte_level(split(QWEN2), normalizers.NFC())
    yield "nemo", byte_level(split(TEKKEN), ignore_merges=True, special=("<unk>", "<s>", "</s>"))

    # Mistral v3 cuts before every sign; Llama 2 and TinyLlama do not cut.
    yield "mistral", sentence_piece()
    llama2 = sentence_piece()
    llama2.pre_tokenizer = None
    llama2.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    yield "llama2", llama2
    tinyllama = sentence_piece()
    tinyllama.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    yield "tinyllama", tinyllama


def expected(tokenizer, text):
    ids = tokenizer.encode(text).ids
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    return {"text": text, "ids": ids, "plain": plain,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "skipped": tokenizer.decode(ids, skip_special_tokens=True)}


def main():
    OUT.mkdir(exist_ok=True)
    answers = {}
    for name, tokenizer in families():
        tokenizer.save(str(OUT / f"{name}.json"), pretty=False)
        answers[name] = [expected(tokenizer, text) for text in TEXTS]
    lines = []
    for name, texts in answers.items():
        rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in texts)
        lines.append(f'"{name}": [\n{rows}\n]')
    (OUT / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
