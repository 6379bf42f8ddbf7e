import Foundation

/// Writes and reads safetensors files on its own, so that tests do not lean on what they test.
enum Safetensors {
  /// A file of F32 tensors.
  static func file(
    _ tensors: [(name: String, dtype: String, shape: [Int], values: [Float])]
  ) throws -> Data {
    var header: [String: Any] = [:]
    var data = Data()
    for tensor in tensors {
      let begin = data.count
      tensor.values.withUnsafeBytes { data.append(contentsOf: $0) }
      header[tensor.name] = [
        "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.count],
      ]
    }
    let text = try JSONSerialization.data(withJSONObject: header)
    return withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) } + text + data
  }

  /// The shapes of a file's tensors by name.
  static func shapes(_ file: Data) throws -> [String: [Int]] {
    let count = file.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let header = try JSONSerialization.jsonObject(with: file.dropFirst(8).prefix(count))
    return (header as? [String: [String: Any]] ?? [:]).compactMapValues { $0["shape"] as? [Int] }
  }
}

/// A Python program that changes a model's folder: `t` its tensors' bytes by name, `c` its
/// configuration.
enum SafetensorsEdit {
  static func program(_ edit: String) -> String {
    """
    import json, pathlib, struct, sys
    folder = pathlib.Path(sys.argv[1])
    config, file = folder / "config.json", folder / "model.safetensors"
    c = json.loads(config.read_text()) if config.exists() else {}
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", None)
    body = data[8 + size:]
    facts = {}
    t = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        t[name] = bytearray(body[start:end])
        facts[id(t[name])] = entry
    \(edit)
    header, body = {}, b""
    for name, content in t.items():
        entry = facts[id(content)]
        header[name] = {**entry, "data_offsets": [len(body), len(body) + len(content)]}
        body += content
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)
    if config.exists():
        config.write_text(json.dumps(c))
    """
  }
}
