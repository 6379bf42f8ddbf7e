"""New random adapters from real PEFT, merged by peftool, loaded by transformers: what comes out of
the model must be what PEFT's own comes to, with the adapter beside the weights and merged."""

import dataclasses
import json
import pathlib
import shutil
import warnings

import pytest
import torch
from peft import AdaLoraConfig, IA3Config, PeftModel, TrainableTokensConfig
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from conftest import SAMPLES
from golden import bases, cases, formula, peft_cases
from golden.peft_cases import ALL, lora

# Of outputs of about 1.
LARGEST_ERROR = 1e-4


def names(entries):
    return [case.name for case in entries]


def outputs(model, base):
    """What the model makes of every token, or of a random picture."""
    model.eval()
    with torch.no_grad():
        if base == "layers-f32":
            return model(torch.randn(2, 6, 5, 8, generator=torch.Generator().manual_seed(0)))
        vocabulary = model.get_input_embeddings().weight.shape[0]
        ids = torch.arange(-(-vocabulary // 16) * 16) % vocabulary
        return model(ids.view(-1, 16)).logits


def load_merged(folder, base):
    if base == "layers-f32":
        model = bases.Layers()
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    return model


def load_peft(base, adapters, prepare=None, root=SAMPLES):
    model = bases.load(base, root / "bases", torch.float32)
    if prepare:
        prepare(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = PeftModel.from_pretrained(model, adapters[0], adapter_name="a0")
        for index, adapter in enumerate(adapters[1:], 1):
            peft.load_adapter(adapter, adapter_name=f"a{index}")
    return peft


def assert_near(found, right):
    assert found.shape == right.shape
    assert torch.isfinite(found).all()
    assert right.abs().max() > 0.1, "outputs too small to tell anything"
    assert (found - right).abs().max() <= LARGEST_ERROR


def merged_outputs(peftool, base, adapters, output, *flags, weights=None, root=SAMPLES):
    peftool.merge(root / "bases" / base, adapters, output, "--dtype", "F32", *flags,
                  weights=weights)
    return outputs(load_merged(output, base), base)


def merged_by_peft(base, adapter):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
        return PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()


def save(case, folder, seed="live"):
    return peft_cases.save_adapter(
        case.name, case.base, case.config(), SAMPLES, folder=folder, seed=f"{seed} {case.name}",
        prepare=case.prepare, **case.options)


def check_live(peftool, tmp_path, case, *flags):
    adapter = save(case, tmp_path / "adapter")
    found = merged_outputs(peftool, case.base, [adapter], tmp_path / "merged", *flags)
    peft = load_peft(case.base, [adapter], case.prepare)
    right = outputs(peft, case.base)
    plain = bases.load(case.base, SAMPLES / "bases", torch.float32)
    if case.prepare:
        case.prepare(plain)
    before = outputs(plain, case.base)
    assert (right - before).abs().max() > 10 * LARGEST_ERROR, "the adapter does nothing"
    assert_near(found, right)
    assert_config_follows(tmp_path / "merged", case.base)
    if case.right == "peft":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_near(found, outputs(peft.merge_and_unload(), case.base))


def assert_config_follows(folder, base):
    """Whoever loads the model as its configuration says gets the same."""
    config = json.loads((folder / "config.json").read_text())
    before = json.loads((SAMPLES / "bases" / base / "config.json").read_text())
    if "dtype" in before:
        assert config["dtype"] == "float32"
    if before.get("tie_word_embeddings", base == "gpt2-f32"):
        is_tied = "lm_head.weight" not in bases.read_tensors(folder)
        assert config.get("tie_word_embeddings", base == "gpt2-f32") == is_tied


GOLDEN = [
    case for case in cases.CASES
    if case.config and not case.error and case.name != "pissa-converted"
]


@pytest.mark.parametrize("case", GOLDEN, ids=names(GOLDEN))
def test_golden_case_with_other_values(peftool, tmp_path, case):
    check_live(peftool, tmp_path, case)


def live(name, base, config, **kw):
    return cases.Case(name, base, config, **kw)


def resize_tied(model):
    model.resize_token_embeddings(96)


MORE = [
    live("all linear", "llama-f32", lambda: lora("all-linear", r=7, alpha=3)),
    live("rank 1", "llama-f32", lambda: lora(ALL, r=1)),
    live("rank beyond the sizes", "llama-f32", lambda: lora(ALL, r=96)),
    live("dialect of patterns", "llama-f32",
         lambda: lora(ALL, alpha_pattern={
             r"(?P<which>q)_proj": 3, r"[vx]_proj|k_proj": 5,
             r"model\.layers\.0.*\.(?:up|down)_proj": 7,
             r"(?!.*gate)\w+\.o_proj": 2, r"^model\.layers\.1\.mlp\.gate_proj": 11, "gate": 99,
             r"layers.\d+.mlp.up_proj\Z": 6})),
    live("one layer", "llama-f32", lambda: lora(ALL, layers_to_transform=[1])),
    live("target as a regex", "llama-f32", lambda: lora(r".*\.0\..*(up|down)_proj")),
    live("dora with patterns", "llama-f32",
         lambda: lora(ALL, use_dora=True, rank_pattern={"up_proj": 9},
                      alpha_pattern={"o_proj": 1})),
    live("everything", "llama-f32",
         lambda: lora(["q_proj", "embed_tokens"], use_dora=True,
                      modules_to_save=["lm_head", "norm"], rank_pattern={"embed_tokens": 2})),
    live("bias and modules", "qwen2-f32",
         lambda: lora(["q_proj", "v_proj"], bias="all", modules_to_save=["mlp"])),
    live("dora with biases", "qwen2-f32",
         lambda: lora(["q_proj", "v_proj"], use_dora=True, bias="lora_only")),
    live("gpt2 biases", "gpt2-f32", lambda: lora(["c_attn", "mlp.c_proj"], bias="all")),
    live("gpt2 lora_bias", "gpt2-f32", lambda: lora(["c_attn", "mlp.c_proj"], lora_bias=True)),
    live("gpt2 embeddings", "gpt2-f32", lambda: lora(["wpe", "c_fc"])),
    live("gpt2 tied embedding", "gpt2-f32", lambda: lora(["wte"]), right="formula"),
    live("tied dora embedding", "llama-tied-f32",
         lambda: lora(["embed_tokens"], use_dora=True), right="formula"),
    live("tied dora lm_head", "llama-tied-f32", lambda: lora(["lm_head"], use_dora=True),
         right="formula"),
    live("tied saved embedding", "llama-tied-f32",
         lambda: lora(["q_proj"], modules_to_save=["embed_tokens"]), right="formula"),
    live("tied saved embedding, shared", "llama-tied-f32",
         lambda: lora(["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True),
         right="formula"),
    live("tied saved both", "llama-tied-f32",
         lambda: lora(["q_proj"], modules_to_save=["embed_tokens", "lm_head"]), right="formula"),
    live("tokens and dora", "llama-f32",
         lambda: lora(["v_proj"], use_dora=True, trainable_token_indices=[3])),
    live("tokens and modules", "llama-f32",
         lambda: lora(["v_proj"], trainable_token_indices=[3, 50], modules_to_save=["lm_head"])),
    live("tokens alone", "llama-f32",
         lambda: TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=[9, 2])),
    live("tokens alone, tied", "llama-tied-f32",
         lambda: TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=[9, 2])),
    live("experts, one parameter", "gpt-oss-f32",
         lambda: lora([], target_parameters=["mlp.experts.down_proj"])),
    live("experts, rank pattern", "mixtral-bf16",
         lambda: lora([], target_parameters=cases.EXPERTS,
                      rank_pattern={r".*experts\.gate_up_proj": 2})),
    live("experts, rslora", "gpt-oss-f32",
         lambda: lora(["v_proj"], use_rslora=True, target_parameters=cases.EXPERTS)),
    live("router", "gpt-oss-f32", lambda: lora([], target_parameters=["router.weight"])),
    live("untied lm_head", "llama-f32", lambda: lora(["lm_head", "o_proj"], use_dora=True)),
    live("resized, tied", "llama-tied-f32", lambda: lora(["q_proj"]), prepare=resize_tied,
         right="formula", options=dict(save=dict(save_embedding_layers=True))),
    live("resized, saved", "llama-f32",
         lambda: lora(["q_proj"], modules_to_save=["embed_tokens", "lm_head"]),
         prepare=cases.resize),
    live("resized, embedding", "llama-f32",
         lambda: lora(["q_proj", "embed_tokens", "lm_head"]), prepare=cases.resize,
         options=dict(save=dict(save_embedding_layers=True))),
    live("f16 file", "llama-f32", lambda: lora(ALL, use_dora=True),
         options=dict(tensors=lambda ts: {k: v.to(torch.float16) for k, v in ts.items()})),
    live("ia3, regex", "gpt2-f32",
         lambda: IA3Config(target_modules=r".*(c_attn|mlp\.c_proj)", fan_in_fan_out=True,
                           feedforward_modules=r".*mlp\.c_proj", modules_to_save=["ln_f"])),
    live("replication, dora", "llama-f32",
         lambda: lora(ALL, use_dora=True, layer_replication=[[0, 1], [0, 2], [1, 2]]),
         right="formula"),
    live("adalora on all", "qwen2-f32",
         lambda: AdaLoraConfig(init_r=5, total_step=10, lora_alpha=3, target_modules=ALL)),
    live("ia3 on all", "llama-f32",
         lambda: IA3Config(target_modules=ALL, feedforward_modules=["up_proj", "down_proj"])),
]


@pytest.mark.parametrize("case", MORE, ids=names(MORE))
def test_more(peftool, tmp_path, case):
    check_live(peftool, tmp_path, case)


def two_loras(tmp_path):
    first = live("first", "llama-f32", lambda: lora(["q_proj", "v_proj", "down_proj"]))
    second = live("second", "llama-f32", lambda: lora(["q_proj", "up_proj"], r=3, alpha=9))
    return [save(first, tmp_path / "first"), save(second, tmp_path / "second")]


def test_weights_are_those_of_pefts_cat(peftool, tmp_path):
    adapters = two_loras(tmp_path)
    weights = [0.7, -0.5]
    found = merged_outputs(peftool, "llama-f32", adapters, tmp_path / "merged", weights=weights)
    peft = load_peft("llama-f32", adapters)
    peft.add_weighted_adapter(["a0", "a1"], weights, "sum", combination_type="cat")
    peft.set_adapter("sum")
    assert_near(found, outputs(peft, "llama-f32"))


WEIGHTED = {
    "full values": ("llama-f32", [
        lambda: lora(["q_proj"], modules_to_save=["lm_head", "norm"]),
        lambda: lora(["q_proj", "embed_tokens"], use_dora=True),
        lambda: lora(["v_proj"], trainable_token_indices=[4, 9]),
    ]),
    "biases": ("qwen2-f32", [
        lambda: lora(["q_proj"], bias="all"),
        lambda: lora(["q_proj", "v_proj"], lora_bias=True),
        lambda: IA3Config(target_modules=["k_proj", "v_proj", "down_proj"],
                          feedforward_modules=["down_proj"]),
    ]),
    "tied ends": ("llama-tied-f32", [
        lambda: lora(["embed_tokens"]),
        lambda: lora(["lm_head"], use_dora=True),
        lambda: lora(["q_proj"], trainable_token_indices=[4, 9]),
    ]),
    "bf16": ("llama-bf16", [
        lambda: lora(["embed_tokens", "q_proj"]),
        lambda: lora(["embed_tokens", "q_proj"], use_dora=True),
        lambda: AdaLoraConfig(init_r=5, total_step=10, target_modules=["q_proj"]),
    ]),
    "gpt2": ("gpt2-f32", [
        lambda: lora(cases.GPT2, use_dora=True, fan_in_fan_out=True),
        lambda: lora(["c_attn"], fan_in_fan_out=True),
        lambda: lora(["wpe", "c_fc"], fan_in_fan_out=True),
    ]),
}


@pytest.mark.parametrize("name", list(WEIGHTED))
def test_a_weight_multiplies_the_whole_change(peftool, tmp_path, name):
    from test_golden import assert_gates

    base, configs = WEIGHTED[name]
    adapters = [
        save(live(f"{name} {index}", base, config), tmp_path / f"{index}")
        for index, config in enumerate(configs)
    ]
    weights = [0.7, -0.5, 0.25]
    path = SAMPLES / "bases" / base
    peftool.merge(path, adapters, tmp_path / "merged", weights=weights)
    results = formula.merge(path, adapters, weights)
    right = {key: formula.round_once(r.values, r.dtype) for key, r in results.items()}
    found = bases.read_tensors(tmp_path / "merged")
    assert set(found) == set(right)
    assert_gates(None, found, right, results)


@pytest.mark.parametrize("rounding", ["peft", "peft-safe"])
@pytest.mark.parametrize("use_dora", [False, True])
def test_one_adapter_after_another(peftool, tmp_path, rounding, use_dora):
    adapters = two_loras(tmp_path)
    if use_dora:
        third = live("third", "llama-f32", lambda: lora(["q_proj", "up_proj"], use_dora=True))
        adapters.append(save(third, tmp_path / "third"))
    found = merged_outputs(
        peftool, "llama-f32", adapters, tmp_path / "merged", "--rounding", rounding)
    peft = load_peft("llama-f32", adapters)
    merged = peft.merge_and_unload(
        safe_merge=rounding == "peft-safe",
        adapter_names=[f"a{index}" for index in range(len(adapters))])
    assert_near(found, outputs(merged, "llama-f32"))


def test_pissa_converted(peftool, tmp_path):
    case = live("pissa", "llama-f32", lambda: lora(ALL, init_lora_weights="pissa_niter_2"))
    start = tmp_path / "start"

    def keep_start(model):
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(start)

    adapter = peft_cases.save_adapter(
        case.name, case.base, case.config(), SAMPLES, folder=tmp_path / "adapter",
        before=keep_start, save=dict(path_initial_model_for_weight_conversion=start))
    found = merged_outputs(peftool, case.base, [adapter], tmp_path / "merged")
    assert_near(found, outputs(load_peft(case.base, [adapter]), case.base))


def test_adalora_with_ranks_taken_away(peftool, tmp_path):
    """PEFT saves only the ranks that are left; the scale stays that of the ranks at the start."""
    case = live("adalora", "llama-f32", lambda: AdaLoraConfig(
        init_r=6, target_r=2, tinit=1, tfinal=1, deltaT=1, total_step=4, lora_alpha=8,
        target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(0)
    from peft import get_peft_model

    model = get_peft_model(bases.load(case.base, SAMPLES / "bases"), case.config())
    peft_cases.randomize(model, "adalora")
    ids = torch.arange(64).view(4, 16)
    for step in range(1, 4):
        model(input_ids=ids, labels=ids).loss.backward()
        model.base_model.update_and_allocate(step)
        model.zero_grad()
    adapter = tmp_path / "adapter"
    model.save_pretrained(adapter)
    peft_cases.tidy(adapter, case.base)
    assert json.loads((adapter / "adapter_config.json").read_text())["rank_pattern"]
    found = merged_outputs(peftool, case.base, [adapter], tmp_path / "merged")
    assert_near(found, outputs(load_peft(case.base, [adapter]), case.base))


# PEFT makes target_parameters of "all-linear", where it finds experts.
FAMILIES = {
    "qwen3_moe": (dict(num_experts=3, num_experts_per_tok=2, moe_intermediate_size=20, head_dim=6),
                  lambda: lora(["q_proj"], target_parameters=cases.EXPERTS)),
    "olmoe": (dict(num_experts=3, num_experts_per_tok=2), lambda: lora("all-linear")),
    "granitemoe": (dict(num_local_experts=3), lambda: lora("all-linear")),
    "gpt_neox": ({}, lambda: lora("all-linear", use_dora=True)),
    "openai-gpt": (dict(n_embd=24, n_layer=1, n_head=4, n_positions=64),
                   lambda: lora("all-linear", use_dora=True)),
    "bloom": ({}, lambda: lora(["query_key_value", "word_embeddings"])),
    "phi3": (dict(pad_token_id=0), lambda: lora("all-linear", lora_bias=False, bias="all")),
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_other_families(peftool, tmp_path, family):
    options, config = FAMILIES[family]
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **bases.SMALL, **options), dtype=torch.float32)
    bases.fill(model, family)
    model.save_pretrained(tmp_path / "bases" / family)
    adapter = peft_cases.save_adapter("live", family, config(), tmp_path)
    found = merged_outputs(peftool, family, [adapter], tmp_path / "merged", root=tmp_path)
    assert_near(found, outputs(load_peft(family, [adapter], root=tmp_path), family))


def test_experts_of_transformers_4(peftool, tmp_path):
    """One adapter for each expert's layers, which PEFT turns into one for the fused parameters."""
    folder = tmp_path / "adapter"
    shutil.copytree(SAMPLES / "adapters/target-parameters-unfused", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= dict(target_modules=["w1", "w2", "w3"], target_parameters=None, peft_version="0.18.0")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    source = bases.generator("transformers 4")
    tensors = {}
    for expert in range(3):
        for part, (inputs, rows) in {"w1": (24, 20), "w2": (20, 24), "w3": (24, 20)}.items():
            module = f"base_model.model.model.layers.0.block_sparse_moe.experts.{expert}.{part}"
            tensors[f"{module}.lora_A.weight"] = bases.normal(source, (4, inputs), 0.2)
            tensors[f"{module}.lora_B.weight"] = bases.normal(source, (rows, 4), 0.1)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    found = merged_outputs(peftool, "mixtral-bf16", [folder], tmp_path / "merged")
    assert_near(found, outputs(load_peft("mixtral-bf16", [folder]), "mixtral-bf16"))


def test_an_adapter_with_a_name_lies_in_a_folder(peftool, tmp_path):
    case = live("named", "llama-f32", lambda: lora(ALL))
    plain = save(case, tmp_path / "plain")
    (tmp_path / "outer").mkdir()
    shutil.copytree(plain, tmp_path / "outer/named")
    peftool.merge(SAMPLES / "bases/llama-f32", [plain], tmp_path / "a")
    peftool.merge(SAMPLES / "bases/llama-f32", [tmp_path / "outer"], tmp_path / "b")
    peftool.merge(
        SAMPLES / "bases/llama-f32", [plain / "adapter_model.safetensors"], tmp_path / "c")
    right = (tmp_path / "a/model.safetensors").read_bytes()
    assert (tmp_path / "b/model.safetensors").read_bytes() == right
    assert (tmp_path / "c/model.safetensors").read_bytes() == right


def test_another_prefix_can_be_mapped(peftool, tmp_path):
    case = live("prefix", "llama-f32", lambda: lora(ALL))
    plain = save(case, tmp_path / "plain")
    other = pathlib.Path(shutil.copytree(plain, tmp_path / "other"))
    tensors = load_file(other / "adapter_model.safetensors")
    renamed = {
        "outer.text." + key.removeprefix("base_model.model."): value
        for key, value in tensors.items()
    }
    save_file(renamed, other / "adapter_model.safetensors", metadata={"format": "pt"})
    base = SAMPLES / "bases/llama-f32"
    refused = peftool.run("merge", base, other, "-o", tmp_path / "no")
    assert refused.returncode == 2 and "--key-prefix" in refused.stderr
    peftool.merge(base, [plain], tmp_path / "a")
    peftool.merge(base, [other], tmp_path / "b", "--key-prefix", "outer.text.=base_model.model.")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (
        tmp_path / "b/model.safetensors").read_bytes()


def test_a_key_that_matches_nothing_is_refused(peftool, tmp_path):
    """PEFT passes it over without a word."""
    case = live("stray", "llama-f32", lambda: lora(ALL))
    adapter = save(case, tmp_path / "adapter")
    path = adapter / "adapter_model.safetensors"
    tensors = {k.replace("layers.1.", "layers.7."): v for k, v in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    done = peftool.run("merge", SAMPLES / "bases/llama-f32", adapter, "-o", tmp_path / "merged")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "layers.7." in done.stderr and "nearest" in done.stderr


def test_scaled_f8_is_refused(peftool, tmp_path):
    """Whatever the configuration says or leaves out."""
    base = tmp_path / "base"
    shutil.copytree(SAMPLES / "bases/llama-f8", base)
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file(tensors | {name + "_scale_inv": torch.ones(1, 1)}, base / "model.safetensors",
              metadata={"format": "pt"})
    done = peftool.run("merge", base, SAMPLES / "adapters/task-a", "-o", tmp_path / "merged")
    assert done.returncode == 2 and name in done.stderr and "scaled" in done.stderr


def test_a_row_of_no_length_is_refused(peftool, tmp_path):
    """DoRA divides by it; PEFT writes NaN."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(SAMPLES / "bases/llama-f32", base)
    shutil.copytree(SAMPLES / "adapters/dora-rslora", adapter)
    module = "model.layers.1.mlp.up_proj"
    for path, name in ((base / "model.safetensors", module + ".weight"),
                       (adapter / "adapter_model.safetensors",
                        f"base_model.model.{module}.lora_B.weight")):
        tensors = load_file(path)
        tensors[name][5] = 0
        save_file(tensors, path, metadata={"format": "pt"})
    done = peftool.run("merge", base, adapter, "-o", tmp_path / "merged")
    assert done.returncode == 2 and module in done.stderr and "row 5" in done.stderr
    assert not (tmp_path / "merged").exists()
    summary = peftool.merge(base, [adapter], tmp_path / "merged", "--allow-nonfinite")
    assert summary["nonfinite"] == 40
    found = bases.read_tensors(tmp_path / "merged")[module + ".weight"]
    right = merged_by_peft(base, adapter)[module + ".weight"]
    assert torch.isnan(found[5]).all() and torch.isnan(right[5]).all()


def test_inits_that_change_the_base_are_refused(peftool, tmp_path):
    for init in ("olora", "pissa", "pissa_niter_4"):
        case = live(init, "llama-f32", lambda: lora(["q_proj"], init_lora_weights=init))
        adapter = save(case, tmp_path / init)
        done = peftool.run("merge", SAMPLES / "bases/llama-f32", adapter, "-o", tmp_path / "merged")
        assert done.returncode == 2 and init.split("_")[0] in done.stderr.lower()
        assert "--allow-mutated-base" in done.stderr


def test_sixteen_bits_live(peftool, tmp_path):
    """A bf16 merge with other values, element by element, with PEFT's and with the formula."""
    from test_golden import assert_gates

    for name in ("lora", "dora", "rslora-patterns", "embedding"):
        case = dataclasses.replace(next(c for c in cases.CASES if c.name == name))
        adapter = save(case, tmp_path / name / "adapter", seed="sixteen")
        output = tmp_path / name / "merged"
        base = SAMPLES / "bases" / case.base
        peftool.merge(base, [adapter], output)
        right, _ = peft_cases.merge_with_peft(case.base, [adapter], SAMPLES)
        assert_gates(None, bases.read_tensors(output), right, formula.merge(base, [adapter]))
