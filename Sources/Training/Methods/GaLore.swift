import Files
import LinearAlgebra
import Models
import Synchronization

/// GaLore: all of a model is trained, and the optimizer sees the gradients of the layers' matrices
/// in a subspace of few dimensions.
///
/// Every `gap` steps the largest singular vectors P of a matrix' gradient G are found; R = P·G (or
/// G·Pᵀ) is what AdamW sees, and scale times its step, turned back, is what the matrix takes. The
/// moments stay as they are when the subspace changes. Each vector's largest entry is positive, so
/// that LAPACK's sign does not matter. Of a rank that is small beside the matrix (`Decomposition`) a
/// range finder gives a subspace that is as good, not the same vectors.
///
/// A gradient is taken as soon as the backward pass is done with its layer, and only R is kept until
/// the step: so the norm of all gradients is that of the whole ones, and as R follows from G by a
/// product they can be clipped by it, which galore_torch's updates layer by layer cannot.
///
/// Sources: Zhao et al. 2024, algorithm 2; galore_torch `galore_projector.py`, `adamw.py`.
///
/// Memory: for a matrix (m, n) and rank r, r·min(m, n) for P and 2·r·max(m, n) for R and the step,
/// and as much for the optimizer's moments; a square of min(m, n) a thread and two copies of G while
/// P is found.
package final class GaLore: TrainingMethod {
  /// The settings, by the names of galore_torch.
  package struct Settings: Equatable, Sendable {
    /// `rank`.
    package var rank = 128
    /// `update_proj_gap`: the steps from one subspace to the next.
    package var gap = 200
    /// `scale`.
    package var scale = 0.25
    /// `proj_type`.
    package var projection = Projection.standard
    /// What part of a matrix goes at each step, times the learning rate.
    package var weightDecay = 0.0

    package init() {}
  }

  /// Which sides of a gradient are projected.
  package enum Projection: String, CaseIterable, Sendable {
    /// The shorter one.
    case standard = "std"
    /// The longer one.
    case reverse = "reverse_std"
    case right, left, full
  }

  private let settings: Settings
  private let items: [ProjectedMatrix]
  private let places: [ObjectIdentifier: Int]
  private let product: TeamProduct
  /// For each matrix the sum of squares of its gradient.
  private let squares: Mutex<[Double]>
  private let failure = Mutex<PeftoolError?>(nil)

  /// - Parameter matrices: those whose gradients are projected.
  init(_ matrices: [TrainableParameter], _ settings: Settings, team: ThreadTeam) {
    self.settings = settings
    items = matrices.map { ProjectedMatrix($0, settings) }
    places = Dictionary(
      uniqueKeysWithValues: matrices.enumerated().map { (ObjectIdentifier($1), $0) })
    product = TeamProduct(team: team)
    squares = Mutex([Double](repeating: 0, count: matrices.count))
  }

  func moved(_ parameters: [TrainableParameter]) -> [TrainableParameter] {
    parameters.map { places[ObjectIdentifier($0)].map { items[$0].reduced } ?? $0 }
  }

  func take(_ matrices: [TrainableParameter], step: Int, _ team: ThreadTeam) {
    let taken = matrices.compactMap { places[ObjectIdentifier($0)] }
    let isNew = step.isMultiple(of: settings.gap)
    team.forEach(taken.count) { _, number in
      let place = taken[number]
      let gradient = items[place].weight.gradient
      let sum = gradient.sumOfProducts(gradient)
      squares.withLock { $0[place] = sum }
      // What is not finite ends the step by its norm.
      guard isNew, sum.isFinite else { return }
      do throws(PeftoolError) {
        try items[place].findSubspace()
      } catch {
        failure.withLock { $0 = error.at(tensor: items[place].weight.name) }
      }
    }
    for place in taken {
      items[place].project(by: product)
      if items[place].weight.sharesGradient { items[place].weight.gradient.clear() }
    }
  }

  func completeGradients(step: Int, _ team: ThreadTeam) throws(PeftoolError) -> Double {
    take(items.map(\.weight).filter { !$0.sharesGradient }, step: step, team)
    if let failure = failure.withLock({ $0 }) { throw failure }
    return 0
  }

  func gradientNorm(of parameters: [TrainableParameter], _ team: ThreadTeam) -> Double {
    let rest = parameters.filter { places[ObjectIdentifier($0)] == nil }
    let norm = GradientNorm.norm(of: rest, team)
    return (norm * norm + squares.withLock { $0.reduce(0, +) }).squareRoot()
  }

  func afterUpdate(step: Int, rate: Double, _ optimizer: AdamW, _ team: ThreadTeam) {
    for item in items {
      item.reduced.values.scale(by: Float(settings.scale))
      item.moveWeight(by: product)
      item.reduced.values.clear()
    }
    guard settings.weightDecay > 0 else { return }
    let factor = Float(-rate * settings.weightDecay)
    team.forEach(items.count) { _, place in items[place].weight.values.addSelf(times: factor) }
  }

  var state: [(name: String, values: Rows)] {
    items.flatMap { item in
      [(".left", item.left), (".right", item.right)].compactMap { kind, rows in
        rows.map { (item.weight.name + ".ortho_matrix" + kind, $0) }
      }
    }
  }
}
