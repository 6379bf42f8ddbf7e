package import Files
import LinearAlgebra
import Synchronization
package import Tensors

/// The pass that fills output files: bytes that are known, tensors that are copied, and what
/// workers make.
///
/// Steps are taken in the order in which they were appended, so that a stream, whose writers wait
/// for their turn, is appended to in the order of its bytes. What is written does not depend on the
/// number of threads.
///
/// Peak memory: a block of 1 MiB a thread where a copied tensor does not lie as it is in a file;
/// what the workers take; and 48 bytes for each of what they make, each block and each 8 MiB that
/// are copied, besides the work and its result.
package struct OutputPass<Work: Sendable>: Sendable {
  private enum Step {
    case bytes([UInt8], file: Int, offset: Int)
    case copy(InputFile, Range<Int>, file: Int, offset: Int)
    /// Bytes of a tensor, by its place in `tensors`.
    case read(Int, Range<Int>, file: Int, offset: Int)
    case work(Int)
  }

  /// What workers make, in the order of its steps.
  package private(set) var works: [Work] = []
  /// Short ones: there may be millions.
  private var steps: [Step] = []
  private var tensors: [(info: TensorInfo, source: any TensorSource)] = []

  package init() {}

  /// Has bytes written at an offset of a file, which counts in the list given to `run`.
  package mutating func append(_ bytes: [UInt8], to file: Int, at offset: Int) {
    steps.append(.bytes(bytes, file: file, offset: offset))
  }

  /// Has the bytes of a tensor copied.
  package mutating func append(
    copyOf tensor: TensorInfo, in source: any TensorSource, to file: Int, at offset: Int
  ) {
    guard tensor.byteCount > 0 else { return }
    guard let (input, range) = source.place(of: tensor) else {
      let length = tensor.dtype.byteCount(ofWholeBlocksIn: Self.readByteCount)
      for part in (0..<tensor.byteCount).cut(into: length) {
        steps.append(
          .read(tensors.endIndex, part, file: file, offset: offset + part.lowerBound))
      }
      tensors.append((tensor, source))
      return
    }
    var start = range.lowerBound
    // What follows in both files is one copy, as far as that may be long.
    if case .copy(let before, let done, file, let place) = steps.last, before === input,
      done.upperBound == start, place + done.count == offset
    {
      start += min(range.count, Self.copyByteCount - done.count)
      steps[steps.endIndex - 1] = .copy(
        input, done.lowerBound..<start, file: file, offset: place)
    }
    for part in (start..<range.upperBound).cut(into: Self.copyByteCount) {
      steps.append(
        .copy(input, part, file: file, offset: offset + part.lowerBound - range.lowerBound))
    }
  }

  /// Has a worker make something.
  package mutating func append(_ work: Work) {
    steps.append(.work(works.endIndex))
    works.append(work)
  }

  /// Fills the files.
  ///
  /// Every thread has a worker of its own; `perform` may run on several at once.
  /// - Parameter progress: is told of the bytes of each copy, from any thread.
  /// - Returns: what `perform` has given for each of `works`.
  /// - Throws: as `InputFile.read` and `OutputFile.write`, and what `perform` throws; of several
  ///   errors that of the first step.
  package func run<Worker: ~Copyable, Result: Sendable>(
    into files: [OutputFile], threads: Int, progress: @Sendable (Int) -> Void,
    worker makeWorker: () -> Worker,
    perform: (inout Worker, Work) throws(PeftoolError) -> Result
  ) throws(PeftoolError) -> [Result] {
    let results = OrderedResults<Result>(count: works.count)
    try forEachBlock(count: steps.count, threads: threads) {
      (queue, current) throws(PeftoolError) in
      var worker = makeWorker()
      do throws(PeftoolError) {
        while let step = queue.next() {
          current = step
          switch steps[step] {
          case .bytes(let bytes, let file, let offset):
            // Any bytes may be read as bytes.
            try unsafe files[file].write(bytes.span.bytes, at: offset)
          case .copy(let input, let range, let file, let offset):
            try files[file].copy(range, of: input, to: offset)
            progress(range.count)
          case .read(let tensor, let range, let file, let offset):
            let (info, source) = tensors[tensor]
            try Self.read(info, range, of: source, into: files[file], at: offset)
            progress(range.count)
          case .work(let place):
            results.set(try perform(&worker, works[place]), at: place)
          }
        }
      } catch {
        for file in files { file.abandon() }
        throw error
      }
    }
    return results.values
  }

  private static func read(
    _ tensor: TensorInfo, _ range: Range<Int>, of source: any TensorSource,
    into file: OutputFile, at offset: Int
  ) throws(PeftoolError) {
    var block = Block(byteCount: range.count)
    var bytes = block.mutableBytes(range.count)
    do throws(PeftoolError) {
      try source.read(tensor, bytes: range, into: &bytes)
    } catch {
      throw error.at(tensor: tensor.name, path: source.files[tensor.fileIndex].path)
    }
    try file.write(block.bytes(range.count), at: offset)
  }

  private static var copyByteCount: Int { 8 << 20 }
  private static var readByteCount: Int { 1 << 20 }
}

extension Range<Int> {
  /// Ranges of a length, one after the other; the last may be shorter.
  package func cut(into length: Int) -> [Range<Int>] {
    stride(from: lowerBound, to: upperBound, by: Swift.max(1, length)).map {
      $0..<Swift.min($0 + Swift.max(1, length), upperBound)
    }
  }
}

extension DType {
  /// The most bytes that are whole elements, or blocks, and no more than so many.
  fileprivate func byteCount(ofWholeBlocksIn byteCount: Int) -> Int {
    let block = Swift.max(1, self.byteCount(of: blockElementCount))
    return Swift.max(1, byteCount / block) * block
  }
}

/// What several threads find out, in the order of what was asked.
private final class OrderedResults<Result: Sendable>: Sendable {
  private let found: Mutex<[Result?]>

  init(count: Int) { found = Mutex(Array(repeating: nil, count: count)) }

  func set(_ result: Result, at place: Int) { found.withLock { $0[place] = result } }

  var values: [Result] { found.withLock { $0.compactMap(\.self) } }
}
