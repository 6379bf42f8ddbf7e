/// Writes a small adapter of PEFT's, with one module `m`.
func makeAdapter(
  _ name: String, in place: borrowing Workplace, outputs: Int = 3, inputs: Int = 2,
  rank: Int = 2, b: [Float]? = nil
) throws {
  let prefix = "base_model.model.m"
  try place.write(
    "\(name)/adapter_model.safetensors",
    Safetensors.file([
      (
        "\(prefix).lora_A.weight", "F32", [rank, inputs],
        (0..<rank * inputs).map { Float($0) + 1 }
      ),
      (
        "\(prefix).lora_B.weight", "F32", [outputs, rank],
        b ?? (0..<outputs * rank).map { 2 - Float($0) }
      ),
    ]))
  try place.write(
    "\(name)/adapter_config.json",
    #"{"peft_type": "LORA", "r": \#(rank), "lora_alpha": \#(rank)}"#)
}
