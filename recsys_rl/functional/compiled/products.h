/* The product of two matrices, on every kind of processor. */
#ifndef RECSYS_RL_PRODUCTS_H
#define RECSYS_RL_PRODUCTS_H
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

#endif
