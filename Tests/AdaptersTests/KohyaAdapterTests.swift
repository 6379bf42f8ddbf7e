import Files
import Fixtures
import Tensors
import Testing

@testable import Adapters

/// What kohya's form has of its own: names, alpha, and DoRA's scale.
@Suite struct KohyaAdapterTests {
  private let conversions: Conversions
  private var scratch: Scratch { conversions.scratch }

  init() throws { conversions = try Conversions() }

  private func pair(_ name: String, alpha: Values? = nil) -> [Values] {
    [Values("\(name).lora_down.weight", [2, 4]), Values("\(name).lora_up.weight", [3, 2])]
      + (alpha.map { [$0] } ?? [])
  }

  private func refusal(
    _ tensors: [Values], base: String? = nil, prefix: String? = nil
  ) throws -> String {
    try conversions.refusal(
      scratch.write("k.safetensors", tensors), to: .peft, base: base, prefix: prefix)
  }

  private let q = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"

  @Test func kohyaKeepsTheBytes() throws {
    let values = pair(q, alpha: Values("\(q).alpha", [], [1]))
    let out = try conversions.convert(scratch.write("k.safetensors", values), to: .peft).path
    let module = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj"
    let tensors = try conversions.tensors(out)
    #expect(tensors["\(module).lora_A.weight"]?.values == values[0].values.map(Double.init))
    #expect(tensors["\(module).lora_B.weight"]?.values == values[1].values.map(Double.init))
    let config = try AdapterConfiguration(conversions.config(out))
    #expect(config.rank == 2 && config.alpha == 1)
    let back = try conversions.convert(out, to: .kohya, output: "back").path
    for value in values {
      #expect(
        try conversions.tensors(back)[value.name]?.values == value.values.map(Double.init))
    }
  }

  @Test(arguments: [nil, Values("x", [], [0])])
  func anAlphaThatIsNotThereIsTheRank(alpha: Values?) throws {
    let tensors = pair(q, alpha: alpha.map { Values("\(q).alpha", [], $0.values) })
    let out = try conversions.convert(scratch.write("k.safetensors", tensors), to: .peft).path
    #expect(try AdapterConfiguration(conversions.config(out)).alpha == 2)
  }

  @Test func anAlphaOfZeroCannotBeWritten() throws {
    let adapter = try scratch.writeAdapter(
      fields: #""r": 2, "lora_alpha": 0"#,
      [
        Values("base_model.model.a.lora_A.weight", [2, 4]),
        Values("base_model.model.a.lora_B.weight", [3, 2]),
      ])
    #expect(try conversions.refusal(adapter, to: .kohya).contains("takes for the rank"))
  }

  @Test func aScaleOfEachInputIsRefused() throws {
    #expect(
      try refusal(pair(q) + [Values("\(q).dora_scale", [1, 4])]).contains("of each input"))
    let out = try conversions.convert(
      scratch.write("k.safetensors", pair(q) + [Values("\(q).dora_scale", [3, 1])]), to: .peft
    ).path
    #expect(try AdapterConfiguration(conversions.config(out)).usesDoRA)
  }

  @Test(arguments: [
    ("hada_w1_a", "LoHa"), ("lokr_w1", "LoKr"), ("lora_mid.weight", "Tucker"),
    ("oft_blocks", "OFT"), ("diff", "whole differences"),
  ])
  func otherMethodsAreRefusedByName(part: String, method: String) throws {
    let found = try refusal(pair(q) + [Values("\(q).\(part)", [2, 2])])
    #expect(found.contains("'\(q).\(part)': is of \(method)"), "\(found)")
  }

  @Test func magnitudesAreOfAllModulesOrNone() throws {
    let other = q.replacing("q_proj", with: "v_proj")
    let found = try refusal(pair(q) + [Values("\(q).dora_scale", [3, 1])] + pair(other))
    #expect(found.contains("expected it of all modules or of none"), "\(found)")
  }

  @Test func brokenPairsAreRefused() throws {
    #expect(try refusal([pair(q)[0]]).contains("not both lora_down and lora_up"))
    #expect(
      try refusal(pair(q) + [Values("\(q).alpha", [2])]).contains("expected one number"))
    #expect(
      try refusal(pair(q) + [Values("\(q).dora_scale", [3, 1], dtype: .i64)])
        .contains("is I64, expected F64"))
    #expect(try refusal(pair(q) + [Values("\(q).bias", [2])]).contains("no key of kohya's"))
    #expect(
      try refusal([
        Values("\(q).lora_down.weight", [2, 4]), Values("\(q).lora_up.weight", [3, 3]),
      ])
      .contains("does not fit"))
  }

  @Test(arguments: [
    (
      "text_model_encoder_layers_11_self_attn_out_proj",
      "text_model.encoder.layers.11.self_attn.out_proj"
    ),
    (
      "down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_out_0",
      "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0"
    ),
    ("mid_block_resnets_0_conv_shortcut", "mid_block.resnets.0.conv_shortcut"),
    ("up_blocks_3_ff_net_0_proj", "up_blocks.3.ff.net.0.proj"),
    ("model_layers_31_mlp_gate_proj", "model.layers.31.mlp.gate_proj"), ("lm_head", "lm_head"),
    ("transformer_h_0_attn_c_attn", "transformer.h.0.attn.c_attn"), ("img_attn_qkv", nil),
    ("", nil), ("_", nil), ("model__mlp", nil), ("model_layers_1_self_attn_", nil),
    (String(repeating: "h_", count: 100) + "h", nil),
  ])
  func namesAreReadByKnownWords(name: String, path: String?) {
    #expect(KohyaNames.unflatten(name) == path)
  }

  @Test func aBaseTellsNames() throws {
    let name = "lycoris_img_in_to_out"
    #expect(try refusal(pair(name)).contains("--base MODEL"))
    let base = try scratch.writeModel([Values("img_in.to.out.weight", [3, 4])])
    let out = try conversions.convert(
      scratch.write("k.safetensors", pair(name)), to: .peft, base: base
    ).path
    #expect(
      try conversions.tensors(out)["base_model.model.img_in.to.out.lora_A.weight"] != nil)
    #expect(
      try refusal(pair("lycoris_img_in_to_in"), base: base)
        .contains("nearest: img_in.to.out.weight"))
  }

  @Test func aNameThatFitsTwoModulesIsRefused() throws {
    let base = try scratch.writeModel([
      Values("a_b.weight", [3, 4]), Values("a.b.weight", [3, 4]),
    ])
    #expect(try refusal(pair("lycoris_a_b"), base: base).contains("may be any of a_b, a.b"))
  }

  @Test func twoPathsWithOneNameAreRefused() throws {
    let adapter = try scratch.writeAdapter(
      ["a.b", "a_b"].flatMap {
        [
          Values("base_model.model.\($0).lora_A.weight", [2, 4]),
          Values("base_model.model.\($0).lora_B.weight", [3, 2]),
        ]
      })
    #expect(try conversions.refusal(adapter, to: .kohya).contains("have one name"))
  }

  @Test func ofSeveralNetworksThePrefixChooses() throws {
    let unet = "lora_unet_mid_block_attentions_0_proj_in"
    let both = pair(q) + pair(unet)
    #expect(try refusal(both).contains("2 networks, lora_te, lora_unet: --prefix chooses one"))
    #expect(try refusal(both, prefix: "lora_te3").contains("begins with lora_te3_"))
    #expect(try refusal(pair("net_mlp")).contains("no known prefix"))
    let (out, notes) = try conversions.convert(
      scratch.write("k.safetensors", both), to: .peft, prefix: "lora_unet")
    #expect(
      try conversions.tensors(out).keys.sorted() == [
        "base_model.model.mid_block.attentions.0.proj_in.lora_A.weight",
        "base_model.model.mid_block.attentions.0.proj_in.lora_B.weight",
      ])
    #expect(notes.count == 1 && notes[0].contains(": 1 of 2 modules"), "\(notes)")
  }

  @Test(arguments: [
    ("text_model.encoder.layers.0.mlp.fc1", "lora_te"), ("up_blocks.0.conv1", "lora_unet"),
    ("model.layers.0.mlp.up_proj", "lycoris"),
  ])
  func prefixesFollowTheModel(path: String, prefix: String) {
    #expect(KohyaNames.defaultPrefix(for: [path]) == prefix)
  }
}
