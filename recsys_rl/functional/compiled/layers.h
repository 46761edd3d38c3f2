/* What dense.c makes a block of a layer with: products of our own, activations, sums. */
#ifndef RECSYS_RL_LAYERS_H
#define RECSYS_RL_LAYERS_H
#include <string.h>

#include "kernels.h"

#define DEPTH 256 /* terms of a sum whose factors are kept in the cache together */
#define ROWS 128
#ifndef WIDEST
#define WIDEST 16 /* floats in a vector; with fewer the tests see what older processors take */
#endif

typedef struct {
    const float *at;
    int64_t row, column; /* floats from one row to the next, and from one column */
} Matrix;

INLINE int64_t parts(int64_t size, int64_t part) { return (size + part - 1) / part; }

#if defined(__x86_64__) && defined(__GNUC__)
#define PRODUCT product_512
#define TARGET __attribute__((target("avx512f")))
#define LANES 16
#define TALL 8
#define PANEL 32
#include "product.h"

#define PRODUCT product_256
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define TALL 6
#define PANEL 16
#include "product.h"
#endif

#define PRODUCT product_128
#define TARGET
#define LANES 4
#define TALL 4
#define PANEL 8
#include "product.h"

INLINE void product(int64_t height, int64_t width, int64_t depth, Matrix a, Matrix b, float *c,
                    int64_t c_row) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (WIDEST >= 16 && __builtin_cpu_supports("avx512f"))
        product_512(height, width, depth, a, b, c, c_row);
    else if (WIDEST >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        product_256(height, width, depth, a, b, c, c_row);
    else
#endif
        product_128(height, width, depth, a, b, c, c_row);
}

/* The activations, in the order of dense.ACTIVATIONS. */
enum { NONE, TANH, RELU, ELU };

/* x <- f(x + bias) for a block of a matrix whose rows are `row` floats apart */
VECTORISED static void activate(int activation, float *x, int64_t row, int64_t height, int64_t width,
                                const float *bias) {
    float floor = activation == RELU ? 0.0f : -INFINITY;
    for (int64_t i = 0; i < height; i++, x += row) {
        if (activation == TANH) {
#pragma omp simd
            for (int64_t j = 0; j < width; j++) {
                float z = x[j] + bias[j], e = exp_of_negative(-2.0f * __builtin_fabsf(z));
                x[j] = __builtin_copysignf((1.0f - e) / (1.0f + e), z);
            }
        } else if (activation == ELU) {
#pragma omp simd
            for (int64_t j = 0; j < width; j++) {
                float z = x[j] + bias[j];
                x[j] = z > 0.0f ? z : exp_of_negative(z > 0.0f ? 0.0f : z) - 1.0f;
            }
        } else {
#pragma omp simd
            for (int64_t j = 0; j < width; j++) {
                float z = x[j] + bias[j];
                x[j] = z < floor ? floor : z;
            }
        }
    }
}

/* d <- d f'(z) for such a block, from x = f(z) */
VECTORISED static void times_slope(int activation, float *d, const float *x, int64_t row, int64_t height,
                                   int64_t width) {
    for (int64_t i = 0; i < height; i++, d += row, x += row) {
        if (activation == TANH) {
#pragma omp simd
            for (int64_t j = 0; j < width; j++) d[j] *= 1.0f - x[j] * x[j];
        } else if (activation == RELU) {
#pragma omp simd
            for (int64_t j = 0; j < width; j++) d[j] *= x[j] > 0.0f ? 1.0f : 0.0f;
        } else if (activation == ELU) {
#pragma omp simd
            for (int64_t j = 0; j < width; j++) d[j] *= x[j] > 0.0f ? 1.0f : x[j] + 1.0f;
        }
    }
}

/* The sum of such a block's rows */
VECTORISED static void sum_rows(const float *x, int64_t row, int64_t height, int64_t width, float *sum) {
    for (int64_t j = 0; j < width; j++) sum[j] = 0.0f;
    for (int64_t i = 0; i < height; i++)
#pragma omp simd
        for (int64_t j = 0; j < width; j++) sum[j] += x[i * row + j];
}

#endif
