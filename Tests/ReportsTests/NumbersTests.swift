import Reports
import Testing

@Suite struct NumbersTests {
  @Test(arguments: [
    (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (1049, "1.0 kB"),
    (99_949, "99.9 kB"), (99_951, "100 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"),
    (2_200_119_864, "2.2 GB"), (144_000_000_000, "144 GB"), (Int.max, "9.2 EB"),
  ])
  func bytesHaveDecimalUnits(count: Int, text: String) {
    #expect(count.byteText == text)
  }

  @Test(arguments: [
    (0, "0"), (999, "999"), (1000, "1.0K"), (22_020_096, "22.0M"), (1_100_048_384, "1.1B"),
    (671_000_000_000, "671B"), (-4096, "-4.1K"),
  ])
  func countsAreShort(count: Int, text: String) {
    #expect(count.countText == text)
  }

  @Test(arguments: [
    (0, "0"), (7, "7"), (999, "999"), (1000, "1,000"), (1_100_048_384, "1,100,048,384"),
    (-123_456, "-123,456"),
  ])
  func digitsStandInThrees(count: Int, text: String) {
    #expect(count.groupedText == text)
  }

  @Test func nounsTakeTheirPlural() {
    #expect(1.text(of: "tensor") == "1 tensor")
    #expect(0.text(of: "tensor") == "0 tensors")
    #expect(20_000.text(of: "tensor") == "20,000 tensors")
  }

  @Test(arguments: [
    (0.0, "0.00 s"), (0.123, "0.12 s"), (9.999, "10.0 s"), (59.94, "59.9 s"),
    (59.96, "1 min 00 s"), (65, "1 min 05 s"), (3599.4, "59 min 59 s"), (3600, "1 h 00 min"),
    (7384, "2 h 03 min"), (Double.infinity, "277777 h 46 min"),
  ])
  func durationsChangeTheirUnit(seconds: Double, text: String) {
    #expect(seconds.durationText == text)
  }

  @Test(arguments: [
    (0.0, "0.00 %"), (0.00123, "0.12 %"), (0.042, "4.2 %"), (0.354, "35 %"), (1, "100 %"),
    (0.996, "99.6 %"), (0.99997, ">99.9 %"), (0.994, "99 %"),
  ])
  func percentsKeepTwoDigits(share: Double, text: String) {
    #expect(share.percentText == text)
  }

  @Test(arguments: [
    (0.0, "0"), (0.02, "0.02"), (-1.23449, "-1.234"), (3.1e-7, "3.1e-07"), (65504, "6.55e+04"),
    (-Double.infinity, "-inf"), (-Double.greatestFiniteMagnitude, "-1.798e+308"),
  ])
  func measuresHaveFourDigits(value: Double, text: String) {
    #expect(value.measureText == text)
  }

  @Test func theLargestNumberFitsWhenFixed() {
    #expect(Double.greatestFiniteMagnitude.fixed(2).count == 312)
  }

  @Test func ratesAreBytesASecond() {
    #expect(1_234_567_890.0.rateText == "1.2 GB/s")
    #expect(12.0.rateText == "12.0 B/s")
  }
}
