/* Gate and hinge units of a two-tower head, forwards and backwards: models/fast/curves.py says what is computed
 * and has the same in torch, which makes a number of each logit and unit and reads them several times. Here four
 * units are taken together, so that an item's numbers are read once. */
#include "kernels.h"

#define ITEMS 1024 /* of a block, which stays in the first-level cache while rows are read */
#define UNITS 4   /* taken together; their number is a multiple of this one */

/* MOST of models/fast/curves.py. */
INLINE float within(float x) { return x < -4.0f ? -4.0f : x > 4.0f ? 4.0f : x; }

/* What a user has for UNITS units: v and w of models/fast/curves.py, then c and d. */
typedef struct { float gate, height[UNITS], shift[UNITS], of_affinity[UNITS], of_expected[UNITS]; } User;

/* `gates` are the user's, and `slopes` (2, units); the gate goes with the first units. */
INLINE User user_of(const float *gates, const float *slopes, int64_t units, int64_t first) {
    User user = {.gate = first ? 0.0f : gates[0]};
    for (int k = 0; k < UNITS; k++) {
        user.height[k] = gates[1 + first + k];
        user.shift[k] = gates[1 + units + first + k];
        user.of_affinity[k] = slopes[first + k];
        user.of_expected[k] = slopes[units + first + k];
    }
    return user;
}

/* `places` have rows of `row` floats. */
VECTORISED static void add_units(User user, const float *places, int64_t row, const float *affinity,
                                 const float *expected, int64_t width, float *scores) {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
        float sum = scores[j] + user.gate * within(expected[j]);
#pragma GCC unroll 4
        for (int k = 0; k < UNITS; k++) {
            float x = user.shift[k] + places[k * row + j] + user.of_affinity[k] * affinity[j] +
                      user.of_expected[k] * expected[j];
            sum += user.height[k] * (x > 0.0f ? x : 0.0f);
        }
        scores[j] = sum;
    }
}

/* gates (rows, 1 + 2 units): of the gate, the heights, the shifts. slopes (2, units), places (units, width). */
void curves(const float *gates, const float *places, const float *slopes, const float *affinity,
            const float *expected, int64_t rows, int64_t width, int64_t units, int threads, float *scores) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < units; k += UNITS)
            add_units(user_of(gates + i * (1 + 2 * units), slopes, units, k), places + k * width, width,
                      affinity + i * width, expected + i * width, width, scores + i * width);
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

/* The sums over items where a unit is above 0 of G, of G times its value, of G affinity and of G expected. */
typedef struct { float plain, value, affinity, expected; } Sums;

/* gcc would keep the sums in memory: they are vectors here. What is less than a vector at the end is taken one by
 * one. `places` and `by_places` have rows of `row` floats. */
VECTORISED static void units_gradient(User user, const float *by_scores, const float *places, int64_t row,
                                      const float *affinity, const float *expected, int64_t width, Sums *sums,
                                      float *by_places) {
    Lanes plain[UNITS] = {0}, value[UNITS] = {0}, by_affinity[UNITS] = {0}, by_expected[UNITS] = {0};
    int64_t j = 0;
    for (; j + LANES <= width; j += LANES) {
        Lanes a = *(const Lanes *)(affinity + j), b = *(const Lanes *)(expected + j);
        Flags all = *(const Flags *)(by_scores + j);
#pragma GCC unroll 4
        for (int k = 0; k < UNITS; k++) {
            Lanes x = user.shift[k] + *(const Lanes *)(places + k * row + j) + user.of_affinity[k] * a +
                      user.of_expected[k] * b;
            Lanes g = (Lanes)(all & (x > 0.0f));
            plain[k] += g;
            value[k] += g * x;
            by_affinity[k] += g * a;
            by_expected[k] += g * b;
            *(Lanes *)(by_places + k * row + j) += user.height[k] * g;
        }
    }
#pragma GCC unroll 4
    for (int k = 0; k < UNITS; k++)
        sums[k] = (Sums){sum_of(plain[k]), sum_of(value[k]), sum_of(by_affinity[k]), sum_of(by_expected[k])};
    for (; j < width; j++)
        for (int k = 0; k < UNITS; k++) {
            float x = user.shift[k] + places[k * row + j] + user.of_affinity[k] * affinity[j] +
                      user.of_expected[k] * expected[j];
            float g = x > 0.0f ? by_scores[j] : 0.0f;
            sums[k].plain += g;
            sums[k].value += g * x;
            sums[k].affinity += g * affinity[j];
            sums[k].expected += g * expected[j];
            by_places[k * row + j] += user.height[k] * g;
        }
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
                const float *g = by_scores + i * width + j, *x = affinity + i * width + j,
                            *y = expected + i * width + j;
                float *by_gate = by_gates + i * outputs, *of_slopes = by_slopes + task * 2 * units;
                int64_t size = least(ITEMS, width - j);
                by_gate[0] += gate_gradient(g, y, size);
                for (int64_t first = 0; first < units; first += UNITS) {
                    User user = user_of(gates + i * outputs, slopes, units, first);
                    Sums sums[UNITS];
                    units_gradient(user, g, places + first * width + j, width, x, y, size, sums,
                                   by_places + (task * units + first) * width + j);
                    for (int64_t q = 0, k = first; q < UNITS; q++, k++) {
                        by_gate[1 + k] += sums[q].value;
                        by_gate[1 + units + k] += user.height[q] * sums[q].plain;
                        of_slopes[k] += user.height[q] * sums[q].affinity;
                        of_slopes[units + k] += user.height[q] * sums[q].expected;
                    }
                }
            }
}
