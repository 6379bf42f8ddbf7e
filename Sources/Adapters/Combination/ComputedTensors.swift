package import Checkpoints
package import Files
import JSON
package import Tensors

/// Computed tensors as a source: what has been made of an adapter, on its way to a file.
package struct ComputedTensors: TensorSource {
  package let path: String
  package let files: [InputFile]
  /// Those that were added, in that order.
  package private(set) var tensors: [TensorInfo] = []
  package let metadata: [(key: String, value: String)] = []
  private let inputs: [any TensorSource]
  private var values: [ExactName: Values] = [:]

  private enum Values: Sendable {
    case known([Float])
    case integers([Int32])
    /// Computed whenever they are read.
    case computed(@Sendable () throws(PeftoolError) -> [Float])
  }

  /// No tensors yet; they are computed of those of `inputs`, of which there is one at least.
  package init(of inputs: [any TensorSource]) {
    path = inputs[0].path
    files = inputs[0].files
    self.inputs = inputs
  }

  package var origins: [any TensorSource] { get throws(PeftoolError) { inputs } }

  /// Adds a tensor in F32 under a name of its own.
  package mutating func append(_ name: String, shape: [Int], _ elements: [Float]) -> TensorInfo {
    precondition(elements.count == shape.reduce(1, *), "as many elements as the shape has")
    return append(name, shape: shape, .known(elements))
  }

  /// Adds a tensor in I32 under a name of its own.
  mutating func append(_ name: String, shape: [Int], _ elements: [Int32]) -> TensorInfo {
    precondition(elements.count == shape.reduce(1, *), "as many elements as the shape has")
    return append(name, dtype: .i32, shape: shape, .integers(elements))
  }

  /// Adds a tensor in F32 that is computed, all of it, each time that some of it is read.
  package mutating func append(
    _ name: String, shape: [Int],
    computing elements: @escaping @Sendable () throws(PeftoolError) -> [Float]
  ) -> TensorInfo {
    append(name, shape: shape, .computed(elements))
  }

  private mutating func append(
    _ name: String, dtype: DType = .f32, shape: [Int], _ elements: Values
  ) -> TensorInfo {
    let info = TensorInfo(
      name: name, dtype: dtype, shape: shape, byteRange: 0..<shape.reduce(4, *), fileIndex: 0)
    precondition(values.updateValue(elements, forKey: ExactName(name)) == nil, "a new name")
    tensors.append(info)
    return info
  }

  package func place(of tensor: TensorInfo) -> (file: InputFile, range: Range<Int>)? { nil }

  package func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    // Floats and integers are their bytes; both sides live through the call.
    switch values[ExactName(tensor.name)] {
    case .known(let elements): buffer.copy(unsafe elements.span.bytes.extracting(range))
    case .integers(let elements):
      buffer.copy(unsafe elements.span.bytes.extracting(range))
    case .computed(let compute):
      let elements = try compute()
      buffer.copy(unsafe elements.span.bytes.extracting(range))
    case nil: preconditionFailure("a tensor of this source")
    }
  }
}
