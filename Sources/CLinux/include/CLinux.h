/// System calls of Linux that Swift's Glibc module does not show (they need _GNU_SOURCE).
/// Each is glibc's function of the same name: see its man page.
#ifndef CLINUX_H
#define CLINUX_H
#include <stdint.h>
#include <sys/types.h>

int pef_fallocate(int descriptor, int64_t offset, int64_t count);
ssize_t pef_copy_file_range(int from, int64_t *from_offset, int to, int64_t *to_offset,
                            size_t count);
/// Asks the kernel to start writing the range's dirty pages; waits for nothing.
int pef_start_writeback(int descriptor, int64_t offset, int64_t count);
/// rename(2) that refuses with EEXIST where the new name exists.
int pef_rename_new(const char *from, const char *to);
/// Swaps two names in one step.
int pef_rename_exchange(const char *a, const char *b);
/// The processors that this process may run on; at least 1.
int pef_processor_count(void);
/// Maps every piece of memory of so many bytes or more by itself: mallopt(3), M_MMAP_THRESHOLD.
void pef_map_large_memory(int byte_count);

/// Tells the processor that this thread waits for another: some dozens of cycles.
void pef_pause(void);

/// The vector instructions that the processor and the kernel offer together: one of the values
/// below.
enum { PEF_VECTORS_OLDER = 0, PEF_VECTORS_AVX2 = 1, PEF_VECTORS_AVX512 = 2 };
/// AVX2 counts with FMA, AVX-512 with F, DQ, BW, VL and CD. Not x86-64 counts as older.
int pef_vector_instructions(void);
#endif
