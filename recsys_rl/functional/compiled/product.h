/* The product of two matrices for one kind of processor: products.h includes this once for each.
 *
 * Needs PRODUCT (the function's name), TARGET (its attribute), LANES (floats in a vector), and the tile of
 * the result that is held in registers while its sums are taken: TALL rows by PANEL columns.
 */
#define JOIN(a, b) a##b
#define NAMED(a, b) JOIN(a, b)
#define VECTOR NAMED(Vector, LANES)
#define TILE NAMED(PRODUCT, _tile)

typedef float VECTOR __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* c (height, PANEL) = a (height, depth) b (depth, PANEL), or that much more where `add` */
INLINE void TILE(int height, int64_t depth, Matrix a, const float *b, int64_t b_row, float *c, int64_t c_row,
                 int add) {
    VECTOR sum[TALL][PANEL / LANES];
    for (int i = 0; i < height; i++)
        for (int j = 0; j < PANEL / LANES; j++)
            sum[i][j] = add ? *(const VECTOR *)(c + i * c_row + j * LANES) : (VECTOR){0};
    for (int64_t k = 0; k < depth; k++)
        for (int i = 0; i < height; i++) {
            float x = a.at[i * a.row + k * a.column];
            for (int j = 0; j < PANEL / LANES; j++)
                sum[i][j] += x * *(const VECTOR *)(b + k * b_row + j * LANES);
        }
    for (int i = 0; i < height; i++)
        for (int j = 0; j < PANEL / LANES; j++) *(VECTOR *)(c + i * c_row + j * LANES) = sum[i][j];
}

/* c (height, width) = a (height, depth) b (depth, width); c has rows of `c_row` floats. */
TARGET static void PRODUCT(int64_t height, int64_t width, int64_t depth, Matrix a, Matrix b, float *c,
                           int64_t c_row) {
    /* b's columns are copied to lie as they are used where they aren't its rows, where they are fewer than a
     * tile's, and where enough tiles use them: rows far apart lie on as many pages. A tile that is wider
     * than c is computed beside it. */
    float packed[DEPTH * PANEL] __attribute__((aligned(64))),
        beside[TALL * PANEL] __attribute__((aligned(64)));
    for (int64_t j = 0; j < width; j += PANEL)
        for (int64_t k = 0; k < depth; k += DEPTH) {
            int64_t wide = least(PANEL, width - j), deep = least(DEPTH, depth - k), b_row = b.row;
            const float *panel = b.at + k * b.row + j * b.column;
            if (wide < PANEL || b.column != 1 || height >= 4 * TALL) {
                for (int64_t q = 0; q < deep; q++)
                    if (wide == PANEL && b.column == 1)
                        memcpy(packed + q * PANEL, panel + q * b.row, PANEL * sizeof *panel);
                    else
                        for (int64_t x = 0; x < PANEL; x++)
                            packed[q * PANEL + x] = x < wide ? panel[q * b.row + x * b.column] : 0.0f;
                panel = packed;
                b_row = PANEL;
            }
            for (int64_t i = 0; i < height;) {
                Matrix rows = {a.at + i * a.row + k * a.column, a.row, a.column};
                int64_t tall = least(height - i, TALL);
                float *to = c + i * c_row + j, *into = wide < PANEL ? beside : to;
                int64_t into_row = wide < PANEL ? PANEL : c_row;
                for (int64_t q = 0; q < tall && into == beside && k > 0; q++)
                    memcpy(beside + q * PANEL, to + q * c_row, wide * sizeof *to);
                switch (tall) {
#define HEIGHT(n) case n: TILE(n < TALL ? n : TALL, deep, rows, panel, b_row, into, into_row, k > 0); break;
                    HEIGHT(1) HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6) HEIGHT(7) HEIGHT(8)
#undef HEIGHT
                }
                for (int64_t q = 0; q < tall && into == beside; q++)
                    memcpy(to + q * c_row, beside + q * PANEL, wide * sizeof *to);
                i += tall;
            }
        }
}

#undef PRODUCT
#undef TARGET
#undef LANES
#undef TALL
#undef PANEL
