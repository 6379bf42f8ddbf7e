import Adapters
import Checkpoints
import Files
import LinearAlgebra
import Reports
import Tensors

/// Tensors written anew as a model in safetensors, each in a dtype.
///
/// A tensor that keeps its dtype keeps its bytes. Another goes through f32, or f64 where f32 does
/// not hold every value, and is rounded once.
///
/// Peak memory: for each thread three blocks of some MiB, and what reading takes.
struct Conversion: Sendable {
  /// A tensor to be written.
  struct Tensor: Sendable {
    /// Its name in the output.
    let name: String
    /// Where its values are.
    let stored: StoredTensor
    /// What it is written as.
    let dtype: DType

    /// Whether its bytes are copied.
    var isCopy: Bool { dtype == stored.dtype }

    /// Its place in a layout.
    var layoutItem: CheckpointLayout.Item {
      .init(name: name, dtype: dtype, shape: stored.shape, fileIndex: stored.info.fileIndex)
    }
  }

  /// What is done with a number that the new dtype does not hold.
  enum Overflow: Sendable {
    /// It is an error, which ends in a hint.
    case refused(hint: String)
    /// It becomes the dtype's largest number.
    case saturated
  }

  let tensors: [Tensor]
  let output: ModelOutput
  var overflow = Overflow.refused(hint: "")

  /// The bytes of the safetensors files.
  var byteCount: Int { output.layout.byteCount }

  /// Converts, and puts the output in its place.
  ///
  /// - Parameters:
  ///   - companions: writes what lies beside the tensors in a directory.
  ///   - progress: is told of bytes written, from any thread.
  /// - Throws: `io`; `damaged` where an input is cut short; `different` where one changes meanwhile
  ///   or a number does not fit its dtype.
  func run(
    force: Bool, threads: Int?, progress: @Sendable (Int) -> Void,
    companions: (inout StagedOutput) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    try output.write(force: force, companions: companions) { (files) throws(PeftoolError) in
      var pass = OutputPass<Part>()
      for (file, entry) in output.layout.files.enumerated() {
        pass.append(entry.header, to: file, at: 0)
        for (item, range) in entry.tensors {
          tensors[item].append(
            to: &pass, at: Place(file: file, offset: range.lowerBound), as: { $0 })
        }
      }
      _ = try pass.run(
        into: files, threads: threads ?? availableProcessorCount, progress: progress,
        worker: { ElementConverter(overflow) },
        perform: { (worker, part) throws(PeftoolError) in
          try worker.convert(part, in: files)
          progress(part.tensor.dtype.byteCount(of: part.elements.count))
        })
    }
  }
}

// The parts of a pass.
extension Conversion {
  /// A byte in one of the files that are written.
  struct Place: Sendable {
    let file: Int
    let offset: Int
  }

  /// Elements of a tensor to be converted.
  struct Part: Sendable {
    let elements: Range<Int>
    let tensor: Tensor
    let place: Place
  }
}

extension Conversion.Tensor {
  private static let partElementCount = 1 << 18

  /// Has the tensor written: copied, or converted in parts.
  func append<Work>(
    to pass: inout OutputPass<Work>, at place: Conversion.Place,
    as work: (Conversion.Part) -> Work
  ) {
    guard !isCopy else {
      pass.append(copyOf: stored.info, in: stored.source, to: place.file, at: place.offset)
      return
    }
    let unit = stored.dtype.blockElementCount
    let parts = (0..<stored.info.elementCount).cut(
      into: max(1, Self.partElementCount / unit) * unit)
    for elements in parts {
      let offset = place.offset + dtype.byteCount(of: elements.lowerBound)
      pass.append(
        work(
          Conversion.Part(
            elements: elements, tensor: self, place: .init(file: place.file, offset: offset))))
    }
  }
}

/// The buffers of one thread, and what it does with elements of a tensor.
struct ElementConverter: ~Copyable {
  private let overflow: Conversion.Overflow
  private var input = Block(byteCount: 0)
  private var output = Block(byteCount: 0)
  private var singles: [Float] = []
  private var doubles: [Double] = []

  init(_ overflow: Conversion.Overflow) { self.overflow = overflow }

  /// Converts a part and writes it.
  ///
  /// - Throws: `different` where a number does not fit the dtype; `io`, `damaged`.
  mutating func convert(
    _ part: Conversion.Part, in files: [OutputFile]
  ) throws(PeftoolError) {
    let (tensor, elements) = (part.tensor, part.elements)
    let source = tensor.stored.dtype
    let count = elements.count
    let bytes =
      source.byteCount(of: elements.lowerBound)..<source.byteCount(of: elements.upperBound)
    input.reserve(bytes.count)
    output.reserve(tensor.dtype.byteCount(of: count))
    var read = input.mutableBytes(bytes.count)
    do throws(PeftoolError) {
      try tensor.stored.source.read(tensor.stored.info, bytes: bytes, into: &read)
    } catch {
      throw tensor.stored.at(error)
    }
    if source.fitsSingle {
      Self.translate(input, source, &singles, tensor.dtype, overflow, into: &output, count: count)
    } else {
      Self.translate(input, source, &doubles, tensor.dtype, overflow, into: &output, count: count)
    }
    let written = output.bytes(tensor.dtype.byteCount(of: count))
    try check(written, of: tensor, from: input.bytes(bytes.count), count: count)
    try files[part.place.file].write(written, at: part.place.offset)
  }

  /// Refuses numbers that have become infinite or NaN; what was so before stays so.
  private func check(
    _ written: RawSpan, of tensor: Conversion.Tensor, from read: RawSpan, count: Int
  ) throws(PeftoolError) {
    guard case .refused(let hint) = overflow, let limit = tensor.dtype.largestFinite else { return }
    let beyond =
      tensor.dtype.nonfiniteCount(written, count: count)
      - tensor.stored.dtype.nonfiniteCount(read, count: count)
    guard beyond > 0 else { return }
    let largest = limit < 1e6 ? "\(Int(limit))" : limit.measureText
    throw tensor.stored.at(
      PeftoolError(
        .different,
        "\(beyond.text(of: "number")) too large for \(tensor.dtype.rawValue), whose largest is "
          + "\(largest)\(hint)"))
  }

  private static func translate<R: Real>(
    _ input: borrowing Block, _ source: DType, _ values: inout [R], _ dtype: DType,
    _ overflow: Conversion.Overflow, into output: inout Block, count: Int
  ) {
    if values.count < count { values = Array(repeating: 0, count: count) }
    var span = values.mutableSpan
    R.read(input.bytes(source.byteCount(of: count)), source, into: &span, count: count)
    if case .saturated = overflow, let limit = dtype.largestFinite {
      R.clamp(&span, to: R(limit), count: count)
    }
    var written = output.mutableBytes(dtype.byteCount(of: count))
    R.narrow(values.span, dtype, into: &written, count: count)
  }
}
