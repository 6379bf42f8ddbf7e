"""evaluate against transformers: loss, perplexity and choices, each by a few lines of torch."""

import json
import math

import pytest
import torch
import transformers

from conftest import ROOT
from test_generation import (
    GENERATION, load, make, save_adapter, save_mild_adapter, tokenizer)

# Sums of f32 in another order.
CLOSE = 2e-6


def evaluate(peftool, folder, data, *flags):
    return json.loads(peftool.check("evaluate", folder, "--data", data, "--json", *flags))


def losses(model, ids):
    """The loss of each token but the first."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    return torch.nn.functional.cross_entropy(
        logits, torch.tensor(ids[1:]), reduction="none").tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("evaluation") / "model")


@pytest.mark.parametrize("length, stride", [(64, 64), (64, 16), (10, 10), (10, 3), (2, 1)])
def test_perplexity_in_windows(peftool, folder, length, stride):
    model = load(folder)
    text = (GENERATION / "story.txt").read_text()
    ids = tokenizer(folder).encode(text)
    total, count, end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        last = min(begin + length, len(ids))
        part = losses(model, ids[begin:last])
        new = part[max(end, begin + 1) - begin - 1:] if last > end else []
        total, count, end = total + sum(new), count + len(new), last
        if end == len(ids):
            break
    result = evaluate(
        peftool, folder, GENERATION / "story.txt", "--max-length", length, "--stride", stride)
    assert result["predictedTokens"] == count
    assert result["loss"] == pytest.approx(total / count, rel=CLOSE)
    assert result["perplexity"] == pytest.approx(math.exp(total / count), rel=10 * CLOSE)


def test_the_windows_are_those_of_the_guide(peftool, folder):
    """The loop of transformers' "Perplexity of fixed-length models", weighted by tokens."""
    model = load(folder)
    ids = torch.tensor([tokenizer(folder).encode((GENERATION / "story.txt").read_text())])
    length, stride, previous = 24, 8, 0
    total, count = 0.0, 0
    for begin in range(0, ids.size(1), stride):
        end = min(begin + length, ids.size(1))
        part = ids[:, begin:end]
        target = part.clone()
        target[:, :-(end - previous)] = -100
        with torch.no_grad():
            loss = model(part, labels=target).loss
        predicted = int((target[:, 1:] != -100).sum())
        total, count, previous = total + float(loss) * predicted, count + predicted, end
        if end == ids.size(1):
            break
    result = evaluate(
        peftool, folder, GENERATION / "story.txt", "--max-length", length, "--stride", stride)
    assert result["loss"] == pytest.approx(total / count, rel=CLOSE)


@pytest.mark.parametrize("has_adapter", [False, True])
def test_the_loss_of_completions(peftool, folder, tmp_path, has_adapter):
    flags = []
    model = load(folder)
    if has_adapter:
        model = save_adapter(folder, tmp_path / "adapter")
        flags = ["--adapter", tmp_path / "adapter"]
    texts = tokenizer(folder)
    total, count = 0.0, 0
    for line in (GENERATION / "pairs.jsonl").read_text().splitlines():
        pair = json.loads(line)
        given = len(texts.encode(pair["prompt"]))
        ids = texts.encode(pair["prompt"] + pair["completion"] + "<|im_end|>")
        part = losses(model, ids)[given - 1:]
        total, count = total + sum(part), count + len(part)
    result = evaluate(peftool, folder, GENERATION / "pairs.jsonl", *flags)
    assert result["predictedTokens"] == count
    assert result["count"] == 3
    assert result["loss"] == pytest.approx(total / count, rel=CLOSE)


def questions():
    """Pieces of the story, with answers that differ in length."""
    words = (GENERATION / "story.txt").read_text().split()
    for place in range(4, 40):
        choices = [
            words[place], " ".join(words[place:place + 3]), words[(place * 7) % len(words)]]
        yield {"prompt": " ".join(words[place - 4:place]), "choices": choices,
               "answer": place % 3}


def harness(model, texts, questions):
    """`acc`, `acc_norm` and `acc_bytes`, as `ConfigurableTask.process_results` of
    lm-evaluation-harness and its `_encode_pair` make them."""
    right = [0, 0, 0]
    for question in questions:
        context = question["prompt"].rstrip()
        given = len(texts.encode(context))
        sums = [
            -sum(losses(model, texts.encode(f"{question['prompt']} {choice}"))[given - 1:])
            for choice in question["choices"]]
        for place, length in enumerate([lambda _: 1, len, lambda text: len(text.encode())]):
            scores = [s / length(c) for s, c in zip(sums, question["choices"])]
            right[place] += scores.index(max(scores)) == question["answer"]
    return [count / len(questions) for count in right]


def check_choices(peftool, folder, model, texts, questions, data, *flags):
    data.write_text("".join(json.dumps(q, ensure_ascii=False) + "\n" for q in questions))
    result = evaluate(peftool, folder, data, *flags)
    assert result["count"] == len(questions)
    found = [result[f"accuracy{kind}"] for kind in ["", "ByCharacters", "ByBytes"]]
    assert found == pytest.approx(harness(model, texts, questions))
    return found


def test_choices_are_scored_as_lm_evaluation_harness_does(peftool, folder, tmp_path):
    found = check_choices(
        peftool, folder, load(folder), tokenizer(folder), list(questions()),
        tmp_path / "questions.jsonl")
    assert found[0] != found[1]


def test_lengths_are_characters_and_bytes(peftool, folder, tmp_path):
    """Choices of two and three bytes a character, and prompts with spaces of all kinds."""
    spaces = ["", " ", "\n", " \u2003", "\x1c", " \u0301"]
    changed = [
        question | {
            "prompt": question["prompt"] + spaces[place % len(spaces)],
            "choices": [question["choices"][0], "é€" * (1 + place % 3), "日本語" + "x" * place]}
        for place, question in enumerate(questions())]
    found = check_choices(
        peftool, folder, load(folder), tokenizer(folder), changed, tmp_path / "questions.jsonl")
    assert found[1] != found[2]


@pytest.mark.parametrize("form", ["nf4", "int8"])
def test_quantized_models_are_what_their_codes_stand_for(peftool, folder, tmp_path, form):
    peftool.check("quantize", folder, "--type", form, "-o", tmp_path / "quantized")
    peftool.check("dequantize", tmp_path / "quantized", "-o", tmp_path / "plain")
    ids = tokenizer(folder).encode((GENERATION / "story.txt").read_text())[:64]
    (tmp_path / "story.txt").write_text(tokenizer(folder).decode(ids))
    wanted = losses(load(tmp_path / "plain"), ids)
    found = evaluate(peftool, tmp_path / "quantized", tmp_path / "story.txt")
    assert found["loss"] == pytest.approx(sum(wanted) / len(wanted), rel=CLOSE)


def test_a_chat_is_scored_by_its_answers(peftool, folder, tmp_path):
    chat = [{"role": "user", "content": "Who are you?"},
            {"role": "assistant", "content": "A very small model."}]
    data = tmp_path / "chats.jsonl"
    data.write_text(json.dumps({"messages": chat}) + "\n")
    texts = tokenizer(folder)
    start = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
    answer = "A very small model.<|im_end|>"
    given = len(texts.encode(start))
    ids = texts.encode(start + answer)
    wanted = losses(load(folder), ids)[given - 1:]
    found = evaluate(peftool, folder, data, "--chat-template", "chatml")
    assert found["predictedTokens"] == len(wanted)
    assert found["loss"] == pytest.approx(sum(wanted) / len(wanted), rel=CLOSE)


# SmolLM2

def smollm2_text(words=400):
    """English of the repository's own."""
    return " ".join((ROOT / "CONTRIBUTING.md").read_text().split()[:words])


@pytest.fixture(scope="module")
def smollm2_model(smollm2_folder):
    return load(smollm2_folder), transformers.AutoTokenizer.from_pretrained(smollm2_folder)


def test_smollm2_in_windows(peftool, smollm2_folder, smollm2_model, tmp_path):
    """transformers' guide "Perplexity of fixed-length models"."""
    model, texts = smollm2_model
    text = smollm2_text()
    (tmp_path / "text.txt").write_text(text)
    ids = texts(text)["input_ids"]
    length, stride = 128, 48
    total, count, end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        last = min(begin + length, len(ids))
        part = losses(model, ids[begin:last])[max(end, begin + 1) - begin - 1:]
        total, count, end = total + sum(part), count + len(part), last
        if end == len(ids):
            break
    result = evaluate(
        peftool, smollm2_folder, tmp_path / "text.txt", "--max-length", length, "--stride", stride)
    assert result["predictedTokens"] == count == len(ids) - 1
    assert result["loss"] == pytest.approx(total / count, rel=10 * CLOSE)
    assert result["perplexity"] == pytest.approx(math.exp(total / count), rel=50 * CLOSE)


@pytest.mark.parametrize("is_dora", [None, False, True], ids=["base", "lora", "dora"])
def test_smollm2_s_completions(peftool, smollm2_folder, smollm2_model, tmp_path, is_dora):
    model, texts = smollm2_model
    flags = []
    if is_dora is not None:
        model = save_mild_adapter(smollm2_folder, tmp_path / "adapter", use_dora=is_dora)
        flags = ["--adapter", tmp_path / "adapter"]
    pairs = [("The capital of France is", " Paris."), ("2 + 2 =", " 4"),
             ("Roses are red, violets are", " blue, sugar is sweet, and so are you.")]
    data = tmp_path / "pairs.csv"
    data.write_text("prompt,completion\n" + "".join(f'"{p}","{c}"\n' for p, c in pairs))
    total, count = 0.0, 0
    for prompt, completion in pairs:
        given = len(texts(prompt)["input_ids"])
        part = losses(model, texts(prompt + completion + texts.eos_token)["input_ids"])
        total, count = total + sum(part[given - 1:]), count + len(part) - given + 1
    result = evaluate(peftool, smollm2_folder, data, *flags)
    assert result["predictedTokens"] == count
    assert result["loss"] == pytest.approx(total / count, rel=10 * CLOSE)


def test_smollm2_s_choices(peftool, smollm2_folder, smollm2_model, tmp_path):
    facts = [
        ("The capital of France is", ["Paris", "Berlin, which is in Germany", "a"], 0),
        ("Water freezes at a temperature of", ["100 degrees Celsius", "0 degrees Celsius"], 1),
        ("The opposite of hot is", ["cold", "warm and comfortable", "Tuesday"], 0),
        ("A dog is a kind of", ["mineral", "mammal", "a plant that grows in the desert"], 1),
        ("Question: Which planet is the largest?\nAnswer:",
         ["Mars", "Jupiter", "Mercury", "The planet Earth"], 1),
        ("In Japanese, Japan is called", ["日本", "にほんこくけんぽう", "China"], 0),
        ("She opened the umbrella because it", ["was raining", "started to snow in July"], 0)]
    questions = [{"prompt": p, "choices": c, "answer": a} for p, c, a in facts]
    check_choices(
        peftool, smollm2_folder, *smollm2_model, questions, tmp_path / "questions.jsonl")
