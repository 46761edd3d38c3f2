/* What the compiled loops share. */
#ifndef RECSYS_RL_KERNELS_H
#define RECSYS_RL_KERNELS_H
#include <math.h>
#include <stdint.h>
#include <string.h>

/* One binary for old and new processors: the loader takes the widest vectors that the machine has. */
#if defined(__x86_64__) && defined(__linux__) && __has_attribute(target_clones) /* clang from 14 on */
#if __GNUC__ >= 12                                                              /* clang says 4 */
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define VECTORISED
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

INLINE int all_within(const int64_t *ids, int64_t number, int64_t lowest, int64_t size) {
    for (int64_t i = 0; i < number; i++)
        if (ids[i] < lowest || ids[i] >= size) return 0;
    return 1;
}

/* exp(x) for x <= 0 to 2 units in the last place; 0 below -87 (and so for -inf). Range reduction by powers
 * of two and the Taylor polynomial of degree 7 on [-ln 2 / 2, ln 2 / 2], whose remainder is below 1e-8. */
INLINE float exp_of_negative(float x) {
    float near = x < -87.0f ? -87.0f : x;
    float n = __builtin_rintf(near * 1.44269504f);
    float r = near - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union {
        uint32_t bits;
        float value;
    } power = {((uint32_t)(int32_t)n + 127) << 23}; /* of NaN any: p is NaN then */
    return x < -87.0f ? 0.0f : p * power.value;
}

INLINE float largest(const float *logits, int64_t width) {
    float top = -INFINITY;
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < width; j++) top = logits[j] > top ? logits[j] : top;
    return top;
}

#endif
