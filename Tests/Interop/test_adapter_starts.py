"""finetune beside PEFT, step for step: starts from the weight, and adapters it goes on with."""

import json
import warnings

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from conftest import SAMPLES

BASE = SAMPLES / "training/bases/llama3-f32"
STEPS = 6
RATE = 5e-3
ROWS, LENGTH = 4, 20
OPTIONS = ["--max-steps", STEPS, "--batch-size", ROWS, "--learning-rate", RATE,
           "--schedule", "constant", "--quiet"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Rows of tokens that are one batch, so that their order counts for nothing."""
    vocabulary = json.loads((BASE / "config.json").read_text())["vocab_size"]
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, vocabulary, (ROWS, LENGTH), generator=generator)
    path = tmp_path_factory.mktemp("data") / "train.safetensors"
    save_file({"input_ids": ids.to(torch.int32)}, path)
    return path, ids


def load_base(folder=BASE):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager")


def train(model, ids):
    """torch's losses of some steps."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    losses = []
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def run_losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def load_adapter(folder, base=None):
    """PEFT's model of a base and a saved adapter; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # PEFT's own merge puts no bias where there is none.
        warnings.filterwarnings("ignore", message=".*`lora_bias=True` was passed but")
        return peft.PeftModel.from_pretrained(base or load_base(), folder).eval()


def assert_close(found, expected, tolerance):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert abs(one - other) < tolerance * abs(other), (found, expected)


def linear_weights(model):
    return {name: tensor for name, tensor in model.state_dict().items()
            if tensor.dim() == 2 and "proj" in name}


def assert_same_change(found, expected, base):
    """Merged weights that differ by little of what training has changed."""
    for name, weight in linear_weights(base).items():
        change = (expected[name] - weight).norm()
        assert (found[name] - expected[name]).norm() < 1e-3 * change, name


@pytest.mark.parametrize("start", ["pissa", "olora"])
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_starts_from_the_weight_train_as_in_peft(peftool, tmp_path, data, start, options):
    path, ids = data
    flags = [{"use_rslora": "--rslora", "use_dora": "--dora"}[name] for name in options]
    peftool.check("finetune", BASE, "--data", path, "-o", tmp_path / "out", "--rank", 4,
                  "--alpha", 12, "--init", start, *flags, *OPTIONS)
    model = peft.get_peft_model(load_base(), peft.LoraConfig(
        r=4, lora_alpha=12, target_modules="all-linear", init_lora_weights=start, **options))
    losses = train(model, ids)
    assert_close(run_losses(tmp_path / "out"), losses, 1e-4)

    # What is saved fits the base as it is, which PEFT's would not.
    merged = load_adapter(tmp_path / "out").merge_and_unload().state_dict()
    assert_same_change(merged, model.merge_and_unload().state_dict(), load_base())
    peftool.merge(BASE, [tmp_path / "out"], tmp_path / "merged")
    ours = load_file(tmp_path / "merged/model.safetensors")
    assert_same_change(ours, merged, load_base())


@pytest.mark.parametrize("options", [
    ["--lora-bias"], ["--dora", "--dropout", "0.2"], ["--dropout", "0.5"],
    ["--rank-pattern", "q_proj=2", "--rank-pattern", r"layers\.0\..*v_proj=7",
     "--alpha-pattern", "k_proj=3"],
    ["--init", "gaussian", "--rslora"],
])
def test_what_is_saved_is_what_was_trained(peftool, tmp_path, data, options):
    path, ids = data
    done = json.loads(peftool.check(
        "finetune", BASE, "--data", path, "--eval-data", path, "-o", tmp_path / "out", "--rank",
        4, "--json", *OPTIONS, *options))
    model = load_adapter(tmp_path / "out")
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert_close([done["bestLoss"]], [loss], 1e-5)
    assert done["bestLoss"] < done["evaluations"][0]["loss"]


def test_loftq_fits_the_quantized_base(peftool, tmp_path, data):
    path, ids = data
    peftool.check("quantize", BASE, "-o", tmp_path / "nf4")
    peftool.check("dequantize", tmp_path / "nf4", "-o", tmp_path / "base")
    done = {}
    for start in ["default", "loftq"]:
        done[start] = json.loads(peftool.check(
            "finetune", BASE, "--quantize", "nf4", "--data", path, "--eval-data", path,
            "-o", tmp_path / start, "--rank", 8, "--alpha", 24, "--init", start, "--json",
            *OPTIONS))
    model = load_adapter(tmp_path / "loftq", load_base(tmp_path / "base"))
    with torch.no_grad():
        assert_close([done["loftq"]["bestLoss"]],
                     [model(input_ids=ids, labels=ids).loss.item()], 1e-5)
    # It begins nearer to the model that was not quantized.
    whole = load_base()
    with torch.no_grad():
        loss = whole(input_ids=ids, labels=ids).loss.item()
    starts = {name: abs(run["evaluations"][0]["loss"] - loss) for name, run in done.items()}
    assert starts["loftq"] < starts["default"], starts


@pytest.mark.parametrize("options", [
    {}, {"use_dora": True}, {"use_rslora": True, "rank_pattern": {"q_proj": 2}},
    {"alpha_pattern": {"k_proj": 5}, "target_modules": ["k_proj", "up_proj"]},
])
def test_an_adapter_is_gone_on_with(peftool, tmp_path, data, options):
    path, ids = data
    torch.manual_seed(1)
    model = peft.get_peft_model(load_base(), peft.LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear",
           "init_lora_weights": False} | options))
    model.save_pretrained(tmp_path / "begun")
    peftool.check("finetune", BASE, "--adapter", tmp_path / "begun", "--data", path,
                  "-o", tmp_path / "out", *OPTIONS)
    assert_close(run_losses(tmp_path / "out"), train(model, ids), 1e-4)
    begun = load_file(tmp_path / "begun/adapter_model.safetensors")
    found = load_file(tmp_path / "out/adapter_model.safetensors")
    model.save_pretrained(tmp_path / "peft")
    expected = load_file(tmp_path / "peft/adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        change = (tensor - begun[name]).norm()
        assert (found[name] - tensor).norm() < 1e-3 * change, name
    load_adapter(tmp_path / "out")
