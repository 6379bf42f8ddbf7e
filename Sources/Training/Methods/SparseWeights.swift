import Adapters
import Files
import LinearAlgebra
import Models

/// SHiRA: of each layer's weight a few entries are trained, and the change of them is the adapter.
///
/// W' = W + S, with as many entries in S as a LoRA of that rank has numbers, r·(in + out): at random,
/// or where W is largest by magnitude. The backward pass makes the gradient of a whole layer, of
/// which the entries' own is taken as soon as the pass has left it. Source: Bhardwaj and others 2024;
/// PEFT `shira/layer.py`, whose gradients are those of S.
///
/// Memory: the layers' weights in f32, one layer's gradients, and of each entry its place, its first
/// value, its change, gradient and moments.
package final class SparseWeights: TrainingMethod {
  /// What it has to be told.
  package struct Settings: Equatable, Sendable {
    /// PEFT's `r`.
    package let rank: Int
    /// Which entries are trained.
    package let mask: Mask
    /// What random ones are drawn from.
    package let seed: UInt64

    package init(rank: Int, mask: Mask, seed: UInt64) {
      self.rank = rank
      self.mask = mask
      self.seed = seed
    }
  }

  /// Which entries of a weight are trained.
  package enum Mask: String, CaseIterable, Sendable {
    /// Any: PEFT's `random`, though not its draw.
    case random
    /// The largest by magnitude, the paper's SHiRA-WM.
    case magnitude
  }

  /// The layers, in the order of the model.
  let items: [SparseMatrix]
  private let places: [ObjectIdentifier: Int]

  /// - Parameter matrices: those of which entries are trained.
  init(_ matrices: [TrainableParameter], _ settings: Settings) {
    items = matrices.map { SparseMatrix($0, places: settings.places(in: $0)) }
    places = Dictionary(
      uniqueKeysWithValues: matrices.enumerated().map { (ObjectIdentifier($1), $0) })
  }

  func moved(_ parameters: [TrainableParameter]) -> [TrainableParameter] {
    parameters.map { places[ObjectIdentifier($0)].map { items[$0].change } ?? $0 }
  }

  func take(_ matrices: [TrainableParameter], step: Int, _ team: ThreadTeam) {
    let taken = matrices.compactMap { places[ObjectIdentifier($0)] }
    team.forEach(taken.count) { _, number in items[taken[number]].takeGradient() }
  }

  func gradientNorm(of parameters: [TrainableParameter], _ team: ThreadTeam) -> Double {
    GradientNorm.norm(of: moved(parameters), team)
  }

  func afterUpdate(step: Int, rate: Double, _ optimizer: AdamW, _ team: ThreadTeam) {
    team.forEach(items.count) { _, place in
      items[place].moveWeight()
      items[place].change.gradient.clear()
    }
  }
}

extension SparseWeights.Settings {
  /// The trained entries of a weight, ascending, counted row by row.
  fileprivate func places(in weight: TrainableParameter) -> [Int] {
    let (rows, columns) = (weight.values.count, weight.values.columns)
    let (count, all) = (rank * (rows + columns), rows * columns)
    precondition(count <= all, "no more entries than there are")
    switch mask {
    case .magnitude: return weight.values.values.placesOfLargest(count: count)
    case .random:
      // Floyd's sample: each set of entries is as likely as any other.
      let random = RandomNumbers(seed: seed, stream: RandomNumbers.stream(named: weight.name))
      var chosen: Set<Int> = []
      for (number, last) in (all - count..<all).enumerated() {
        let place = Int(random.uniform(number) * Double(last + 1))
        if !chosen.insert(place).inserted { chosen.insert(last) }
      }
      return chosen.sorted()
    }
  }
}

/// A layer's weight, and what of it is trained.
final class SparseMatrix: Sendable {
  /// The bytes of an entry's place, its first value, its change and the gradient of that.
  static let byteCountOfEntry = 8 + 3 * 4

  /// W + S, (out, in).
  let weight: TrainableParameter
  /// S's entries, (1, n), by PEFT's name.
  let change: TrainableParameter
  /// Where they are, ascending, counted row by row.
  let places: [Int]
  /// W's entries there.
  private let starts: Rows

  init(_ weight: TrainableParameter, places: [Int]) {
    self.weight = weight
    self.places = places
    change = TrainableParameter(
      weight.name.droppingSuffix(".weight") + ".shira_weight", Rows(1, places.count))
    starts = Rows(1, places.count)
    weight.values.withSpan { values in
      starts.withSpan { starts in
        for (number, place) in places.enumerated() { starts[number] = values[place] }
      }
    }
  }

  /// The name of the places, by PEFT.
  var indicesName: String { change.name.droppingSuffix("weight") + "indices" }

  /// Adds the entries' gradient to that of S, and takes away what others have left the memory for.
  func takeGradient() {
    weight.gradient.withSpan { whole in
      change.gradient.withSpan { own in
        for (number, place) in places.enumerated() { own[number] += whole[place] }
      }
    }
    weight.gradient.clear()
  }

  /// The row of each entry, then the column of each.
  var indices: [Int32] {
    let columns = weight.values.columns
    return places.map { Int32($0 / columns) } + places.map { Int32($0 % columns) }
  }

  /// Refuses other entries than these.
  ///
  /// - Throws: `different` with the first.
  func take(indices: [Int32]) throws(PeftoolError) {
    let own = self.indices
    guard let entry = own.indices.first(where: { own[$0] != indices[$0] }) else { return }
    throw PeftoolError(
      .different, "has \(indices[entry]) for entry \(entry), expected \(own[entry])")
  }

  /// W + S where S is.
  func moveWeight() {
    weight.values.withSpan { values in
      starts.withSpan { starts in
        change.values.withSpan { changes in
          for (number, place) in places.enumerated() {
            values[place] = starts[number] + changes[number]
          }
        }
      }
    }
  }
}

extension String {
  fileprivate func droppingSuffix(_ suffix: String) -> String {
    hasSuffix(suffix) ? String(dropLast(suffix.count)) : self
  }
}
