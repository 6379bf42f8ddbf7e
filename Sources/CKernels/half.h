// Floats from their bits, and from and to the bits of f16.
#ifndef PEF_HALF_H
#define PEF_HALF_H
#include <stdint.h>
#include <string.h>

static inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

static inline float widen_f16(uint16_t x) {
  // The exponent is moved by a multiplication, which also makes subnormals right.
  uint32_t magnitude = (uint32_t)(x & 0x7fff) << 13;
  uint32_t finite = bits_of(float_of(magnitude) * 0x1p112f);
  uint32_t bits = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite;
  return float_of(bits | (uint32_t)(x & 0x8000) << 16);
}

// Rounds the magnitude of a float to a small format: `drop` mantissa bits go, the exponent's bias
// becomes `bias`; what is below the smallest normal is rounded by adding a float whose last place
// is the format's smallest step. Infinity and what is too large give `over`, NaN gives `nan`.
static inline uint32_t narrow_small(uint32_t magnitude, uint32_t drop, uint32_t bias,
                                    uint32_t limit, uint32_t over, uint32_t nan) {
  uint32_t least = (128 - bias) << 23;  // the smallest normal number, as a float's bits
  uint32_t step = least + (drop << 23);
  float magic = float_of(step);
  uint32_t subnormal = bits_of(float_of(magnitude) + magic) - step;
  uint32_t odd = (magnitude >> drop) & 1;
  uint32_t normal =
      (magnitude - ((127 - bias) << 23) + ((1u << (drop - 1)) - 1) + odd) >> drop;
  uint32_t result = magnitude < least ? subnormal : normal;
  result = magnitude >= limit ? over : result;
  return magnitude > 0x7f800000 ? nan : result;
}

static inline uint16_t narrow_f16(float value) {
  uint32_t bits = bits_of(value);
  // 65520 is the first that rounds to infinity.
  uint32_t magnitude =
      narrow_small(bits & 0x7fffffff, 13, 15, 0x477ff000, 0x7c00, 0x7e00);
  return (uint16_t)(magnitude | (bits >> 16 & 0x8000));
}

#endif
