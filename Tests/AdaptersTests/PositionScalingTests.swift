import JSON
import Testing

@testable import Adapters

@Suite struct PositionScalingTests {
  private func json(_ text: String) throws -> JSON { try JSON(parsing: Array(text.utf8)) }

  @Test func whatIsNoScalingIsNone() {
    for text in ["linear", "linear:", "linear:1", "linear:nan", "ntk:4", "linear:2:3"] {
      #expect(PositionScaling(text) == nil, "\(text)")
    }
    #expect(PositionScaling("yarn:4")?.text == "yarn, 4 times")
    #expect(PositionScaling("dynamic:2.5")?.text == "dynamic, 2.5 times")
  }

  @Test(arguments: [
    (
      "linear:4", #"{"max_position_embeddings": 8, "rope_theta": 9}"#,
      #"{"max_position_embeddings": 32, "rope_theta": 9,"#
        + #" "rope_scaling": {"rope_type": "linear", "factor": 4.0}}"#
    ),
    (
      "linear:4",
      #"{"max_position_embeddings": 8, "rope_scaling": {"type": "linear", "factor": 2}}"#,
      #"{"max_position_embeddings": 32, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}"#
    ),
    (
      "yarn:2",
      #"{"rope_parameters": {"rope_theta": 9, "rope_type": "default"},"#
        + #" "max_position_embeddings": 8}"#,
      #"{"rope_parameters": {"rope_theta": 9, "rope_type": "yarn", "factor": 2.0,"#
        + #" "original_max_position_embeddings": 8}, "max_position_embeddings": 16}"#
    ),
    (
      "dynamic:2", #"{"rope_scaling": null, "max_position_embeddings": 8}"#,
      #"{"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 8}"#
    ),
  ])
  func settingsAreThoseOfTransformers(text: String, before: String, after: String) throws {
    let scaling = try #require(PositionScaling(text))
    let found = try scaling.applied(to: json(before))
    #expect(try found == json(after))
    #expect(PositionScaling(found)?.kind == scaling.kind)
  }

  /// The spelling makes no difference, and every number does.
  @Test(
    arguments: [
      (
        #"{"max_position_embeddings": 8, "rope_theta": 9,"#
          + #" "rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": null}}"#, nil
      ),
      (
        #"{"max_position_embeddings": 8.0, "rope_scaling": null,"#
          + #" "rope_parameters": {"rope_theta": 9.0, "factor": 4.0, "rope_type": "yarn"}}"#, nil
      ),
      (
        #"{"max_position_embeddings": 8, "rope_theta": 9,"#
          + #" "rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 16}}"#,
        "beta_fast is missing and 16.0"
      ),
      (
        #"{"max_position_embeddings": 9, "rope_theta": 9,"#
          + #" "rope_scaling": {"type": "yarn", "factor": 4}}"#,
        "max_position_embeddings is 8.0 and 9.0"
      ),
      (
        #"{"max_position_embeddings": 8, "rope_theta": 8,"#
          + #" "rope_scaling": {"type": "yarn", "factor": 4}}"#, "rope_theta is 9.0 and 8.0"
      ),
      (
        #"{"max_position_embeddings": 8, "rope_theta": 9,"#
          + #" "rope_scaling": {"type": "linear", "factor": 4}}"#,
        #"rope_type is "yarn" and "linear""#
      ),
    ] as [(String, String?)])
  func positionsAreComparedWhole(other: String, difference: String?) throws {
    let own = try #require(
      try StretchedPositions(
        json(
          #"{"max_position_embeddings": 8, "rope_theta": 9,"#
            + #" "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}"#)))
    let others = try #require(try StretchedPositions(json(other)))
    #expect(own.difference(from: others) == difference)
    #expect((own.missing(in: others.config) == nil) == (difference == nil))
  }

  @Test(arguments: [
    (#"{"max_position_embeddings": 8, "rope_scaling": {"rope_type": "llama3"}}"#, "llama3"),
    (#"{"max_position_embeddings": 8, "rope_parameters": {"rope_type": "yarn"}}"#, "yarn"),
    (#"{"max_position_embeddings": -9223372036854775808}"#, ""),
    (#"{"max_position_embeddings": 8, "rope_scaling": [4]}"#, ""),
  ])
  func anotherWayIsRefused(config: String, type: String) throws {
    let scaling = try #require(PositionScaling("linear:2"))
    #expect(throws: (any Error).self) { try scaling.applied(to: json(config)) }
    do {
      _ = try scaling.applied(to: json(config))
    } catch {
      #expect(type.isEmpty || "\(error)".contains("rope_type is \"\(type)\" already"))
    }
  }
}
