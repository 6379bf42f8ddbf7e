import Files
import JSON
package import Tensors

/// An adapter as it will be written: a file of tensors, and for a folder its configuration.
package struct AdapterFiles: Sendable {
  /// A tensor to be written.
  struct Item: Sendable {
    let name: String
    let content: Content

    enum Content: Sendable {
      case tensor(AdapterTensor)
      /// A number, as a scalar in F32.
      case number(Double)
    }

    init(_ name: String, _ tensor: AdapterTensor) {
      self.name = name
      content = .tensor(tensor)
    }

    init(_ name: String, number: Double) {
      self.name = name
      content = .number(number)
    }

    var dtype: DType {
      if case .tensor(let tensor) = content { tensor.dtype } else { .f32 }
    }
    var shape: [Int] {
      if case .tensor(let tensor) = content { tensor.shape } else { [] }
    }
  }

  /// A file of the folder beside the tensors.
  struct Configuration: Sendable {
    let json: JSON
    let indent: Int
  }

  private(set) var items: [Item]
  /// The `__metadata__` of the tensors' file.
  let metadata: [(key: String, value: String)]?
  /// The file's name in its folder; nil where the output is the file itself.
  let fileName: String?
  /// The folder's `adapter_config.json`.
  let configuration: Configuration?
  /// The positions that it is of use with, which the folder's `config.json` tells.
  var positions: StretchedPositions?
  /// What the user should know of what is written.
  package var notes: [String] = []

  /// A folder with a configuration.
  init(
    folder items: [Item], fileName: String, metadata: [(key: String, value: String)]?,
    configuration: JSON, indent: Int
  ) {
    self.items = items
    self.fileName = fileName
    self.metadata = metadata
    self.configuration = Configuration(json: configuration, indent: indent)
  }

  /// A file alone.
  init(file items: [Item], metadata: [(key: String, value: String)]?) {
    self.items = items
    self.metadata = metadata
    fileName = nil
    configuration = nil
  }
}

extension AdapterFiles {
  /// With all tensors in one dtype, each number rounded once from what it is; nil leaves them.
  package func cast(to dtype: DType?) -> AdapterFiles {
    guard let dtype else { return self }
    var copy = self
    copy.items = items.map { item in
      // Places, as sparse changes have them, are whole numbers.
      guard case .tensor(let tensor) = item.content, tensor.dtype.isComputable else { return item }
      return Item(item.name, tensor.cast(to: dtype))
    }
    return copy
  }
}

extension AdapterFiles.Item {
  /// The bytes that it has in the file.
  ///
  /// - Throws: as `AdapterTensor.bytes`.
  func bytes() throws(PeftoolError) -> [UInt8] {
    switch content {
    case .tensor(let tensor): try tensor.bytes()
    case .number(let value):
      (0..<4).map { UInt8(truncatingIfNeeded: Float(value).bitPattern >> ($0 * 8)) }
    }
  }
}
