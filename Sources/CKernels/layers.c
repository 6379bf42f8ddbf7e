#include "dispatch.h"
#include "exponential.h"
#include "training.h"

#include <math.h>

// Sixteen partial sums, added up in pairs: the same order whatever the vector's width.
enum { SUMS = 16 };

__attribute__((always_inline)) static inline float added(const float *partial) {
  float sums[SUMS];
  memcpy(sums, partial, sizeof sums);
  for (size_t half = SUMS / 2; half > 0; half /= 2)
    for (size_t k = 0; k < half; k++) sums[k] += sums[k + half];
  return sums[0];
}

PEF_CLONES void pef_rmsnorm_forward_f32(float *restrict y, float *restrict rho,
                                        const float *restrict x, const float *restrict w,
                                        size_t rows, size_t columns, float epsilon) {
  for (size_t i = 0; i < rows; i++, x += columns, y += columns) {
    float sums[SUMS] = {0};
    size_t j = 0;
    for (; j + SUMS <= columns; j += SUMS)
      for (size_t k = 0; k < SUMS; k++) sums[k] = __builtin_fmaf(x[j + k], x[j + k], sums[k]);
    for (size_t k = 0; j + k < columns; k++) sums[k] = __builtin_fmaf(x[j + k], x[j + k], sums[k]);
    const float r = 1.0f / sqrtf(added(sums) / (float)columns + epsilon);
    rho[i] = r;
    for (j = 0; j < columns; j++) y[j] = w[j] * (x[j] * r);
  }
}

PEF_CLONES void pef_rmsnorm_backward_f32(float *restrict dx, const float *restrict dy,
                                         const float *restrict x, const float *restrict rho,
                                         const float *restrict w, size_t rows, size_t columns) {
  for (size_t i = 0; i < rows; i++, x += columns, dx += columns, dy += columns) {
    const float r = rho[i];
    float sums[SUMS] = {0};
    size_t j = 0;
    for (; j + SUMS <= columns; j += SUMS)
      for (size_t k = 0; k < SUMS; k++)
        sums[k] = __builtin_fmaf(w[j + k] * dy[j + k], x[j + k] * r, sums[k]);
    for (size_t k = 0; j + k < columns; k++)
      sums[k] = __builtin_fmaf(w[j + k] * dy[j + k], x[j + k] * r, sums[k]);
    const float mean = added(sums) / (float)columns;
    for (j = 0; j < columns; j++)
      dx[j] = __builtin_fmaf(r, w[j] * dy[j] - x[j] * r * mean, dx[j]);
  }
}

PEF_CLONES void pef_rmsnorm_weight_f32(float *restrict dw, const float *restrict dy,
                                       const float *restrict x, const float *restrict rho,
                                       size_t row, size_t rows, size_t columns) {
  for (size_t i = 0; i < rows; i++, x += row, dy += row)
    for (size_t j = 0; j < columns; j++) dw[j] = __builtin_fmaf(dy[j], x[j] * rho[i], dw[j]);
}

PEF_CLONES void pef_rope_f32(float *x, size_t row, size_t rows, size_t heads, size_t size,
                             const int32_t *positions, const float *cosines, const float *sines,
                             int inverse) {
  const size_t half = size / 2;
  const float sign = inverse ? -1.0f : 1.0f;
  for (size_t i = 0; i < rows; i++, x += row) {
    const float *cosine = cosines + (size_t)positions[i] * half;
    const float *sine = sines + (size_t)positions[i] * half;
    for (size_t h = 0; h < heads; h++) {
      float *restrict first = x + h * size, *restrict second = x + h * size + half;
      for (size_t j = 0; j < half; j++) {
        const float a = first[j], b = second[j], s = sign * sine[j];
        first[j] = __builtin_fmaf(a, cosine[j], -(b * s));
        second[j] = __builtin_fmaf(b, cosine[j], a * s);
      }
    }
  }
}

PEF_CLONES void pef_swiglu_forward_f32(float *restrict m, const float *restrict a,
                                       const float *restrict b, size_t count) {
  for (size_t i = 0; i < count; i++) m[i] = a[i] * pef_sigmoid(a[i]) * b[i];
}

PEF_CLONES void pef_swiglu_backward_f32(float *restrict da, float *restrict db,
                                        const float *restrict a, const float *restrict b,
                                        size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float sigma = pef_sigmoid(a[i]), silu = a[i] * sigma, dm = da[i];
    da[i] = dm * b[i] * (sigma + silu * (1.0f - sigma));
    db[i] = dm * silu;
  }
}

PEF_CLONES void pef_cross_entropy_f32(float *restrict z, const int32_t *restrict labels,
                                      double *restrict losses, size_t rows, size_t columns,
                                      float scale, int backward) {
  for (size_t i = 0; i < rows; i++, z += columns) {
    float tops[SUMS];
    for (size_t k = 0; k < SUMS; k++) tops[k] = z[0];
    size_t j = 0;
    for (; j + SUMS <= columns; j += SUMS)
      for (size_t k = 0; k < SUMS; k++) tops[k] = z[j + k] > tops[k] ? z[j + k] : tops[k];
    for (; j < columns; j++) tops[0] = z[j] > tops[0] ? z[j] : tops[0];
    float top = tops[0];
    for (size_t k = 1; k < SUMS; k++) top = tops[k] > top ? tops[k] : top;
    const double logit = z[labels[i]];
    // Sums of 256 in f32, those in f64: a vocabulary is too long for f32 alone.
    double total = 0;
    for (j = 0; j < columns; j += 256) {
      const size_t end = columns - j < 256 ? columns : j + 256;
      float sums[SUMS] = {0};
      size_t l = j;
      for (; l + SUMS <= end; l += SUMS)
        for (size_t k = 0; k < SUMS; k++) sums[k] += z[l + k] = pef_exp(z[l + k] - top);
      for (; l < end; l++) sums[0] += z[l] = pef_exp(z[l] - top);
      total += (double)added(sums);
    }
    losses[i] = log(total) + ((double)top - logit);
    if (!backward) continue;
    const float factor = (float)((double)scale / total);
    for (j = 0; j < columns; j++) z[j] *= factor;
    z[labels[i]] -= scale;
  }
}

PEF_CLONES void pef_scale_columns_f32(float *restrict y, size_t row, size_t rows, size_t columns,
                                      const float *restrict factors,
                                      const float *restrict offsets) {
  for (size_t i = 0; i < rows; i++, y += row) {
    if (factors)
      for (size_t j = 0; j < columns; j++) y[j] *= factors[j];
    if (offsets)
      for (size_t j = 0; j < columns; j++) y[j] += offsets[j];
  }
}

PEF_CLONES void pef_column_products_f32(float *restrict sums, const float *restrict x,
                                        size_t x_row, const float *restrict y, size_t y_row,
                                        size_t rows, size_t columns,
                                        const float *restrict offsets) {
  for (size_t i = 0; i < rows; i++, x += x_row) {
    if (!y)
      for (size_t j = 0; j < columns; j++) sums[j] += x[j];
    else if (offsets)
      for (size_t j = 0; j < columns; j++)
        sums[j] = __builtin_fmaf(x[j], y[i * y_row + j] - offsets[j], sums[j]);
    else
      for (size_t j = 0; j < columns; j++)
        sums[j] = __builtin_fmaf(x[j], y[i * y_row + j], sums[j]);
  }
}

PEF_CLONES void pef_multiply_elements_f32(float *restrict y, size_t y_row,
                                          const float *restrict x, size_t x_row,
                                          const float *restrict factors, size_t factors_row,
                                          size_t rows, size_t columns) {
  for (size_t i = 0; i < rows; i++, y += y_row, x += x_row, factors += factors_row)
    for (size_t j = 0; j < columns; j++) y[j] = x[j] * factors[j];
}

PEF_CLONES void pef_add_products_f32(float *restrict y, size_t y_row, const float *restrict x,
                                     size_t x_row, const float *restrict factors,
                                     size_t factors_row, size_t rows, size_t columns) {
  for (size_t i = 0; i < rows; i++, y += y_row, x += x_row, factors += factors_row)
    for (size_t j = 0; j < columns; j++) y[j] = __builtin_fmaf(x[j], factors[j], y[j]);
}

PEF_CLONES void pef_scale_rows_minus_f32(float *restrict y, const float *restrict factors,
                                         const float *restrict x, size_t rows, size_t columns) {
  for (size_t i = 0; i < rows; i++, y += columns, x += columns)
    for (size_t j = 0; j < columns; j++) y[j] = __builtin_fmaf(y[j], factors[i], -x[j]);
}

PEF_CLONES void pef_fold_heads_f32(float *restrict y, size_t y_row, const float *restrict x,
                                   size_t x_row, size_t rows, size_t groups, size_t repeats,
                                   size_t size) {
  for (size_t i = 0; i < rows; i++, y += y_row, x += x_row)
    for (size_t g = 0; g < groups; g++)
      for (size_t j = 0; j < size; j++) {
        const float *head = x + g * repeats * size + j;
        float sum = head[0];
        for (size_t k = 1; k < repeats; k++) sum += head[k * size];
        y[g * size + j] = sum;
      }
}

PEF_CLONES void pef_rows_times_vector_f32(float *restrict y, const float *restrict w, size_t row,
                                          const float *restrict x, size_t rows, size_t columns) {
  for (size_t i = 0; i < rows; i++, w += row) {
    float sums[SUMS] = {0};
    size_t j = 0;
    for (; j + SUMS <= columns; j += SUMS)
      for (size_t k = 0; k < SUMS; k++) sums[k] = __builtin_fmaf(w[j + k], x[j + k], sums[k]);
    for (size_t k = 0; j + k < columns; k++) sums[k] = __builtin_fmaf(w[j + k], x[j + k], sums[k]);
    y[i] = added(sums);
  }
}
