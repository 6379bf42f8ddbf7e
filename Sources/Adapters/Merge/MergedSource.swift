package import Checkpoints
package import Files
import JSON
import Synchronization
package import Tensors

/// A merged model as a source of tensors: what `Merge` would write, computed when it is read.
///
/// For another step that goes over the whole model, such as quantization.
///
/// Memory: for a range that is read the rows that it touches twice and 4 tiles of 16,384 numbers; the
/// factors A and B of four tensors.
package struct MergedSource: TensorSource {
  package let path: String
  package let files: [InputFile]
  package let tensors: [TensorInfo]
  package let metadata: [(key: String, value: String)]
  private let plan: MergePlan
  private let places: [ExactName: Int]
  private let preparations = RecentPreparations()

  /// The tensors of a plan.
  package init(_ plan: MergePlan) {
    self.plan = plan
    let base = plan.base.checkpoint.source
    path = base.path
    metadata = base.metadata
    files = base.files
    tensors = plan.tensors.map {
      TensorInfo(
        name: $0.name, dtype: $0.dtype, shape: $0.base.shape, byteRange: 0..<$0.byteCount,
        fileIndex: $0.fileIndex)
    }
    var places: [ExactName: Int] = [:]
    for (place, tensor) in tensors.enumerated() { places[ExactName(tensor.name)] = place }
    self.places = places
  }

  package var origins: [any TensorSource] {
    get throws(PeftoolError) {
      [plan.base.checkpoint.source] + plan.adapters.map(\.checkpoint.source)
    }
  }

  package func place(of tensor: TensorInfo) -> (file: InputFile, range: Range<Int>)? {
    let merged = plan.tensors[place(tensor)]
    return merged.isCopy ? merged.base.source.place(of: merged.base.info) : nil
  }

  package func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    let place = place(tensor)
    let merged = plan.tensors[place]
    guard !merged.isCopy else {
      return try merged.base.source.read(merged.base.info, bytes: range, into: &buffer)
    }
    guard !range.isEmpty else { return }
    let rowByteCount = merged.columnCount * merged.dtype.bitCount / 8
    let rows = range.lowerBound / rowByteCount..<(range.upperBound - 1) / rowByteCount + 1
    var worker = MergeWorker(plan, allowsNonfinite: false)
    _ = try worker.merge(rows, of: place, preparations[place])
    let start = range.lowerBound - rows.lowerBound * rowByteCount
    worker.copy(start..<start + range.count, into: &buffer)
  }

  private func place(_ tensor: TensorInfo) -> Int {
    guard let place = places[ExactName(tensor.name)] else {
      preconditionFailure("a tensor of this source")
    }
    return place
  }
}

/// The factors of the tensors that have been read last.
private final class RecentPreparations: Sendable {
  private static let capacity = 4
  private let known = Mutex<[(tensor: Int, preparation: Preparation)]>([])

  subscript(tensor: Int) -> Preparation {
    known.withLock { known in
      if let found = known.first(where: { $0.tensor == tensor }) { return found.preparation }
      let preparation = Preparation(blockCount: .max)
      known.append((tensor, preparation))
      if known.count > Self.capacity { known.removeFirst() }
      return preparation
    }
  }
}
