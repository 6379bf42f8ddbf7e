import Foundation
import Testing

/// PyTorch files through the real binary.
@Suite struct TorchTests {
  @Test func aPickledAdapterMergesLikeSafetensors() throws {
    let place = try Workplace()
    for (adapter, output) in [("torch/adapter", "a"), ("adapters/lora", "b")] {
      let run = try place.run(
        "merge", Repository.sample("bases/llama-bf16"), Repository.sample(adapter), "-o",
        "\(output).safetensors")
      #expect(run.status == 0, "\(run.errors)")
    }
    #expect(try place.bytes("a.safetensors") == place.bytes("b.safetensors"))
  }

  @Test(arguments: ["zip.pt", "stream.pt", "protocol-4.pt"])
  func aFileIsThatOfSafetensors(name: String) throws {
    let place = try Workplace()
    let run = try place.run(
      "diff", Repository.sample("torch/\(name)"), Repository.sample("torch/plain.safetensors"))
    #expect(run.status == 0, "\(run.text)\(run.errors)")
  }

  @Test func shardsAreVerified() throws {
    let place = try Workplace()
    let run = try place.run("verify", Repository.sample("torch/sharded"))
    #expect(run.status == 0, "\(run.text)\(run.errors)")
    #expect(run.text.contains("2 shards and their index"))
  }

  /// A program in a file is named and not run, and the line says where it stands.
  @Test func aProgramIsNamed() throws {
    let place = try Workplace()
    var pickle = Data([0x80, 2])
    pickle += Data("}X\u{1}\0\0\0acos\nsystem\n(X\u{A}\0\0\0touch mark\u{0}tRs.".utf8)
    // The file's name says nothing: it is a pickle, in the stream form by its first number.
    var file = Data([0x80, 2, 0x8A, 10, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19])
    file += Data(".".utf8) + Data([0x80, 2, 0x4D, 0xE9, 0x03]) + Data(".".utf8)
    file += Data([0x80, 2]) + Data("}.".utf8) + pickle
    try place.write("model.safetensors", file)
    for verb in ["inspect", "verify"] {
      let run = try place.run(verb, "model.safetensors")
      #expect(run.status == (verb == "verify" ? 1 : 2))
      let line =
        "model.safetensors: byte 34: would call os.system: of a pickle only tensors are read, "
        + "and nothing in it is run\n"
      #expect((run.errors + run.text).contains(line))
    }
    #expect(try place.names == ["model.safetensors"])
  }
}
