/// Loops over elements: no allocation, no I/O, the same bytes on every machine.
#ifndef CKERNELS_H
#define CKERNELS_H
#include <stddef.h>
#include <stdint.h>
#endif
