import Foundation
import Testing

private let model = Repository.sample("bases/llama-bf16")
private let lora = Repository.sample("adapters/lora")
private let dora = Repository.sample("adapters/dora")

/// `inspect --stats` of adapters.
@Suite struct AdapterStatisticsTests {
  /// The words of the first line that begins with a word.
  private func words(_ run: Run, _ first: String) -> [Substring] {
    run.text.split(separator: "\n").map { $0.split(separator: " ") }
      .first { $0.first == first[...] } ?? []
  }

  @Test func updatesAreATable() throws {
    let run = try Workplace().run("inspect", lora, "--stats")
    #expect(run.status == 0 && run.errors == "")
    #expect(
      words(run, "module") == ["module", "rank", "norm", "effective", "stable", "largest", "σ"])
    let line = words(run, "model.layers.1.self_attn.q_proj")
    #expect(line.count == 8 && line[1] == "4")
    #expect(run.text.contains("\nupdates     14 modules: norm "))
    // The table of tensors is there as before.
    #expect(words(run, "tensor").prefix(3) == ["tensor", "min", "max"])
  }

  @Test func withABaseThereAreShares() throws {
    let run = try Workplace().run("inspect", lora, "--stats", "--base", model)
    #expect(words(run, "module").prefix(5) == ["module", "rank", "norm", "of", "base"])
    #expect(run.unfoldedText.contains("% of the weights'"))
    let change = try Workplace().run("inspect", dora, "--stats", "--base", model)
    #expect(
      words(change, "module").prefix(8)
        == ["module", "rank", "norm", "of", "base", "change", "of", "base"])
    #expect(change.unfoldedText.contains(" (s·B·A alone, without the magnitudes), "))
    #expect(change.unfoldedText.contains(" % of the weights'; of the change W' - W "))
  }

  @Test func aPatternChoosesModules() throws {
    let run = try Workplace().run("inspect", lora, "--stats", "--tensors", "*.1.*.q_proj.*")
    #expect(run.unfoldedText.contains("1 module (model.layers.1.self_attn.q_proj): norm "))
  }

  @Test func thePageHasMapsAndCurves() throws {
    let place = try Workplace()
    let run = try place.run("inspect", lora, "--stats", "--report", "page.html", "--base", model)
    #expect(run.status == 0)
    let page = String(decoding: try place.bytes("page.html"), as: UTF8.self)
    let body = page.replacing("<!DOCTYPE html>", with: "").replacing(#/<meta [^>]*>/#, with: "")
    // Two maps with a legend each, a chart for each of seven kinds, a curve for each module.
    let elements = try XMLElements.count(in: Data(body.utf8))
    #expect(elements["rect"] == 2 * (14 + 10))
    #expect(elements["svg"] == 2 + 7)
    #expect(elements["polyline"] == 14)
    #expect(!page.contains("<script") && !page.contains("src=") && !page.contains("href="))
    #expect(page.contains("Norm of s·B·A as a share of the weight&#39;s") == false)
    #expect(page.contains("Norm of s·B·A as a share of the weight's"))

    let again = try place.run("inspect", lora, "--stats", "--report", "page.html")
    #expect(again.status == 2)
    #expect(again.errors == "peftool: page.html: exists already; --force replaces it\n")
    #expect(
      try place.run("inspect", lora, "--stats", "--report", "page.html", "--force").status == 0)
    #expect(try place.bytes("page.html") != Data(page.utf8))
  }

  @Test func namesInThePageAreEscapedAndListed() throws {
    let place = try Workplace()
    try place.write(
      "a/adapter_model.safetensors",
      Safetensors.file([
        ("base_model.model.<b>&x.lora_A.weight", "F32", [1, 2], [1, 2]),
        ("base_model.model.<b>&x.lora_B.weight", "F32", [2, 1], [0, 0]),
      ]))
    try place.write(
      "a/adapter_config.json", "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 1}")
    #expect(try place.run("inspect", "a", "--stats", "--report", "p.html").status == 0)
    let page = String(decoding: try place.bytes("p.html"), as: UTF8.self)
    #expect(page.contains("<p>Outside of layers:</p>\n<ul><li>&lt;b&gt;&amp;x: 0</li></ul>"))
    #expect(!page.contains("<b>"))
  }

  @Test func otherMethodsAreInspectedWithoutUpdates() throws {
    let place = try Workplace()
    let ia3 = Repository.sample("adapters/ia3")
    let run = try place.run("inspect", ia3, "--stats")
    #expect(run.status == 0)
    #expect(run.unfoldedText.contains("no figures of updates: "))
    let report = try place.run("inspect", ia3, "--stats", "--report", "p.html")
    #expect(report.status == 2 && report.text == "")
    #expect(report.errors.contains(": has no updates that --report could draw: "))
    #expect(try place.names == [])
  }

  @Test(
    arguments: [
      ([model, "--stats", "--base", model], "is no adapter, and --base is for adapters"),
      (
        [lora, "--stats", "--base", Repository.sample("bases/gpt2-f32")],
        "model.layers.0.mlp.down_proj"
      ),
      ([lora, "--stats", "--base", dora], "is an adapter, expected a base model"),
      ([model, "--stats", "--report", "p.html"], "is no adapter"),
      ([lora, "--stats", "--report", "no/p.html"], "is no folder"),
    ])
  func whatDoesNotFitIsOneLine(arguments: [String], reason: String) throws {
    let place = try Workplace()
    let run = try place.run(["inspect"] + arguments)
    #expect(run.status == 2 && run.text == "")
    #expect(run.errors.contains(reason), "\(run.errors)")
    #expect(run.errors.filter { $0 == "\n" }.count == 1)
    #expect(try place.names == [])
  }

  @Test func aBaseOfOtherShapesIsOneLine() throws {
    let place = try Workplace()
    try place.write(
      "a/adapter_model.safetensors",
      Safetensors.file([
        ("base_model.model.x.lora_A.weight", "F32", [1, 2], [1, 2]),
        ("base_model.model.x.lora_B.weight", "F32", [3, 1], [1, 2, 3]),
      ]))
    try place.write(
      "a/adapter_config.json", "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 1}")
    let weights: [Float] = [1, 2, 3, 4, 5, 6]
    try place.write("w.safetensors", Safetensors.file([("x.weight", "F32", [2, 3], weights)]))
    let run = try place.run("inspect", "a", "--stats", "--base", "w.safetensors")
    #expect(run.status == 2 && run.text == "")
    #expect(
      run.errors
        == "peftool: w.safetensors: tensor 'x.weight': has shape [2, 3], the adapter changes a linear "
        + "of [3, 2]\n")
    // Codes of no dtype that has arithmetic.
    try place.write("w.safetensors", Safetensors.file([("x.weight", "I32", [3, 2], weights)]))
    let codes = try place.run("inspect", "a", "--stats", "--base", "w.safetensors")
    #expect(codes.status == 0)
    #expect(codes.unfoldedText.contains("of updates: w.safetensors: tensor 'x.weight': is I32,"))
  }

  @Test(
    arguments: [
      [lora, "--report", "p.html"], [lora, "--stats", "--report", "p.txt"],
      [lora, "--stats", "--force"],
    ])
  func wrongUsageIsStatus64(arguments: [String]) throws {
    #expect(try Workplace().run(["inspect"] + arguments).status == 64)
  }
}
