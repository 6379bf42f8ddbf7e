#include "training.h"
#include "dispatch.h"

PEF_CLONES void pef_importance_f32(const struct pef_importance *step, float *restrict average,
                                   float *restrict distance, const float *restrict p,
                                   const float *restrict g, size_t count) {
  const struct pef_importance s = *step;
  for (size_t i = 0; i < count; i++) {
    const float importance = __builtin_fabsf(p[i] * g[i]);
    average[i] = s.beta1 * average[i] + s.one_less_beta1 * importance;
    distance[i] =
        s.beta2 * distance[i] + s.one_less_beta2 * __builtin_fabsf(importance - average[i]);
  }
}
