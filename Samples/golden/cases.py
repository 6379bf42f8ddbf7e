"""Every golden case: how its adapter is made, and where the right result comes from."""

import dataclasses
from collections.abc import Callable

import torch
from peft import (
    AdaLoraConfig,
    HiraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    OFTConfig,
    ShiraConfig,
    VeraConfig,
)

from .peft_cases import ALL, lora


@dataclasses.dataclass
class Case:
    """One merge. `config` makes the adapter; without one `adapters` are other cases' adapters."""

    name: str
    base: str
    config: Callable | None = None
    right: str = "peft"
    adapters: list = None
    weights: list = None
    flags: list = dataclasses.field(default_factory=list)
    rounding: str = "once"
    error: str = None
    # What config.json must say, beyond what PEFT's own says.
    expected: dict = dataclasses.field(default_factory=dict)
    # Options for save_adapter.
    options: dict = dataclasses.field(default_factory=dict)
    # Changes the base before PEFT makes and loads the adapter.
    prepare: Callable | None = None
    # Keeps every tensor, so that the file can be compared as a whole.
    complete: bool = False

    def __post_init__(self):
        self.adapters = self.adapters or [self.name]


def bf16_file(tensors):
    return {key: value.to(torch.bfloat16) for key, value in tensors.items()}


def reversed_patterns(config):
    for field in ("rank_pattern", "alpha_pattern"):
        config[field] = dict(reversed(config[field].items()))
    return config


def resize(model):
    model.resize_token_embeddings(108, mean_resizing=False)
    with torch.no_grad():
        for part in (model.model.embed_tokens, model.lm_head):
            part.weight[101:] = part.weight[:7] * 0.5


def patterns():
    # Reversed when saved: "v_proj" then stands before the longer key that matches, too, and the
    # longer key of k_proj before the short one.
    return lora(
        ALL,
        use_rslora=True,
        rank_pattern={"q_proj": 6, r"layers\.1\.mlp\.down_proj": 2, r".*0.*o_.roj": 3},
        alpha_pattern={
            r"layers\.1\.self_attn\.v_proj": 3,
            "k_proj": 5,
            r"model\.layers\.0\.self_attn\.k_proj": 7,
            "v_proj": 9,
            "proj": 1,
        },
    )


QV = ["q_proj", "v_proj"]
GPT2 = ["c_attn", "c_fc", "c_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
UNTIED = {"tie_word_embeddings": False}

CASES = [
    Case("lora", "llama-bf16", lambda: lora(ALL), complete=True),
    Case("lora-bf16file", "llama-bf16", lambda: lora(QV), options=dict(tensors=bf16_file)),
    Case("lora-f16base", "llama-f16", lambda: lora(["q_proj", "v_proj", "down_proj"])),
    Case("lora-f32base", "llama-f32", lambda: lora(ALL, r=16, alpha=16)),
    Case("lora-f8base", "llama-f8", right="formula", adapters=["task-a"]),
    Case("rslora-patterns", "llama-bf16", patterns, options=dict(reorder=reversed_patterns)),
    Case("dora", "llama-bf16", lambda: lora(ALL, use_dora=True), complete=True),
    Case("dora-rslora", "llama-f32", lambda: lora(ALL, use_dora=True, use_rslora=True)),
    Case("dora-f16base", "llama-f16", lambda: lora(QV, use_dora=True)),
    Case("lora-safe", "llama-bf16", adapters=["lora"], rounding="peft-safe"),
    Case("dora-safe", "llama-bf16", adapters=["dora"], rounding="peft-safe"),
    # Full values.
    Case("save-modules", "llama-bf16", lambda: lora(QV, modules_to_save=["lm_head", "norm"])),
    Case("save-modules-tied", "llama-tied-f32", lambda: lora(QV, modules_to_save=["lm_head"])),
    Case("lora-bias", "qwen2-f32", lambda: lora(["q_proj", "k_proj", "v_proj"], lora_bias=True)),
    Case("bias-all", "qwen2-f32", lambda: lora(QV, bias="all")),
    Case("bias-lora-only", "qwen2-f32", lambda: lora(QV, bias="lora_only")),
    # Embeddings and tokens.
    Case("embedding", "llama-bf16", lambda: lora(["embed_tokens", "q_proj"])),
    Case("dora-embedding", "llama-f32", lambda: lora(["embed_tokens", "q_proj"], use_dora=True)),
    Case("trainable-tokens", "llama-bf16",
         lambda: lora(["q_proj"], trainable_token_indices=[7, 1, 100])),
    Case("trainable-tokens-named", "llama-f32",
         lambda: lora(["q_proj"],
                      trainable_token_indices={"lm_head": [5, 3], "embed_tokens": [0, 9]})),
    Case("trainable-tokens-tied", "llama-tied-f32",
         lambda: lora(["q_proj"], trainable_token_indices=[7, 1, 100])),
    Case("resized-vocab", "llama-bf16", lambda: lora(QV), prepare=resize,
         options=dict(save=dict(save_embedding_layers=True))),
    Case("tied-embed", "llama-tied-f32", lambda: lora(["embed_tokens", "q_proj"]),
         right="formula", expected=UNTIED),
    Case("tied-lm-head", "llama-tied-f32", lambda: lora(["lm_head", "q_proj"]),
         right="formula", expected=UNTIED),
    Case("tied-both", "llama-tied-f32",
         lambda: lora(["embed_tokens", "lm_head", "q_proj"], ensure_weight_tying=True),
         right="formula"),
    Case("tied-both-apart", "llama-tied-f32", lambda: lora(["embed_tokens", "lm_head"]),
         right="formula", expected=UNTIED),
    # Other layers.
    Case("conv1d", "gpt2-f32", lambda: lora(GPT2, fan_in_fan_out=True)),
    Case("conv1d-dora", "gpt2-f32", lambda: lora(GPT2, fan_in_fan_out=True, use_dora=True)),
    Case("conv1d-mixed", "gpt2-f32", lambda: lora(["c_attn", "lm_head"]),
         right="formula", expected=UNTIED),
    Case("conv-1d", "layers-f32", lambda: lora(["conv1"])),
    Case("conv-2d", "layers-f32", lambda: lora(["conv2", "point"])),
    Case("conv-3d", "layers-f32", lambda: lora(["conv3"])),
    Case("conv-1d-dora", "layers-f32", lambda: lora(["conv1"], use_dora=True)),
    Case("conv-2d-dora", "layers-f32", lambda: lora(["conv2", "point"], use_dora=True)),
    Case("conv-3d-dora", "layers-f32", lambda: lora(["conv3"], use_dora=True)),
    Case("conv-bias", "layers-f32", lambda: lora(["conv1", "conv2"], lora_bias=True)),
    # Experts.
    Case("target-parameters", "layers-f32",
         lambda: lora([], target_parameters=["experts.gate_up_proj", "experts.down_proj"])),
    Case("target-parameters-one", "layers-f32",
         lambda: lora(["conv1"], target_parameters=["experts.down_proj"])),
    Case("target-parameters-transposed", "gpt-oss-f32",
         lambda: lora(["q_proj"], target_parameters=EXPERTS)),
    Case("target-parameters-unfused", "mixtral-bf16",
         lambda: lora(["q_proj"], target_parameters=EXPERTS)),
    Case("layer-replication", "llama-bf16", lambda: lora(QV, layer_replication=[[0, 2], [1, 2]]),
         right="formula", expected={"num_hidden_layers": 3}),
    # Adapters whose base was changed when they were made.
    Case("pissa-mutated", "llama-f32", lambda: lora(QV, init_lora_weights="pissa"),
         error="pissa"),
    Case("pissa-converted", "llama-f32", lambda: lora(QV, init_lora_weights="pissa")),
    # Other methods.
    Case("adalora", "llama-bf16",
         lambda: AdaLoraConfig(init_r=6, target_r=3, total_step=10, lora_alpha=8,
                               target_modules=["q_proj", "down_proj"])),
    Case("ia3", "qwen2-f32",
         lambda: IA3Config(target_modules=["k_proj", "v_proj", "down_proj"],
                           feedforward_modules=["down_proj"])),
    Case("ia3-conv1d", "gpt2-f32",
         lambda: IA3Config(target_modules=["c_attn", "mlp.c_proj"],
                           feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True)),
    Case("shira", "llama-bf16",
         lambda: ShiraConfig(r=2, target_modules=["q_proj", "down_proj"], random_seed=1)),
    Case("loha", "llama-bf16", lambda: LoHaConfig(r=2, target_modules=["q_proj"]), error="LOHA"),
    Case("lokr", "llama-bf16", lambda: LoKrConfig(r=2, target_modules=["q_proj"]), error="LOKR"),
    Case("vera", "llama-bf16", lambda: VeraConfig(r=2, target_modules=["q_proj"]), error="VERA"),
    Case("oft", "llama-bf16",
         lambda: OFTConfig(r=0, oft_block_size=4, target_modules=["q_proj"]), error="OFT"),
    Case("hira", "llama-bf16", lambda: HiraConfig(r=2, target_modules=["q_proj"]), error="HIRA"),
    # Several adapters.
    Case("task-a", "llama-bf16", lambda: lora(["q_proj", "v_proj", "down_proj"])),
    Case("task-b", "llama-bf16", lambda: lora(["q_proj", "v_proj", "up_proj"], r=3, alpha=4)),
    Case("task-c", "llama-bf16", lambda: lora(["q_proj", "v_proj"], alpha=6)),
    Case("task-dora", "llama-bf16", lambda: lora(["q_proj", "up_proj"], use_dora=True)),
    Case("multi-sum", "llama-bf16", right="formula", adapters=["task-a", "task-b"],
         weights=[0.7, -0.5]),
    Case("multi-mix-dora", "llama-bf16", right="formula",
         adapters=["task-a", "task-dora", "dora"], weights=[0.7, -0.5, 0.3]),
    Case("multi-peft", "llama-bf16", adapters=["task-a", "task-b"], rounding="peft"),
    # In f32, since PEFT takes the earlier adapters out of a bf16 weight again for the norm, and
    # each time loses digits.
    Case("multi-peft-dora", "llama-f32", adapters=["task-a", "task-dora", "dora"],
         rounding="peft"),
    Case("weighted", "llama-f32", right="formula", adapters=["dora-rslora"], weights=[0.25]),
]
