/* The hidden units of a session's entries, their sum and their pushes, forwards and backwards:
 * models/fast/deep_sets.py says what is computed. Torch copies the features of all entries first, and multiplies
 * each by the weights. */
#include "kernels.h"

#define UNITS 16 /* taken together; their number is a multiple of this one */
#define STOCKS 8 /* pushes of an entry */

/* x = table + sum_e of e-th number beside the item times its weights: the inputs of UNITS units */
INLINE void inputs_of(const float *table, const float *beside, const float *weights, int64_t number, int64_t size,
                      float *x) {
#pragma omp simd
    for (int j = 0; j < UNITS; j++) x[j] = table[j];
    for (int64_t e = 0; e < number; e++)
#pragma omp simd
        for (int j = 0; j < UNITS; j++) x[j] += beside[e] * weights[e * size + j];
}

VECTORISED static float dot(const float *a, const float *b, int64_t size) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < size; j++) sum += a[j] * b[j];
    return sum;
}

VECTORISED static void sum_units(const float *table, const int64_t *history, const float *beside,
                                 const float *weights, const float *to_stocks, const float *first, int64_t length,
                                 int64_t number, int64_t size, float *sums, float *pushes) {
    for (int64_t k = 0; k < length; k++)
        for (int m = 0; m < STOCKS; m++) pushes[k * STOCKS + m] = history[k] < 0 ? 0.0f : first[m];
    for (int64_t at = 0; at < size; at += UNITS) {
        float sum[UNITS] = {0}, x[UNITS];
        for (int64_t k = 0; k < length; k++) {
            if (history[k] < 0) continue;
            inputs_of(table + history[k] * size + at, beside + k * number, weights + at, number, size, x);
            float *to = pushes + k * STOCKS;
#pragma omp simd
            for (int j = 0; j < UNITS; j++) {
                x[j] = x[j] > 0.0f ? x[j] : 0.0f;
                sum[j] += x[j];
            }
            float push[STOCKS] = {0};
            for (int j = 0; j < UNITS; j++)
#pragma omp simd
                for (int m = 0; m < STOCKS; m++) push[m] += x[j] * to_stocks[(at + j) * STOCKS + m];
            for (int m = 0; m < STOCKS; m++) to[m] += push[m];
        }
#pragma omp simd
        for (int j = 0; j < UNITS; j++) sums[at + j] = sum[j] / length;
    }
}

/* table (items, size), history (rows, length), signals (rows, length, num_signals), weights (number, size), where
 * number is num_signals, or one more with profiles (rows, dims), NULL for none: it is the product of the profile
 * and the start of the item's features (items, num_features); to_stocks (size, STOCKS), first
 * (STOCKS). Writes the numbers beside the items, (rows, length, number), the sums (rows, size), and the pushes
 * (rows, length, STOCKS), 0 where no item is. Returns 1 where an item is outside. */
int deep_sets(const float *table, int64_t items, int64_t size, const int64_t *history, const float *signals,
              int64_t rows, int64_t length, int64_t num_signals, const float *weights, const float *to_stocks,
              const float *first, const float *profiles, int64_t dims, const float *features, int64_t num_features,
              int threads, float *beside, float *sums, float *pushes) {
    int64_t number = num_signals + (profiles != NULL);
    if (!all_within(history, rows * length, -1, items)) return 1;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++) {
        const int64_t *ids = history + i * length;
        float *of_row = beside + i * length * number;
        for (int64_t k = 0; k < length; k++) {
            memcpy(of_row + k * number, signals + (i * length + k) * num_signals, num_signals * sizeof *signals);
            if (profiles)
                of_row[k * number + num_signals] =
                    ids[k] < 0 ? 0.0f : dot(profiles + i * dims, features + ids[k] * num_features, dims);
        }
        sum_units(table, ids, of_row, weights, to_stocks, first, length, number, size, sums + i * size,
                  pushes + i * length * STOCKS);
    }
    return 0;
}

/* The gradients at UNITS columns of the table, of the weights and of to_stocks, (STOCKS, size) here, of all rows in
 * their order. */
VECTORISED static void units_gradient(const float *table, int64_t size, const int64_t *history,
                                      const float *beside, int64_t rows, int64_t length, int64_t number,
                                      const float *weights, const float *to_stocks, const float *by_sums,
                                      const float *by_pushes, float *by_table, float *by_weights,
                                      float *by_stocks) {
    float of_row[number + 1][UNITS]; /* sums over a row first, so that each sum has few terms */
    for (int64_t i = 0; i < rows; i++, history += length, beside += length * number, by_sums += size) {
        float x[UNITS], by[UNITS], stocks_of_row[STOCKS][UNITS] = {{0}};
        memset(of_row, 0, sizeof of_row);
        for (int j = 0; j < UNITS; j++) by[j] = by_sums[j] / length;
        for (int64_t k = 0; k < length; k++) {
            if (history[k] < 0) continue;
            const float *of_entry = beside + k * number;
            const float *push = by_pushes + (i * length + k) * STOCKS;
            float *to = by_table + history[k] * size, all[UNITS];
            memcpy(all, by, sizeof all);
            inputs_of(table + history[k] * size, of_entry, weights, number, size, x);
            for (int m = 0; m < STOCKS; m++)
#pragma omp simd
                for (int j = 0; j < UNITS; j++) {
                    all[j] += push[m] * to_stocks[m * size + j];
                    stocks_of_row[m][j] += push[m] * (x[j] > 0.0f ? x[j] : 0.0f);
                }
#pragma omp simd
            for (int j = 0; j < UNITS; j++) {
                x[j] = x[j] > 0.0f ? all[j] : 0.0f;
                to[j] += x[j];
            }
            for (int64_t e = 0; e < number; e++)
#pragma omp simd
                for (int j = 0; j < UNITS; j++) of_row[e][j] += of_entry[e] * x[j];
        }
        for (int64_t e = 0; e < number; e++)
            for (int j = 0; j < UNITS; j++) by_weights[e * size + j] += of_row[e][j];
        for (int m = 0; m < STOCKS; m++)
            for (int j = 0; j < UNITS; j++) by_stocks[m * size + j] += stocks_of_row[m][j];
    }
}

/* From the gradients at the sums and at the pushes; to_stocks and its gradient are (STOCKS, size) here. A task has
 * some columns of all rows: the order of each sum is fixed. */
void deep_sets_gradient(const float *table, int64_t items, int64_t size, const int64_t *history,
                        const float *beside, int64_t rows, int64_t length, int64_t number, const float *weights,
                        const float *to_stocks, const float *by_sums, const float *by_pushes, int threads,
                        float *by_table, float *by_weights, float *by_stocks) {
    memset(by_table, 0, items * size * sizeof *by_table);
    memset(by_weights, 0, number * size * sizeof *by_weights);
    memset(by_stocks, 0, STOCKS * size * sizeof *by_stocks);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t at = 0; at < size; at += UNITS)
        units_gradient(table + at, size, history, beside, rows, length, number, weights + at, to_stocks + at,
                       by_sums + at, by_pushes, by_table + at, by_weights + at, by_stocks + at);
}
