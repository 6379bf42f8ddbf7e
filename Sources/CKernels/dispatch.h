// How a kernel is compiled once for each kind of processor.
#ifndef PEF_DISPATCH_H
#define PEF_DISPATCH_H

#if defined(__x86_64__)
#define PEF_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PEF_CLONES
#endif

// Kernels that are written for one kind of processor. Told the width, clang keeps 16 floats in a
// register; else it takes two of 8, and the sums of a product don't fit in those that there are.
#define PEF_V4 __attribute__((target("arch=x86-64-v4"), min_vector_width(512)))
#define PEF_V3 __attribute__((target("arch=x86-64-v3")))

#endif
