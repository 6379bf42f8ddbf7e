import Foundation
import Testing

private let base = Repository.sample("bases/llama-bf16")
private let lora = Repository.sample("adapters/lora")

/// Packed checkpoints: `convert` to `.zst` and back, and every verb on them as they are.
@Suite struct PackedTests {
  @Test(arguments: [base, Repository.sample("quantized/llama-nf4-double"), lora])
  func aDirectoryComesBackByteForByte(sample: String) throws {
    let place = try Workplace()
    for threads in ["1", "4"] {
      let run = try place.run("convert", sample, "-o", "\(threads).zst", "--threads", threads)
      #expect(run.status == 0 && run.errors == "", "\(run.errors)")
    }
    #expect(try place.bytes("1.zst") == place.bytes("4.zst"))
    #expect(try place.shell("zstd -tq 1.zst").status == 0)
    #expect(try place.run("convert", "1.zst", "-o", "back").status == 0)
    #expect(try place.shell("diff -r back '\(sample)'").status == 0)
    #expect(try place.run("diff", "1.zst", sample).status == 0)
    let verified = try place.run("verify", "1.zst")
    #expect(verified.status == 0 && verified.text.contains("every checksum"), "\(verified.text)")
    let inspected = try place.run("inspect", "1.zst")
    #expect(inspected.text.contains("packed safetensors"))
    #expect(inspected.text.contains(sample == lora ? "LoRA" : "llama"))
  }

  @Test func aSingleFileComesBackByteForByte() throws {
    let place = try Workplace()
    let file = Repository.sample("merged/dora.safetensors")
    #expect(try place.run("convert", file, "-o", "x.safetensors.zst", "--level", "19").status == 0)
    #expect(try place.run("convert", "x.safetensors.zst", "-o", "x.safetensors").status == 0)
    #expect(try place.shell("cmp x.safetensors '\(file)'").status == 0)
    #expect(try place.shell("peftool convert x.safetensors.zst -o - | cmp - '\(file)'").status == 0)
  }

  @Test func mergingIntoAPackedBaseIsMerging() throws {
    let place = try Workplace()
    #expect(try place.run("convert", base, "-o", "base.zst").status == 0)
    #expect(try place.run("convert", lora, "-o", "lora.zst").status == 0)
    #expect(try place.run("merge", base, lora, "-o", "one").status == 0)
    let run = try place.run("merge", "base.zst", "lora.zst", "-o", "two")
    #expect(run.status == 0, "\(run.errors)")
    #expect(try place.shell("diff -r one two").status == 0)
  }

  @Test func differencesNeedTheirBase() throws {
    let place = try Workplace()
    #expect(try place.run("merge", base, lora, "-o", "tuned").status == 0)
    #expect(try place.shell("cp -r '\(base)' base").status == 0)
    let run = try place.run("convert", "tuned", "-o", "d.zst", "--delta-from", "base")
    #expect(run.status == 0 && run.text.contains("packed as differences"), "\(run.errors)")
    #expect(try place.run("convert", "d.zst", "-o", "back").status == 0)
    #expect(try place.shell("diff -r back tuned && peftool diff d.zst tuned").status == 0)
    #expect(try place.shell("mv base elsewhere").status == 0)
    let lost = try place.run("convert", "d.zst", "-o", "again")
    #expect(lost.status == 2 && lost.errors.contains("--delta-from BASE says where it is"))
    let told = try place.run("convert", "d.zst", "-o", "again", "--delta-from", "elsewhere")
    #expect(told.status == 0, "\(told.errors)")
    #expect(try place.shell("diff -r again tuned").status == 0)
    let other = try place.run("convert", "d.zst", "-o", "other", "--delta-from", "tuned")
    #expect(other.status == 2 && other.errors.contains("this is not the base"))
    #expect(try place.names.sorted() == ["again", "back", "d.zst", "elsewhere", "tuned"])
  }

  @Test func otherFlagsConvertWhatIsPacked() throws {
    let place = try Workplace()
    #expect(try place.run("convert", base, "-o", "b.zst").status == 0)
    #expect(try place.run("convert", "b.zst", "-o", "one", "--dtype", "f32").status == 0)
    #expect(try place.run("convert", base, "-o", "two", "--dtype", "f32").status == 0)
    #expect(try place.shell("diff -r one two").status == 0)
    // Three files in one: as with a directory.
    #expect(try place.run("convert", "b.zst", "-o", "one.safetensors").status == 0)
    #expect(try place.run("diff", "one.safetensors", base).status == 0)
    let gguf = try place.run("convert", "b.zst", "-o", "b.gguf")
    #expect(gguf.status == 2 && gguf.errors.contains("is packed: convert it to a directory"))
  }

  /// One file out of several: the report is of that, and says that the others stay behind.
  @Test func whatStaysBehindIsTold() throws {
    let place = try Workplace()
    let tied = Repository.sample("bases/llama-tied-f32")
    #expect(try place.run("convert", tied, "-o", "b.zst").status == 0)
    let run = try place.run("convert", "b.zst", "-o", "x.safetensors", "--json")
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.text.contains("\"files\": 1,") && run.text.contains("beside the tensors stay"))
    #expect(run.text.contains("\"bytes\": \(try place.bytes("x.safetensors").count),"))
    #expect(try place.shell("cmp x.safetensors '\(tied)/model.safetensors'").status == 0)
  }

  @Test func inspectTellsOfThePackingAndTheBase() throws {
    let place = try Workplace()
    #expect(try place.run("merge", base, lora, "-o", "tuned").status == 0)
    #expect(try place.run("convert", "tuned", "-o", "d.zst", "--delta-from", base).status == 0)
    let text = try place.run("inspect", "d.zst").unfoldedText
    #expect(text.contains("packed") && text.contains("differences to"), "\(text)")
    let json = try place.run("inspect", "d.zst", "--json").text
    #expect(
      json.contains("\"base\": \"\(base.replacing("/", with: "\\/"))\"") || json.contains(base))
    #expect(json.contains("d.zst/model-00002-of-00003.safetensors"))
  }

  /// The base of differences is an input of what is made of them.
  @Test func theBaseOfDifferencesIsNotReplaced() throws {
    let place = try Workplace()
    #expect(try place.run("merge", base, lora, "-o", "tuned").status == 0)
    #expect(try place.shell("cp -r '\(base)' base").status == 0)
    #expect(try place.run("convert", "tuned", "-o", "d.zst", "--delta-from", "base").status == 0)
    for arguments in [
      ["convert", "d.zst", "-o", "base", "--dtype", "f16", "--force"],
      ["convert", "d.zst", "-o", "base", "--force"],
      ["merge", "d.zst", lora, "-o", "base", "--force"],
      ["quantize", "d.zst", "-o", "base", "--force"],
    ] {
      let run = try place.run(arguments)
      #expect(run.status == 2, "\(arguments) \(run.text)")
    }
    #expect(try place.shell("diff -r base '\(base)'").status == 0)
  }

  @Test func damageIsAFault() throws {
    let place = try Workplace()
    #expect(try place.run("convert", base, "-o", "b.zst").status == 0)
    var bytes = try place.bytes("b.zst")
    bytes[bytes.count - 2] ^= 1
    try place.write("b.zst", bytes)
    let verified = try place.run("verify", "b.zst")
    #expect(verified.status == 1 && verified.text.contains("checksum"), "\(verified.text)")
    let run = try place.run("convert", "b.zst", "-o", "back")
    #expect(run.status == 2 && run.errors.contains("the checksum of the packed block is"))
    #expect(try place.names == ["b.zst"])
  }

  @Test(
    arguments: [
      [base, "-o", "x.zst", "--dtype", "f32"], [base, "-o", "x.zst", "--shard-size", "1GB"],
      [base, "-o", "x.zst", "--level", "0"], [base, "-o", "out", "--level", "3"],
      [base, "-o", "x.zst", "--include", "*"],
    ])
  func wrongUsage(arguments: [String]) throws {
    let place = try Workplace()
    #expect(try place.run(["convert"] + arguments).status == 64)
    #expect(try place.names.isEmpty)
  }

  @Test(
    arguments: [
      ([Repository.sample("torch/zip.pt"), "-o", "x.zst"], "only those are packed"),
      ([base, "-o", "out", "--delta-from", base], "is not made of differences"),
      (
        [base, "-o", "x.zst", "--delta-from", lora], "has no tensor of the same name"
      ),
    ])
  func whatCannotBePacked(arguments: [String], reason: String) throws {
    let place = try Workplace()
    let run = try place.run(["convert"] + arguments)
    #expect(run.status == 2 && run.errors.contains(reason), "\(run.errors)")
    #expect(try place.names.isEmpty)
  }
}
