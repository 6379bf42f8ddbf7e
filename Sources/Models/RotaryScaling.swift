import Glibc

/// How a model's rotary frequencies are stretched to longer texts: `rope_scaling`.
///
/// Source: transformers 5, `modeling_rope_utils.py`; the numbers are its f32.
package struct RotaryScaling: Equatable, Sendable {
  /// `rope_theta`.
  package let theta: Double
  /// The kind, with its settings.
  package let kind: Kind

  /// `rope_type`.
  package enum Kind: Equatable, Sendable {
    /// None.
    case standard
    /// Angles divided by a factor.
    case linear(factor: Double)
    /// A larger base for texts longer than `original` positions.
    case dynamic(factor: Double, original: Int)
    /// Llama 3's: long waves are stretched, short ones are not.
    case llama3(factor: Double, low: Double, high: Double, original: Int)
    /// YaRN (Peng et al. 2023).
    case yarn(YaRN)
  }

  /// The settings of YaRN.
  package struct YaRN: Equatable, Sendable {
    let factor: Double
    let original: Int
    let betaFast: Double
    let betaSlow: Double
    /// What cosines and sines are multiplied by.
    let attentionFactor: Double
    let truncates: Bool
  }

  package init(theta: Double, kind: Kind = .standard) {
    self.theta = theta
    self.kind = kind
  }

  /// The angle of each pair for one position, (D/2), and what cosines and sines are multiplied by.
  ///
  /// - Parameter length: the positions of the text, for `dynamic`.
  func frequencies(headSize: Int, length: Int) -> (frequencies: [Float], factor: Float) {
    switch kind {
    case .standard:
      return (Self.frequencies(theta, headSize), 1)
    case .linear(let factor):
      return (Self.frequencies(theta, headSize).map { $0 / Float(factor) }, 1)
    case .dynamic(let factor, let original):
      let length = Double(max(length, original))
      let size = Double(headSize)
      let stretch = factor * length / Double(original) - (factor - 1)
      return (Self.frequencies(theta * pow(stretch, size / (size - 2)), headSize), 1)
    case .llama3(let factor, let low, let high, let original):
      return (
        Self.frequencies(theta, headSize).map { frequency in
          let wavelength = 2 * Float.pi / frequency
          let context = Float(original)
          if wavelength < context / Float(high) { return frequency }
          if wavelength > context / Float(low) { return frequency / Float(factor) }
          let smooth = (context / wavelength - Float(low)) / Float(high - low)
          return (1 - smooth) * (frequency / Float(factor)) + smooth * frequency
        }, 1
      )
    case .yarn(let yarn):
      return (Self.frequencies(theta, headSize, yarn), Float(yarn.attentionFactor))
    }
  }

  /// θ^(−2i/D).
  private static func frequencies(_ theta: Double, _ headSize: Int) -> [Float] {
    stride(from: 0, to: headSize, by: 2).map { 1 / power(theta, Float($0) / Float(headSize)) }
  }

  /// torch raises a number to a tensor of f32 in f32.
  private static func power(_ base: Double, _ exponent: Float) -> Float {
    Float(pow(Double(Float(base)), Double(exponent)))
  }

  private static func frequencies(_ theta: Double, _ headSize: Int, _ yarn: YaRN) -> [Float] {
    let size = Double(headSize)
    func correction(_ rotations: Double) -> Double {
      size * log(Double(yarn.original) / (rotations * 2 * .pi)) / (2 * log(theta))
    }
    var low = correction(yarn.betaFast)
    var high = correction(yarn.betaSlow)
    if yarn.truncates { (low, high) = (low.rounded(.down), high.rounded(.up)) }
    low = max(low, 0)
    high = min(high, size - 1)
    if low == high { high += 0.001 }
    return stride(from: 0, to: headSize, by: 2).map { place in
      let wave = power(theta, Float(place) / Float(headSize))
      let ramp = min(max((Float(place / 2) - Float(low)) / Float(high - low), 0), 1)
      let kept = 1 - ramp
      return 1 / (Float(yarn.factor) * wave) * (1 - kept) + 1 / wave * kept
    }
  }
}
