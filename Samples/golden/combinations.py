"""Sums of adapters as PEFT's add_weighted_adapter makes them, where it is right."""

import json
import shutil
import warnings

import torch
from peft import PeftModel
from safetensors.torch import save_file

from . import bases

BASE = "llama-bf16"
# task-a and task-c have rank 4, task-b has 3: the kinds that work on A and B apart need equal ones.
AC, AB = ["task-a", "task-c"], ["task-a", "task-b"]


def case(name, adapters, weights, kind, **options):
    return {"case": name, "adapters": adapters, "weights": weights, "method": kind, **options}


def ties(kind, **options):
    return [
        case(f"{kind}-{sign}", AC, [0.7, 0.6], kind, density=0.5, majority_sign_method=sign,
             **options) for sign in ("total", "frequency")]


CASES = [
    case("linear", AC, [0.7, 0.3], "linear"),
    case("linear-negative", AC, [1.0, -0.5], "linear"),
    case("cat", AC, [0.7, 0.3], "cat"),
    case("cat-ranks", AB, [1.0, -0.5], "cat"),
    case("svd", AC, [0.7, 0.3], "svd", svd_rank=4),
    case("svd-ranks", AB, [0.5, 0.5], "svd", svd_rank=6),
    *ties("ties"),
    *ties("ties_svd", svd_rank=6),
    case("magnitude_prune", AC, [0.7, 0.6], "magnitude_prune", density=0.4),
    case("magnitude_prune_svd", AC, [0.7, 0.6], "magnitude_prune_svd", density=0.4, svd_rank=6),
]


def make(root):
    """Writes `combined/CASE.safetensors`, by module A and B of the sum, whose scaling is 1, and
    `combined/index.json`."""
    folder = root / "combined"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for entry in CASES:
        options = {key: value for key, value in entry.items()
                   if key not in ("case", "adapters", "weights", "method")}
        names = entry["adapters"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = bases.load(BASE, root / "bases", torch.float32)
            paths = [root / "adapters" / name for name in names]
            model = PeftModel.from_pretrained(model, paths[0], adapter_name=names[0])
            for name, path in zip(names[1:], paths[1:]):
                model.load_adapter(path, adapter_name=name)
            model.add_weighted_adapter(
                names, entry["weights"], "sum", combination_type=entry["method"], **options)
        tensors = {}
        for path, module in model.named_modules():
            if "sum" in getattr(module, "lora_A", {}):
                assert module.scaling["sum"] == 1
                path = path.removeprefix("base_model.model.")
                for part in ("lora_A", "lora_B"):
                    weight = getattr(module, part)["sum"].weight
                    tensors[f"{path}.{part}"] = weight.detach().float().contiguous()
        save_file(tensors, folder / f"{entry['case']}.safetensors", metadata={"format": "pt"})
    (folder / "index.json").write_text(json.dumps(CASES, indent=1) + "\n")
