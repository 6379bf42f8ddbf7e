"""Writes Samples/training: tiny models, what transformers computes of them, and short training
runs of PEFT adapters on them, with torch's AdamW.

    make_training_samples.py [--check]

With --check everything is made in another place and compared with what is there: numbers to
1e-5 of a tensor's largest, for another processor adds in another order; all else exactly.
"""

import argparse
import copy
import json
import math
import pathlib
import tempfile

import torch
from galore_torch import GaLoreAdamW
from galore_torch.galore_projector import GaLoreProjector
from peft import AdaLoraConfig, LoraConfig, ShiraConfig, get_peft_model
from peft.optimizers import lorafa
from peft.tuners.lora import layer as lora_layer
from peft.tuners.lora.variants import QALoraLinearVariant
from safetensors.torch import load_file, save_file
from transformers import (
    AttentionInterface, AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, MistralConfig,
    Qwen2Config, Qwen3Config)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, repeat_kv

import make_int4_samples as int4

TRAINING = pathlib.Path(__file__).resolve().parent / "training"
TOLERANCE = 1e-5
VOCABULARY, STEPS = 160, 12
SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=72, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
    initializer_range=0.1)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64)
# A window shorter than the texts, a head that is no part of the hidden size, biases, tied ends.
BASES = {
    "llama3-f32": LlamaConfig(**SHAPE, tie_word_embeddings=True, rope_parameters=LLAMA3),
    "qwen2-f32": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3-f32": Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=False),
    "mistral-f32": MistralConfig(**SHAPE, sliding_window=8, tie_word_embeddings=False),
}
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RUNS = {
    "lora-llama3": ("llama3-f32", None, 0.0, dict(target_modules=ALL)),
    "dora-llama3": ("llama3-f32", None, 0.0, dict(target_modules=ALL, use_dora=True)),
    "lora-qwen2": ("qwen2-f32", None, 0.1, dict(target_modules=["q_proj", "v_proj"])),
    "dora-qwen2": ("qwen2-f32", None, 0.0, dict(target_modules=ALL, use_dora=True)),
    "lora-qwen3": ("qwen3-f32", None, 0.0, dict(target_modules=ALL, use_rslora=True)),
    "lora-mistral": ("mistral-f32", None, 0.0, dict(target_modules=ALL)),
    "qlora-llama3": ("llama3-f32", "nf4", 0.0, dict(target_modules=ALL)),
    "qdora-llama3": ("llama3-f32", "nf4", 0.0, dict(target_modules=ALL, use_dora=True)),
    # Whole modules: embeddings that are two tables and one, norms, a layer with a bias; rows.
    "ends-qwen3": ("qwen3-f32", None, 0.1, dict(
        target_modules=["v_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    "tied-llama3": ("llama3-f32", None, 0.0, dict(
        target_modules=["v_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    "norms-qwen3": ("qwen3-f32", None, 0.0, dict(
        target_modules=["up_proj"], modules_to_save=["norm"])),
    "linear-qwen2": ("qwen2-f32", None, 0.0, dict(
        target_modules=["q_proj", "k_proj"], modules_to_save=["k_proj", "input_layernorm"],
        use_dora=True)),
    "tokens-llama3": ("llama3-f32", None, 0.1, dict(
        target_modules=["v_proj"], trainable_token_indices=[130, 5, 17])),
    "tokens-qwen3": ("qwen3-f32", None, 0.0, dict(
        target_modules=["v_proj"], trainable_token_indices=[130, 5, 17])),
}
# Ranks that are pruned in steps 4 and 6, and for good in step 8.
ADALORA = dict(
    init_r=6, target_r=3, tinit=2, tfinal=4, deltaT=2, beta1=0.85, beta2=0.85,
    orth_reg_weight=0.5, total_step=STEPS)
# The tokens of a group of LongLoRA's attention.
GROUP = 8
# The inputs of a group of QA-LoRA and of its base.
POOL = 8
# Runs of other methods than LoRA and DoRA, and of LongLoRA.
RUNS |= {
    "qa-lora-llama3": ("llama3-int4", "int4", 0.0, dict(
        target_modules=ALL, use_qalora=True, qalora_group_size=POOL)),
    "lora-fa-llama3": ("llama3-f32", None, 0.1, dict(target_modules=ALL)),
    "long-qwen3": ("qwen3-f32", None, 0.0, dict(
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        modules_to_save=["embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"])),
    "shira-llama3": ("llama3-f32", None, 0.0, dict(target_modules=ALL)),
    "adalora-llama3": ("llama3-f32", None, 0.0, dict(
        target_modules=["q_proj", "v_proj", "up_proj", "down_proj"], **ADALORA)),
}
# All of a model, by torch's AdamW and by GaLore: base, weight decay, and GaLore's settings.
WHOLE_RUNS = {
    "full-llama3": ("llama3-f32", 0.0, None),
    "galore-llama3": ("llama3-f32", 0.0, dict(proj_type="std", update_proj_gap=4)),
    "galore-reverse-qwen3": ("qwen3-f32", 0.1, dict(proj_type="reverse_std", update_proj_gap=200)),
    "galore-full-qwen2": ("qwen2-f32", 0.0, dict(proj_type="full", update_proj_gap=5)),
}
ADAMW = dict(lr=2e-3, betas=(0.9, 0.999), eps=1e-8)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def save(path, tensors):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()},
              path, metadata={"format": "pt"})


def shifted_groups(module, queries, keys, values, mask, scaling, dropout=0.0, **options):
    """LongLoRA's attention without its wrap-around: groups, for half of the heads shifted."""
    repeats = module.num_key_value_groups
    keys, values = repeat_kv(keys, repeats), repeat_kv(values, repeats)
    heads, length = queries.shape[1:3]
    place = torch.arange(length)
    group = torch.stack([place // GROUP] * (heads // 2)
                        + [(place + GROUP - GROUP // 2) // GROUP] * (heads - heads // 2))
    is_seen = (group[:, :, None] == group[:, None, :]) & (place[:, None] >= place[None, :])
    scores = (queries @ keys.transpose(2, 3) * scaling).masked_fill(~is_seen, -torch.inf)
    return (scores.softmax(-1) @ values).transpose(1, 2).contiguous(), None


AttentionInterface.register("shifted_groups", shifted_groups)


def load(folder, base, attention="eager", **options):
    return AutoModelForCausalLM.from_pretrained(
        folder / "bases" / base, dtype=torch.float32, attn_implementation=attention, **options)


def make_bases(folder):
    """Random weights; norms and biases off their defaults, so that a forgotten one shows."""
    for seed, (name, config) in enumerate(BASES.items()):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if "norm" in key or key.endswith("bias"):
                    weight.add_(0.2 * torch.randn_like(weight))
        model.config.dtype = torch.float32
        model.save_pretrained(folder / "bases" / name)
        (folder / "bases" / name / "generation_config.json").unlink(missing_ok=True)


def make_int4_base(folder):
    """The linear layers of llama3-f32 in INT4 by groups, as MLX has them, with F32 offsets."""
    source, target = folder / "bases" / "llama3-f32", folder / "bases" / "llama3-int4"
    tensors = load_file(source / "model.safetensors")
    for name in [name for name in tensors if name.split(".")[-2] in ALL]:
        module = name.removesuffix(".weight")
        codes, scale, zero = int4.quantize(tensors[name], POOL)
        tensors[name] = torch.from_numpy(int4.pack(codes))
        tensors[module + ".scales"] = torch.from_numpy(scale)
        tensors[module + ".biases"] = torch.from_numpy(-scale * zero.astype("float32"))
    save(target / "model.safetensors", tensors)
    config = json.loads((source / "config.json").read_text())
    settings = dict(bits=4, group_size=POOL, mode="affine")
    config.update(quantization=settings, quantization_config=settings)
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_int4(folder, base):
    """A model that computes with what the codes of such a base stand for."""
    tensors = load_file(folder / "bases" / base / "model.safetensors")
    model = load(folder, "llama3-f32")
    with torch.no_grad():
        for name, module in model.named_modules():
            if name + ".biases" not in tensors:
                continue
            words = tensors[name + ".weight"].to(torch.int64)
            codes = (words[..., None] >> 4 * torch.arange(8) & 15).view(len(words), -1, POOL)
            module.weight.copy_((codes * tensors[name + ".scales"][..., None]
                                 + tensors[name + ".biases"][..., None]).flatten(1))
    return model


def qalora_variant(self, *, config, **options):
    """What PEFT has for GPTQ's layers alone, whose kernels want a GPU."""
    return QALoraLinearVariant() if config.use_qalora else resolve_lora_variant(
        self, config=config, **options)


resolve_lora_variant = lora_layer.Linear.resolve_lora_variant
lora_layer.Linear.resolve_lora_variant = qalora_variant


def make_logits(folder):
    ids = torch.randint(0, VOCABULARY, (2, 24), generator=seeded(3))
    tensors, losses = {"input_ids": ids}, {}
    for name in BASES:
        with torch.no_grad():
            output = load(folder, name)(input_ids=ids, labels=ids)
        tensors[name] = output.logits
        losses[name] = float(output.loss)
    save(folder / "logits.safetensors", tensors)
    write(folder / "losses.json", losses)


def randomize(model):
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_B" in key or "lora_E" in key or "shira" in key:
                weight.copy_(0.05 * torch.randn_like(weight))
            if "magnitude" in key:
                weight.mul_(1 + 0.1 * torch.randn_like(weight))


def save_adapter(model, path, base):
    model.save_pretrained(path)
    (path / "README.md").unlink(missing_ok=True)
    config = json.loads((path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    config["target_modules"].sort()
    (path / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def texts():
    """Two rows a step, and which of their tokens are labels."""
    ids = torch.randint(0, VOCABULARY, (STEPS, 2, 32), generator=seeded(7))
    # The second halves are always the same, so that there is something to learn.
    ids[1:, :, 16:] = ids[0, :, 16:]
    mask = torch.ones_like(ids)
    mask[:, 1, :8] = 0
    return ids, mask


def train(folder, model, parameters, optimizer, after_step=None, most=1.0):
    """All steps; saves their texts and the gradients of the first, gives losses and norms."""
    ids, mask = texts()
    losses, norms = [], []
    for step in range(STEPS):
        labels = ids[step].masked_fill(mask[step] == 0, -100)
        loss = model(input_ids=ids[step], labels=labels).loss
        loss.backward()
        if step == 0:
            save(folder / "gradients_step0.safetensors",
                 {key: value.grad for key, value in parameters.items()})
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), most)))
        losses.append(float(loss.detach()))
        optimizer.step()
        if after_step:
            after_step(step)
        optimizer.zero_grad()
    save(folder / "batches.safetensors", {"input_ids": ids, "label_mask": mask})
    return dict(losses=losses, grad_norms=norms)


def largest_entries(layer, r, **_):
    """The paper's SHiRA-WM; PEFT has a random mask alone."""
    mask = torch.zeros(layer.weight.numel(), dtype=torch.bool)
    mask[layer.weight.abs().flatten().topk(r * sum(layer.weight.shape)).indices] = True
    return mask.view(layer.weight.shape)


def adapter_config(name, options):
    common = dict(task_type="CAUSAL_LM", **options)
    if name.startswith("shira"):
        config = ShiraConfig(r=4, **common)
        config.mask_fn = largest_entries
        return config
    if "init_r" in options:
        return AdaLoraConfig(lora_dropout=0.0, lora_alpha=8, **common)
    return LoraConfig(r=4, lora_dropout=0.0, lora_alpha=8, **common)


def make_run(folder, name):
    base, code, weight_decay, options = RUNS[name]
    quantization = {} if code != "nf4" else dict(quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=code, bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32))
    torch.manual_seed(11)
    is_long = name.startswith("long")
    frozen = (
        load_int4(folder, base) if code == "int4"
        else load(folder, base, "shifted_groups" if is_long else "eager", **quantization))
    frozen.config.use_cache = False
    is_adalora = "init_r" in options
    model = get_peft_model(frozen, adapter_config(name, options))
    randomize(model)
    save_adapter(model, folder / name / "start", base)
    model.train()
    optimizer = None
    if name.startswith("lora-fa"):
        # It freezes A.
        optimizer = lorafa.create_lorafa_optimizer(
            model, r=4, lora_alpha=8, lr=ADAMW["lr"], weight_decay=weight_decay)
    parameters = {key.replace(".default", "").replace(".modules_to_save", ""): value
                  for key, value in model.named_parameters() if value.requires_grad}
    optimizer = optimizer or torch.optim.AdamW(
        parameters.values(), weight_decay=weight_decay, **ADAMW)
    ranks = []

    def allocate(step):
        model.base_model.update_and_allocate(step)
        ranks.append({key: int((value != 0).sum()) for key, value in parameters.items()
                      if "lora_E" in key})

    # Importance is of gradients that have been clipped.
    most = 0.03 if is_adalora else 1.0
    found = train(
        folder / name, model, parameters, optimizer, allocate if is_adalora else None, most)
    save_adapter(model, folder / name / "end", base)
    write(folder / name / "expected.json", dict(
        base=base, quant=code, lr=ADAMW["lr"], weight_decay=weight_decay,
        betas=list(ADAMW["betas"]), eps=ADAMW["eps"], max_grad_norm=most, **found,
        **(dict(ranks=ranks) if is_adalora else {})))


def signed_vectors(self, weights, rank, type):
    """galore_torch's singular vectors, each with its largest entry positive."""
    u, _, v = torch.linalg.svd(weights.data.float(), full_matrices=False)
    left, right = u[:, :rank].T, v[:rank]
    left, right = (x * torch.gather(x, 1, x.abs().argmax(1, keepdim=True)).sign()
                   for x in (left, right))
    left, right = left.T.contiguous(), right.contiguous()
    return {"left": left, "right": right, "full": [left, right]}[type]


def whole_optimizer(parameters, weight_decay, galore):
    if galore is None:
        return torch.optim.AdamW(parameters.values(), weight_decay=weight_decay, **ADAMW)
    GaLoreProjector.get_orthogonal_matrix = signed_vectors
    matrices = {key: value for key, value in parameters.items()
                if any(name in key for name in ALL) and value.dim() == 2}
    rest = [value for key, value in parameters.items() if key not in matrices]
    # It decays all; norms and biases do not in transformers' Trainer, nor here.
    groups = [
        dict(params=[value for value in rest if value.dim() == 2]),
        dict(params=[value for value in rest if value.dim() == 1], weight_decay=0.0),
        dict(params=list(matrices.values()), rank=6, scale=0.25, **galore)]
    return GaLoreAdamW(
        groups, lr=ADAMW["lr"], weight_decay=weight_decay, no_deprecation_warning=True)


def make_whole_run(folder, name):
    base, weight_decay, galore = WHOLE_RUNS[name]
    torch.manual_seed(11)
    model = load(folder, base)
    model.config.use_cache = False
    model.train()
    parameters = dict(model.named_parameters())
    optimizer = whole_optimizer(parameters, weight_decay, galore)
    found = train(folder / name, model, parameters, optimizer)
    save(folder / name / "end.safetensors", parameters)
    write(folder / name / "expected.json", dict(
        base=base, lr=ADAMW["lr"], weight_decay=weight_decay,
        galore=galore and dict(galore, rank=6, scale=0.25), **found))


class OneNumberAdamW(lorafa.LoraFAOptimizer):
    """Transformers' former AdamW, which this optimizer has for what is no LoRA."""

    def __init__(self, parameters, **setting):
        super().__init__([dict(params=parameters, names=["p"], scaling_factors=[1.0])], **setting)


def make_adamw(folder):
    """Twenty steps with a rate that changes, for each of some settings."""
    tensors, cases = {}, []
    settings = [
        dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
        dict(lr=5e-2, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.0),
        dict(lr=3e-4, betas=(0.9, 0.98), eps=1e-2, weight_decay=0.3),
        dict(lr=2e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.2, style="transformers"),
    ]
    for place, setting in enumerate(settings):
        generator = seeded(20 + place)
        start = torch.randn(37, generator=generator)
        gradients = torch.randn(20, 37, generator=generator)
        # From gradients far below epsilon to large ones, and one that is always 0.
        gradients *= 10.0 ** torch.linspace(-10, 3, 37)
        gradients[:, 0] = 0
        parameter = torch.nn.Parameter(start.clone())
        style = setting.pop("style", "torch")
        optimizer = (
            OneNumberAdamW([parameter], **setting) if style == "transformers"
            else torch.optim.AdamW([parameter], foreach=False, **setting))
        rates, values = [], []
        for step in range(20):
            rates.append(setting["lr"] * (step + 1) / 20)
            optimizer.param_groups[0]["lr"] = rates[-1]
            parameter.grad = gradients[step].clone()
            optimizer.step()
            values.append(parameter.detach().clone())
        tensors |= {f"{place}.start": start, f"{place}.gradients": gradients,
                    f"{place}.values": torch.stack(values)}
        cases.append(dict(rates=rates, betas=list(setting["betas"]), eps=setting["eps"],
                          weight_decay=setting["weight_decay"], style=style))
    save(folder / "adamw.safetensors", tensors)
    write(folder / "adamw.json", cases)


def configuration(**changes):
    return dict(model_type="llama", vocab_size=8, hidden_size=128, intermediate_size=8,
                num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=131072,
                **changes)


def yarn(**changes):
    return dict(dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768),
                **changes)


# Each kind, in the spelling of transformers 4 and 5; `length` is that of the text.
ROTARY = [
    (configuration(), 16),
    (configuration(rope_theta=500000.0), 16),
    (configuration(rope_parameters=dict(rope_type="default", rope_theta=1e6)), 16),
    (configuration(rope_theta=1e6, head_dim=48), 16),
    (configuration(rope_scaling=dict(type="linear", factor=2.5)), 16),
    (configuration(rope_parameters=dict(
        rope_type="linear", rope_theta=20000.0, factor=4.0)), 16),
    (dict(configuration(rope_scaling=dict(type="dynamic", factor=2.0)),
          max_position_embeddings=64), 50),
    (dict(configuration(rope_scaling=dict(type="dynamic", factor=2.0)),
          max_position_embeddings=64), 200),
    (configuration(rope_theta=5e5, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=8192)), 16),
    (configuration(rope_parameters=dict(
        rope_type="llama3", rope_theta=5e5, factor=32.0, low_freq_factor=1.0,
        high_freq_factor=4.0)), 16),
    (configuration(rope_theta=1e6, rope_scaling=yarn()), 16),
    (configuration(rope_parameters=yarn(rope_theta=1e6, truncate=False)), 16),
    (configuration(rope_theta=1e6, rope_scaling=yarn(attention_factor=0.75)), 16),
    (configuration(rope_scaling=yarn(mscale=0.7, mscale_all_dim=1.4)), 16),
    (configuration(rope_scaling=yarn(mscale=0.7)), 16),
    (configuration(rope_scaling=yarn(beta_fast=16, beta_slow=2)), 16),
    (configuration(rope_scaling=yarn(factor=None)), 16),
    (configuration(rope_scaling=yarn(factor=0.5)), 16),
    (configuration(
        rope_scaling=dict(type="linear", factor=2.0),
        rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=7000.0)), 16),
    (configuration(rope_theta=5e5, original_max_position_embeddings=4096, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=8192)), 16),
]


def make_rotary(folder):
    cases = []
    for config, length in ROTARY:
        rotary = LlamaRotaryEmbedding(LlamaConfig.from_dict(copy.deepcopy(config)))
        cosines, sines = rotary(torch.zeros(1), torch.arange(length)[None])
        half = rotary.inv_freq.shape[0]
        cases.append(dict(
            config=config, length=length, frequencies=rotary.inv_freq.tolist(),
            attention_factor=float(rotary.attention_scaling),
            cosines=cosines[0, -1, :half].tolist(), sines=sines[0, -1, :half].tolist()))
    write(folder / "rotary.json", cases)


def make(folder):
    make_bases(folder)
    make_int4_base(folder)
    make_logits(folder)
    for name in RUNS:
        make_run(folder, name)
    for name in WHOLE_RUNS:
        make_whole_run(folder, name)
    make_adamw(folder)
    make_rotary(folder)


def numbers_differ(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        return True
    most = float(b.double().abs().max()) if b.numel() else 0
    return float((a.double() - b.double()).abs().max()) > TOLERANCE * most if most else a.any()


def json_differs(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() != b.keys() or any(json_differs(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) != len(b) or any(map(json_differs, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return not math.isclose(a, b, rel_tol=TOLERANCE)
    return a != b


def differing(made, there):
    names = [{path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
             for folder in (made, there)]
    yield from (f"{name}: only in one place" for name in sorted(names[0] ^ names[1]))
    for name in sorted(names[0] & names[1]):
        if name.suffix == ".safetensors":
            a, b = load_file(made / name), load_file(there / name)
            if a.keys() != b.keys():
                yield f"{name}: other tensors"
            else:
                yield from (f"{name}: {key}" for key in a if numbers_differ(a[key], b[key]))
        elif json_differs(json.loads((made / name).read_text()),
                          json.loads((there / name).read_text())):
            yield str(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # PEFT's LoRA-FA would multiply in bf16 on a processor that has it.
    lorafa.is_bf16_available = lambda *_, **__: False
    if not arguments.check:
        make(TRAINING)
        return
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder) / "training"
        make(made)
        found = list(differing(made, TRAINING))
    if found:
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
