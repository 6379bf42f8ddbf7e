/// The kinds of adapter that peftool folds into a base, by PEFT's `peft_type`.
package enum Method: String, CaseIterable, Sendable {
  case lora = "LORA"
  case adaLoRA = "ADALORA"
  case ia3 = "IA3"
  case shira = "SHIRA"
  case trainableTokens = "TRAINABLE_TOKENS"

  /// The name as its paper spells it.
  package var name: String {
    switch self {
    case .lora: "LoRA"
    case .adaLoRA: "AdaLoRA"
    case .ia3: "(IA)³"
    case .shira: "SHiRA"
    case .trainableTokens: "trainable tokens"
    }
  }
}
