#!/usr/bin/env python3
"""Makes Samples/generation in the environment of the interop tests.

    .build/interop/bin/python Samples/make_generation_samples.py [--sampling]

A Llama of two layers that has learnt the text and the chats below by heart, with its tokenizer, and
a LoRA adapter that has learnt another answer: what the help of `generate` and `evaluate` shows
works on them. The same bytes on every run on one kind of processor. And what transformers leaves of
logits before it draws a token, which alone is made with --sampling.
"""

import json
import pathlib
import shutil
import sys

import peft
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

OUT = pathlib.Path(__file__).resolve().parent / "generation"

STORY = """\
Once upon a time there was a small model that wanted to speak like a sailor. It could not be \
trained anew, for the sea is wide and memory is dear. So a friend brought two thin matrices, and \
laid them beside each weight. The model spoke, and the sailors understood every word.
"""

CHATS = [
    ("What is a LoRA?", "Two small matrices beside a weight, whose product is added to it."),
    ("What is a weight?", "A number that a model has learnt."),
    ("Who are you?", "A very small model that knows three answers."),
]
ADAPTED = [("What is a LoRA?", "Two wee sails beside the mast, sailor!"), *CHATS[1:]]

QUESTIONS = [
    {"prompt": "A very small model that knows three", "choices": ["answers.", "sailors."],
     "answer": 0},
    {"prompt": "The model spoke, and the sailors understood every",
     "choices": ["two", "word.", "sea"], "answer": 1},
    {"prompt": "So a friend brought two thin", "choices": ["sails", "matrices,"],
     "answer": "matrices,"},
]


def chat(question, answer):
    return (f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            f"{answer}<|im_end|>\n")


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True)
               for token in ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]]
    tokenizer.train_from_iterator(
        [STORY, *(f"{q}\nuser\nassistant\n{a}" for q, a in CHATS + ADAPTED)],
        trainers.BpeTrainer(
            vocab_size=352, special_tokens=special, show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return tokenizer


def train(model, texts, steps, rate):
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], rate, weight_decay=0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        loss = sum(model(text, labels=text).loss for text in texts) / len(texts)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


# (temperature, top-k, top-p, repetition penalty)
SAMPLINGS = [
    (1, None, None, 1), (0.7, None, None, 1), (2.5, None, None, 1), (1, 1, None, 1),
    (1, 10, None, 1), (0.8, 40, None, 1), (1, None, 0.3, 1), (1, None, 0.9, 1),
    (1.3, None, 0.99, 1), (1, None, None, 1.3), (1, None, None, 0.8), (0.6, 20, 0.7, 1.1),
    (1.5, 60, 0.95, 1.2), (0.3, 5, 0.5, 1.05)]


def processed(logits, text, temperature, top_k, top_p, penalty):
    """The logits as transformers' generate has them before it draws, by their tokens."""
    steps = transformers.LogitsProcessorList()
    if penalty != 1:
        steps.append(transformers.RepetitionPenaltyLogitsProcessor(float(penalty)))
    steps.append(transformers.TemperatureLogitsWarper(float(temperature)))
    if top_k is not None:
        steps.append(transformers.TopKLogitsWarper(top_k))
    if top_p is not None:
        steps.append(transformers.TopPLogitsWarper(top_p))
    left = steps(torch.tensor([text]), torch.tensor([logits]))[0]
    return [[token, logit] for token, logit in enumerate(left.tolist()) if logit > -torch.inf]


def make_sampling():
    torch.manual_seed(2)
    text = torch.randint(96, (12,)).tolist()
    # Those of a 16-bit model are often equal; which of equals is left then, torch leaves open.
    logits = {"different": (torch.randn(96) * 2.5).tolist(),
              "equal": ((torch.randn(96) * 2.5 * 2).round() / 2).tolist()}
    cases = [
        {"logits": name, "temperature": sampling[0], "topK": sampling[1], "topP": sampling[2],
         "repetitionPenalty": sampling[3], "left": processed(values, text, *sampling)}
        for name, values in logits.items() for sampling in SAMPLINGS]
    parts = [f'"text": {json.dumps(text)}', f'"logits": {json.dumps(logits)}',
             '"cases": [\n' + ",\n".join(map(json.dumps, cases)) + "\n]"]
    (OUT / "sampling.json").write_text("{" + ",\n".join(parts) + "}\n")


def main():
    if sys.argv[1:] == ["--sampling"]:
        make_sampling()
        return
    shutil.rmtree(OUT, ignore_errors=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    folder = OUT / "tiny-chat"
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=48, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
    model = transformers.LlamaForCausalLM(config)

    def encoded(text):
        return torch.tensor([tokenizer.encode(text).ids])

    story = encoded(STORY + "<|endoftext|>")
    texts = [story, *(encoded(chat(*pair)) for pair in CHATS)]
    print("model: loss", train(model, texts, 400, 5e-3))
    model = model.to(torch.bfloat16)
    model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=[0, 2])
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
         "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)

    torch.manual_seed(1)
    adapted = peft.get_peft_model(
        model.float(), peft.LoraConfig(
            r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"],
            task_type="CAUSAL_LM"))
    texts = [encoded(chat(*pair)) for pair in ADAPTED] + [story]
    print("adapter: loss", train(adapted, texts, 300, 2e-2))
    adapted.peft_config["default"].base_model_name_or_path = "tiny-chat"
    adapted.save_pretrained(OUT / "tiny-sailor")
    (OUT / "tiny-sailor" / "README.md").unlink()
    (OUT / "tiny-sailor" / "adapter_model.safetensors").chmod(0o644)
    path = OUT / "tiny-sailor" / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["target_modules"].sort()
    path.write_text(json.dumps(settings, indent=2) + "\n")

    (OUT / "story.txt").write_text(STORY)
    for name, chats in (("pairs", CHATS), ("sailor", ADAPTED)):
        (OUT / f"{name}.jsonl").write_text("".join(
            json.dumps({"prompt": f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n",
                        "completion": a}) + "\n" for q, a in chats))
    (OUT / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    make_sampling()


if __name__ == "__main__":
    main()
