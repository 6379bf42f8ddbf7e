import Files
import LinearAlgebra
import Models

/// What a method does in each step besides the optimizer's update.
///
/// A step, which counts from 0, is: the gradients of all batches, of which `take` is given those of
/// each layer that has been worked on, `completeGradients`, clipping by `gradientNorm`,
/// `beforeUpdate`, the optimizer's update of what is `moved`, `afterUpdate`.
protocol TrainingMethod: Sendable {
  /// What the optimizer moves in the place of some parameters, one for each.
  func moved(_ parameters: [TrainableParameter]) -> [TrainableParameter]

  /// Takes the gradients of some matrices that are whole, where their memory is wanted for others.
  func take(_ matrices: [TrainableParameter], step: Int, _ team: ThreadTeam)

  /// Completes the gradients that backward passes have left.
  ///
  /// - Returns: what the method's own terms add to the loss.
  /// - Throws: what went wrong since the last step.
  func completeGradients(step: Int, _ team: ThreadTeam) throws(PeftoolError) -> Double

  /// The norm of the gradients of all parameters.
  func gradientNorm(of parameters: [TrainableParameter], _ team: ThreadTeam) -> Double

  /// Called when gradients have been clipped, before the optimizer reads them.
  func beforeUpdate(_ team: ThreadTeam)

  /// Called when the optimizer has moved the parameters, at a learning rate.
  ///
  /// - Throws: what the method says.
  func afterUpdate(
    step: Int, rate: Double, _ optimizer: AdamW, _ team: ThreadTeam
  ) throws(PeftoolError)

  /// What it remembers from step to step, by the names under which checkpoints save it.
  var state: [(name: String, values: Rows)] { get }
}

extension TrainingMethod {
  func moved(_ parameters: [TrainableParameter]) -> [TrainableParameter] { parameters }
  func take(_ matrices: [TrainableParameter], step: Int, _ team: ThreadTeam) {}
  func completeGradients(step: Int, _ team: ThreadTeam) -> Double { 0 }
  func gradientNorm(of parameters: [TrainableParameter], _ team: ThreadTeam) -> Double {
    GradientNorm.norm(of: parameters, team)
  }
  func beforeUpdate(_ team: ThreadTeam) {}
  func afterUpdate(step: Int, rate: Double, _ optimizer: AdamW, _ team: ThreadTeam) {}
  var state: [(name: String, values: Rows)] { [] }
}

/// LoRA, DoRA, QA-LoRA and whole weights: the optimizer's update is all.
struct PlainMethod: TrainingMethod {
  let adapters: [LoRA]

  func completeGradients(step: Int, _ team: ThreadTeam) -> Double {
    adapters.completeGradients(team)
    return 0
  }
}

extension [LoRA] {
  /// Completes the gradients of all: `LoRA.completeGradients`.
  func completeGradients(_ team: ThreadTeam) {
    team.forEach(count) { _, place in self[place].completeGradients() }
  }
}
