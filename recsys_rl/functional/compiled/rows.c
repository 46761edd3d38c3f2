/* Loops over the users of a batch: functional/rows.py and models/fast/ say what they compute, and have the same
 * in torch, which makes copies first and then reads them again. */
#include "kernels.h"

VECTORISED static void dot_row(const float *x, const float *table, const int64_t *items, int64_t positions,
                               int64_t size, float *result) {
    for (int64_t k = 0; k < positions; k++) {
        const float *row = table + items[k] * size;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < size; j++) sum += x[j] * row[j];
        result[k] = sum;
    }
}

int dot_rows(const float *x, const float *table, const int64_t *items, int64_t rows, int64_t positions,
             int64_t size, int64_t table_rows, int threads, float *result) {
    if (!all_within(items, rows * positions, 0, table_rows)) return 1;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++)
        dot_row(x + i * size, table, items + i * positions, positions, size, result + i * positions);
    return 0;
}

VECTORISED static void add_row(const float *x, const float *table, const int64_t *items,
                               const uint8_t *shown, int64_t positions, int64_t size, float scale,
                               float *result) {
    for (int64_t j = 0; j < size; j++) result[j] = x[j];
    for (int64_t k = 0; k < positions; k++) {
        const float *row = table + items[k] * size;
        if (shown[k])
#pragma omp simd
            for (int64_t j = 0; j < size; j++) result[j] += scale * row[j];
    }
}

int add_rows(const float *x, const float *table, const int64_t *items, const uint8_t *shown, int64_t rows,
             int64_t positions, int64_t size, int64_t table_rows, float scale, int threads, float *result) {
    if (!all_within(items, rows * positions, 0, table_rows)) return 1;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++)
        add_row(x + i * size, table, items + i * positions, shown + i * positions, positions, size, scale,
                result + i * size);
    return 0;
}

int beside_rows(const float *x, const float *table, const int64_t *items, int64_t rows, int64_t size,
                int64_t table_rows, int threads, float *result) {
    if (!all_within(items, rows, -1, table_rows)) return 1;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++) {
        float *row = result + 2 * i * size;
        memcpy(row, x + i * size, size * sizeof *row);
        if (items[i] < 0)
            memset(row + size, 0, size * sizeof *row);
        else
            memcpy(row + size, table + items[i] * size, size * sizeof *row);
    }
    return 0;
}

void push_rows(const char *old, const char *fresh, const uint8_t *shown, int64_t rows, int64_t length,
               int64_t bytes, int threads, char *result) {
    int64_t row = length * bytes;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++) {
        int64_t moved = shown[i] ? bytes : 0;
        memcpy(result + i * row, old + i * row + moved, row - moved);
        memcpy(result + (i + 1) * row - moved, fresh + i * bytes, moved);
    }
}

VECTORISED static int holds(const int64_t *ids, int64_t length, int64_t id) {
    int found = 0;
#pragma omp simd reduction(| : found)
    for (int64_t j = 0; j < length; j++) found |= ids[j] == id;
    return found;
}

void rows_hold(const int64_t *ids, const int64_t *sought, int64_t rows, int64_t length, int64_t number,
               int threads, uint8_t *result) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < number; k++)
            result[i * number + k] = holds(ids + i * length, length, sought[i * number + k]);
}

/* ---- models/fast/session_sums.py. The weights are spread out to (length, width), width = weights x size: a user's sums
 * are of scale_l weights_l row_l over his items. `back` takes the gradient at the sums, and adds
 * scale_l sums row_l to that at weights_l, of which each task has its own. */
VECTORISED static void session_row(const float *table, int64_t size, const int64_t *items,
                                   const float *signals, int64_t num_signals, int64_t length, int64_t width,
                                   int back, float *weights, float *sums) {
    float row[width];
    if (!back) memset(sums, 0, (1 + num_signals) * width * sizeof *sums);
    for (int64_t l = 0; l < length; l++, weights += width) {
        for (int64_t j = 0; j < width && items[l] >= 0; j += size)
            memcpy(row + j, table + items[l] * size, size * sizeof *row);
        for (int64_t s = 0; s <= num_signals && items[l] >= 0; s++) {
            float scale = s == 0 ? 1.0f : signals[l * num_signals + s - 1], *sum = sums + s * width;
            float *to = back ? weights : sum, *from = back ? sum : weights;
#pragma omp simd
            for (int64_t j = 0; j < width; j++) to[j] += scale * from[j] * row[j];
        }
    }
}

int session_sums(const float *table, int64_t table_rows, int64_t size, const int64_t *items,
                 const float *signals, int64_t rows, int64_t length, int64_t num_signals, int64_t width,
                 int64_t tasks, int threads, int back, float *weights, float *sums) {
    if (!all_within(items, rows * length, -1, table_rows)) return 1;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++)
        for (int64_t i = rows * task / tasks; i < rows * (task + 1) / tasks; i++)
            session_row(table, size, items + i * length, signals + i * length * num_signals, num_signals,
                        length, width, back, weights + back * task * length * width,
                        sums + i * (1 + num_signals) * width);
    return 0;
}
