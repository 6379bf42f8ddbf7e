@testable import Models

/// A layer in f64; DoRA's norms are those of the start, whatever A and B become.
struct LayerTwin {
  let outputs, inputs, rank, groupSize: Int
  var w, bias: [Double]
  var a, b, m: [Double]
  let norms: [Double]
  let scaling: Double

  init(_ layer: Projection) {
    (outputs, inputs) = (layer.outputs, layer.inputs)
    rank = layer.adapter?.rank ?? 0
    groupSize = layer.adapter?.groupSize ?? 1
    w = layer.weight.values.map(Double.init)
    bias = layer.bias?.doubles ?? [Double](repeating: 0, count: outputs)
    a = layer.adapter?.a.values.doubles ?? []
    b = layer.adapter?.b.values.doubles ?? []
    m = layer.adapter?.magnitude?.values.doubles ?? []
    scaling = Double(layer.adapter?.scaling ?? 0)
    let changed = Self.changed(w, a, b, scaling, outputs, inputs, rank, groupSize)
    norms = (0..<outputs).map { row in
      let own = Array(changed[row * layer.inputs..<(row + 1) * layer.inputs])
      return dot(own, own).squareRoot()
    }
  }

  /// A with a column for each input.
  var appliedA: [Double] { Self.repeated(a, groupSize) }

  private static func repeated(_ a: [Double], _ groupSize: Int) -> [Double] {
    a.flatMap { repeatElement($0, count: groupSize) }
  }

  /// W + s·B·A.
  private static func changed(
    _ w: [Double], _ a: [Double], _ b: [Double], _ s: Double, _ outputs: Int, _ inputs: Int,
    _ rank: Int, _ groupSize: Int
  ) -> [Double] {
    let a = repeated(a, groupSize)
    var v = w
    for row in 0..<outputs {
      for k in 0..<rank {
        let factor = s * b[k * outputs + row]
        for column in 0..<inputs { v[row * inputs + column] += factor * a[k * inputs + column] }
      }
    }
    return v
  }

  /// diag(m / norm) · (W + s·B·A).
  var effective: [Double] {
    var v = Self.changed(w, a, b, scaling, outputs, inputs, rank, groupSize)
    guard !m.isEmpty else { return v }
    for place in v.indices { v[place] *= m[place / inputs] / norms[place / inputs] }
    return v
  }

  func forward(_ x: [Double]) -> [Double] {
    let v = effective
    return (0..<x.count / inputs).flatMap { token in
      (0..<outputs).map { row in
        (0..<inputs).reduce(bias[row]) {
          $0 + v[row * inputs + $1] * x[token * inputs + $1]
        }
      }
    }
  }
}
