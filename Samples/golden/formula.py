"""What a merge should give, in double precision and written without a look at any tool's code.

Every result is a dict from the base's tensor names to a `Result`. The formulas are those of the
PEFT documentation and papers: LoRA W + s·B·A, DoRA m·(W + d)/‖W + d‖, and the like; several
adapters add up their changes, W + Σ wᵢ·(W′ᵢ − W).
"""

import copy
import dataclasses
import json
import math
import pathlib
import re

import torch

from .bases import read_tensors

PREFIX = "base_model.model."
# Modules whose weight lies (in, out): transformers' Conv1D.
TRANSPOSED_MODULES = {"gpt2": {"c_attn", "c_proj", "c_fc"}}
# Parameters of the expert modules in the order in which the modules register them.
EXPERT_PARAMETERS = ["gate_up_proj", "down_proj"]
# How the fused parameters are spread over the file's tensors; N is the expert's number.
UNFUSED = {
    "mixtral": {
        "gate_up_proj": ["experts.N.w1.weight", "experts.N.w3.weight"],
        "down_proj": ["experts.N.w2.weight"],
    },
    "qwen3_moe": {
        "gate_up_proj": ["experts.N.gate_proj.weight", "experts.N.up_proj.weight"],
        "down_proj": ["experts.N.down_proj.weight"],
    },
}
# Where transformers' module path differs from the file's.
RENAMED = {"mixtral": (".mlp.experts", ".block_sparse_moe.experts")}


@dataclasses.dataclass
class Result:
    """One tensor after the merge: its values, the dtype it is stored in, and what an f32
    computation's error is measured against: the largest of |W|, |d| and |W′ − W|."""

    values: torch.Tensor
    dtype: torch.dtype
    scale: torch.Tensor


def round_once(values, dtype):
    """Rounds f64 to nearest even, once; torch goes by way of f32 and rounds twice."""
    if dtype in (torch.float64, torch.float32):
        return values.to(dtype)
    near = values.to(torch.float32)
    # Towards zero with a sticky last bit, from which the second rounding is right.
    bits = near.view(torch.int32)
    back = near.to(torch.float64)
    inexact = back != values
    away = inexact & (back.abs() > values.abs())
    sticky = torch.where(inexact, (bits - away.to(torch.int32)) | 1, bits)
    return sticky.view(torch.float32).to(dtype)


class Base:
    """A model folder: its configuration and its tensors in f64."""

    def __init__(self, path):
        path = pathlib.Path(path)
        self.config = json.loads((path / "config.json").read_text())
        self.kind = self.config.get("model_type")
        self.was_untied = False
        stored = read_tensors(path)
        self.dtypes = {name: tensor.dtype for name, tensor in stored.items()}
        self.tensors = {name: tensor.to(torch.float64) for name, tensor in stored.items()}

    def is_transposed(self, module):
        return module.split(".")[-1] in TRANSPOSED_MODULES.get(self.kind, ())

    @property
    def embedding(self):
        return "transformer.wte" if self.kind == "gpt2" else "model.embed_tokens"

    def untie(self):
        """Gives lm_head a weight of its own."""
        if "lm_head.weight" not in self.tensors:
            self.was_untied = True
            source = self.embedding + ".weight"
            self.tensors["lm_head.weight"] = self.tensors[source]
            self.dtypes["lm_head.weight"] = self.dtypes[source]

    def replicate(self, ranges):
        """Lists the layers anew: [[0, 2], [1, 2]] makes layers 0, 1, 1 out of 0, 1."""
        order = [layer for begin, end in ranges for layer in range(begin, end)]
        pattern = re.compile(r"(.*\.layers\.)(\d+)(\..*)")
        tensors, dtypes = {}, {}
        for name, tensor in self.tensors.items():
            match = pattern.fullmatch(name)
            layers = [name]
            if match:
                layers = [
                    f"{match[1]}{new}{match[3]}"
                    for new, old in enumerate(order) if old == int(match[2])
                ]
            for layer in layers:
                tensors[layer], dtypes[layer] = tensor, self.dtypes[name]
        self.tensors, self.dtypes = tensors, dtypes


class Adapter:
    def __init__(self, path):
        path = pathlib.Path(path)
        self.config = json.loads((path / "adapter_config.json").read_text())
        stored = read_tensors(path / "adapter_model.safetensors")
        # Embeddings that are saved as modules and as embeddings stand there three times.
        self.tensors = {
            key.removeprefix(PREFIX): tensor.to(torch.float64) for key, tensor in stored.items()
            if ".modules_to_save." not in key and ".original_module." not in key
        }
        assert all(key.startswith(PREFIX) for key in stored)

    def pattern(self, field, module, default):
        """The first key in the file's order that matches the module's path."""
        for key, value in (self.config.get(field) or {}).items():
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        return default

    def scaling(self, module):
        rank = self.pattern("rank_pattern", module, self.config["r"])
        alpha = self.pattern("alpha_pattern", module, self.config["lora_alpha"])
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def own(self, module):
        """The file's own copy of an embedding, which stands in for the base's."""
        for key in (module + ".base_layer.weight", module + ".weight"):
            if key in self.tensors:
                return self.tensors[key]
        return None

    def modules(self, suffix):
        return [key.removesuffix(suffix) for key in self.tensors if key.endswith(suffix)]


@dataclasses.dataclass
class Change:
    """A tensor as one adapter makes it, W′, and the low-rank part d, both (like W)."""

    merged: torch.Tensor
    delta: torch.Tensor | None = None


def outer(tensor, like):
    """Puts a vector along the first axis of a tensor."""
    return tensor.reshape(-1, *[1] * (like.dim() - 1))


def magnitude_merge(weight, delta, magnitude, axis, unmerged):
    """DoRA: (m/‖V‖)·V with V = W + d, a norm for each index of `axis`.

    Where PEFT merges one adapter after another, W is what the adapters before it made, and the
    norm is still that of the weight without them, `unmerged` + d.
    """
    norm = (unmerged + delta).movedim(axis, 0).flatten(1).norm(dim=1)
    value = (weight + delta).movedim(axis, 0)
    return (outer(magnitude.flatten() / norm, value) * value).movedim(0, axis)


def linear_like(base, adapter, module, round_delta):
    """LoRA and DoRA on a linear layer, Conv1D or a convolution."""
    name = module + ".weight"
    own = adapter.own(module)
    weight = base.tensors[name] if own is None else own
    a, b = adapter.tensors[module + ".lora_A.weight"], adapter.tensors[module + ".lora_B.weight"]
    assert a.shape[0] == b.shape[1], module
    delta = adapter.scaling(module) * torch.tensordot(b.flatten(1), a, dims=1)
    axis = 0
    if base.is_transposed(module):
        delta, axis = delta.T, 1
    magnitude = adapter.tensors.get(module + ".lora_magnitude_vector")
    if magnitude is not None:
        return name, Change(magnitude_merge(
            weight, delta, magnitude, axis, base.unmerged[name] if own is None else own), delta)
    if round_delta:
        delta = round_once(delta, base.dtypes[name]).to(torch.float64)
    return name, Change(weight + delta, delta)


def embedding(base, adapter, module, pre_round):
    name = module + ".weight"
    own = adapter.own(module)
    weight = base.tensors[name] if own is None else own
    a = adapter.tensors[module + ".lora_embedding_A"]
    b = adapter.tensors[module + ".lora_embedding_B"]
    delta = adapter.scaling(module) * (b @ a).T
    magnitude = adapter.tensors.get(module + ".lora_magnitude_vector")
    if magnitude is not None:
        return name, Change(magnitude_merge(
            weight, delta, magnitude, 1, base.unmerged[name] if own is None else own), delta)
    if pre_round:
        delta = round_once(delta, base.dtypes[name]).to(torch.float64)
    return name, Change(weight + delta, delta)


def experts(base, adapter, module, pre_round):
    """target_parameters: (experts, out, in), or (experts, in, out) where transposed."""
    plain = module
    while plain.endswith(".base_layer"):
        plain = plain.removesuffix(".base_layer")
    wrapped = [p for p in EXPERT_PARAMETERS
               if any(t.split(".")[-1] == p for t in adapter.config["target_parameters"])]
    # The first that is registered is innermost.
    parameter = wrapped[len(wrapped) - 1 - module.removeprefix(plain).count(".base_layer")]
    a, b = adapter.tensors[module + ".lora_A.weight"], adapter.tensors[module + ".lora_B.weight"]
    rank = adapter.pattern("rank_pattern", f"{plain}.{parameter}", adapter.config["r"])
    count = a.shape[0] // rank
    a = a.reshape(count, rank, -1)
    b = b.reshape(b.shape[0], rank, count)
    delta = adapter.scaling(f"{plain}.{parameter}") * torch.einsum("ore,eri->eoi", b, a)

    def change(name, delta):
        if pre_round:
            delta = round_once(delta, base.dtypes[name]).to(torch.float64)
        return name, Change(base.tensors[name] + delta, delta)

    if base.kind not in UNFUSED:
        name = f"{plain}.{parameter}"
        return [change(name, delta.mT if base.kind == "gpt_oss" else delta)]
    old, new = RENAMED.get(base.kind, ("", ""))
    path = plain.replace(old, new).removesuffix(".experts")
    parts = UNFUSED[base.kind][parameter]
    return [
        change(f"{path}.{part.replace('N', str(expert))}", piece)
        for expert in range(count)
        for part, piece in zip(parts, delta[expert].chunk(len(parts)))
    ]


def adalora(base, adapter, module, round_delta):
    name = module + ".weight"
    a, b, e = (adapter.tensors[f"{module}.lora_{part}"] for part in "ABE")
    # The number of ranks is that at the start, and the constant keeps PEFT from dividing by 0.
    scale = adapter.config["lora_alpha"] / (adapter.config["init_r"] + 1e-5)
    delta = scale * (b @ (a * e))
    if round_delta:
        delta = round_once(delta, base.dtypes[name]).to(torch.float64)
    return name, Change(base.tensors[name] + delta, delta)


def ia3(base, adapter, module):
    weight = base.tensors[module + ".weight"]
    factor = adapter.tensors[module + ".ia3_l"].flatten()
    feedforward = adapter.config["feedforward_modules"]
    if isinstance(feedforward, str):
        is_feedforward = re.fullmatch(feedforward, module) is not None
    else:
        is_feedforward = any(module.endswith(key) for key in feedforward)
    along_last = is_feedforward != base.is_transposed(module)
    scaled = weight * (factor if along_last else factor[:, None])
    changes = {module + ".weight": Change(scaled)}
    if not is_feedforward and module + ".bias" in base.tensors:
        changes[module + ".bias"] = Change(base.tensors[module + ".bias"] * factor)
    return changes


def shira(base, adapter, module):
    name = module + ".weight"
    delta = torch.zeros_like(base.tensors[name])
    rows, columns = adapter.tensors[module + ".shira_indices"].long()
    delta[rows, columns] = adapter.tensors[module + ".shira_weight"]
    return name, Change(base.tensors[name] + delta, delta)


def changes(base, adapter, pre_round, safe):
    """Everything that one adapter changes in a base: a dict from names to changes.

    - pre_round: rounds d to the base's dtype before it is added where PEFT always does: for
      embeddings and for parameters of experts. `safe` does so for all weights without DoRA.
    """
    config = adapter.config
    result = {}
    if config["peft_type"] == "IA3":
        for module in adapter.modules(".ia3_l"):
            result |= ia3(base, adapter, module)
    for module in adapter.modules(".shira_weight"):
        name, change = shira(base, adapter, module)
        result[name] = change
    for module in adapter.modules(".lora_E"):
        name, change = adalora(base, adapter, module, safe)
        result[name] = change
    for module in adapter.modules(".lora_A.weight"):
        if config.get("target_parameters") and module + ".weight" not in base.tensors:
            result |= dict(experts(base, adapter, module, pre_round))
            continue
        name, change = linear_like(base, adapter, module, safe)
        result[name] = change
        bias = adapter.tensors.get(module + ".lora_B.bias")
        if bias is not None:
            delta = adapter.scaling(module) * bias
            result[module + ".bias"] = Change(base.tensors[module + ".bias"] + delta, delta)
    for module in adapter.modules(".lora_embedding_A"):
        name, change = embedding(base, adapter, module, pre_round)
        result[name] = change
    for key in adapter.tensors:
        if not key.endswith(".trainable_tokens_delta"):
            continue
        module = key.removesuffix(".trainable_tokens_delta").removesuffix(".token_adapter")
        is_alone = config["peft_type"] == "TRAINABLE_TOKENS"
        field = config["token_indices" if is_alone else "trainable_token_indices"]
        indices = field if isinstance(field, list) else field[module.split(".")[-1]]
        rows = adapter.tensors[key]
        names = [module + ".weight"]
        if base.was_untied and module == base.embedding:
            # They were trained for both ends.
            names.append("lm_head.weight")
        for name in names:
            merged = result.get(name, Change(base.tensors[name])).merged.clone()
            merged[indices] = rows
            result[name] = Change(merged)
    # Full values: modules_to_save, biases, resized embeddings.
    for key, tensor in adapter.tensors.items():
        name = key.replace(".base_layer.", ".")
        is_full = re.search(r"\.(weight|bias)$", key) and ".lora_" not in key
        if is_full and name not in result:
            result[name] = Change(tensor)
    return result


def untie(base, adapters):
    """Parts a tied lm_head from the embedding where an adapter changes one end alone, or both in
    its own way. With ensure_weight_tying the file has the change twice, of which one counts."""
    if base.config.get("tie_word_embeddings", base.kind == "gpt2") is False:
        return
    for adapter in adapters:
        head = [key for key in adapter.tensors if key.startswith("lm_head.")]
        # Trained tokens are shared.
        ends = [
            key for key in adapter.tensors
            if key.startswith(base.embedding + ".") and "trainable_tokens" not in key
        ]
        if (head or ends) and adapter.config.get("ensure_weight_tying"):
            for key in head:
                del adapter.tensors[key]
        elif head or ends:
            base.untie()


def merge(base_path, adapter_paths, weights=None, rounding="once", dtype=None):
    """The merged model as a dict from names to results; tensors that no adapter names included."""
    base = Base(base_path)
    adapters = [Adapter(path) for path in adapter_paths]
    weights = weights or [1.0] * len(adapters)
    for adapter in adapters:
        if adapter.config.get("layer_replication"):
            base.replicate(adapter.config["layer_replication"])
    untie(base, adapters)
    if dtype:
        # Only what the formula rounds to changes: the tensors in memory are exact.
        base.dtypes = {name: dtype for name in base.dtypes}
    single = len(adapters) == 1 and weights[0] == 1
    pre_round = rounding != "once" or single

    base.unmerged = dict(base.tensors)
    values = dict(base.tensors)
    scales = {name: tensor.abs() for name, tensor in base.tensors.items()}
    original = copy.copy(base)
    for adapter, weight in zip(adapters, weights):
        if rounding != "once":
            base.tensors = dict(values)
        for name, change in changes(
                base, adapter, pre_round, safe=rounding == "peft-safe").items():
            start = base.tensors.get(name)
            if start is None or start.shape != change.merged.shape:
                # A new or resized tensor has no change to be weighted.
                values[name] = change.merged
                scales[name] = change.merged.abs()
                base.dtypes.setdefault(name, next(iter(base.dtypes.values())))
            elif weight == 1 and len(adapters) == 1 or rounding != "once":
                values[name] = change.merged
            else:
                values[name] = values[name] + weight * (change.merged - start)
            if change.delta is not None:
                scales[name] = torch.maximum(scales[name], change.delta.abs())
            if start is not None and start.shape == change.merged.shape:
                scales[name] = torch.maximum(scales[name], (change.merged - start).abs())
            if rounding != "once":
                values[name] = round_once(values[name], base.dtypes[name]).to(torch.float64)
                # The next adapter starts from a rounded number of this size.
                scales[name] = torch.maximum(scales[name], values[name].abs())
    return {
        name: Result(value, original.dtypes.get(name, base.dtypes[name]), scales[name])
        for name, value in values.items()
    }
