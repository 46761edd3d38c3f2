/* The loops that decide how fast a wide action space trains, each in one pass.
 *
 * functional/categorical.py and adam.py say what they compute and have the same in torch, with which the
 * tests compare them. A row of logits (4 KB for 1,000 items) stays in the first-level cache here,
 * while torch's operators each stream all rows through memory.
 *
 * Plain C, so that one library serves every Python and every torch. Rows are independent and every sum is
 * taken in a fixed order: the result doesn't depend on the number of threads.
 */
#include <string.h>

#include "kernels.h"

#define PARTS 64 /* of the weights, and at most so many threads take them */

/* ---- categorical.draw: invert the cumulative distribution at `uniform` in [0, 1]. */

INLINE float sum_block(const float *logits, int64_t start, int64_t end, float top) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = start; j < end; j++) sum += exp_of_negative(logits[j] - top);
    return sum;
}

VECTORISED static int64_t draw_row(const float *logits, int64_t width, float uniform, float *logprob) {
    float top = largest(logits, width);
    double total = 0.0; /* in double: many small probabilities still add up */
    for (int64_t start = 0; start < width; start += BLOCK)
        total += sum_block(logits, start, start + BLOCK < width ? start + BLOCK : width, top);

    /* Find the block that passes the goal, then the alternative. What has no probability is never taken. */
    double goal = uniform * total, before = 0.0, reached = 0.0;
    int64_t block = 0, drawn = 0;
    for (int64_t start = 0; start < width && !(before > goal); start += BLOCK) {
        float sum = sum_block(logits, start, start + BLOCK < width ? start + BLOCK : width, top);
        if (sum == 0.0f) continue;
        block = start;
        reached = before;
        before += sum;
    }
    for (int64_t j = block; j < width && j < block + BLOCK && !(reached > goal); j++) {
        float p = exp_of_negative(logits[j] - top);
        if (p == 0.0f) continue;
        drawn = j;
        reached += p;
    }
    *logprob = logits[drawn] - top - (float)log(total);
    return drawn;
}

void sample(const float *logits, const float *uniform, int64_t rows, int64_t width, int threads,
            int64_t *index, float *logprob) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++)
        index[i] = draw_row(logits + i * width, width, uniform[i], logprob + i);
}

/* ---- categorical.forbid_: -inf at the alternatives `ids` (rows, number) of each row; padding is -1. Returns
 * 1 where one is no alternative. */
int forbid(float *logits, const int64_t *ids, int64_t rows, int64_t number, int64_t positions, int64_t width) {
    int outside = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t x = i * number; x < (i + 1) * number; x++) {
            outside |= ids[x] < -1 || ids[x] >= width;
            for (int64_t place = i * positions; place < (i + 1) * positions; place++)
                if (ids[x] >= 0 && ids[x] < width) logits[place * width + ids[x]] = -INFINITY;
        }
    return outside;
}

/* ---- categorical.evaluate: log-probability and entropy of rows of positions, and the gradient of both */

typedef struct {
    float top, log_total, entropy;
} Row;

VECTORISED static Row read_row(const float *logits, int64_t width) {
    float top = largest(logits, width), total, weighted;
    softmax_sums(logits, width, top, &total, &weighted);
    return (Row){top, logf(total), logf(total) - weighted / total};
}

/* `read` (rows, positions) is what the gradient needs again. Returns 1 where an item is none of the
 * alternatives. */
int evaluate(const float *logits, const int64_t *items, int64_t rows, int64_t positions, int64_t width,
             int threads, float *logprob, float *entropy, Row *read) {
    int outside = 0;
#pragma omp parallel for num_threads(threads) if (threads > 1) reduction(| : outside)
    for (int64_t i = 0; i < rows; i++) {
        logprob[i] = entropy[i] = 0.0f;
        if (!all_within(items + i * positions, positions, width)) {
            outside = 1;
            continue;
        }
        for (int64_t place = i * positions; place < (i + 1) * positions; place++) {
            const float *row = logits + place * width;
            read[place] = read_row(row, width);
            logprob[i] += row[items[place]] - read[place].top - read[place].log_total;
            entropy[i] += read[place].entropy;
        }
    }
    return outside;
}

/* gradient_j = -p_j (weight + bonus (log p_j + H)), and `weight` more at the alternative that was taken. */
VECTORISED static void write_row(const float *logits, int64_t width, int64_t taken, float weight, float bonus,
                                 Row row, float *gradient) {
    softmax_gradient(logits, width, row.top, expf(-row.log_total), -bonus,
                     -bonus * (row.entropy - row.log_total) - weight, gradient);
    gradient[taken] += weight;
}

/* From the derivatives of a loss by each row's log-probability and entropy. */
void evaluate_gradient(const float *logits, const int64_t *items, const Row *read, const float *by_logprob,
                       const float *by_entropy, int64_t rows, int64_t positions, int64_t width, int threads,
                       float *gradient) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t place = 0; place < rows * positions; place++) {
        int64_t i = place / positions;
        float *row = gradient + place * width;
        if (by_logprob[i] == 0.0f && by_entropy[i] == 0.0f) /* a clipped sample moves nothing */
            memset(row, 0, width * sizeof *row);
        else
            write_row(logits + place * width, width, items[place], by_logprob[i], by_entropy[i], read[place],
                      row);
    }
}

/* ---- losses.ppo_loss, and its derivatives by log-probability, entropy and value: gradient (3, rows). NaN
 * stays. */

INLINE float clamp(float x, float low, float high) { return !(x >= low) ? low : !(x <= high) ? high : x; }

float ppo_loss(const float *logprob, const float *entropy, const float *value, const float *old_logprob,
               const float *old_value, const float *returns, const float *advantage, int64_t rows,
               float clip_eps, float ent_coef, float vf_coef, int clip_vloss, float *gradient) {
    double sum = 0.0, share = 1.0 / rows;
    for (int64_t i = 0; i < rows; i++) {
        float ratio = expf(logprob[i] - old_logprob[i]), minus = -advantage[i];
        float free = ratio * minus, clipped = clamp(ratio, 1 - clip_eps, 1 + clip_eps) * minus;
        float error = value[i] - returns[i], far = error;
        if (clip_vloss)
            far = clamp(value[i], old_value[i] - clip_eps, old_value[i] + clip_eps) - returns[i];
        int kept = !(free < clipped), near = !(error * error < far * far) && far == far;
        sum += (kept ? free : clipped) - ent_coef * entropy[i];
        sum += 0.5f * vf_coef * (near ? error * error : far * far);
        gradient[i] = kept ? share * free : 0.0f; /* d ratio / d logprob = ratio */
        gradient[rows + i] = -share * ent_coef;
        gradient[2 * rows + i] = near ? share * vf_coef * error : 0.0f;
    }
    return share * sum;
}

/* ---- adam: one step with bias-corrected rates, the gradient scaled down to max_norm first. The weights and
 * their moments are vectors; the gradient lies in pieces, one behind the other in that order. */

VECTORISED static double sum_of_squares(const float *x, int64_t size) { return squares_of(x, size); }

VECTORISED static void adam_part(float *weights, float *exp_avg, float *exp_avg_sq, const float *gradient,
                                 int64_t size, Rates rates) {
    adam_step(weights, exp_avg, exp_avg_sq, gradient, size, rates);
}

void adam(float *weights, float *exp_avg, float *exp_avg_sq, const float *const *gradients,
          const int64_t *sizes, int64_t pieces, float max_norm, float beta1, float beta2, float rate,
          float correction2, float eps, int threads) {
    int64_t size = 0;
    for (int64_t p = 0; p < pieces; p++) size += sizes[p];
    int64_t part = (size / PARTS / BLOCK + 1) * BLOCK;
    double squares[PARTS] = {0.0}, total = 0.0; /* added in a fixed order, whichever thread took which */
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < PARTS; i++)
        for (int64_t p = 0, at = 0; p < pieces; at += sizes[p++]) {
            int64_t start = most(i * part, at), end = least((i + 1) * part, at + sizes[p]);
            if (start < end) squares[i] += sum_of_squares(gradients[p] + start - at, end - start);
        }
    for (int64_t i = 0; i < PARTS; i++) total += squares[i];

    Rates rates = {scale_to(max_norm, total), beta1, beta2, rate, 1.0f / sqrtf(correction2), eps};
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < PARTS; i++)
        for (int64_t p = 0, at = 0; p < pieces; at += sizes[p++]) {
            int64_t start = most(i * part, at), end = least((i + 1) * part, at + sizes[p]);
            if (start < end)
                adam_part(weights + start, exp_avg + start, exp_avg_sq + start, gradients[p] + start - at,
                          end - start, rates);
        }
}
