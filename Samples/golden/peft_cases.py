"""Random adapters as real PEFT saves them, and PEFT's own merges."""

import json
import pathlib
import shutil
import tempfile
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from . import bases

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIG_KEYS = ["num_hidden_layers", "tie_word_embeddings", "vocab_size"]


def lora(target_modules=None, r=4, alpha=8, **kw):
    return LoraConfig(r=r, lora_alpha=alpha, target_modules=target_modules, lora_dropout=0.0, **kw)


def randomize(model, name):
    """Gives everything that PEFT would train random values, none of them the initial ones."""
    source = bases.generator(name)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            if not (parameter.requires_grad or "magnitude" in key):
                continue
            shape = parameter.shape
            if "magnitude" in key:
                # bf16 hides in which order a machine summed the norm up.
                noise = 1 + bases.normal(source, shape, 0.1)
                parameter.copy_((parameter * noise).to(torch.bfloat16))
            elif any(k in key for k in ("lora_B", "lora_embedding_B", "lora_E")):
                parameter.copy_(bases.normal(source, shape, 0.1))
            elif any(k in key for k in ("lora_A", "lora_embedding_A")):
                parameter.copy_(bases.normal(source, shape, 0.2))
            elif "ia3_l" in key:
                parameter.copy_(1 + bases.normal(source, shape, 0.2))
            elif "trainable_tokens" in key:
                parameter.copy_(bases.normal(source, shape, 0.1))
            else:
                parameter.add_(bases.normal(source, shape, 0.1))


def tidy(folder, base):
    """What does not belong to the data goes: the model card, and this machine's paths."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base
    for key in ("target_modules", "target_parameters", "modules_to_save", "feedforward_modules"):
        if isinstance(config.get(key), list):
            config[key].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_adapter(name, base, config, root, *, folder=None, seed=None, prepare=None, tensors=None,
                 reorder=None, save=None, before=None):
    """Makes an adapter of a base and saves it.

    - prepare: changes the model before the adapter is put on; tensors: changes the saved
      tensors; reorder: changes the saved configuration; save: extra options for PEFT.
    """
    root = pathlib.Path(root)
    folder = pathlib.Path(folder or root / "adapters" / name)
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    model = bases.load(base, root / "bases")
    if prepare:
        prepare(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(model, config)
        if before:
            before(model)
        randomize(model, seed or name)
        model.save_pretrained(folder, **(save or {}))
    tidy(folder, base)
    if tensors:
        path = folder / "adapter_model.safetensors"
        save_file(tensors(load_file(path)), path, metadata={"format": "pt"})
    if reorder:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(reorder(json.loads(path.read_text())), indent=2) + "\n")
    return folder


def merge_with_peft(base, adapters, root, *, prepare=None, safe=False, dtype="auto", output=None):
    """PEFT's merge of one adapter, or of several one after the other.

    Returns the tensors under the names that transformers saves them by, and the configuration.
    """
    root = pathlib.Path(root)
    model = bases.load(base, root / "bases", dtype)
    if prepare:
        prepare(model)
    names = [f"a{index}" for index in range(len(adapters))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = PeftModel.from_pretrained(model, adapters[0], adapter_name=names[0])
        for name, adapter in zip(names[1:], adapters[1:]):
            peft.load_adapter(adapter, adapter_name=name)
        merged = peft.merge_and_unload(safe_merge=safe, adapter_names=names)
    if base == "layers-f32":
        return {k: v.detach().clone() for k, v in merged.state_dict().items()}, {}
    with tempfile.TemporaryDirectory() as folder:
        merged.save_pretrained(output or folder, max_shard_size="50GB")
        tensors = bases.read_tensors(output or folder)
        config = json.loads((pathlib.Path(output or folder) / "config.json").read_text())
    return tensors, config
