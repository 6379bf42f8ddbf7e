#!/usr/bin/env python3
"""Makes the bases, adapters, merged models and sums of this folder anew, the same bytes each time.

usage: make_golden.py [--out FOLDER] [CASE ... | combined]     (in the environment of Tests/Interop)
"""

import argparse
import json
import os
import pathlib
import shutil
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from golden import bases, combinations, formula, peft_cases  # noqa: E402
from golden.cases import CASES  # noqa: E402
from golden.check import check  # noqa: E402


def make_adapter(case, root):
    options = dict(case.options, prepare=case.prepare)
    if case.name == "pissa-converted":
        make_converted(case, root)
        return
    peft_cases.save_adapter(case.name, case.base, case.config(), root, **options)


def make_converted(case, root):
    """A PiSSA adapter saved as one that fits the base as it was."""
    with tempfile.TemporaryDirectory() as start:
        def keep_start(model):
            model.peft_config["default"].init_lora_weights = True
            model.save_pretrained(start)

        peft_cases.save_adapter(
            case.name, case.base, case.config(), root, before=keep_start,
            save=dict(path_initial_model_for_weight_conversion=start))


def right_tensors(case, root):
    """The merged tensors and what the configuration must say, and a check of one source by the
    other."""
    paths = [root / "adapters" / name for name in case.adapters]
    results = formula.merge(
        root / "bases" / case.base, paths, case.weights, rounding=case.rounding)
    expected = dict(case.expected)
    if case.right == "formula":
        tensors = {
            name: formula.round_once(result.values, result.dtype).contiguous()
            for name, result in results.items()
        }
        return tensors, expected
    tensors, config = peft_cases.merge_with_peft(
        case.base, paths, root, prepare=case.prepare, safe=case.rounding == "peft-safe")
    base_config = json.loads((root / "bases" / case.base / "config.json").read_text())
    for key in peft_cases.CONFIG_KEYS:
        if key in config and config[key] != base_config.get(key):
            expected[key] = config[key]
    problems = check(results, tensors)
    if problems:
        print("\n  ".join([f"{case.name}: PEFT and the formula differ", *problems]))
    return tensors, expected


def save_merged(case, tensors, root):
    """Writes what differs from the base, or all of it. Returns what the index says of it."""
    base = bases.read_tensors(root / "bases" / case.base)
    removed = sorted(set(base) - set(tensors))

    def is_same(name, tensor):
        other = base.get(name)
        return other is not None and other.dtype == tensor.dtype and (
            other.shape == tensor.shape
            and torch.equal(other.contiguous().view(torch.uint8),
                            tensor.contiguous().view(torch.uint8)))

    kept = {
        name: tensor.contiguous() for name, tensor in sorted(tensors.items())
        if case.complete or not is_same(name, tensor)
    }
    save_file(kept, root / "merged" / f"{case.name}.safetensors", metadata={"format": "pt"})
    entry = {"unchanged": "none" if case.complete else "base"}
    return entry | ({"removed": removed} if removed else {})


def entry(case):
    flags = list(case.flags)
    if case.rounding != "once":
        flags += ["--rounding", case.rounding]
    return {
        "case": case.name,
        "base": case.base,
        "adapters": case.adapters,
        "weights": case.weights,
        "right": case.right,
        "flags": flags,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    parser.add_argument("cases", nargs="*", help="only these, of bases that are there")
    arguments = parser.parse_args()
    root, chosen = arguments.out.resolve(), arguments.cases
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    if not chosen:
        for folder in ("bases", "adapters", "merged"):
            shutil.rmtree(root / folder, ignore_errors=True)
        for name in bases.NAMES:
            bases.make(name, root / "bases")
    (root / "merged").mkdir(exist_ok=True)
    path = root / "merged" / "index.json"
    old = {e["case"]: e for e in json.loads(path.read_text())} if path.exists() else {}
    for case in CASES:
        if case.config and (not chosen or case.name in chosen):
            make_adapter(case, root)
    index = []
    for case in CASES:
        if chosen and case.name not in chosen:
            index += [old[case.name]] if case.name in old else []
            continue
        item = entry(case)
        if case.error:
            item |= {"right": "refusal", "error": case.error}
        else:
            tensors, expected = right_tensors(case, root)
            item |= save_merged(case, tensors, root)
            if expected:
                item["config"] = expected
        index.append(item)
        print(case.name, flush=True)
    path.write_text(json.dumps(index, indent=1) + "\n")
    if not chosen or "combined" in chosen:
        combinations.make(root)
    for folder in ("bases", "adapters", "merged", "combined"):
        for file in (root / folder).rglob("*.safetensors"):
            file.chmod(0o644)


if __name__ == "__main__":
    main()
