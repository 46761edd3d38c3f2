/* The hidden units of a session's entries and their sum, forwards and backwards: models/fast/deep_sets.py says what
 * is computed. Torch copies the features of all entries first, and multiplies each by the weights. */
#include "kernels.h"

#define UNITS 16 /* taken together; their number is a multiple of this one */

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
                                 const float *weights, int64_t length, int64_t number, int64_t size, float *sums) {
    for (int64_t at = 0; at < size; at += UNITS) {
        float sum[UNITS] = {0}, x[UNITS];
        for (int64_t k = 0; k < length; k++) {
            if (history[k] < 0) continue;
            inputs_of(table + history[k] * size + at, beside + k * number, weights + at, number, size, x);
#pragma omp simd
            for (int j = 0; j < UNITS; j++) sum[j] += x[j] > 0.0f ? x[j] : 0.0f;
        }
#pragma omp simd
        for (int j = 0; j < UNITS; j++) sums[at + j] = sum[j] / length;
    }
}

/* table (items, size), history (rows, length), signals (rows, length, num_signals), weights (number, size), where
 * number is num_signals, or one more with profiles (rows, dims), NULL for none: it is the product of the profile
 * and the start of the item's features (items, num_features). Writes the numbers beside the items, (rows, length,
 * number), and the sums (rows, size). Returns 1 where an item is outside. */
int deep_sets(const float *table, int64_t items, int64_t size, const int64_t *history, const float *signals,
              int64_t rows, int64_t length, int64_t num_signals, const float *weights, const float *profiles,
              int64_t dims, const float *features, int64_t num_features, int threads, float *beside, float *sums) {
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
        sum_units(table, ids, of_row, weights, length, number, size, sums + i * size);
    }
    return 0;
}

/* The gradients at UNITS columns of the table and of the weights, of all rows in their order. */
VECTORISED static void units_gradient(const float *table, int64_t size, const int64_t *history,
                                      const float *beside, int64_t rows, int64_t length, int64_t number,
                                      const float *weights, const float *by_sums, float *by_table,
                                      float *by_weights) {
    float of_row[number + 1][UNITS]; /* sums over a row first, so that each sum has few terms */
    for (int64_t i = 0; i < rows; i++, history += length, beside += length * number, by_sums += size) {
        float x[UNITS], by[UNITS];
        memset(of_row, 0, sizeof of_row);
        for (int j = 0; j < UNITS; j++) by[j] = by_sums[j] / length;
        for (int64_t k = 0; k < length; k++) {
            if (history[k] < 0) continue;
            const float *of_entry = beside + k * number;
            float *to = by_table + history[k] * size;
            inputs_of(table + history[k] * size, of_entry, weights, number, size, x);
#pragma omp simd
            for (int j = 0; j < UNITS; j++) {
                x[j] = x[j] > 0.0f ? by[j] : 0.0f;
                to[j] += x[j];
            }
            for (int64_t e = 0; e < number; e++)
#pragma omp simd
                for (int j = 0; j < UNITS; j++) of_row[e][j] += of_entry[e] * x[j];
        }
        for (int64_t e = 0; e < number; e++)
            for (int j = 0; j < UNITS; j++) by_weights[e * size + j] += of_row[e][j];
    }
}

/* From the gradient at the sums. A task has some columns of all rows: the order of each sum is fixed. */
void deep_sets_gradient(const float *table, int64_t items, int64_t size, const int64_t *history,
                        const float *beside, int64_t rows, int64_t length, int64_t number, const float *weights,
                        const float *by_sums, int threads, float *by_table, float *by_weights) {
    memset(by_table, 0, items * size * sizeof *by_table);
    memset(by_weights, 0, number * size * sizeof *by_weights);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t at = 0; at < size; at += UNITS)
        units_gradient(table + at, size, history, beside, rows, length, number, weights + at, by_sums + at,
                       by_table + at, by_weights + at);
}
