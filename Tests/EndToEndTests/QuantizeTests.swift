import Foundation
import Testing

/// What transformers and bitsandbytes have saved, with the base and the flags that give it.
private let samples: [(name: String, base: String, flags: [String])] = [
  ("llama-nf4-double", "llama-bf16", []),
  ("llama-fp4", "llama-bf16", ["--type", "fp4", "--no-double-quant"]),
  ("llama-int8", "llama-bf16", ["--type", "int8"]),
  ("gpt2-nf4", "gpt2-f32", ["--no-double-quant"]),
]

private let base = Repository.sample("bases/llama-bf16")

@Suite struct QuantizeTests {
  @Test(arguments: samples.indices)
  func aModelHasTheBytesOfBitsandbytes(sample: Int) throws {
    let (name, base, flags) = samples[sample]
    let place = try Workplace()
    let run = try place.run(
      ["quantize", Repository.sample("bases/\(base)"), "-o", "out", "--threads", "3"] + flags)
    #expect(run.status == 0)
    #expect(run.errors == "")
    let expected = Repository.sample("quantized/\(name)")
    let difference = try place.shell("diff -r out '\(expected)'")
    #expect(difference.status == 0, "\(difference.text)")
  }

  /// In f32 a code's value has that code, and a block's largest the same scale.
  @Test func codesSurviveTheWayBack() throws {
    let place = try Workplace()
    let sample = Repository.sample("quantized/gpt2-nf4")
    #expect(try place.run("dequantize", sample, "-o", "base").status == 0)
    #expect(try place.run("verify", "base").status == 0)
    let again = try place.run("quantize", "base", "-o", "again", "--no-double-quant")
    #expect(again.status == 0)
    let difference = try place.shell("diff -r again '\(sample)'")
    #expect(difference.status == 0, "\(difference.text)")
  }

  @Test func onlyQuantizedModelsAreDequantized() throws {
    let place = try Workplace()
    let run = try place.run("dequantize", base, "-o", "out")
    #expect(run.status == 2)
    #expect(run.errors.contains("no weight that bitsandbytes has quantized"))
    #expect(try place.names == [])
  }

  @Test func whatCannotBeQuantizedIsRefused() throws {
    let place = try Workplace()
    for (base, words) in [
      (Repository.sample("quantized/llama-fp4"), "is quantized"),
      (Repository.sample("adapters/lora"), "is an adapter"),
      (Repository.sample("bases/llama-f8"), "F8_E4M3"),
    ] {
      let run = try place.run("quantize", base, "-o", "out")
      #expect(run.status == 2)
      #expect(run.errors.contains(words), "\(run.errors)")
    }
    let globs = try place.run("quantize", base, "-o", "out", "--include", "*.nothing")
    #expect(globs.status == 2)
    #expect(globs.errors.contains("matches no module"))
    #expect(try place.names == [])
  }

  @Test func wrongUsageIsSaid() throws {
    let place = try Workplace()
    for arguments in [
      ["--block-size", "48"], ["--type", "int8", "--no-double-quant"], ["-o", "-"],
      ["-o", "out.safetensors"], ["--threads", "0"], ["--compute-dtype", "int8"],
    ] {
      let run = try place.run(["quantize", base, "-o", "out"] + arguments)
      #expect(run.status == 64, "\(arguments)")
    }
  }
}
