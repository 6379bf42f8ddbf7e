import Reports
import Testing

@Suite struct TableTests {
  private func sample() -> Table {
    var table = Table([
      .init("tensor", isShortened: true), .init("dtype"), .init("parameters", .right),
    ])
    table.append(["model.layers.{0…21}.self_attn.q_proj.weight", "BF16", "92.3M"])
    table.append(["lm_head.weight", "F32", "7"])
    return table
  }

  @Test func cellsStandUnderTheirTitles() {
    #expect(
      sample().text(width: 80) == """
        tensor                                       dtype  parameters
        model.layers.{0…21}.self_attn.q_proj.weight  BF16        92.3M
        lm_head.weight                               F32             7

        """)
  }

  @Test func aNarrowTableShortensNamesInTheirMiddle() {
    #expect(
      sample().text(width: 40) == """
        tensor                 dtype  parameters
        model.la…_proj.weight  BF16        92.3M
        lm_head.weight         F32             7

        """)
  }

  @Test func namesThatDifferLookDifferent() {
    var table = Table([.init("tensor", isShortened: true)])
    let names = (0..<12).map { "model.layers.\($0).self_attn.k_proj" }
    for name in names { table.append([name]) }
    #expect(table.text(width: 20) == "tensor\n" + names.map { $0 + "\n" }.joined())
  }

  @Test(arguments: 40...120) func noLineIsWiderThanTheWidth(width: Int) {
    for line in sample().text(width: width).split(separator: "\n") {
      #expect(line.count <= width)
      #expect(line.last != " ")
    }
  }

  @Test func withoutAWidthNamesStayWhole() {
    var table = Table([.init("tensor", isShortened: true)])
    let name = String(repeating: "x", count: 200)
    table.append([name])
    #expect(table.text(width: nil) == "tensor\n\(name)\n")
    #expect(!table.text(width: 80).contains(name))
  }

  @Test func aNameKeepsSixteenCharacters() {
    #expect(sample().text(width: 10).contains("model.…oj.weight  BF16"))
  }

  @Test func factsStandInOneColumnAndFold() {
    var facts = Facts()
    facts.append("format", "safetensors")
    facts.append("missing", nil)
    facts.append("dtypes", "BF16 201, F32 1")
    #expect(
      facts.text(width: 28) == """
        format  safetensors
        dtypes  BF16 201, F32 1

        """)
    facts.append("metadata", "format=pt producer=somebody else")
    #expect(
      facts.text(width: 30) == """
        format    safetensors
        dtypes    BF16 201, F32 1
        metadata  format=pt
                  producer=somebody
                  else

        """)
  }
}
