"""evaluate against transformers: loss, perplexity and choices, each by a few lines of torch."""

import json
import math

import pytest
import torch

from test_generation import GENERATION, load, make, save_adapter, tokenizer

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


def test_choices_are_scored_as_lm_evaluation_harness_does(peftool, folder, tmp_path):
    model, texts = load(folder), tokenizer(folder)
    right = by_length = 0
    for question in questions():
        given = len(texts.encode(question["prompt"]))
        sums = [
            -sum(losses(model, texts.encode(f"{question['prompt']} {choice}"))[given - 1:])
            for choice in question["choices"]]
        normalized = [s / len(c.encode()) for s, c in zip(sums, question["choices"])]
        right += sums.index(max(sums)) == question["answer"]
        by_length += normalized.index(max(normalized)) == question["answer"]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(q) + "\n" for q in questions()))
    result = evaluate(peftool, folder, data)
    count = len(list(questions()))
    assert result["count"] == count
    assert result["accuracy"] == pytest.approx(right / count)
    assert result["accuracyByLength"] == pytest.approx(by_length / count)
    assert right != by_length


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
