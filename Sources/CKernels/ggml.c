#include "CKernels.h"
#include "dispatch.h"
#include "ggml_tables.inc"
#include "half.h"

// One function a type: the values of one block. The products come in the order in which ggml
// computes them, so that values and signs of zero are the same.

static inline uint16_t u16_at(const uint8_t *b) { return (uint16_t)(b[0] | b[1] << 8); }

static inline uint32_t u32_at(const uint8_t *b) {
  return (uint32_t)u16_at(b) | (uint32_t)u16_at(b + 2) << 16;
}

static inline float f16_at(const uint8_t *b) { return widen_f16(u16_at(b)); }

static inline int8_t i8_at(const uint8_t *b) { return (int8_t)*b; }

// Blocks of 32: a scale, a minimum in the types _1, fifth bits, then nibbles: the low ones are
// the first half.

static inline void q4_0(const uint8_t *b, float *y) {
  float d = f16_at(b);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)((b[2 + j] & 15) - 8);
    y[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
  }
}

static inline void q4_1(const uint8_t *b, float *y) {
  float d = f16_at(b), m = f16_at(b + 2);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)(b[4 + j] & 15) + m;
    y[j + 16] = d * (float)(b[4 + j] >> 4) + m;
  }
}

static inline void q5_0(const uint8_t *b, float *y) {
  float d = f16_at(b);
  uint32_t high = u32_at(b + 2);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)((int)((b[6 + j] & 15) | (high >> j & 1) << 4) - 16);
    y[j + 16] = d * (float)((int)((b[6 + j] >> 4) | (high >> (j + 16) & 1) << 4) - 16);
  }
}

static inline void q5_1(const uint8_t *b, float *y) {
  float d = f16_at(b), m = f16_at(b + 2);
  uint32_t high = u32_at(b + 4);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)((b[8 + j] & 15) | (high >> j & 1) << 4) + m;
    y[j + 16] = d * (float)((b[8 + j] >> 4) | (high >> (j + 16) & 1) << 4) + m;
  }
}

static inline void q8_0(const uint8_t *b, float *y) {
  float d = f16_at(b);
  for (int j = 0; j < 32; j++) y[j] = d * (float)i8_at(b + 2 + j);
}

// After the scale stands d times the sum of the codes, which the values do not need.
static inline void q8_1(const uint8_t *b, float *y) {
  float d = f16_at(b);
  for (int j = 0; j < 32; j++) y[j] = d * (float)i8_at(b + 4 + j);
}

static inline void q1_0(const uint8_t *b, float *y) {
  float d = f16_at(b);
  for (int j = 0; j < 128; j++) y[j] = (b[2 + j / 8] >> j % 8 & 1) ? d : -d;
}

// Super-blocks of 256: scales of 16 or 32 values each, themselves scaled by one f16.

static inline void q2_k(const uint8_t *b, float *y) {
  const uint8_t *codes = b + 16;
  float d = f16_at(b + 80), least = f16_at(b + 82);
  for (int i = 0; i < 16; i++) {
    float scale = d * (float)(b[i] & 15), minimum = least * (float)(b[i] >> 4);
    const uint8_t *q = codes + i / 8 * 32 + i % 2 * 16;
    int shift = i / 2 % 4 * 2;
    for (int j = 0; j < 16; j++) y[i * 16 + j] = scale * (float)(q[j] >> shift & 3) - minimum;
  }
}

static inline void q3_k(const uint8_t *b, float *y) {
  const uint8_t *codes = b + 32, *scales = b + 96;
  float d = f16_at(b + 108);
  for (int i = 0; i < 16; i++) {
    int low = i < 8 ? scales[i] & 15 : scales[i - 8] >> 4;
    int high = scales[8 + i % 4] >> (i / 4 * 2) & 3;
    float scale = d * (float)((low | high << 4) - 32);
    const uint8_t *q = codes + i / 8 * 32 + i % 2 * 16;
    const uint8_t *mask = b + i % 2 * 16;
    for (int j = 0; j < 16; j++) {
      // A clear bit takes four away.
      int code = (q[j] >> (i / 2 % 4 * 2) & 3) - ((mask[j] >> (i / 2) & 1) ? 0 : 4);
      y[i * 16 + j] = scale * (float)code;
    }
  }
}

// Eight scales and eight minima of 6 bits in 12 bytes.
static inline void scale_and_minimum(const uint8_t *s, int i, int *scale, int *minimum) {
  if (i < 4) {
    *scale = s[i] & 63;
    *minimum = s[i + 4] & 63;
  } else {
    *scale = (s[i + 4] & 15) | (s[i - 4] >> 2 & 0x30);
    *minimum = (s[i + 4] >> 4) | (s[i] >> 2 & 0x30);
  }
}

static inline void q4_k(const uint8_t *b, float *y) {
  float d = f16_at(b), least = f16_at(b + 2);
  for (int i = 0; i < 8; i++) {
    int s, m;
    scale_and_minimum(b + 4, i, &s, &m);
    float scale = d * (float)s, minimum = least * (float)m;
    const uint8_t *q = b + 16 + i / 2 * 32;
    for (int j = 0; j < 32; j++)
      y[i * 32 + j] = scale * (float)(q[j] >> (i % 2 * 4) & 15) - minimum;
  }
}

static inline void q5_k(const uint8_t *b, float *y) {
  float d = f16_at(b), least = f16_at(b + 2);
  for (int i = 0; i < 8; i++) {
    int s, m;
    scale_and_minimum(b + 4, i, &s, &m);
    float scale = d * (float)s, minimum = least * (float)m;
    const uint8_t *high = b + 16, *q = b + 48 + i / 2 * 32;
    for (int j = 0; j < 32; j++) {
      int code = (q[j] >> (i % 2 * 4) & 15) | (high[j] >> i & 1) << 4;
      y[i * 32 + j] = scale * (float)code - minimum;
    }
  }
}

static inline void q6_k(const uint8_t *b, float *y) {
  const uint8_t *scales = b + 192;
  float d = f16_at(b + 208);
  for (int i = 0; i < 8; i++) {
    const uint8_t *low = b + i / 4 * 64 + i % 2 * 32, *high = b + 128 + i / 4 * 32;
    for (int j = 0; j < 32; j++) {
      float scale = d * (float)i8_at(scales + i * 2 + j / 16);
      int code = (low[j] >> (i / 2 % 2 * 4) & 15) | (high[j] >> (i % 4 * 2) & 3) << 4;
      y[i * 32 + j] = scale * (float)(code - 32);
    }
  }
}

// After the codes stand the sums of 16 of them each, which the values do not need.
static inline void q8_k(const uint8_t *b, float *y) {
  float d = float_of(u32_at(b));
  for (int j = 0; j < 256; j++) y[j] = d * (float)i8_at(b + 4 + j);
}

// Ternary: five digits to the byte, as a fraction of 256 whose digits multiplications by 3 bring
// up one by one.

static inline void digits(const uint8_t *b, int bytes, int count, float d, float *y) {
  static const uint8_t powers[5] = {1, 3, 9, 27, 81};
  for (int n = 0; n < count; n++)
    for (int j = 0; j < bytes; j++) {
      int digit = (uint8_t)(b[j] * powers[n]) * 3 >> 8;
      y[n * bytes + j] = d * (float)(digit - 1);
    }
}

static inline void tq1_0(const uint8_t *b, float *y) {
  float d = f16_at(b + 52);
  digits(b, 32, 5, d, y);
  digits(b + 32, 16, 5, d, y + 160);
  digits(b + 48, 4, 4, d, y + 240);
}

static inline void tq2_0(const uint8_t *b, float *y) {
  float d = f16_at(b + 64);
  for (int i = 0; i < 8; i++)
    for (int j = 0; j < 32; j++)
      y[i * 32 + j] = d * (float)((b[i / 4 * 32 + j] >> (i % 4 * 2) & 3) - 1);
}

// FP4 (E2M1), doubled, with a power of two, halved, or with a small float for every 16.

static const int8_t e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static inline void mxfp4(const uint8_t *b, float *y) {
  float d = float_of(b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)e2m1[b[1 + j] & 15];
    y[j + 16] = d * (float)e2m1[b[1 + j] >> 4];
  }
}

static inline void nvfp4(const uint8_t *b, float *y) {
  for (int i = 0; i < 4; i++) {
    // E4M3 without a sign; 0x7f is no NaN here but zero.
    int exponent = b[i] >> 3 & 15, mantissa = b[i] & 7;
    float power = float_of((uint32_t)(exponent + 119) << 23);
    float d = exponent == 0 ? (float)mantissa * 0x1p-10f : (1 + (float)mantissa / 8) * power;
    if (b[i] == 0x7f) d = 0;
    const uint8_t *q = b + 4 + i * 8;
    for (int j = 0; j < 8; j++) {
      y[i * 16 + j] = d * (float)e2m1[q[j] & 15];
      y[i * 16 + j + 8] = d * (float)e2m1[q[j] >> 4];
    }
  }
}

// Code books: an index gives 8 values or 4, signs come apart.

static const uint8_t two_bit_values[4] = {8, 25, 43, 0};
static const uint8_t iq3_xxs_values[8] = {4, 12, 20, 28, 36, 44, 52, 62};
static const uint8_t iq3_s_values[8] = {1, 3, 5, 7, 9, 11, 13, 15};

// Seven signs, and an eighth that makes the number of minus signs even.
static inline int eight_signs(uint32_t seven) {
  uint32_t parity = seven ^ seven >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return (int)(seven | (parity & 1) << 7);
}

static inline void eight_of_two_bits(uint16_t entry, int signs, float scale, float *y) {
  for (int j = 0; j < 8; j++) {
    float value = scale * (float)two_bit_values[entry >> (2 * j) & 3];
    y[j] = value * (signs >> j & 1 ? -1.0f : 1.0f);
  }
}

static inline void four_of_three_bits(uint16_t entry, const uint8_t *values, int signs,
                                      float scale, float *y) {
  for (int j = 0; j < 4; j++) {
    float value = scale * (float)values[entry >> (3 * j) & 7];
    y[j] = value * (signs >> j & 1 ? -1.0f : 1.0f);
  }
}

static inline void iq2_xxs(const uint8_t *b, float *y) {
  float d = f16_at(b);
  for (int i = 0; i < 8; i++) {
    const uint8_t *group = b + 2 + i * 8;
    uint32_t rest = u32_at(group + 4);
    float scale = d * (0.5f + (float)(rest >> 28)) * 0.25f;
    for (int k = 0; k < 4; k++)
      eight_of_two_bits(iq2_xxs_grid[group[k]], eight_signs(rest >> (7 * k) & 127), scale,
                        y + i * 32 + k * 8);
  }
}

static inline void iq2_xs(const uint8_t *b, float *y) {
  const uint8_t *scales = b + 66;
  float d = f16_at(b);
  for (int i = 0; i < 32; i++) {
    uint16_t q = u16_at(b + 2 + i * 2);
    float scale = d * (0.5f + (float)(scales[i / 4] >> (i / 2 % 2 * 4) & 15)) * 0.25f;
    eight_of_two_bits(iq2_xs_grid[q & 511], eight_signs(q >> 9), scale, y + i * 8);
  }
}

static inline void iq2_s(const uint8_t *b, float *y) {
  const uint8_t *signs = b + 34, *high = b + 66, *scales = b + 74;
  float d = f16_at(b);
  for (int i = 0; i < 32; i++) {
    int index = b[2 + i] | (high[i / 4] >> (i % 4 * 2) & 3) << 8;
    float scale = d * (0.5f + (float)(scales[i / 4] >> (i / 2 % 2 * 4) & 15)) * 0.25f;
    eight_of_two_bits(iq2_s_grid[index], signs[i], scale, y + i * 8);
  }
}

static inline void iq3_xxs(const uint8_t *b, float *y) {
  float d = f16_at(b);
  for (int i = 0; i < 8; i++) {
    uint32_t rest = u32_at(b + 66 + i * 4);
    float scale = d * (0.5f + (float)(rest >> 28)) * 0.5f;
    for (int k = 0; k < 8; k++)
      four_of_three_bits(iq3_xxs_grid[b[2 + i * 8 + k]], iq3_xxs_values,
                         eight_signs(rest >> (k / 2 * 7) & 127) >> (k % 2 * 4), scale,
                         y + i * 32 + k * 4);
  }
}

static inline void iq3_s(const uint8_t *b, float *y) {
  const uint8_t *high = b + 66, *signs = b + 74, *scales = b + 106;
  float d = f16_at(b);
  for (int i = 0; i < 64; i++) {
    int index = b[2 + i] | (high[i / 8] >> i % 8 & 1) << 8;
    float scale = d * (float)(1 + 2 * (scales[i / 16] >> (i / 8 % 2 * 4) & 15));
    four_of_three_bits(iq3_s_grid[index], iq3_s_values, signs[i / 2] >> (i % 2 * 4), scale,
                       y + i * 4);
  }
}

static inline void eight_ternary(uint16_t entry, float scale, float delta, float *y) {
  for (int j = 0; j < 8; j++)
    y[j] = scale * ((float)((entry >> (2 * j) & 3) - 1) + delta);
}

static inline void iq1_s(const uint8_t *b, float *y) {
  float d = f16_at(b);
  for (int i = 0; i < 8; i++) {
    uint16_t high = u16_at(b + 34 + i * 2);
    float scale = d * (float)(2 * (high >> 12 & 7) + 1);
    for (int k = 0; k < 4; k++)
      eight_ternary(iq1_grid[b[2 + i * 4 + k] | (high >> (3 * k) & 7) << 8], scale,
                    high & 0x8000 ? -0.125f : 0.125f, y + i * 32 + k * 8);
  }
}

// The scale's four nibbles are the tops of the four words of scales.
static inline void iq1_m(const uint8_t *b, float *y) {
  const uint8_t *scales = b + 48;
  uint16_t bits = 0;
  for (int i = 0; i < 4; i++)
    bits = (uint16_t)(bits | (u16_at(scales + i * 2) >> 12) << (4 * i));
  float d = widen_f16(bits);
  for (int i = 0; i < 32; i++) {
    int high = b[32 + i / 2] >> (i % 2 * 4) & 15;
    float scale = d * (float)(2 * (u16_at(scales + i / 8 * 2) >> (i / 2 % 4 * 3) & 7) + 1);
    eight_ternary(iq1_grid[b[i] | (high & 7) << 8], scale, high & 8 ? -0.125f : 0.125f, y + i * 8);
  }
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

static inline void iq4_nl(const uint8_t *b, float *y) {
  float d = f16_at(b);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)iq4_values[b[2 + j] & 15];
    y[j + 16] = d * (float)iq4_values[b[2 + j] >> 4];
  }
}

static inline void iq4_xs(const uint8_t *b, float *y) {
  float d = f16_at(b);
  uint16_t high = u16_at(b + 2);
  for (int i = 0; i < 8; i++) {
    int code = (b[4 + i / 2] >> (i % 2 * 4) & 15) | (high >> (2 * i) & 3) << 4;
    float scale = d * (float)(code - 32);
    const uint8_t *q = b + 8 + i * 16;
    for (int j = 0; j < 16; j++) {
      y[i * 32 + j] = scale * (float)iq4_values[q[j] & 15];
      y[i * 32 + j + 16] = scale * (float)iq4_values[q[j] >> 4];
    }
  }
}

#define BLOCKS(convert, bytes, elements)                                                   \
  {                                                                                        \
    const uint8_t *b = from;                                                               \
    for (size_t i = 0; i < count; i++) convert(b + i * (bytes), to + i * (elements));      \
    return;                                                                                \
  }

PEF_CLONES void pef_dequantize_f32(enum pef_block_type type, const void *restrict from,
                                   float *restrict to, size_t count) {
  switch (type) {
    case PEF_Q1_0: BLOCKS(q1_0, 18, 128)
    case PEF_Q4_0: BLOCKS(q4_0, 18, 32)
    case PEF_Q4_1: BLOCKS(q4_1, 20, 32)
    case PEF_Q5_0: BLOCKS(q5_0, 22, 32)
    case PEF_Q5_1: BLOCKS(q5_1, 24, 32)
    case PEF_Q8_0: BLOCKS(q8_0, 34, 32)
    case PEF_Q8_1: BLOCKS(q8_1, 36, 32)
    case PEF_Q2_K: BLOCKS(q2_k, 84, 256)
    case PEF_Q3_K: BLOCKS(q3_k, 110, 256)
    case PEF_Q4_K: BLOCKS(q4_k, 144, 256)
    case PEF_Q5_K: BLOCKS(q5_k, 176, 256)
    case PEF_Q6_K: BLOCKS(q6_k, 210, 256)
    case PEF_Q8_K: BLOCKS(q8_k, 292, 256)
    case PEF_IQ1_S: BLOCKS(iq1_s, 50, 256)
    case PEF_IQ1_M: BLOCKS(iq1_m, 56, 256)
    case PEF_IQ2_XXS: BLOCKS(iq2_xxs, 66, 256)
    case PEF_IQ2_XS: BLOCKS(iq2_xs, 74, 256)
    case PEF_IQ2_S: BLOCKS(iq2_s, 82, 256)
    case PEF_IQ3_XXS: BLOCKS(iq3_xxs, 98, 256)
    case PEF_IQ3_S: BLOCKS(iq3_s, 110, 256)
    case PEF_IQ4_NL: BLOCKS(iq4_nl, 18, 32)
    case PEF_IQ4_XS: BLOCKS(iq4_xs, 136, 256)
    case PEF_TQ1_0: BLOCKS(tq1_0, 54, 256)
    case PEF_TQ2_0: BLOCKS(tq2_0, 66, 256)
    case PEF_MXFP4: BLOCKS(mxfp4, 17, 32)
    case PEF_NVFP4: BLOCKS(nvfp4, 36, 64)
  }
}
