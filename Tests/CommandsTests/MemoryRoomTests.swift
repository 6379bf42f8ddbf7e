import Files
import Testing

@testable import Commands

@Suite struct MemoryRoomTests {
  private func check(free: Int?, isBesideModel: Bool = false, wayOut: String? = nil) throws {
    try MemoryRoom.check(
      3_000_000, for: "the model", isBesideModel: isBesideModel, free: free, wayOut: wayOut,
      path: "m")
  }

  @Test func whatFitsIsTaken() throws {
    try check(free: 3_000_000)
    try check(free: nil)
  }

  @Test func whatDoesNotFitIsRefused() {
    #expect(
      throws: PeftoolError(
        .unsupported, "the model takes 3.0 MB, and 2.0 MB are free: X takes less", path: "m")
    ) { try check(free: 2_000_000, wayOut: "X") }
    #expect(
      throws: PeftoolError(
        .unsupported, "the model takes 3.0 MB beside the model, and 0 bytes are free", path: "m")
    ) { try check(free: -5, isBesideModel: true) }
  }
}
