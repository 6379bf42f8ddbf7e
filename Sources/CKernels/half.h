// Floats from their bits, and from the bits of f16.
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

#endif
