import Glibc

@testable import Models

/// A model in f64, computed as the formulas stand, with the loss of a batch.
struct ModelTwin {
  /// All linear layers, in the order of `Llama.projections`.
  var linears: [LayerTwin]
  private let model: Llama
  private var table: [Double]
  /// Of each layer that of the input, Qwen3's of q and of k, and that of the output; then the last.
  private var norms: [[Double]]

  init(_ model: Llama) {
    self.model = model
    linears = model.projections.map(LayerTwin.init)
    table = model.embedding.table.values.map(Double.init)
    norms =
      model.layers.flatMap { layer in
        [layer.inputNorm, layer.headNorms?.q, layer.headNorms?.k, layer.outputNorm]
          .map { $0?.weight.doubles ?? [] }
      } + [model.norm.weight.doubles]
  }

  /// Changes a number of one of the model's own weights by its place and PEFT's name.
  mutating func set(_ weight: TrainedWeight, _ element: Int, _ value: Double) {
    let path = weight.parameter.name.split(separator: ".").dropFirst(2).map(String.init)
    let hidden = model.configuration.hiddenSize
    let isTied = model.configuration.isTied
    if path[1] == "embed_tokens" {
      var place = element
      if weight.isRows, case .rows(_, let trained) = model.embedding.table {
        place = trained.tokens[element / hidden] * hidden + element % hidden
      }
      table[place] = value
      if isTied { linears[linears.count - 1].w[place] = value }
    } else if path.contains(where: { $0.hasSuffix("norm") }) {
      let names = ["input_layernorm", "q_norm", "k_norm", "post_attention_layernorm"]
      let own = names.firstIndex(of: path[path.count - 2])
      norms[own.map { 4 * (Int(path[2]) ?? 0) + $0 } ?? norms.count - 1][element] = value
    } else {
      let name = path.dropLast().joined(separator: ".")
      let place = model.projections.firstIndex { $0.name == name } ?? 0
      if path.last == "bias" {
        linears[place].bias[element] = value
      } else {
        linears[place].w[element] = value
      }
    }
  }

  /// The sum of the losses of a batch's labels.
  func loss(_ batch: TokenBatch) -> Double {
    let logits = logits(batch)
    let size = model.configuration.vocabularySize
    return batch.labels.enumerated().reduce(0) { sum, entry in
      guard let label = entry.element else { return sum }
      let z = logits[entry.offset * size..<(entry.offset + 1) * size]
      let top = z.max() ?? 0
      return sum + top + log(z.reduce(0) { $0 + exp($1 - top) }) - z[z.startIndex + Int(label)]
    }
  }

  /// (N, vocabulary).
  func logits(_ batch: TokenBatch) -> [Double] {
    let hidden = model.configuration.hiddenSize
    var x = batch.tokens.flatMap { table[Int($0) * hidden..<(Int($0) + 1) * hidden] }
    for (place, layer) in model.layers.enumerated() {
      let own = Array(linears[place * 7..<place * 7 + 7])
      let first = 4 * place
      let epsilon = Double(layer.inputNorm.epsilon)
      let h = normalized(x, norms[first], epsilon)
      var (q, k) = (own[0].forward(h), own[1].forward(h))
      if layer.headNorms != nil {
        q = normalized(q, norms[first + 1], epsilon)
        k = normalized(k, norms[first + 2], epsilon)
      }
      let attention = AttentionTwin(
        heads: layer.attention.heads, keyHeads: layer.attention.keyHeads,
        headSize: layer.attention.headSize, window: layer.attention.window,
        scaling: 1 / Double(layer.attention.headSize).squareRoot(), texts: batch.texts)
      let o = attention.forward(rotated(q, batch), rotated(k, batch), own[2].forward(h)).o
      x = zip(x, own[3].forward(o)).map { $0 + $1 }
      let h2 = normalized(x, norms[first + 3], epsilon)
      let m = zip(own[4].forward(h2), own[5].forward(h2)).map { $0 / (1 + exp(-$0)) * $1 }
      x = zip(x, own[6].forward(m)).map { $0 + $1 }
    }
    return linears[linears.count - 1].forward(
      normalized(x, norms[norms.count - 1], Double(model.norm.epsilon)))
  }

  private func normalized(_ x: [Double], _ weight: [Double], _ epsilon: Double) -> [Double] {
    stride(from: 0, to: x.count, by: weight.count).flatMap { start in
      let row = Array(x[start..<start + weight.count])
      let mean = dot(row, row) / Double(row.count)
      let rho = 1 / (mean + epsilon).squareRoot()
      return zip(row, weight).map { $0 * rho * $1 }
    }
  }

  private func rotated(_ x: [Double], _ batch: TokenBatch) -> [Double] {
    let size = model.configuration.headSize
    let (frequencies, factor) = model.configuration.rotary.frequencies(
      headSize: size, length: 64)
    let width = x.count / batch.tokens.count
    var y = x
    for (token, position) in batch.positions.enumerated() {
      for head in 0..<width / size {
        for (place, frequency) in frequencies.enumerated() {
          let angle = Double(position) * Double(frequency)
          let (cosine, sine) = (cos(angle) * Double(factor), sin(angle) * Double(factor))
          let first = token * width + head * size + place
          let second = first + size / 2
          y[first] = x[first] * cosine - x[second] * sine
          y[second] = x[second] * cosine + x[first] * sine
        }
      }
    }
    return y
  }
}
