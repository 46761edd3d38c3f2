/* Gate and hinge units of a two-tower head, forwards and backwards: models/fast/curves.py says what is computed
 * and has the same in torch, which makes a number of each logit and unit and reads them several times. Here a block
 * of items is finished while it lies in the first-level cache. */
#include "kernels.h"

#define ITEMS 512 /* of a block */

/* MOST of models/fast/curves.py. */
INLINE float within(float x) { return x < -4.0f ? -4.0f : x > 4.0f ? 4.0f : x; }

VECTORISED static void add_gate(const float *expected, int64_t width, float gate, float *scores) {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) scores[j] += gate * within(expected[j]);
}

VECTORISED static void add_unit(const float *place, const float *affinity, const float *expected, int64_t width,
                                float shift, float of_affinity, float of_expected, float height, float *scores) {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
        float x = shift + place[j] + of_affinity * affinity[j] + of_expected * expected[j];
        scores[j] += height * (x > 0.0f ? x : 0.0f);
    }
}

/* gates (rows, 1 + 2 units): of the gate, the heights, the shifts. slopes (2, units), places (units, width). */
void curves(const float *gates, const float *places, const float *slopes, const float *affinity,
            const float *expected, int64_t rows, int64_t width, int64_t units, int threads, float *scores) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < width; j += ITEMS) {
            const float *gate = gates + i * (1 + 2 * units), *x = affinity + i * width + j,
                        *y = expected + i * width + j;
            int64_t size = least(ITEMS, width - j);
            float *to = scores + i * width + j;
            add_gate(y, size, gate[0], to);
            for (int64_t k = 0; k < units; k++)
                add_unit(places + k * width + j, x, y, size, gate[1 + units + k], slopes[k], slopes[units + k],
                         gate[1 + k], to);
        }
}

#define LANES 16
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Flags __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef float Half __attribute__((vector_size(2 * LANES)));
typedef float Quarter __attribute__((vector_size(LANES)));

INLINE float sum_of(Lanes x) {
    union { Lanes all; Half half[2]; } of = {x};
    union { Half all; Quarter quarter[2]; } in = {of.half[0] + of.half[1]};
    Quarter four = in.quarter[0] + in.quarter[1];
    return (four[0] + four[1]) + (four[2] + four[3]);
}

VECTORISED static float gate_gradient(const float *by_scores, const float *expected, int64_t width) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < width; j++) sum += by_scores[j] * within(expected[j]);
    return sum;
}

/* The sums over items where the unit is above 0 of G, of G times its value, of G affinity and of G expected. */
typedef struct { float plain, value, affinity, expected; } Sums;

/* gcc would keep the four sums in memory: they are vectors here. What is less than a vector at the end is taken
 * one by one. */
VECTORISED static Sums unit_gradient(const float *by_scores, const float *place, const float *affinity,
                                     const float *expected, int64_t width, float shift, float of_affinity,
                                     float of_expected, float height, float *by_place) {
    Lanes plain = {0}, value = {0}, by_affinity = {0}, by_expected = {0};
    int64_t j = 0;
    for (; j + LANES <= width; j += LANES) {
        Lanes a = *(const Lanes *)(affinity + j), b = *(const Lanes *)(expected + j);
        Lanes x = shift + *(const Lanes *)(place + j) + of_affinity * a + of_expected * b;
        Lanes g = (Lanes)(*(const Flags *)(by_scores + j) & (x > 0.0f));
        plain += g;
        value += g * x;
        by_affinity += g * a;
        by_expected += g * b;
        *(Lanes *)(by_place + j) += height * g;
    }
    Sums sums = {sum_of(plain), sum_of(value), sum_of(by_affinity), sum_of(by_expected)};
    for (; j < width; j++) {
        float x = shift + place[j] + of_affinity * affinity[j] + of_expected * expected[j];
        float g = x > 0.0f ? by_scores[j] : 0.0f;
        sums.plain += g;
        sums.value += g * x;
        sums.affinity += g * affinity[j];
        sums.expected += g * expected[j];
        by_place[j] += height * g;
    }
    return sums;
}

/* `by_places` (tasks, units, width) and `by_slopes` (tasks, 2, units): each task adds up its rows. */
void curves_gradient(const float *by_scores, const float *gates, const float *places, const float *slopes,
                     const float *affinity, const float *expected, int64_t rows, int64_t width, int64_t units,
                     int64_t tasks, int threads, float *by_gates, float *by_places, float *by_slopes) {
    int64_t outputs = 1 + 2 * units;
    memset(by_gates, 0, rows * outputs * sizeof *by_gates);
    memset(by_places, 0, tasks * units * width * sizeof *by_places);
    memset(by_slopes, 0, tasks * 2 * units * sizeof *by_slopes);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++)
        for (int64_t j = 0; j < width; j += ITEMS)
            for (int64_t i = rows * task / tasks; i < rows * (task + 1) / tasks; i++) {
                const float *gate = gates + i * outputs, *g = by_scores + i * width + j;
                const float *x = affinity + i * width + j, *y = expected + i * width + j;
                float *by_gate = by_gates + i * outputs, *of_slopes = by_slopes + task * 2 * units;
                int64_t size = least(ITEMS, width - j);
                by_gate[0] += gate_gradient(g, y, size);
                for (int64_t k = 0; k < units; k++) {
                    float height = gate[1 + k], shift = gate[1 + units + k];
                    Sums sums = unit_gradient(g, places + k * width + j, x, y, size, shift, slopes[k],
                                              slopes[units + k], height,
                                              by_places + (task * units + k) * width + j);
                    by_gate[1 + k] += sums.value;
                    by_gate[1 + units + k] += height * sums.plain;
                    of_slopes[k] += height * sums.affinity;
                    of_slopes[units + k] += height * sums.expected;
                }
            }
}
