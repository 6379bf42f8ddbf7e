import Checkpoints
package import Files
import JSON

extension ChatTemplate {
  /// The XXH3 checksums of the texts that are known, with the family that each is of.
  package static let known = upstream.merging(samples) { upstream, _ in upstream }

  /// Those of the models' own files on the Hugging Face Hub.
  ///
  /// Two of one family differ in what has no effect here: how a newline is spelt, and what is done
  /// with tools.
  package static let upstream: [UInt64: String] = [
    0x4C6E_807E_E5FE_9F4A: "chatml",
    0x846F_9032_C207_9EA2: "chatml",
    0xA04F_41D8_13A0_7B13: "chatml",
    0xDA20_6A9E_46A4_AC01: "chatml",
    0x8FB5_D937_B1E8_F5D0: "chatml",
    0x99AB_995E_9629_DACD: "smollm2",
    0x8305_9DDC_B62B_07A0: "smollm2",
    0x20F2_0C2B_5139_EAEE: "qwen1.5",
    0x8DC1_C677_5F9C_ED80: "qwen1.5",
    0xD5D9_43BD_0BD9_082F: "qwen2",
    0xC31E_98DB_8C19_D1D3: "qwen2",
    0xC790_34A9_D5F0_AE58: "qwen2",
    0x2469_C950_8F79_506E: "qwen2.5",
    0x0283_F874_FF58_D644: "qwen3",
    0xC9E0_155C_8073_7CF2: "qwen3",
    0x24F6_D97F_87D6_47F5: "llama2",
    0x8E30_CF11_BD23_649B: "llama2",
    0x9799_AD6E_2DEA_0594: "llama3",
    0x866F_C8FA_50DA_12FE: "llama3",
    0x6CA7_779B_7730_196A: "llama3.1",
    0xC3D5_7E38_F5FF_0756: "llama3.2",
    0x1DB3_4E9F_C604_41D8: "zephyr",
    0xD9FE_74ED_CB57_AA82: "zephyr",
    0xB7F5_2373_B11C_60D7: "mistral-v0.1",
    0xA5D0_0421_0EBC_E758: "mistral-v0.2",
    0xC661_4466_504D_495B: "mistral-v0.3",
    0xF89C_FC57_F651_FF3D: "mistral-v1",
  ]

  /// Those of `Samples/chat`, which are our own.
  package static let samples: [UInt64: String] = [
    0x18CA_E93D_F8E0_045E: "chatml",
    0x2710_72A3_136A_0C14: "llama2",
    0xF136_62BD_A95E_EF4E: "llama3.1",
    0x3A64_FE3A_E639_88D4: "llama3.2",
    0x43FB_83BB_F1C2_4FCD: "llama3",
    0xA04F_4C60_F5D7_821B: "mistral-v0.1",
    0x6BDD_4B16_415C_543C: "mistral-v0.2",
    0xB120_FA31_2FD5_35DE: "mistral-v0.3",
    0x3B41_F084_6938_22B5: "mistral-v1",
    0x49D7_E90B_BF98_DD9E: "qwen1.5",
    0x7A47_3A06_1123_ADC9: "qwen2.5",
    0xD23D_D345_90AF_93D7: "qwen2",
    0x84A1_E9F6_3A9B_2059: "qwen3",
    0xA075_3AEE_531D_9E2F: "smollm2",
    0x376C_2D71_933E_088B: "zephyr",
  ]

  /// The family of a template's text, which is only looked at and never run.
  ///
  /// A newline at the end and carriage returns before newlines do not count, as for Jinja.
  /// - Throws: `unsupported` where the text is none of the known, with what to do.
  package init(
    recognizing text: String, among known: [UInt64: String] = known
  ) throws(PeftoolError) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.utf8.count)
    for byte in text.utf8 {
      if byte == UInt8(ascii: "\n"), bytes.last == UInt8(ascii: "\r") { bytes.removeLast() }
      bytes.append(byte)
    }
    if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
    // The array lives through the call.
    let digest = unsafe Checksum.of(bytes.span.bytes)
    guard let name = known[digest] else {
      throw PeftoolError(
        .unsupported,
        "the chat template is none that peftool knows (checksum \(digest.checksumText)), and "
          + "templates out of files are not run; name the family that it is like with "
          + "--chat-template: " + Self.names.joined(separator: ", "))
    }
    try self.init(named: name)
  }

  /// The most bytes of a template's file.
  static let maximumTemplateByteCount = 1 << 20

  /// The template that lies with a tokenizer, where there is one.
  ///
  /// `chat_template.jinja` counts before `chat_template` of `tokenizer_config.json`, as in
  /// transformers 5; of several the one named `default` counts.
  /// - Throws: `unsupported` for a text that is not known, `damaged` where it is no text, `io`; all
  ///   with the file.
  package init?(inFolder folder: String) throws(PeftoolError) {
    let jinja = Folder.path(folder, "chat_template.jinja")
    let config = Folder.path(folder, "tokenizer_config.json")
    if Folder.exists(jinja) {
      try self.init(readingJinja: InputFile(opening: jinja))
      return
    }
    guard Folder.exists(config) else { return nil }
    do throws(PeftoolError) {
      guard let text = try Self.text(in: JSON(opening: config)) else { return nil }
      try self.init(recognizing: text)
    } catch {
      throw error.at(path: config)
    }
  }

  private init(readingJinja file: InputFile) throws(PeftoolError) {
    do throws(PeftoolError) {
      guard file.byteCount <= Self.maximumTemplateByteCount else {
        throw PeftoolError(
          .unsupported,
          "\(file.byteCount) bytes, expected a chat template of at most "
            + "\(Self.maximumTemplateByteCount)")
      }
      let bytes = try file.bytes(0..<file.byteCount)
      try bytes.checkUTF8()
      try self.init(recognizing: String(decoding: bytes, as: UTF8.self))
    } catch {
      throw error.at(path: file.path)
    }
  }

  /// The text of `chat_template` in `tokenizer_config.json`, where there is one.
  ///
  /// - Throws: `damaged` where it is neither a text nor a list of named texts, `unsupported` for a
  ///   list without `default`.
  static func text(in config: JSON) throws(PeftoolError) -> String? {
    let key = "chat_template"
    switch config[key] {
    case nil, .null: return nil
    case .string(let text): return text
    case .array(let templates):
      var names: [String] = []
      for template in templates {
        let name = try template.string(at: "name")
        if name.isExactly("default") { return try template.string(at: "template") }
        names.append("'\(name.printable)'")
      }
      throw PeftoolError(
        .unsupported,
        "chat_template has \(names.isEmpty ? "no templates" : names.joined(separator: ", ")), "
          + "expected one named 'default'; name a family with --chat-template")
    case let value?: throw value.unfit(key, "a string, or an array of named templates")
    }
  }
}

extension SpecialTokens {
  /// The tokens that `tokenizer_config.json` of a folder names, none where there is no such file.
  ///
  /// - Throws: `damaged` and `io`, with the file.
  package init(inFolder folder: String) throws(PeftoolError) {
    let config = Folder.path(folder, "tokenizer_config.json")
    guard Folder.exists(config) else {
      self.init()
      return
    }
    do throws(PeftoolError) {
      try self.init(JSON(opening: config))
    } catch {
      throw error.at(path: config)
    }
  }
}
