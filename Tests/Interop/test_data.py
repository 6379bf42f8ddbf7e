"""The tokens and labels of Samples/data against transformers, and TRL's way of making them."""

import json

import make_data_samples
from transformers import PreTrainedTokenizerFast


def test_the_golden_data_is_what_transformers_makes(tmp_path, monkeypatch):
    committed = make_data_samples.DATA
    monkeypatch.setattr(make_data_samples, "DATA", tmp_path / "data")
    make_data_samples.write_data()
    names = sorted(path.name for path in committed.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "data").iterdir())
    for name in names:
        assert (tmp_path / "data" / name).read_bytes() == (committed / name).read_bytes(), name


def test_completions_are_learnt_as_trl_learns_them_but_for_tokens_that_are_shared():
    """Its `SFTTrainer` leaves out as many tokens as the prompt alone has."""
    data = make_data_samples.DATA
    one = PreTrainedTokenizerFast(
        tokenizer_file=str(data / "tokenizer.json"), **make_data_samples.TOKENS)
    expected = json.loads((data / "expected.json").read_text())["prompts"]
    equal = 0
    for (prompt, completion), right in zip(make_data_samples.PROMPTS, expected, strict=True):
        given = one(prompt)["input_ids"]
        end = "" if completion.endswith("</s>") else "</s>"
        ids = one(prompt + completion + end)["input_ids"]
        assert ids == right["ids"]
        if ids[:len(given)] == given:
            assert right["labels"] == [-100] * len(given) + ids[len(given):]
            equal += 1
    assert 4 <= equal < len(expected)
