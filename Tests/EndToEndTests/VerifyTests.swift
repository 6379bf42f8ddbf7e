import Foundation
import Testing

private let model = Repository.sample("bases/llama-bf16")

/// The cases of `Samples/merged/index.json` whose adapters fit their base.
private let fits: [(base: String, adapter: String)] = {
  let file = Repository.root.appendingPathComponent("Samples/merged/index.json")
  guard let data = try? Data(contentsOf: file),
    let cases = try? JSONSerialization.jsonObject(with: data) as? [[String: Any]]
  else { return [] }
  return cases.filter { $0["error"] == nil }.flatMap { entry -> [(String, String)] in
    let adapters = entry["adapters"] as? [String] ?? []
    return adapters.map { (entry["base"] as? String ?? "", $0) }
  }
}()

@Suite struct VerifyTests {
  @Test func aSoundModelHasNoFaults() throws {
    let run = try Workplace().run("verify", model)
    #expect(run.status == 0)
    #expect(run.errors == "")
    #expect(
      run.text == "no faults in \(model): 3 shards and their index, 21 tensors of 70.3 kB, "
        + "config.json, every number finite\n")
  }

  @Test func everyAdapterOfTheSamplesFitsItsBase() throws {
    let place = try Workplace()
    #expect(fits.count > 40)
    for (base, adapter) in fits {
      let run = try place.run(
        "verify", Repository.sample("adapters/\(adapter)"), "--base",
        Repository.sample("bases/\(base)"))
      #expect(run.status == 0, "\(adapter): \(run.text)\(run.errors)")
    }
  }

  @Test func everyFaultIsALine() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(atPath: model, toPath: place.path("m"))
    _ = try place.shell(
      "rm m/model-00002-of-00003.safetensors; echo more >> m/model-00003-of-00003.safetensors; "
        + "echo '{' > m/config.json")
    let run = try place.run("verify", "m")
    #expect(run.status == 1)
    #expect(run.errors == "")
    let lines = run.text.components(separatedBy: "\n")
    #expect(lines.count == 5)
    #expect(
      lines[0].hasPrefix(
        "m/model-00002-of-00003.safetensors: cannot open: No such file or directory; the index"))
    #expect(lines[1].hasPrefix("m/model-00003-of-00003.safetensors: byte "))
    #expect(lines[2].hasPrefix("m/config.json: byte "))
    #expect(lines[3] == "3 faults in m")
  }

  @Test func aFaultyFileIsStatus1AndAnAbsentOneStatus2() throws {
    let place = try Workplace()
    try place.write("cut.safetensors", "short")
    let cut = try place.run("verify", "cut.safetensors")
    #expect(cut.status == 1)
    #expect(cut.text.hasSuffix("\n1 fault in cut.safetensors\n"))
    let absent = try place.run("verify", "absent")
    #expect(absent.status == 2)
    #expect(absent.text == "")
    #expect(absent.errors == "peftool: absent: cannot open: No such file or directory\n")
    let folder = try place.run("verify", ".")
    #expect(folder.status == 1)
  }

  @Test func anAdapterOfAnotherModelHasAFaultAModule() throws {
    let run = try Workplace().run(
      "verify", Repository.sample("adapters/lora"), "--base", Repository.sample("bases/gpt2-f32"))
    #expect(run.status == 1)
    let lines = run.text.components(separatedBy: "\n").dropLast()
    #expect(lines.dropLast().count == 14)
    #expect(lines.dropLast().allSatisfy { $0.contains("matches no tensor '") })
  }
}
