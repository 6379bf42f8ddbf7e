import Glibc

@testable import Models

/// Attention in f64 with whole matrices of scores; shapes as of `Attention`, row after row.
struct AttentionTwin {
  let heads, keyHeads, headSize: Int
  let window: Int?
  let scaling: Double
  let texts: [Range<Int>]

  private func query(_ token: Int, _ head: Int) -> Int { (token * heads + head) * headSize }
  private func key(_ token: Int, _ head: Int) -> Int {
    (token * keyHeads + head / (heads / keyHeads)) * headSize
  }

  /// The keys that a query sees.
  private func visible(_ token: Int, _ text: Range<Int>) -> Range<Int> {
    max(text.lowerBound, token + 1 - (window ?? text.count))..<token + 1
  }

  /// The softmax of a query's scores, and the logarithm of their sum.
  private func weights(
    _ q: [Double], _ k: [Double], _ token: Int, _ head: Int, _ keys: Range<Int>
  ) -> (weights: [Double], lse: Double) {
    let from = query(token, head)
    let scores = keys.map { other in
      let to = key(other, head)
      return (0..<headSize).reduce(0) { $0 + q[from + $1] * k[to + $1] } * scaling
    }
    let top = scores.max() ?? 0
    let sum = scores.reduce(0) { $0 + exp($1 - top) }
    return (scores.map { exp($0 - top) / sum }, top + log(sum))
  }

  /// o, (N, heads·D), and lse, (heads, N).
  func forward(_ q: [Double], _ k: [Double], _ v: [Double]) -> (o: [Double], lse: [Double]) {
    let count = texts.last?.upperBound ?? 0
    var o = [Double](repeating: 0, count: q.count)
    var lse = [Double](repeating: 0, count: heads * count)
    for text in texts {
      for token in text {
        for head in 0..<heads {
          let keys = visible(token, text)
          let (weights, sum) = weights(q, k, token, head, keys)
          lse[head * count + token] = sum
          for (weight, other) in zip(weights, keys) {
            let (to, from) = (query(token, head), key(other, head))
            for place in 0..<headSize { o[to + place] += weight * v[from + place] }
          }
        }
      }
    }
    return (o, lse)
  }

  /// dq, and dk and dv summed over the query heads of each key head.
  func backward(
    _ q: [Double], _ k: [Double], _ v: [Double], _ dOut: [Double]
  ) -> (dq: [Double], dk: [Double], dv: [Double]) {
    var dq = [Double](repeating: 0, count: q.count)
    var dk = [Double](repeating: 0, count: k.count)
    var dv = dk
    for text in texts {
      for token in text {
        for head in 0..<heads {
          let keys = visible(token, text)
          let (weights, _) = weights(q, k, token, head, keys)
          let own = query(token, head)
          let changes = keys.map { other in
            let from = key(other, head)
            return (0..<headSize).reduce(0) { $0 + dOut[own + $1] * v[from + $1] }
          }
          let mean = dot(weights, changes)
          for (place, other) in keys.enumerated() {
            let from = key(other, head)
            let change = weights[place] * (changes[place] - mean) * scaling
            for element in 0..<headSize {
              dq[own + element] += change * k[from + element]
              dk[from + element] += change * q[own + element]
              dv[from + element] += weights[place] * dOut[own + element]
            }
          }
        }
      }
    }
    return (dq, dk, dv)
  }
}
