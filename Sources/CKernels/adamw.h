// One number's step of AdamW, which moments of 32 and of 8 bits share.
#ifndef PEF_ADAMW_H
#define PEF_ADAMW_H
#include <math.h>

#include "training.h"

static inline float adamw_step(const struct pef_adamw *s, float p, float *m, float *v, float g) {
  const float decayed = p * s->decay;
  *m = __builtin_fmaf(s->one_less_beta1, g - *m, *m);
  *v = __builtin_fmaf(s->one_less_beta2 * g, g, *v * s->beta2);
  const float divisor = sqrtf(*v) / s->root + s->epsilon;
  const float moved = decayed - s->step_size * *m / divisor;
  return __builtin_fmaf(s->late_decay, moved, moved);
}

#endif
