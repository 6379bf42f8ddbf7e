import Foundation
import FoundationXML
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

  @Test func theReportIsATableAndAPage() throws {
    let place = try Workplace()
    let run = try place.run("quantize", base, "-o", "out", "--report", "loss.html")
    #expect(run.status == 0)
    #expect(run.text.contains("\nmodule "))
    #expect(run.text.contains("model.layers.1.mlp.down_proj  "))
    let page = String(decoding: try place.bytes("loss.html"), as: UTF8.self)
    // XML too, so that a parser can tell that every tag is closed.
    let body = page.replacing("<!DOCTYPE html>", with: "").replacing(
      #/<meta [^>]*>/#, with: "")
    #expect(try XMLElements.count(in: Data(body.utf8))["rect"] == 14 + 10)
    #expect(!page.contains("<script") && !page.contains("src=") && !page.contains("href="))
    #expect(page.contains("model.layers.1.mlp.down_proj"))

    let again = try place.run("quantize", base, "-o", "other", "--report", "loss.html")
    #expect(again.status == 2)
    #expect(again.errors.hasPrefix("peftool: loss.html: exists already"))
    #expect(try place.names == ["loss.html", "out"])
    // Without a file's name, and without the summary.
    let quiet = try place.run("quantize", base, "-o", "third", "--quiet", "--report")
    #expect(quiet.text.hasPrefix("module "))
  }

  @Test func aPageThatHasNoPlaceIsToldFirst() throws {
    let place = try Workplace()
    let run = try place.run("quantize", base, "-o", "out", "--report", "nowhere/loss.html")
    #expect(run.status == 2)
    #expect(run.errors.contains("nowhere: is no folder"))
    #expect(try place.names == [])
    #expect(try place.run("quantize", base, "-o", "out", "--report", "out/loss.html").status == 0)
  }

  /// What is quantized needs a configuration that says so, also where a file alone is named.
  @Test func theConfigurationBesideAFileIsWritten() throws {
    let place = try Workplace()
    let file = Repository.sample("bases/llama-f32/model.safetensors")
    #expect(try place.run("quantize", file, "-o", "out").status == 0)
    #expect(try place.shell("cat out/config.json").text.contains("quantization_config"))
    let back = try place.run("dequantize", "out/model.safetensors", "-o", "back")
    #expect(back.status == 0)
    let config = try place.shell("cat back/config.json").text
    #expect(config.contains("\"llama\"") && !config.contains("quantization_config"))
    #expect(try place.shell("cp '\(file)' alone.safetensors").status == 0)
    let alone = try place.run("quantize", "alone.safetensors", "-o", "other")
    #expect(alone.unfoldedText.contains("there is no config.json"))
  }

  /// Which way a `c_attn` lies its shape does not tell once it is quantized.
  @Test func aConv1DIsTurnedBackWhereverItsTypeStands() throws {
    let place = try Workplace()
    let sample = Repository.sample("quantized/gpt2-nf4")
    #expect(try place.run("dequantize", sample, "-o", "plain").status == 0)
    #expect(try place.shell("cp -r '\(sample)' part").status == 0)
    let wrapped =
      #"import json; p = "part/config.json"; c = json.load(open(p)); "#
      + #"q = c.pop("quantization_config"); "#
      + #"json.dump({"model_type": "captioner", "decoder": c, "quantization_config": q}, "#
      + #"open(p, "w"))"#
    #expect(try place.shell("python3 -c '\(wrapped)'").status == 0)
    #expect(try place.run("dequantize", "part", "-o", "other").status == 0)
    #expect(try place.shell("cmp plain/model.safetensors other/model.safetensors").status == 0)
    let lost = try place.shell("rm part/config.json; peftool dequantize part -o third")
    #expect(lost.status == 2 && lost.errors.contains("may be a Conv1D's"), "\(lost.errors)")
  }

  @Test func aDirectoryOfNoOtherName() throws {
    let place = try Workplace()
    for output in ["x.gguf", "x.safetensors", "-"] {
      #expect(try place.run("quantize", base, "-o", output).status == 64)
      #expect(try place.run("dequantize", base, "-o", output).status == 64)
    }
    let nothing = try place.run("quantize", base, "-o", "out", "--exclude", "*")
    #expect(nothing.status == 2 && nothing.errors.contains("leave all out"))
    #expect(try place.names == [])
  }

  @Test func onlyQuantizedModelsAreDequantized() throws {
    let place = try Workplace()
    let run = try place.run("dequantize", base, "-o", "out")
    #expect(run.status == 2)
    #expect(run.errors.contains("no weight that is quantized"))
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

/// Counts the elements of an XML text by name.
final class XMLElements: NSObject, XMLParserDelegate {
  private var counts: [String: Int] = [:]

  static func count(in text: Data) throws -> [String: Int] {
    let parser = XMLParser(data: text)
    let elements = XMLElements()
    parser.delegate = elements
    #expect(parser.parse(), "\(parser.parserError.map { "\($0)" } ?? "")")
    return elements.counts
  }

  func parser(
    _ parser: XMLParser, didStartElement name: String, namespaceURI: String?,
    qualifiedName: String?, attributes: [String: String]
  ) {
    counts[name, default: 0] += 1
  }
}
