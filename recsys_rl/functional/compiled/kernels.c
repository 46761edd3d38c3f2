/* The loops that decide how fast a wide action space trains, each in one pass.
 *
 * functional/categorical.py and adam.py say what they compute and have the same in torch, with which the
 * tests compare them. A row of logits (4 KB for 1,000 items) stays in the first-level cache here,
 * while torch's operators each stream all rows through memory.
 *
 * Plain C, so that one library serves every Python and every torch. Every sum is taken in a fixed order, in
 * dense.c and rows.c too: the result doesn't depend on the number of threads.
 */
#include "kernels.h"

#define BLOCK 64 /* numbers summed together in single precision */
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
    float sums[width / BLOCK + 1]; /* of the blocks */
    double total = 0.0;            /* in double: many small probabilities still add up */
    for (int64_t start = 0; start < width; start += BLOCK)
        total += sums[start / BLOCK] = sum_block(logits, start, least(start + BLOCK, width), top);

    /* Find the block that passes the goal, then the alternative. What has no probability is never taken. */
    double goal = uniform * total, before = 0.0, reached = 0.0;
    int64_t block = 0, drawn = 0;
    for (int64_t start = 0; start < width && !(before > goal); start += BLOCK) {
        if (sums[start / BLOCK] == 0.0f) continue;
        block = start;
        reached = before;
        before += sums[start / BLOCK];
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
    if (!all_within(ids, rows * number, -1, width)) return 1;
    for (int64_t x = 0; x < rows * number; x++)
        for (int64_t place = 0; place < positions && ids[x] >= 0; place++)
            logits[(x / number * positions + place) * width + ids[x]] = -INFINITY;
    return 0;
}

/* ---- categorical.evaluate: log-probability and entropy of rows of positions, and the gradient of both */

typedef struct { float top, log_total, entropy; } Row;

/* The sums of a row; `exps` gets the terms exp(z_j - top). */
VECTORISED static Row read_row(const float *z, int64_t width, float *exps) {
    float top = largest(z, width), total = 0.0f, weighted = 0.0f;
#pragma omp simd reduction(+ : total, weighted)
    for (int64_t j = 0; j < width; j++) {
        float x = z[j] - top, e = exp_of_negative(x);
        total += e;
        weighted += e == 0.0f ? 0.0f : e * x; /* 0 and not 0 * -inf */
        exps[j] = e;
    }
    return (Row){top, logf(total), logf(total) - weighted / total};
}

/* gradient_j = -p_j (weight + bonus (log p_j + H)), and `weight` more at the alternative that was taken, with
 * log p_j = z_j - top - log_total. `gradient` may be `z` or `exps`. */
VECTORISED static void write_row(const float *z, const float *exps, int64_t width, int64_t taken,
                                 float weight, float bonus, Row row, float *gradient) {
    float scale = expf(-row.log_total), all = weight + bonus * (row.entropy - row.log_total);
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
        float p = exps[j] * scale;
        gradient[j] = p == 0.0f ? 0.0f : -p * (bonus * (z[j] - row.top) + all);
    }
    gradient[taken] += weight;
}

/* One row. Returns 1 where an item is none of the alternatives. */
static int evaluate_row(const float *logits, const int64_t *items, int64_t positions, int64_t width,
                        float *logprob, float *entropy, Row *read, float *exps) {
    *logprob = *entropy = 0.0f;
    if (!all_within(items, positions, 0, width)) return 1;
    for (int64_t k = 0; k < positions; k++, logits += width) {
        read[k] = read_row(logits, width, exps + k * width);
        *logprob += logits[items[k]] - read[k].top - read[k].log_total;
        *entropy += read[k].entropy;
    }
    return 0;
}

static void write_rows(const float *logits, const float *exps, const int64_t *items, int64_t positions,
                       int64_t width, const Row *read, float by_logprob, float by_entropy, float *gradient) {
    if (by_logprob == 0.0f && by_entropy == 0.0f) /* a clipped sample moves nothing */
        memset(gradient, 0, positions * width * sizeof *gradient);
    else
        for (int64_t k = 0; k < positions; k++)
            write_row(logits + k * width, exps + k * width, width, items[k], by_logprob, by_entropy, read[k],
                      gradient + k * width);
}

/* `read` (rows, positions) and `exps` (rows, positions, width) are what the gradient needs again. */
int evaluate(const float *logits, const int64_t *items, int64_t rows, int64_t positions, int64_t width,
             int threads, float *logprob, float *entropy, Row *read, float *exps) {
    int outside = 0;
#pragma omp parallel for num_threads(threads) if (threads > 1) reduction(| : outside)
    for (int64_t i = 0; i < rows; i++)
        outside |= evaluate_row(logits + i * positions * width, items + i * positions, positions, width,
                                logprob + i, entropy + i, read + i * positions, exps + i * positions * width);
    return outside;
}

/* From the derivatives of a loss by each row's log-probability and entropy. */
void evaluate_gradient(const float *logits, const float *exps, const int64_t *items, const Row *read,
                       const float *by_logprob, const float *by_entropy, int64_t rows, int64_t positions,
                       int64_t width, int threads, float *gradient) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++) {
        int64_t place = i * positions, at = place * width;
        write_rows(logits + at, exps + at, items + place, positions, width, read + place, by_logprob[i],
                   by_entropy[i], gradient + at);
    }
}

/* ---- models/fast/ppo_loss.py: a row is evaluated, and then the derivatives of the loss by its logits are
 * taken, while it lies in the cache. `work` (2, rows) has the derivatives by the value, and each row's part of
 * the loss. NaN stays. */

INLINE float clamp(float x, float low, float high) { return !(x >= low) ? low : !(x <= high) ? high : x; }

int ppo_loss(const float *logits, const int64_t *items, int64_t rows, int64_t positions, int64_t width,
             int threads, float clip_eps, float ent_coef, float vf_coef, int clip_vloss,
             const float *old_logprob, const float *old_value, const float *returns, const float *advantage,
             const float *value, float *logprob, float *entropy, float *by_logits, float *work, float *loss) {
    int outside = 0;
    double sum = 0.0, share = 1.0 / rows;
#pragma omp parallel for num_threads(threads) if (threads > 1) reduction(| : outside)
    for (int64_t i = 0; i < rows; i++) {
        const float *z = logits + i * positions * width;
        const int64_t *taken = items + i * positions;
        float *by_z = by_logits + i * positions * width; /* holds the exponentials first */
        Row read[positions];
        if (evaluate_row(z, taken, positions, width, logprob + i, entropy + i, read, by_z)) {
            outside = 1;
            continue;
        }
        float ratio = expf(logprob[i] - old_logprob[i]), minus = -advantage[i];
        float free = ratio * minus, clipped = clamp(ratio, 1 - clip_eps, 1 + clip_eps) * minus;
        float error = value[i] - returns[i], far = error, old = old_value[i];
        if (clip_vloss) far = clamp(value[i], old - clip_eps, old + clip_eps) - returns[i];
        int kept = !(free < clipped), near = !(error * error < far * far) && far == far;
        float square = near ? error * error : far * far;
        float by_logprob = kept ? share * free : 0.0f; /* d ratio / d logprob = ratio */
        work[i] = near ? share * vf_coef * error : 0.0f;
        work[rows + i] = (kept ? free : clipped) - ent_coef * entropy[i] + 0.5f * vf_coef * square;
        write_rows(z, by_z, taken, positions, width, read, by_logprob, -share * ent_coef, by_z);
    }
    for (int64_t i = 0; i < rows; i++) sum += work[rows + i]; /* in this order, whatever the threads */
    *loss = share * sum;
    return outside;
}

/* ---- adam: one step with bias-corrected rates, the gradient scaled down to max_norm first. The weights and
 * their moments are vectors; the gradient lies in pieces, one behind the other in that order. */

VECTORISED static double sum_of_squares(const float *x, int64_t size) {
    double total = 0.0;
    for (int64_t start = 0; start < size; start += BLOCK) {
        int64_t end = least(start + BLOCK, size);
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = start; j < end; j++) sum += x[j] * x[j];
        total += sum;
    }
    return total;
}

typedef struct { float scale, beta1, beta2, rate, root, eps; } Rates;

VECTORISED static void adam_part(float *weights, float *exp_avg, float *exp_avg_sq, const float *gradient,
                                 int64_t size, Rates r) {
#pragma omp simd
    for (int64_t j = 0; j < size; j++) {
        float g = gradient[j] * r.scale;
        float m = r.beta1 * exp_avg[j] + (1.0f - r.beta1) * g;
        float v = r.beta2 * exp_avg_sq[j] + (1.0f - r.beta2) * g * g;
        exp_avg[j] = m;
        exp_avg_sq[j] = v;
        weights[j] -= r.rate * m / (sqrtf(v) * r.root + r.eps);
    }
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

    float scale = max_norm / ((float)sqrt(total) + 1e-6f); /* NaN stays, and comes out as a NaN loss */
    Rates rates = {scale > 1.0f ? 1.0f : scale, beta1, beta2, rate, 1.0f / sqrtf(correction2), eps};
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < PARTS; i++)
        for (int64_t p = 0, at = 0; p < pieces; at += sizes[p++]) {
            int64_t start = most(i * part, at), end = least((i + 1) * part, at + sizes[p]);
            if (start < end)
                adam_part(weights + start, exp_avg + start, exp_avg_sq + start, gradients[p] + start - at,
                          end - start, rates);
        }
}
