#include "COpenBLAS.h"

#include <dlfcn.h>

const char *pef_openblas_open(const char *library, struct pef_openblas *openblas) {
  openblas->handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!openblas->handle) return dlerror();

// POSIX has it that a pointer to a function can be stored so.
#define FIND(function)                                                        \
  *(void **)&openblas->function = dlsym(openblas->handle, #function);         \
  if (!openblas->function) {                                                  \
    dlclose(openblas->handle);                                                \
    return "undefined symbol: " #function;                                     \
  }

  FIND(cblas_sgemm)
  FIND(cblas_dgemm)
  FIND(cblas_somatcopy)
  FIND(cblas_domatcopy)
  FIND(sgeqrf_)
  FIND(dgeqrf_)
  FIND(sorgqr_)
  FIND(dorgqr_)
  FIND(sgesdd_)
  FIND(dgesdd_)
  FIND(openblas_get_corename)
  FIND(openblas_get_parallel)
  FIND(openblas_get_num_threads)
#undef FIND
  return NULL;
}

void pef_openblas_close(struct pef_openblas *openblas) { dlclose(openblas->handle); }
