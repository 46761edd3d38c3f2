/* The loops that decide how fast a wide action space trains, each in one pass.
 *
 * functional/categorical.py, policy_loss.py and adam.py say what they compute and have the same in torch, with
 * which the tests compare them. A row of logits (4 KB for 1,000 items) stays in the first-level cache here,
 * while torch's operators each stream all rows through memory.
 *
 * Plain C, so that one library serves every Python and every torch. Rows are independent and every sum is
 * taken in a fixed order: the result doesn't depend on the number of threads.
 */
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

/* ---- policy_loss: clipped_policy_gradient, and policy_gradient where there is no old_logprob */

typedef struct {
    float top, log_total, entropy;
} Row;

VECTORISED static Row read_row(float *logits, int64_t width, int keep) {
    float top = largest(logits, width), total, weighted;
    softmax_sums(logits, width, top, keep, &total, &weighted);
    return (Row){top, logf(total), logf(total) - weighted / total};
}

/* logits_j <- p_j (bonus (log p_j + H) - weight), and `weight` more at the alternative that was taken. */
VECTORISED static void write_row(float *logits, int64_t width, int64_t taken, float weight, float bonus,
                                 Row row) {
    softmax_gradient(logits, width, row.top, expf(-row.log_total), bonus,
                     bonus * (row.entropy - row.log_total) - weight);
    logits[taken] += weight;
}

/* The gradient replaces the logits: a second array as large would cost more than all the arithmetic.
 * Returns 1 where an item is none of the alternatives; such a row is left alone. */
int policy_gradient(float *logits, const int64_t *items, const float *old_logprob, const float *advantage,
                    int64_t rows, int64_t positions, int64_t width, float clip_eps, float ent_coef,
                    int threads, float *logprob, float *entropy, float *objective) {
    int outside = 0;
    float bonus = ent_coef / rows;
#pragma omp parallel for num_threads(threads) if (threads > 1) reduction(| : outside)
    for (int64_t i = 0; i < rows; i++) {
        float *row = logits + i * positions * width;
        const int64_t *taken = items + i * positions;
        if (!all_within(taken, positions, width)) {
            outside = 1;
            continue;
        }
        Row read[positions];
        logprob[i] = entropy[i] = 0.0f;
        for (int64_t k = 0; k < positions; k++) {
            float logit = row[k * width + taken[k]];
            read[k] = read_row(row + k * width, width, bonus == 0.0f);
            logprob[i] += logit - read[k].top - read[k].log_total;
            entropy[i] += read[k].entropy;
        }
        float weight = -advantage[i] / rows;
        objective[i] = logprob[i] * advantage[i];
        if (old_logprob) {
            Clipped found = clipped(logprob[i] - old_logprob[i], advantage[i], clip_eps);
            objective[i] = found.objective;
            weight = found.weight / rows;
        }
        for (int64_t k = 0; k < positions; k++)
            write_row(row + k * width, width, taken[k], weight, bonus, read[k]);
    }
    return outside;
}

/* ---- adam: one step with bias-corrected rates, the gradient scaled down to max_norm first. */

VECTORISED static double sum_of_squares(const float *x, int64_t size) { return squares_of(x, size); }

VECTORISED static void adam_part(float *weights, float *exp_avg, float *exp_avg_sq, const float *gradient,
                                 int64_t size, Rates rates) {
    adam_step(weights, exp_avg, exp_avg_sq, gradient, size, rates);
}

void adam(float *weights, float *exp_avg, float *exp_avg_sq, const float *gradient, int64_t size,
          float max_norm, float beta1, float beta2, float rate, float correction2, float eps, int threads) {
    int64_t part = (size / PARTS / BLOCK + 1) * BLOCK;
    double squares[PARTS] = {0.0}, total = 0.0; /* added in a fixed order, whichever thread took which */
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < PARTS; i++)
        if (i * part < size) squares[i] = sum_of_squares(gradient + i * part, least(part, size - i * part));
    for (int64_t i = 0; i < PARTS; i++) total += squares[i];

    Rates rates = {scale_to(max_norm, total), beta1, beta2, rate, 1.0f / sqrtf(correction2), eps};
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < PARTS; i++) {
        int64_t start = i * part;
        if (start < size)
            adam_part(weights + start, exp_avg + start, exp_avg_sq + start, gradient + start,
                      least(part, size - start), rates);
    }
}
