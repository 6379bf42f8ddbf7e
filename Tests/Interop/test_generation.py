"""generate against transformers and PEFT: the same tokens, whatever the model, adapter and form."""

import json
import shutil
import subprocess

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from conftest import SAMPLES

GENERATION = SAMPLES / "generation"
VOCABULARY = 352
END = 2
PROMPT = "Once upon a time there was a small model"
COMMON = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
    initializer_range=0.3, bos_token_id=None, eos_token_id=None)
FAMILIES = {
    "llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config, "qwen3": transformers.Qwen3Config,
}
ROPES = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 16},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
}
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def save(model, folder):
    model.save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(GENERATION / "tiny-chat" / name, folder)
    return folder


def make(folder, family="llama", rope="default", **options):
    """A random model, with biases that are not 0 where the family has them."""
    torch.manual_seed(len(family) * 100 + len(rope))
    config = FAMILIES[family](
        **COMMON | options, rope_parameters={"rope_type": rope, "rope_theta": 100.0} | ROPES[rope])
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return save(model, folder)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()


def tokenizer(folder):
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def expected(model, ids, count, **options):
    out = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=count, do_sample=False, pad_token_id=0, **options)
    new = out[0, len(ids):].tolist()
    # The tokenizer's eos_token, which no configuration of these models names.
    return new[:new.index(END) + 1] if END in new else new


def generate(peftool, folder, *flags, prompt=PROMPT):
    return json.loads(peftool.check("generate", folder, prompt, "--json", *flags))


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_with_every_rope_scaling(peftool, tmp_path, family, rope):
    """Past `max_position_embeddings` for `dynamic`, whose frequencies change with every token."""
    folder = make(tmp_path / "model", family, rope)
    count = 100 if rope == "dynamic" else 40
    ids = tokenizer(folder).encode(PROMPT)
    result = generate(peftool, folder, "--max-tokens", count)
    assert result["promptTokens"] == len(ids)
    assert result["ids"] == expected(load(folder), ids, count)


@pytest.mark.parametrize("options", [
    {"family": "mistral", "sliding_window": 7},
    {"family": "qwen2", "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    {"family": "llama", "attention_bias": True, "mlp_bias": True},
    {"family": "llama", "tie_word_embeddings": True},
    {"family": "llama", "num_key_value_heads": 4},
    {"family": "llama", "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64},
    {"family": "qwen3", "head_dim": 10},
])
def test_variants_of_the_families(peftool, tmp_path, options):
    folder = make(tmp_path / "model", **options)
    ids = tokenizer(folder).encode(PROMPT)
    assert generate(peftool, folder, "--max-tokens", 40)["ids"] == expected(load(folder), ids, 40)


@pytest.mark.parametrize("form", ["F32", "BF16", "F16", "nf4", "fp4", "int8"])
def test_every_form_of_the_weights(peftool, tmp_path, form):
    """Of a quantized model transformers gets what its codes stand for."""
    folder = reference = make(tmp_path / "f32")
    if form in DTYPES:
        folder = reference = save(load(folder).to(DTYPES[form]), tmp_path / form)
    else:
        folder = tmp_path / "quantized"
        reference = tmp_path / "dequantized"
        peftool.check("quantize", tmp_path / "f32", "--type", form, "-o", folder)
        peftool.check("dequantize", folder, "-o", reference)
    ids = tokenizer(folder).encode(PROMPT)
    assert generate(peftool, folder, "--max-tokens", 40)["ids"] == expected(
        load(reference), ids, 40)


def save_adapter(folder, output, seed=0, **options):
    """A LoRA whose B is not 0."""
    torch.manual_seed(seed)
    model = peft.get_peft_model(load(folder), peft.LoraConfig(
        **{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "init_lora_weights": False,
           "target_modules": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]} | options))
    model.save_pretrained(output)
    return model.eval()


def save_mild_adapter(folder, output, **options):
    """The same for a trained model, of which PEFT's random B would leave nothing."""
    save_adapter(folder, output, **options)
    path = output / "adapter_model.safetensors"
    tensors = load_file(path)
    for name in tensors:
        if "lora_B" in name:
            tensors[name] *= 0.1
    save_file(tensors, path, {"format": "pt"})
    return peft.PeftModel.from_pretrained(load(folder), output).eval()


@pytest.mark.parametrize("options", [
    {}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": "all-linear"},
    {"target_modules": ["lm_head", "k_proj"]},
    {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    {"use_dora": True, "target_modules": ["q_proj", "k_proj", "v_proj", "gate_proj"]},
], ids=str)
def test_adapters_are_peft_s(peftool, tmp_path, options):
    folder = make(tmp_path / "model")
    model = save_adapter(folder, tmp_path / "adapter", **options)
    ids = tokenizer(folder).encode(PROMPT)
    result = generate(
        peftool, folder, "--adapter", tmp_path / "adapter", "--max-tokens", 40)
    assert result["ids"] == expected(model, ids, 40)
    assert result["ids"] != generate(peftool, folder, "--max-tokens", 40)["ids"]
    merged = tmp_path / "merged"
    peftool.check("merge", folder, tmp_path / "adapter", "-o", merged)
    assert generate(peftool, merged, "--max-tokens", 40)["ids"] == result["ids"]


def test_several_adapters_are_what_merge_makes_of_them(peftool, tmp_path):
    folder = make(tmp_path / "model")
    for seed in range(2):
        save_adapter(folder, tmp_path / f"adapter{seed}", seed, r=3 + seed)
    adapters = [tmp_path / "adapter0", tmp_path / "adapter1"]
    peftool.merge(folder, adapters, tmp_path / "merged", weights=[0.7, -0.5])
    flags = [flag for path in adapters for flag in ("--adapter", path)]
    result = generate(peftool, folder, *flags, "--weights=0.7,-0.5", "--max-tokens", 40)
    assert result["ids"] == generate(peftool, tmp_path / "merged", "--max-tokens", 40)["ids"]


def peft_with(folder, adapters):
    """One model with several adapters, none of which is set."""
    model = peft.PeftModel.from_pretrained(load(folder), adapters[0], adapter_name="0")
    for number, path in enumerate(adapters[1:], 1):
        model.load_adapter(path, str(number))
    return model.eval()


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.7, -0.5]])
def test_several_adapters_are_the_cat_of_peft(peftool, tmp_path, weights):
    """add_weighted_adapter's "cat" is the sum of the weighted updates, whatever their ranks."""
    folder = make(tmp_path / "model")
    adapters = [tmp_path / "adapter0", tmp_path / "adapter1"]
    for seed, path in enumerate(adapters):
        save_adapter(folder, path, seed, r=3 + seed)
    model = peft_with(folder, adapters)
    model.add_weighted_adapter(["0", "1"], weights, "sum", combination_type="cat")
    model.set_adapter("sum")
    ids = tokenizer(folder).encode(PROMPT)
    flags = [flag for path in adapters for flag in ("--adapter", path)]
    flags.append("--weights=" + ",".join(map(str, weights)))
    result = generate(peftool, folder, *flags, "--max-tokens", 40)
    assert result["ids"] == expected(model, ids, 40)
    (tmp_path / "text.txt").write_text(PROMPT)
    loss = json.loads(peftool.check(
        "evaluate", folder, "--data", tmp_path / "text.txt", *flags, "--json"))["loss"]
    with torch.no_grad():
        wanted = model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item()
    assert abs(loss - wanted) < 1e-4 * wanted


def test_adapters_change_places_as_set_adapter_has_them(peftool, tmp_path):
    """generate --swap: the base, LoRA, DoRA and rsLoRA in turn, there and back."""
    folder = make(tmp_path / "model")
    kinds = [{}, {"use_dora": True}, {"use_rslora": True, "r": 6}]
    adapters = [tmp_path / f"adapter{number}" for number in range(len(kinds))]
    for number, path in enumerate(adapters):
        save_adapter(folder, path, number, **kinds[number])
    model = peft_with(folder, adapters)
    ids = tokenizer(folder).encode(PROMPT)
    order = [None, 0, 1, 2, 1, 0, None, 2]
    lines = "".join(json.dumps({
        "prompt": PROMPT, "adapter": None if number is None else f"n{number}"}) + "\n"
        for number in order)
    flags = [flag for number, path in enumerate(adapters)
             for flag in ("--adapter", f"n{number}={path}")]
    done = subprocess.run(
        [peftool.path, "generate", folder, "--swap", "--max-tokens", "40", *flags],
        input=lines, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line)["ids"] for line in done.stdout.splitlines()]
    wanted = []
    for number in order:
        if number is None:
            with model.disable_adapter():
                wanted.append(expected(model, ids, 40))
        else:
            model.set_adapter(str(number))
            wanted.append(expected(model, ids, 40))
    assert answers == wanted
    assert len({tuple(ids) for ids in wanted}) == 4


def test_penalties_are_transformers(peftool, tmp_path):
    folder = make(tmp_path / "model")
    ids = tokenizer(folder).encode(PROMPT)
    result = generate(peftool, folder, "--max-tokens", 40, "--repetition-penalty", 1.3)
    assert result["ids"] == expected(load(folder), ids, 40, repetition_penalty=1.3)


def test_tokens_are_drawn_as_often_as_transformers_says(peftool, tmp_path):
    """Draws of one token against the probabilities of transformers' own warpers."""
    folder = make(tmp_path / "model", initializer_range=0.1)
    ids = tokenizer(folder).encode(PROMPT)
    with torch.no_grad():
        logits = load(folder)(torch.tensor([ids])).logits[:, -1]
    warpers = transformers.LogitsProcessorList([
        transformers.TemperatureLogitsWarper(0.5), transformers.TopKLogitsWarper(12),
        transformers.TopPLogitsWarper(0.8)])
    probabilities = warpers(torch.tensor([ids]), logits).softmax(-1)[0]
    counts = torch.zeros(VOCABULARY)
    draws = 400
    for seed in range(draws):
        counts[generate(
            peftool, folder, "--max-tokens", 1, "--temperature", 0.5, "--top-k", 12, "--top-p",
            0.8, "--seed", seed)["ids"][0]] += 1
    assert (counts[probabilities == 0] == 0).all()
    left = probabilities > 0
    assert 1 < left.sum() < 12
    deviation = (counts - draws * probabilities)[left] / (
        draws * probabilities * (1 - probabilities))[left].sqrt()
    assert deviation.abs().max() < 4


def test_smollm2_says_what_it_says_in_transformers(peftool, smollm2_folder):
    texts = transformers.AutoTokenizer.from_pretrained(smollm2_folder)
    model = load(smollm2_folder)
    for prompt in ["Once upon a time", "The three laws of robotics are"]:
        ids = texts(prompt)["input_ids"]
        result = generate(peftool, smollm2_folder, "--max-tokens", 200, prompt=prompt)
        wanted = expected(model, ids, 200)
        assert result["ids"] == wanted
        assert result["text"] == texts.decode(wanted, skip_special_tokens=True)


@pytest.mark.parametrize("is_dora", [False, True], ids=["lora", "dora"])
def test_smollm2_with_an_adapter(peftool, smollm2_folder, tmp_path, is_dora):
    """Beside the weights or merged into them: the same text, and not that of the base."""
    texts = transformers.AutoTokenizer.from_pretrained(smollm2_folder)
    model = save_mild_adapter(smollm2_folder, tmp_path / "adapter", use_dora=is_dora)
    prompt = "Once upon a time"
    wanted = expected(model, texts(prompt)["input_ids"], 200)
    flags = ["--max-tokens", 200]
    found = generate(
        peftool, smollm2_folder, "--adapter", tmp_path / "adapter", *flags, prompt=prompt)
    assert found["ids"] == wanted
    assert found["ids"] != generate(peftool, smollm2_folder, *flags, prompt=prompt)["ids"]
    # In f32, since rounding to bf16 is a change of its own.
    peftool.check(
        "merge", smollm2_folder, tmp_path / "adapter", "-o", tmp_path / "merged", "--dtype", "f32")
    assert generate(peftool, tmp_path / "merged", *flags, prompt=prompt)["ids"] == wanted


def test_smollm2_answers_in_its_template(peftool, smollm2_folder):
    texts = transformers.AutoTokenizer.from_pretrained(smollm2_folder)
    chat = [{"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": "What is the capital of France?"}]
    ids = texts.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    wanted = texts.decode(expected(load(smollm2_folder), ids, 100), skip_special_tokens=True)
    found = peftool.check(
        "generate", smollm2_folder, chat[1]["content"], "--chat", "--system",
        chat[0]["content"], "--max-tokens", 100)
    assert found == wanted
    # The template's own system message, where there is none.
    ids = texts.apply_chat_template(chat[1:], add_generation_prompt=True)["input_ids"]
    wanted = texts.decode(expected(load(smollm2_folder), ids, 100), skip_special_tokens=True)
    for flags in [[], ["--chat-template", "smollm2"]]:
        assert wanted == peftool.check(
            "generate", smollm2_folder, chat[1]["content"], "--chat", *flags, "--max-tokens", 100)
