import Foundation
import Testing

private let base = Repository.sample("bases/llama-f32")
private let lora = Repository.sample("adapters/lora-f32base")

/// `transfer` as a user runs it.
@Suite struct TransferTests {
  @Test(arguments: ["cross-lora", "procrustes"])
  func theSameBytesForAnyNumberOfThreads(method: String) throws {
    let place = try Workplace()
    for threads in ["1", "2"] {
      let run = try place.run(
        "transfer", lora, "--from", base, "--to", base, "-o", threads, "--threads", threads,
        "--method", method, "--threshold", "0.2")
      #expect(run.status == 0, "\(run.errors)")
      #expect(run.text.contains("\nfrom "))
      #expect(run.text.contains("overlap out"))
      #expect(run.text.contains("aligned") == (method == "cross-lora"))
      #expect(
        run.unfoldedText.contains("by 101 shared tokens, whose embeddings agree to a cosine of 1.0")
          == (method == "procrustes"))
    }
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
      #expect(try place.bytes("1/\(file)") == place.bytes("2/\(file)"))
    }
    #expect(try place.run("verify", "1", "--base", base).status == 0)
    let config = try String(contentsOfFile: place.path("1/adapter_config.json"), encoding: .utf8)
    #expect(config.contains("\"base_model_name_or_path\": \"\(base)\""))
  }

  @Test func whatIsBelowTheThresholdIsNamed() throws {
    let place = try Workplace()
    let run = try place.run(
      "transfer", lora, "--from", base, "--to", base, "-o", "out", "--method", "lora-x")
    #expect(run.status == 2)
    #expect(
      run.errors.contains(
        #/: \d+ of \d+ layers are below the threshold 0\.5; model\.layers\.\d\.\S+ has overlap of /#
      ),
      "\(run.errors)")
    #expect(run.errors.contains("overlap of outputs 1.0, overlap of inputs 1.0, kept energy 0."))
    #expect(try place.names == [])
  }

  @Test(arguments: [
    (["--subspace", "0"], "--subspace is 0, expected 1 or more"),
    (["--threshold", "1.5"], "--threshold is 1.5, expected 0 to 1"),
    (["--threshold", "nan"], "--threshold is nan, expected 0 to 1"),
    (["--method", "magic"], "--method"),
  ]) func wrongUsage(arguments: [String], text: String) throws {
    let place = try Workplace()
    let run = try place.run(
      ["transfer", lora, "--from", base, "--to", base, "-o", "out"] + arguments)
    #expect(run.status == 64)
    #expect(run.errors.contains(text), "\(run.errors)")
    #expect(try place.names == [])
  }

  @Test(arguments: [
    ("dora", "is of DoRA, and transfer takes LoRA of linear layers alone"),
    ("lora-bias", "has a bias of lora_B, and transfer takes"),
    ("shira", "is of SHiRA, which is no low-rank update"),
    ("save-modules", "whole, and transfer takes LoRA of linear layers alone"),
  ]) func whatHasNoPlaceInTheFormulas(adapter: String, text: String) throws {
    let place = try Workplace()
    let run = try place.run(
      "transfer", Repository.sample("adapters/\(adapter)"), "--from", base, "--to", base, "-o",
      "out")
    #expect(run.status == 2)
    #expect(run.errors.contains(text), "\(run.errors)")
    #expect(try place.names == [])
  }
}
