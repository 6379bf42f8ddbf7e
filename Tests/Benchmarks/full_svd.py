#!/usr/bin/env python3
"""Times the extraction that mergekit does, a full SVD in torch, on the modules of one layer.

    full_svd.py BASE TUNED [--layer 0] [--rank 16]

For each linear module: the difference of the weights, torch.linalg.svd without the parts of no
use, and the factors of the rank (`mergekit-extract-lora`). Prints the seconds without reading.
Wants torch.
"""

import argparse
import time
from pathlib import Path

import torch
from safetensors import safe_open


def tensors(folder, layer):
    """The linear weights of a layer, in f32."""
    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                if f".layers.{layer}." in name and name.endswith("_proj.weight"):
                    found[name] = file.get_tensor(name).float()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("tuned")
    parser.add_argument("--layer", type=int, default=0)
    parser.add_argument("--rank", type=int, default=16)
    options = parser.parse_args()
    base, tuned = (tensors(folder, options.layer) for folder in (options.base, options.tuned))
    seconds = 0
    for name, weight in base.items():
        started = time.perf_counter()
        u, s, v = torch.linalg.svd(tuned[name] - weight, full_matrices=False)
        root = s[:options.rank].sqrt()
        (u[:, :options.rank] * root).contiguous(), (root[:, None] * v[:options.rank]).contiguous()
        seconds += time.perf_counter() - started
    print(seconds)


if __name__ == "__main__":
    main()
