#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

int pef_fallocate(int descriptor, int64_t offset, int64_t count) {
  return fallocate(descriptor, 0, offset, count);
}

ssize_t pef_copy_file_range(int from, int64_t *from_offset, int to, int64_t *to_offset,
                            size_t count) {
  off_t a = *from_offset, b = *to_offset;
  ssize_t done = copy_file_range(from, &a, to, &b, count, 0);
  *from_offset = a;
  *to_offset = b;
  return done;
}

int pef_start_writeback(int descriptor, int64_t offset, int64_t count) {
  return sync_file_range(descriptor, offset, count, SYNC_FILE_RANGE_WRITE);
}

int pef_rename_new(const char *from, const char *to) {
  return renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
}

int pef_rename_exchange(const char *a, const char *b) {
  return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

int pef_processor_count(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

void pef_map_large_memory(int byte_count) { mallopt(M_MMAP_THRESHOLD, byte_count); }

void pef_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

int pef_vector_instructions(void) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd"))
    return PEF_VECTORS_AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return PEF_VECTORS_AVX2;
#endif
  return PEF_VECTORS_OLDER;
}
