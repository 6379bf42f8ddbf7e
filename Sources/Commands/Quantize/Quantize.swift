import Adapters
import Checkpoints
import Files
import LinearAlgebra
import Quantization
import Synchronization
import Tensors

/// Carries out a `QuantizePlan`.
///
/// The steps go over ranges of elements that begin and end with blocks, so the bytes do not depend
/// on the threads. Double quantization reads the weights twice: the mean of all scales of a weight
/// stands in its state, whose length the header of the file has to know.
///
/// Peak memory: for each thread a step of some MiB; the scales of the weights in work, a 64th of
/// their elements; the headers; and what reading takes.
struct Quantize: Sendable {
  /// What came of it.
  struct Summary: Sendable {
    /// The bytes of the tensors' files.
    var byteCount = 0
    /// What each weight has lost; empty without a report.
    var losses: [QuantizationLoss] = []
  }

  /// How it is carried out.
  struct Options: Sendable {
    var isForced = false
    var threads: Int?
    var isCompared = false
  }

  let plan: QuantizePlan

  private static let stepElementCount = 1 << 19

  /// The bytes that are read.
  var inputByteCount: Int {
    let whole = plan.model.tensors.reduce(0) { $0 + $1.byteCount }
    return plan.weights.filter(\.isNested).reduce(whole) { $0 + $1.tensor.info.byteCount }
  }

  /// Quantizes, and puts the output in its place.
  ///
  /// - Parameter progress: is told of bytes read, from any thread.
  /// - Throws: `io`; `unsupported` where a weight has NaN or infinity; `damaged` and `different`
  ///   where an input is cut short or changes.
  func run(
    to path: String, _ options: Options, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> Summary {
    let offsets = try offsets(threads: options.threads, progress)
    let tensors = plan.tensors(offsets: offsets)
    let layout = try CheckpointLayout(
      saving: tensors.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape, fileIndex: 0) },
      maximumByteCount: plan.shardByteCount, parameterCount: plan.parameterCount)
    let output = ModelOutput(to: .directory(path), layout, inputs: [plan.model.source])
    return try output.write(force: options.isForced) { (folder) throws(PeftoolError) in
      try folder.carryOtherFiles(of: plan.model, config: plan.config)
    } tensors: { (files) throws(PeftoolError) in
      try write(tensors, layout, files, offsets, options, progress)
    }
  }

  /// What the scales of each weight are taken less of; nil where they are kept in f32.
  ///
  /// - Throws: as `run`.
  func offsets(
    threads: Int?, _ progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> [Float?] {
    var pass = OutputPass<Step>()
    var means: [Mean] = []
    for (place, weight) in plan.weights.enumerated() {
      let steps = weight.isNested ? weight.steps(elementCount: Self.stepElementCount) : []
      means.append(
        Mean(
          scaleCount: FourBitCode.blockCount(
            of: weight.rowCount * weight.columnCount, blockSize: weight.unitElementCount),
          stepCount: steps.count))
      for elements in steps { pass.append(Step(weight: place, elements: elements)) }
    }
    _ = try pass.run(
      into: [], threads: threads ?? availableProcessorCount, progress: progress,
      worker: { WeightQuantizer() },
      perform: { (worker, step) throws(PeftoolError) in
        let weight = plan.weights[step.weight]
        means[step.weight].add(
          try worker.absmax(
            step.elements, of: weight, blockSize: weight.unitElementCount),
          at: step.elements.lowerBound / weight.unitElementCount)
        progress(step.elements.count * weight.tensor.dtype.bitCount / 8)
      })
    return means.map(\.value)
  }

  /// Elements of a weight.
  private struct Step {
    let weight: Int
    let elements: Range<Int>
  }

  /// One of the tensors that a weight becomes.
  private struct Part: Hashable {
    let weight: Int
    let kind: QuantizePlan.Part
  }

  private func write(
    _ tensors: [QuantizePlan.Tensor], _ layout: CheckpointLayout, _ files: [OutputFile],
    _ offsets: [Float?], _ options: Options, _ progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> Summary {
    var places: [Part: WeightQuantizer.Target.Place] = [:]
    var pass = OutputPass<Work>()
    for (file, entry) in layout.files.enumerated() {
      pass.append(entry.header, to: file, at: 0)
      for (item, range) in entry.tensors {
        let tensor = tensors[item]
        let place = Conversion.Place(file: file, offset: range.lowerBound)
        switch tensor.content {
        case .bytes(let bytes): pass.append(bytes, to: file, at: range.lowerBound)
        case .copy(let copy): copy.append(to: &pass, at: place, as: Work.conversion)
        case .made(let weight, let kind):
          places[Part(weight: weight, kind: kind)] = .init(
            file: files[file], offset: range.lowerBound)
        }
      }
    }
    var targets: [WeightQuantizer.Target] = []
    for (place, weight) in plan.weights.enumerated() {
      guard let codes = places[Part(weight: place, kind: .codes)],
        let scales = places[Part(weight: place, kind: .scales)]
      else { preconditionFailure("every weight has its tensors in the layout") }
      targets.append(
        .init(
          codes: codes, scales: scales, nested: places[Part(weight: place, kind: .nestedScales)],
          shifts: places[Part(weight: place, kind: .shifts)]))
      for elements in weight.steps(elementCount: Self.stepElementCount) {
        pass.append(.quantization(Step(weight: place, elements: elements)))
      }
    }
    let comparisons = try pass.run(
      into: files, threads: options.threads ?? availableProcessorCount, progress: progress,
      worker: { Worker() },
      perform: { (worker, work) throws(PeftoolError) -> ElementComparison in
        switch work {
        case .conversion(let part):
          try worker.converter.convert(part, in: files)
          progress(part.elements.count * part.tensor.stored.dtype.bitCount / 8)
          return ElementComparison()
        case .quantization(let step):
          let weight = plan.weights[step.weight]
          let offset = offsets[step.weight]
          try worker.quantizer.encode(step.elements, of: weight, offset: offset)
          try worker.quantizer.write(step.elements, of: weight, to: targets[step.weight])
          progress(step.elements.count * weight.tensor.dtype.bitCount / 8)
          return options.isCompared
            ? worker.quantizer.compare(step.elements, of: weight, offset: offset)
            : ElementComparison()
        }
      })
    var summary = Summary()
    summary.byteCount = layout.byteCount
    if options.isCompared { summary.losses = losses(pass.works, comparisons, offsets) }
    return summary
  }

  private enum Work {
    case conversion(Conversion.Part)
    case quantization(Step)
  }

  private struct Worker: ~Copyable {
    var quantizer = WeightQuantizer()
    var converter = ElementConverter(.refused(hint: ""))
  }

  private func losses(
    _ works: [Work], _ comparisons: [ElementComparison], _ offsets: [Float?]
  ) -> [QuantizationLoss] {
    var sums = Array(repeating: ElementComparison(), count: plan.weights.count)
    for (work, next) in zip(works, comparisons) {
      guard case .quantization(let step) = work else { continue }
      sums[step.weight].add(next)
    }
    return plan.weights.indices.map { place in
      QuantizationLoss(
        module: plan.weights[place].module,
        count: plan.weights[place].rowCount * plan.weights[place].columnCount,
        byteCount: plan.byteCount(of: place, offset: offsets[place]), sums[place])
    }
  }
}

/// The mean of the scales of a weight, once all its steps have given theirs.
private final class Mean: Sendable {
  private struct State {
    var scales: [Float] = []
    var stepCount: Int
    var mean: Float?
  }

  private let scaleCount: Int
  private let state: Mutex<State>

  init(scaleCount: Int, stepCount: Int) {
    self.scaleCount = scaleCount
    state = Mutex(State(stepCount: stepCount))
  }

  var value: Float? { state.withLock { $0.mean } }

  /// Takes the scales of a step, which begin at that place.
  func add(_ scales: [Float], at place: Int) {
    state.withLock { state in
      // No weight that is not in work yet takes memory.
      if state.scales.isEmpty { state.scales = Array(repeating: 0, count: scaleCount) }
      state.scales.replaceSubrange(place..<place + scales.count, with: scales)
      state.stepCount -= 1
      guard state.stepCount == 0 else { return }
      state.mean = NestedScales.offset(of: state.scales.span)
      state.scales = []
    }
  }
}
