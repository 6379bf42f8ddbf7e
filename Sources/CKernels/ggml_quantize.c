#include "CKernels.h"
#include "dispatch.h"
#include "half.h"

// One function a type: a block of 32 values coded. The steps are those of the Python package gguf
// 0.19 (quants.py), each rounded to f32, so that the bytes are the same. What is NaN on the way,
// or too large for an int32, becomes the code 0, as numpy's casts have it on an x86-64.

enum { BLOCK = 32 };

static inline void put_f16(uint8_t *b, float value) {
  uint16_t bits = narrow_f16(value);
  b[0] = (uint8_t)bits;
  b[1] = (uint8_t)(bits >> 8);
}

// The value of the largest magnitude, of several the first; a NaN counts as the largest.
static inline float largest(const float *x) {
  uint32_t most = 0;
  for (int j = 0; j < BLOCK; j++) {
    uint32_t magnitude = bits_of(x[j]) & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  uint32_t place = BLOCK - 1;
  for (uint32_t j = 0; j < BLOCK; j++) {
    uint32_t here = (bits_of(x[j]) & 0x7fffffff) == most ? j : BLOCK - 1;
    place = here < place ? here : place;
  }
  return x[place];
}

static inline void bounds(const float *x, float *least, float *most) {
  float low = x[0], high = x[0];
  int has_nan = 0;
  for (int j = 0; j < BLOCK; j++) {
    low = x[j] < low ? x[j] : low;
    high = x[j] > high ? x[j] : high;
    has_nan |= x[j] != x[j];
  }
  *least = has_nan ? __builtin_nanf("") : low;
  *most = has_nan ? __builtin_nanf("") : high;
}

static inline float inverse(float d) { return d == 0 ? 0 : 1 / d; }

static inline int32_t truncated(float value) {
  float held = __builtin_fabsf(value) < 0x1p31f ? value : 0;
  return (int32_t)held;
}

static inline uint8_t code(float value, int highest) {
  uint8_t code = (uint8_t)truncated(value);
  return code > highest ? (uint8_t)highest : code;
}

// Nibbles: the low ones are the first half.
static inline void put_nibbles(uint8_t *b, const uint8_t *codes) {
  for (int j = 0; j < BLOCK / 2; j++)
    b[j] = (uint8_t)((codes[j] & 15) | codes[j + BLOCK / 2] << 4);
}

static inline void put_fifth_bits(uint8_t *b, const uint8_t *codes) {
  for (int i = 0; i < 4; i++) {
    int bits = 0;
    for (int j = 0; j < 8; j++) bits |= (codes[i * 8 + j] >> 4) << j;
    b[i] = (uint8_t)bits;
  }
}

static inline void codes_about_zero(const float *x, float d, float half, int highest,
                                    uint8_t *codes) {
  float factor = inverse(d);
  for (int j = 0; j < BLOCK; j++) codes[j] = code(x[j] * factor + half, highest);
}

static inline void codes_above(const float *x, float least, float d, int highest,
                               uint8_t *codes) {
  float factor = inverse(d);
  for (int j = 0; j < BLOCK; j++) codes[j] = code((x[j] - least) * factor + 0.5f, highest);
}

static inline void q4_0(const float *x, uint8_t *b) {
  uint8_t codes[BLOCK];
  float d = largest(x) / -8;
  codes_about_zero(x, d, 8.5f, 15, codes);
  put_f16(b, d);
  put_nibbles(b + 2, codes);
}

static inline void q4_1(const float *x, uint8_t *b) {
  uint8_t codes[BLOCK];
  float least, most;
  bounds(x, &least, &most);
  float d = (most - least) / 15;
  codes_above(x, least, d, 15, codes);
  put_f16(b, d);
  put_f16(b + 2, least);
  put_nibbles(b + 4, codes);
}

static inline void q5_0(const float *x, uint8_t *b) {
  uint8_t codes[BLOCK];
  float d = largest(x) / -16;
  codes_about_zero(x, d, 16.5f, 31, codes);
  put_f16(b, d);
  put_fifth_bits(b + 2, codes);
  put_nibbles(b + 6, codes);
}

static inline void q5_1(const float *x, uint8_t *b) {
  uint8_t codes[BLOCK];
  float least, most;
  bounds(x, &least, &most);
  float d = (most - least) / 31;
  codes_above(x, least, d, 31, codes);
  put_f16(b, d);
  put_f16(b + 2, least);
  put_fifth_bits(b + 4, codes);
  put_nibbles(b + 8, codes);
}

static inline void q8_0(const float *x, uint8_t *b) {
  float d = __builtin_fabsf(largest(x)) / 127;
  float factor = inverse(d);
  put_f16(b, d);
  for (int j = 0; j < BLOCK; j++) {
    // To the nearest, halves away from zero.
    float value = x[j] * factor;
    float magnitude = __builtin_fabsf(value);
    float whole = (float)truncated(magnitude);
    float rounded = whole + (float)truncated(2 * (magnitude - whole));
    int32_t code = truncated(value < 0 ? -rounded : rounded);
    b[2 + j] = (uint8_t)(magnitude < 0x1p31f ? code : 0);
  }
}

#define BLOCKS(convert, bytes)                                                        \
  {                                                                                   \
    uint8_t *b = to;                                                                  \
    for (size_t i = 0; i < count; i++) convert(from + i * BLOCK, b + i * (bytes));    \
    return;                                                                           \
  }

PEF_CLONES void pef_quantize_f32(enum pef_block_type type, const float *restrict from,
                                 void *restrict to, size_t count) {
  switch (type) {
    case PEF_Q4_0: BLOCKS(q4_0, 18)
    case PEF_Q4_1: BLOCKS(q4_1, 20)
    case PEF_Q5_0: BLOCKS(q5_0, 22)
    case PEF_Q5_1: BLOCKS(q5_1, 24)
    case PEF_Q8_0: BLOCKS(q8_0, 34)
    default: return;
  }
}

PEF_CLONES size_t pef_count_nonfinite_blocks(enum pef_block_type type, const void *from,
                                             size_t count) {
  int has_minimum = type == PEF_Q4_1 || type == PEF_Q5_1;
  size_t size = type == PEF_Q8_0 ? 34 : type == PEF_Q4_0 ? 18 : type == PEF_Q4_1 ? 20
                : type == PEF_Q5_0 ? 22 : 24;
  const uint8_t *b = from;
  size_t found = 0;
  for (size_t i = 0; i < count; i++, b += size)
    found += (b[1] & 0x7c) == 0x7c || (has_minimum && (b[3] & 0x7c) == 0x7c);
  return found;
}
