import CKernels
import LinearAlgebra
import Testing

@testable import Models
@testable import Training

/// A map of 8-bit codes, as bitsandbytes makes it (`create_dynamic_map`), in f64.
private func levels(isSigned: Bool) -> [Double] {
  var levels = [0.0, 1.0]
  for exponent in 0..<7 {
    let count = 1 << (isSigned ? exponent : exponent + 1)
    for place in 0..<count {
      let mean = 0.1 + 0.9 * (Double(place) + 0.5) / Double(count)
      var scale = mean
      for _ in exponent..<6 { scale /= 10 }
      levels.append(scale)
      if isSigned { levels.append(-scale) }
    }
  }
  return levels.sorted()
}

@Suite struct QuantizedMomentsTests {
  private static let step = pef_adamw(
    decay: 0.99, beta2: 0.95, one_less_beta1: 0.2, one_less_beta2: 0.05, step_size: 0.01, root: 0.3,
    epsilon: 1e-8, late_decay: 0)

  /// Three steps against the formula: numbers move by moments that were coded and decoded, and each
  /// code is that of the nearest value of the map.
  @Test(arguments: [1, 255, 256, 257, 700]) func stepsAreTheFormula(count: Int) {
    let blocks = (count + 255) / 256
    var p = (0..<count).map { Float($0 % 13) * 0.3 - 2 }
    var (m, v) = ([UInt8](repeating: 0, count: count), [UInt8](repeating: 0, count: count))
    var (mScales, vScales) = (
      [Float](repeating: 0, count: blocks), [Float](repeating: 0, count: blocks)
    )
    let maps = (levels(isSigned: true), levels(isSigned: false))
    #expect(maps.0.count == 256 && maps.1.count == 256)
    for number in 1...3 {
      let g = (0..<count).map { Float(($0 * 7 + number) % 19) * 0.11 - 1 }
      var wide = (
        p: p, m: m.enumerated().map { Float(maps.0[Int($1)]) * mScales[$0 / 256] },
        v: v.enumerated().map { Float(maps.1[Int($1)]) * vScales[$0 / 256] }
      )
      var step = Self.step
      pef_adamw_f32(&step, &wide.p, &wide.m, &wide.v, g, count)
      pef_adamw8_f32(&step, &p, &m, &mScales, &v, &vScales, g, count)
      #expect(zip(p, wide.p).allSatisfy { abs($0 - $1) < 1e-5 })
      for (codes, scales, values, map) in [
        (m, mScales, wide.m, maps.0), (v, vScales, wide.v, maps.1),
      ] {
        for block in 0..<blocks {
          let range = block * 256..<min(count, (block + 1) * 256)
          let most = values[range].map(abs).max() ?? 0
          #expect(abs(scales[block] - most) <= 1e-6 * most)
          for place in range {
            let value = Double(values[place]) / Double(max(most, .leastNormalMagnitude))
            let least = map.map { abs($0 - value) }.min() ?? 0
            #expect(abs(map[Int(codes[place])] - value) <= least + 1e-6)
          }
        }
      }
    }
  }

  /// Codes of numbers of all sizes, each in a block whose largest is 1: those of the nearest values.
  @Test func codesAreTheNearestForAllSizes() {
    var step = Self.step
    (step.one_less_beta1, step.beta2, step.one_less_beta2) = (1, 0, 1)
    let maps = (levels(isSigned: true), levels(isSigned: false))
    for exponent in 0..<30 {
      let sizes = (0..<127).map {
        Float(sign: .plus, exponent: -1 - exponent, significand: 1 + Float($0) / 127)
      }
      let g = [1] + sizes + sizes.map(-) + [0]
      var p = [Float](repeating: 0, count: g.count)
      var (m, v) = ([UInt8](repeating: 127, count: g.count), [UInt8](repeating: 0, count: g.count))
      var (mScales, vScales): ([Float], [Float]) = ([0], [0])
      pef_adamw8_f32(&step, &p, &m, &mScales, &v, &vScales, g, g.count)
      for place in g.indices {
        let value = Double(g[place])
        for (code, own, map) in [(m[place], value, maps.0), (v[place], value * value, maps.1)] {
          let least = map.map { abs($0 - own) }.min() ?? 0
          #expect(abs(map[Int(code)] - own) <= least + 3e-7 * abs(own))
        }
      }
    }
  }

  /// The points midway between first moments have the lower code, the next numbers above the upper.
  @Test func midpointsHaveTheLowerCode() {
    var step = Self.step
    step.one_less_beta1 = 1
    var levels = [Float](repeating: 0, count: 256)
    pef_levels8(&levels)
    let midpoints = zip(levels, levels.dropFirst()).map { 0.5 * ($0 + $1) }
    for (numbers, first) in [
      (midpoints, 0), (midpoints.map(\.nextUp), 1), (midpoints.map(\.nextDown), 0),
    ] {
      let g = [1] + numbers
      var p = [Float](repeating: 0, count: 256)
      var (m, v) = ([UInt8](repeating: 127, count: 256), [UInt8](repeating: 0, count: 256))
      var (mScales, vScales): ([Float], [Float]) = ([0], [0])
      pef_adamw8_f32(&step, &p, &m, &mScales, &v, &vScales, g, 256)
      #expect(m.dropFirst().map(Int.init) == Array(first..<255 + first))
    }
  }

  /// What is not finite ends a run elsewhere, not in the search; what is beside it has its code.
  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func whatIsNotFiniteIsNotSearchedFor(number: Float) {
    var p: [Float] = [1, 1, 1]
    var (m, v): ([UInt8], [UInt8]) = ([127, 127, 127], [0, 0, 0])
    var (mScales, vScales): ([Float], [Float]) = ([0], [0])
    var step = Self.step
    pef_adamw8_f32(&step, &p, &m, &mScales, &v, &vScales, [number, 0, -number], 3)
    #expect(m[1] == 127 && v[1] == 0 && p[1] == 0.99)
  }

  /// Zeros stay zeros, where bitsandbytes on a CPU makes 1.5e-5 of the largest of them.
  @Test func zerosStayZeros() {
    var p: [Float] = [1, 1, 1]
    var (m, v): ([UInt8], [UInt8]) = ([0, 0, 0], [0, 0, 0])
    var (mScales, vScales): ([Float], [Float]) = ([0], [0])
    var step = Self.step
    pef_adamw8_f32(&step, &p, &m, &mScales, &v, &vScales, [0, 1, -1], 3)
    #expect(m[0] == 127 && v[0] == 0 && m[1] == 255 && v[1] == 255)
    #expect(p[0] == 0.99)
  }

  /// Large parameters have codes, small ones have floats; both come back from a checkpoint.
  @Test func whatACheckpointHasComesBack() {
    let counts = [100, 5000, 70_000]
    func make() -> AdamW {
      let parameters = counts.map { count in
        let parameter = TrainableParameter("p\(count)", Rows(count / 50, 50))
        for row in 0..<count / 50 {
          for column in 0..<50 {
            parameter.gradient[row, column] = Float((row * 3 + column) % 7) - 3
          }
        }
        return parameter
      }
      var settings = AdamW.Settings()
      settings.isEightBit = true
      return AdamW(parameters, settings)
    }
    let (one, other) = (make(), make())
    let team = ThreadTeam(count: 3)
    one.step(rates: [0.1, 0.1, 0.1], team)
    for (from, to) in zip(one.state, other.state) {
      #expect(from.name == to.name && from.shape == to.shape)
      switch (from.values, to.values) {
      case (.floats(let rows), .floats(let others)): others.copy(from: rows)
      case (.codes(let get, _), .codes(_, let set)): set(get())
      case (.scales(let get, _), .scales(_, let set)): set(get())
      default: Issue.record("other kinds")
      }
    }
    #expect(
      one.state.map(\.name).filter { $0.hasPrefix("p100.") } == ["p100.exp_avg", "p100.exp_avg_sq"])
    #expect(one.state.count == 2 + 4 + 4)
    let bytes = counts[1] * 2 + counts[2] * 2 + 8 * (20 + 274) + 8 * counts[0]
    #expect(AdamW.byteCount(of: counts, isEightBit: true) == bytes)
    #expect(one.state.reduce(0) { $0 + $1.byteCount } == bytes)
    for (parameter, from) in zip(other.parameters, one.parameters) {
      parameter.values.copy(from: from.values)
    }
    other.restore(stepCount: 1)
    one.step(rates: [0.1, 0.1, 0.1], team)
    other.step(rates: [0.1, 0.1, 0.1], ThreadTeam(count: 1))
    #expect(one.parameters.map(\.values.values) == other.parameters.map(\.values.values))
  }
}
