#include <float.h>
#include <math.h>

#include "CKernels.h"
#include "dispatch.h"

#define REAL float
#define LARGEST FLT_MAX
#define ABSOLUTE(x) __builtin_fabsf(x)
#define NAME(name) pef_##name##_f32
#include "statistics.inc"
#undef REAL
#undef LARGEST
#undef ABSOLUTE
#undef NAME

#define REAL double
#define LARGEST DBL_MAX
#define ABSOLUTE(x) __builtin_fabs(x)
#define NAME(name) pef_##name##_f64
#include "statistics.inc"
