#include "CKernels.h"
#include "dispatch.h"

#define REAL float
#define NAME(name) pef_##name##_f32
#define FMA __builtin_fmaf
#include "elements.inc"
#undef REAL
#undef NAME
#undef FMA

#define REAL double
#define NAME(name) pef_##name##_f64
#define FMA __builtin_fma
#include "elements.inc"
