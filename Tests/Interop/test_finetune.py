"""finetune of whole modules, rows of the embedding and whole models, and by other methods than
LoRA: PEFT or transformers loads what comes of it, and PEFT merges it."""

import json
import shutil
import warnings

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from conftest import SAMPLES

BASES = SAMPLES / "training" / "bases"
CASES = {
    "ends": ("qwen3-f32", ["--modules-to-save", "embed_tokens,lm_head"]),
    "tied": ("llama3-f32", ["--modules-to-save", "embed_tokens", "--dora"]),
    "tied-head": ("llama3-f32", ["--modules-to-save", "lm_head,norm"]),
    "norms": ("qwen3-f32", ["--modules-to-save", "norm"]),
    "linear": ("qwen2-f32", ["--modules-to-save", "k_proj,1.mlp.down_proj,input_layernorm"]),
    "tokens-tied": ("llama3-f32", ["--trainable-tokens", "130,5,17"]),
    "lora-fa": ("llama3-f32", ["--method", "lora-fa", "--rslora"]),
    "adalora": ("qwen3-f32", ["--method", "adalora", "--init-r", "5", "--tfinal", "2"]),
    "ranks": ("llama3-f32", ["--rank", "auto", "--max-rank", "4", "--mean-rank", "2"]),
    "ranks-dora": ("qwen3-f32", [
        "--rank", "auto", "--rank-by", "effective-rank", "--dora", "--rslora", "--alpha", "7"]),
    "sparse": ("qwen2-f32", ["--sparsity", "0.5"]),
    "shira": ("qwen2-f32", ["--method", "shira", "--target-modules", "q_proj,down_proj"]),
    "tokens": ("qwen3-f32", ["--trainable-tokens", "130,5,17", "--modules-to-save", "lm_head"]),
}
# Of torch and transformers themselves; the last PEFT says of every rank_pattern of AdaLoRA, its own
# too, and heeds it.
KNOWN = ("`is_gradient_checkpointing` is deprecated", "unclosed file",
         "The following rank_pattern keys did not match any targeted module")
TOLERANCE = 2e-5


def load(base):
    return transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager").eval()


def finetune(peftool, base, folder, *options):
    """Trains on rows of tokens, which are evaluation data too; gives them and the last loss."""
    ids = torch.randint(0, 160, (6, 24), generator=torch.Generator().manual_seed(1))
    ids[:, 12:] = ids[:, :12]
    ids[:, 3] = 130
    save_file({"input_ids": ids.to(torch.int32)}, folder / "data.safetensors")
    out = folder / "out"
    peftool.check(
        "finetune", base, "--data", folder / "data.safetensors", "--eval-data",
        folder / "data.safetensors", "-o", out, "--max-steps", 6, "--learning-rate", 0.01,
        "--quiet", *options)
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    evaluations = [entry["eval_loss"] for entry in entries if "eval_loss" in entry]
    assert evaluations[-1] == min(evaluations) < evaluations[0]
    return out, ids, evaluations[-1]


@pytest.mark.parametrize("case", CASES)
def test_peft_loads_and_merges_what_was_trained(peftool, tmp_path, case):
    base, options = CASES[case]
    out, ids, loss = finetune(peftool, BASES / base, tmp_path, "--rank", 2, *options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(load(BASES / base), out)
    assert not [str(w.message) for w in caught if not str(w.message).startswith(KNOWN)]
    with torch.no_grad():
        # Around the base, PEFT's AdaLoRA adds a term of training to a loss, and fails to.
        found = float(model.get_base_model()(input_ids=ids, labels=ids).loss)
        assert found == pytest.approx(loss, rel=TOLERANCE)
        merged = model.merge_and_unload()
    peftool.check("merge", BASES / base, out, "-o", tmp_path / "merged", "--quiet")
    expected = merged.state_dict()
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] == merged.config.tie_word_embeddings
    if config["tie_word_embeddings"]:
        tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.allclose(tensor, expected[name], rtol=0, atol=1e-6), name
    changed = load_file(BASES / base / "model.safetensors")
    own = {name.removeprefix("base_model.model.") for name in load_file(
        out / "adapter_model.safetensors") if "lora" not in name and "tokens_delta" not in name}
    for name in own & changed.keys():
        assert not torch.equal(changed[name], tensors[name]), name


def test_the_padding_tokens_row_stays_as_in_torch(peftool, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(BASES / "qwen3-f32", base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"pad_token_id": 130}))
    out, ids, _ = finetune(
        peftool, base, tmp_path, "--rank", 2, "--modules-to-save", "embed_tokens")
    name = "model.embed_tokens.weight"
    before = load_file(base / "model.safetensors")[name]
    after = load_file(out / "adapter_model.safetensors")["base_model.model." + name]
    assert torch.equal(before[130], after[130]) and not torch.equal(before, after)
    model = peft.PeftModel.from_pretrained(load(base), out, is_trainable=True)
    model(input_ids=ids, labels=ids).loss.backward()
    gradient = model.base_model.model.model.embed_tokens.weight.grad
    assert not gradient[130].any() and gradient[int(ids[0, 0])].any()


def test_a_token_is_named_by_its_text(peftool, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(BASES / "llama3-f32", base)
    tokenizer = json.loads((SAMPLES / "generation/tiny-chat/tokenizer.json").read_text())
    text, number = next(
        (text, number) for text, number in tokenizer["model"]["vocab"].items()
        if number < 160 and text.isalpha())
    shutil.copy(SAMPLES / "generation/tiny-chat/tokenizer.json", base)
    out, _, _ = finetune(
        peftool, base, tmp_path, "--rank", 2, "--trainable-tokens", f"7,{text}")
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["trainable_token_indices"] == [7, number]


@pytest.mark.parametrize("base, options", [
    ("llama3-f32", ["--method", "full"]),
    ("qwen2-f32", ["--method", "galore", "--rank", 4, "--update-proj-gap", 2]),
    ("qwen3-f32", ["--method", "galore", "--rank", 64, "--proj-type", "full"]),
])
def test_transformers_loads_a_model_that_was_trained(peftool, tmp_path, base, options):
    out, ids, loss = finetune(
        peftool, BASES / base, tmp_path, "--schedule", "constant", *options)
    with torch.no_grad():
        found = float(load(out)(input_ids=ids, labels=ids).loss)
    assert found == pytest.approx(loss, rel=TOLERANCE)
    before = load_file(BASES / base / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_what_rounding_takes_of_a_model_is_told(peftool, tmp_path):
    base = BASES / "llama3-f32"
    ids = torch.randint(0, 160, (6, 24), generator=torch.Generator().manual_seed(2))
    save_file({"input_ids": ids.to(torch.int32)}, tmp_path / "data.safetensors")
    reports = {
        dtype: json.loads(peftool.check(
            "finetune", base, "--data", tmp_path / "data.safetensors", "-o", tmp_path / dtype,
            "--method", "full", "--max-steps", 3, "--dtype", dtype, "--json"))
        for dtype in ["bf16", "f32"]}
    assert reports["f32"]["roundingLoss"] is None
    before, exact, rounded = (
        load_file(folder / "model.safetensors")
        for folder in [base, tmp_path / "f32", tmp_path / "bf16"])
    lost = sum((rounded[name].double() - exact[name].double()).square().sum() for name in exact)
    change = sum((exact[name].double() - before[name].double()).square().sum() for name in exact)
    assert reports["bf16"]["roundingLoss"] == pytest.approx(float(lost / change) ** 0.5, rel=1e-6)
    assert reports["bf16"]["roundingLoss"] > 0.5


def test_a_difference_of_galore_has_the_rank_of_its_subspaces(peftool, tmp_path):
    base = BASES / "qwen3-f32"
    out, _, _ = finetune(
        peftool, base, tmp_path, "--schedule", "constant", "--method", "galore", "--rank", 3,
        "--update-proj-gap", 4)
    before = load_file(base / "model.safetensors")
    after = load_file(out / "model.safetensors")
    # Six steps have two subspaces; the best evaluation may be one of the first.
    for name in before:
        if "_proj" in name:
            change = (after[name].double() - before[name].double())
            values = torch.linalg.svdvals(change)
            assert values[6] < 1e-4 * values[0] and values[2] > 1e-3 * values[0], name


def test_attention_in_use_is_whole(peftool, tmp_path):
    """An adapter of --long is one of LoRA: what PEFT computes with it is what evaluations say."""
    out, ids, loss = finetune(
        peftool, BASES / "qwen3-f32", tmp_path, "--long", "--group-size", 4)
    model = peft.PeftModel.from_pretrained(load(BASES / "qwen3-f32"), out)
    with torch.no_grad():
        found = float(model(input_ids=ids, labels=ids).loss)
    assert found == pytest.approx(loss, rel=TOLERANCE)
    config = json.loads((out / "adapter_config.json").read_text())
    assert sorted(config["target_modules"]) == ["k_proj", "o_proj", "q_proj", "v_proj"]


@pytest.mark.parametrize("scaling", ["linear:2", "yarn:4", "dynamic:2"])
def test_transformers_stretches_positions_as_training_did(peftool, tmp_path, scaling):
    base = BASES / "qwen3-f32"
    out, ids, loss = finetune(
        peftool, base, tmp_path, "--long", "--group-size", 8, "--rope-scaling", scaling)
    config = transformers.AutoConfig.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, config=config, dtype=torch.float32, attn_implementation="eager")
    model = peft.PeftModel.from_pretrained(model, out).eval()
    with torch.no_grad():
        found = float(model(input_ids=ids, labels=ids).loss)
    assert found == pytest.approx(loss, rel=TOLERANCE)
    peftool.check("merge", base, out, "-o", tmp_path / "merged", "--quiet")
    with torch.no_grad():
        merged = float(load(tmp_path / "merged")(input_ids=ids, labels=ids).loss)
    assert merged == pytest.approx(loss, rel=TOLERANCE)
