// How a kernel is compiled once for each kind of processor.
#ifndef PEF_DISPATCH_H
#define PEF_DISPATCH_H

#if defined(__x86_64__)
#define PEF_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PEF_CLONES
#endif

#endif
