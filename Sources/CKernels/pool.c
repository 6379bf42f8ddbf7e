#include "dispatch.h"
#include "training.h"

PEF_CLONES void pef_repeat_columns_f32(float *y, const float *x, size_t count, size_t group) {
  for (size_t i = 0; i < count; i++, y += group)
    for (size_t j = 0; j < group; j++) y[j] = x[i];
}

// No clones: an order that is kept leaves nothing to do side by side.
void pef_sum_columns_f32(float *y, const float *x, size_t count, size_t group) {
  for (size_t i = 0; i < count; i++, x += group) {
    double sum = 0;
    for (size_t j = 0; j < group; j++) sum += x[j];
    y[i] += (float)sum;
  }
}
