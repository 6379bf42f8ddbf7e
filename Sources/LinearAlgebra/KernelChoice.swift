/// The vector instructions that processors have and that OpenBLAS's kernels use.
package enum VectorInstructions: Int, Comparable, CaseIterable, Sendable {
  /// Less than AVX2, or not x86-64.
  case older
  /// AVX2 and FMA.
  case avx2
  /// AVX-512: F, DQ, BW, VL and CD.
  case avx512

  package static func < (a: VectorInstructions, b: VectorInstructions) -> Bool {
    a.rawValue < b.rawValue
  }

  /// The processor whose kernels show what these instructions can do, by OpenBLAS's name.
  private var coreType: String? {
    switch self {
    case .older: nil
    case .avx2: "Haswell"
    case .avx512: "SkylakeX"
    }
  }

  /// What the kernels of a processor use, by OpenBLAS's name of it; nil for names unknown here,
  /// which a later version may have for the better.
  private init?(coreName: String) {
    switch coreName {
    case "Cooperlake", "Sapphirerapids", "SapphireRapids", "SkylakeX": self = .avx512
    case "Excavator", "Haswell", "Zen": self = .avx2
    case "Athlon", "Atom", "Banias", "Barcelona", "Bobcat", "Bulldozer", "Coppermine", "Core2",
      "Dunnington", "Katmai", "Nano", "Nehalem", "Northwood", "Opteron", "Opteron_SSE3", "Penryn",
      "Piledriver", "Prescott", "Sandybridge", "Steamroller", "Unknown":
      self = .older
    default: return nil
    }
  }

  /// What OPENBLAS_CORETYPE should say on a processor with these instructions where OpenBLAS chose
  /// the kernels of `coreName`; nil where its choice is as good.
  package func betterCoreType(than coreName: String) -> String? {
    guard let chosen = VectorInstructions(coreName: coreName), chosen < self else { return nil }
    return coreType
  }
}
