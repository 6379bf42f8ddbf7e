// Which modules are embeddings, by the names that transformers' models give them.
extension BaseModel {
  /// Whether the last part of a module's path is that of an embedding of any kind: of tokens, of
  /// positions, of token types.
  package static func isEmbedding(_ name: String) -> Bool {
    if embeddings.contains(name) { return true }
    guard name.contains("emb"), !isOutputEmbedding(name) else { return false }
    return !linearEmbeddings.contains { name.contains($0) }
  }

  private static let embeddings = [
    "wte", "wpe", "shared", "relative_attention_bias", "codebook", "bias_values", "pe_k", "w",
  ]

  /// Parts of names that have to do with embeddings, but are those of linear modules.
  private static let linearEmbeddings = [
    "project", "hidden_mapping", "transformation", "embedding_dense", "inner2emb", "box_linear",
    "relative_pos_embeddings", "vision_embed_tokens", "patch_embed", "embed_return",
    "embed_state", "embed_action", "class_embed", "unitseq2", "predictor_embeddings",
  ]
}
