#include "dispatch.h"
#include "exponential.h"
#include "training.h"

#include <math.h>

// One head of one sequence, a block of queries against a block of keys at a time (Dao et al. 2022,
// FlashAttention, algorithms 1 and 4, with the softmax kept as logarithms of sums).

// The keys that a block of queries looks at: from the first that its window still holds to the last
// query's own, in whole blocks of keys.
static size_t first_key(const struct pef_attention *head, size_t query) {
  if (head->window == 0 || query + 1 <= head->window) return 0;
  return (query + 1 - head->window) / PEF_KEYS * PEF_KEYS;
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// The keys of a block, [key, key + keys), that one query sees: a range within it.
static void visible(const struct pef_attention *head, size_t query, size_t key, size_t keys,
                    size_t *from, size_t *to) {
  *to = query < key ? 0 : smaller(query - key + 1, keys);
  size_t first = head->window == 0 || query + 1 <= head->window ? 0 : query + 1 - head->window;
  *from = first <= key ? 0 : smaller(first - key, *to);
}

static size_t panels(size_t count) { return (count + PEF_PANEL - 1) / PEF_PANEL * PEF_PANEL; }

size_t pef_attention_scratch(size_t count, size_t size) {
  // Keys and values in panels, two blocks of scores, a block of outputs, three figures a query.
  return 2 * panels(count) * size + PEF_QUERIES * (2 * PEF_KEYS + size + 3);
}

// Scores become exp(score - the row's maximum so far); sums, maxima and what was added up before
// are brought to the new maximum.
PEF_CLONES static void soften(const struct pef_attention *head, float *scores, size_t query,
                              size_t queries, size_t key, size_t keys, float *top, float *sum,
                              float *o) {
  for (size_t i = 0; i < queries; i++) {
    float *row = scores + i * PEF_KEYS;
    size_t from, to;
    visible(head, query + i, key, keys, &from, &to);
    float highest = top[i];
    for (size_t j = from; j < to; j++) {
      row[j] *= head->scaling;
      highest = row[j] > highest ? row[j] : highest;
    }
    for (size_t j = 0; j < from; j++) row[j] = 0;
    for (size_t j = to; j < keys; j++) row[j] = 0;
    if (from >= to) continue;
    float sums[16] = {0};
    size_t j = from;
    for (; j + 16 <= to; j += 16)
      for (size_t k = 0; k < 16; k++) sums[k] += row[j + k] = pef_exp(row[j + k] - highest);
    for (; j < to; j++) sums[0] += row[j] = pef_exp(row[j] - highest);
    for (size_t half = 8; half > 0; half /= 2)
      for (size_t k = 0; k < half; k++) sums[k] += sums[k + half];
    const float factor = top[i] == -INFINITY ? 0.0f : pef_exp(top[i] - highest);
    sum[i] = sum[i] * factor + sums[0];
    top[i] = highest;
    if (factor != 1.0f)
      for (size_t j = 0; j < head->size; j++) o[i * head->size + j] *= factor;
  }
}

// The queries from `first` on, of which q and o hold the first, against keys in panels; lse may be
// null. Where the blocks of queries begin changes no result.
static void attend(const struct pef_attention *head, const float *keys_panels, size_t first,
                   float *o, float *lse, float *scratch) {
  const size_t size = head->size, count = head->count;
  float *scores = scratch, *sums = scores + PEF_QUERIES * PEF_KEYS, *top = sums + PEF_QUERIES;
  float *outputs = top + PEF_QUERIES;
  for (size_t query = first; query < count; query += PEF_QUERIES) {
    const size_t queries = smaller(count - query, PEF_QUERIES);
    for (size_t i = 0; i < queries; i++) sums[i] = 0, top[i] = -INFINITY;
    memset(outputs, 0, queries * size * sizeof(float));
    for (size_t key = first_key(head, query); key < query + queries; key += PEF_KEYS) {
      const size_t keys = smaller(query + queries - key, PEF_KEYS);
      pef_gemm_f32(scores, PEF_KEYS, head->q + (query - first) * head->q_row, head->q_row, 1,
                   keys_panels + key * size, PEF_PANEL, size * PEF_PANEL, queries, keys, size, 0);
      soften(head, scores, query, queries, key, keys, top, sums, outputs);
      pef_gemm_f32(outputs, size, scores, PEF_KEYS, 1, head->v + key * head->k_row, head->k_row,
                   PEF_PANEL, queries, size, keys, 1);
    }
    for (size_t i = 0; i < queries; i++) {
      const float factor = 1.0f / sums[i];
      float *row = o + (query - first + i) * head->q_row;
      for (size_t j = 0; j < size; j++) row[j] = outputs[i * size + j] * factor;
      if (lse) lse[query - first + i] = top[i] + logf(sums[i]);
    }
  }
}

void pef_attention_forward_f32(const struct pef_attention *head, float *o, float *lse,
                               float *scratch) {
  pef_transpose_panels_f32(scratch, head->k, head->k_row, head->count, head->size);
  attend(head, scratch, 0, o, lse, scratch + panels(head->count) * head->size);
}

void pef_attention_cached_f32(const struct pef_attention *head, size_t first, float *o,
                              float *scratch) {
  attend(head, head->k, first, o, NULL, scratch);
}

void pef_append_panels_f32(float *restrict panels, size_t first, const float *restrict x,
                           size_t row, size_t rows, size_t columns) {
  for (size_t i = 0; i < rows; i++, x += row) {
    const size_t place = first + i;
    float *to = panels + place / PEF_PANEL * PEF_PANEL * columns + place % PEF_PANEL;
    for (size_t l = 0; l < columns; l++) to[l * PEF_PANEL] = x[l];
  }
}

// Scores become P = exp(scaling * score - lse), and dP becomes dS = scaling * P * (dP - delta).
PEF_CLONES static void harden(const struct pef_attention *head, float *restrict scores,
                              float *restrict changes, size_t query, size_t queries, size_t key,
                              size_t keys, const float *lse, const float *delta) {
  for (size_t i = 0; i < queries; i++) {
    float *restrict row = scores + i * PEF_KEYS, *restrict change = changes + i * PEF_KEYS;
    size_t from, to;
    visible(head, query + i, key, keys, &from, &to);
    const float l = lse[query + i], d = delta[i], scaling = head->scaling;
    for (size_t j = from; j < to; j++) {
      row[j] = pef_exp(__builtin_fmaf(row[j], scaling, -l));
      change[j] = scaling * row[j] * (change[j] - d);
    }
    for (size_t j = 0; j < from; j++) row[j] = change[j] = 0;
    for (size_t j = to; j < keys; j++) row[j] = change[j] = 0;
  }
}

PEF_CLONES static void products(const struct pef_attention *head, const float *a, const float *b,
                                size_t rows, float *sums) {
  for (size_t i = 0; i < rows; i++, a += head->q_row, b += head->q_row) {
    float partial[16] = {0};
    size_t j = 0;
    for (; j + 16 <= head->size; j += 16)
      for (size_t k = 0; k < 16; k++) partial[k] = __builtin_fmaf(a[j + k], b[j + k], partial[k]);
    for (size_t k = 0; j + k < head->size; k++)
      partial[k] = __builtin_fmaf(a[j + k], b[j + k], partial[k]);
    for (size_t half = 8; half > 0; half /= 2)
      for (size_t k = 0; k < half; k++) partial[k] += partial[k + half];
    sums[i] = partial[0];
  }
}

void pef_attention_backward_f32(const struct pef_attention *head, const float *o, const float *lse,
                                const float *d_out, float *dq, float *dk, float *dv,
                                size_t dk_row, float *scratch) {
  const size_t size = head->size, count = head->count, row = head->q_row;
  float *keys_panels = scratch, *values_panels = keys_panels + panels(count) * size;
  float *scores = values_panels + panels(count) * size;
  float *changes = scores + PEF_QUERIES * PEF_KEYS, *delta = changes + PEF_QUERIES * PEF_KEYS;
  pef_transpose_panels_f32(keys_panels, head->k, head->k_row, count, size);
  pef_transpose_panels_f32(values_panels, head->v, head->k_row, count, size);
  for (size_t i = 0; i < count; i++) {
    memset(dk + i * dk_row, 0, size * sizeof(float));
    memset(dv + i * dk_row, 0, size * sizeof(float));
  }
  for (size_t query = 0; query < count; query += PEF_QUERIES) {
    const size_t queries = smaller(count - query, PEF_QUERIES);
    const float *q = head->q + query * row, *change = d_out + query * row;
    products(head, change, o + query * row, queries, delta);
    const size_t first = first_key(head, query);
    for (size_t key = first; key < query + queries; key += PEF_KEYS) {
      const size_t keys = smaller(query + queries - key, PEF_KEYS);
      pef_gemm_f32(scores, PEF_KEYS, q, row, 1, keys_panels + key * size, PEF_PANEL,
                   size * PEF_PANEL, queries, keys, size, 0);
      pef_gemm_f32(changes, PEF_KEYS, change, row, 1, values_panels + key * size, PEF_PANEL,
                   size * PEF_PANEL, queries, keys, size, 0);
      harden(head, scores, changes, query, queries, key, keys, lse, delta);
      pef_gemm_f32(dv + key * dk_row, dk_row, scores, 1, PEF_KEYS, change, row, PEF_PANEL, keys,
                   size, queries, 1);
      pef_gemm_f32(dk + key * dk_row, dk_row, changes, 1, PEF_KEYS, q, row, PEF_PANEL, keys, size,
                   queries, 1);
      pef_gemm_f32(dq + query * row, row, changes, PEF_KEYS, 1, head->k + key * head->k_row,
                   head->k_row, PEF_PANEL, queries, size, keys, key > first);
    }
  }
}
