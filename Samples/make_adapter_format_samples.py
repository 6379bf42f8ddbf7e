#!/usr/bin/env python3
"""Makes Samples/mlx and Samples/kohya: some of Samples/adapters as mlx-lm and LyCORIS save them.

Runs in the environment of Tests/Interop/requirements.txt; the same bytes each time.
"""

import json
import os
import pathlib
import shutil

os.environ["HF_HUB_OFFLINE"] = "1"

import mlx.core as mx  # noqa: E402
import numpy  # noqa: E402
import torch  # noqa: E402
from lycoris import create_lycoris  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.tuner.utils import linear_to_lora_layers  # noqa: E402
from mlx_lm.utils import load_model, save_config  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from golden import bases  # noqa: E402

SAMPLES = pathlib.Path(__file__).resolve().parent
PREFIX = "base_model.model."


def read(name):
    """A sample's configuration, and its tensors by module and part."""
    folder = SAMPLES / "adapters" / name
    modules = {}
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        module, part = key.removeprefix(PREFIX).split(".lora_")
        modules.setdefault(module, {})[part.removesuffix(".weight")] = tensor
    return json.loads((folder / "adapter_config.json").read_text()), modules


def mlx_array(tensor):
    return mx.array(numpy.ascontiguousarray(tensor.float().numpy()))


def make_mlx(name, base, output):
    """As `mlx_lm.lora` saves what it has trained, with the values of a sample."""
    config, modules = read(name)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    model, _ = load_model(SAMPLES / "bases" / base)
    model.freeze()
    parameters = dict(
        rank=config["r"], dropout=0.0, scale=config["lora_alpha"] / config["r"])
    linear_to_lora_layers(model, 2, parameters, use_dora=config["use_dora"])
    values = {}
    for module, parts in modules.items():
        values[f"{module}.lora_a"] = mlx_array(parts["A"].t())
        values[f"{module}.lora_b"] = mlx_array(parts["B"].t())
        if "magnitude_vector" in parts:
            values[f"{module}.m"] = mlx_array(parts["magnitude_vector"])
    model.load_weights(list(values.items()), strict=False)
    trained = dict(tree_flatten(model.trainable_parameters()))
    assert sorted(trained) == sorted(values), set(trained) ^ set(values)
    mx.save_safetensors(str(output / "adapters.safetensors"), trained)
    save_config(
        dict(
            model=base, fine_tune_type="dora" if config["use_dora"] else "lora", num_layers=2,
            lora_parameters=parameters, batch_size=4, iters=1000, learning_rate=1e-5, seed=0,
            mask_prompt=False),
        output / "adapter_config.json")


def make_kohya(name, base, output):
    """As LyCORIS saves a network, with the values of a sample; only its modules are kept."""
    config, modules = read(name)
    output.parent.mkdir(exist_ok=True)
    network = create_lycoris(
        bases.load(base, SAMPLES / "bases", torch.float32), linear_dim=config["r"],
        linear_alpha=config["lora_alpha"], algo="lora", dora_wd=config["use_dora"])
    network.apply_to()
    state, kept = network.state_dict(), {}
    for module, parts in modules.items():
        key = "lycoris_" + module.replace(".", "_")
        names = {"A": "lora_down.weight", "B": "lora_up.weight", "magnitude_vector": "dora_scale"}
        kept[f"{key}.alpha"] = state[f"{key}.alpha"]
        for part, tensor in parts.items():
            own = state[f"{key}.{names[part]}"]
            kept[f"{key}.{names[part]}"] = tensor.reshape(own.shape).to(own.dtype).contiguous()
        assert {k for k in state if k.startswith(key + ".")} == {
            k for k in kept if k.startswith(key + ".")}
    # One pair: the writer has no order for several.
    save_file(kept, output, {"ss_network_module": "lycoris.kohya"})
    output.chmod(0o644)


def main():
    for name in ("lora", "dora"):
        make_mlx(name, "llama-bf16", SAMPLES / "mlx" / name)
        make_kohya(name, "llama-f32", SAMPLES / "kohya" / f"{name}.safetensors")
    make_kohya("conv-2d-dora", "layers-f32", SAMPLES / "kohya" / "conv-2d-dora.safetensors")


if __name__ == "__main__":
    main()
