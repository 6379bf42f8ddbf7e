// e to the power of x, for loops that the compiler turns into vectors.
#ifndef PEF_EXPONENTIAL_H
#define PEF_EXPONENTIAL_H

#include <stdint.h>
#include <string.h>

// Within one unit in the last place from e^-87 to e^88, beyond which it stays at those; NaN stays
// NaN. The range is reduced by ln 2 in two parts (Cody and Waite), the polynomial of the rest has
// the coefficients of Cephes' expf.
__attribute__((always_inline)) static inline float pef_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  // Adding 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits.
  const float shifted = __builtin_fmaf(x, 1.44269504f, 12582912.0f);
  const float whole = shifted - 12582912.0f;
  float r = __builtin_fmaf(whole, -0.693359375f, x);
  r = __builtin_fmaf(whole, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = __builtin_fmaf(p, r, 1.3981999507e-3f);
  p = __builtin_fmaf(p, r, 8.3334519073e-3f);
  p = __builtin_fmaf(p, r, 4.1665795894e-2f);
  p = __builtin_fmaf(p, r, 1.6666665459e-1f);
  p = __builtin_fmaf(p, r, 5.0000001201e-1f);
  p = __builtin_fmaf(p, r * r, r) + 1.0f;
  int32_t bits, exponent;
  memcpy(&exponent, &shifted, sizeof exponent);
  memcpy(&bits, &p, sizeof bits);
  bits = (int32_t)((uint32_t)bits + ((uint32_t)exponent << 23));
  memcpy(&p, &bits, sizeof p);
  return x != x ? x : p;
}

// 1 / (1 + e^-x).
__attribute__((always_inline)) static inline float pef_sigmoid(float x) {
  return 1.0f / (1.0f + pef_exp(-x));
}

#endif
