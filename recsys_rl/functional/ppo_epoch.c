/* An epoch of PPO on the classic network in one call: functional/ppo_epoch.py says why.
 *
 * Each layer's columns are cut into SHARES, and a thread keeps its shares through forward pass, gradient,
 * backward pass and Adam. For the time of the epoch their weights, gradients and moments lie together, so
 * that they never leave the cache of a core, and no cache line is written by two. Passed on are only the
 * hidden layers' outputs, three numbers a row of the softmax, and the parts of one sum. The shares, and the
 * order of every sum, are the same for any number of threads, and so is the result.
 */
#define UNIT(name) epoch_##name
#include "shares.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#define MIN_PRODUCTS (1 << 20) /* multiplications of a minibatch; with fewer a second thread only waits */

typedef struct {
    int64_t rows;
    float rate, correction2, vf_scale;
    const float *x, *old_logprob, *old_value, *target, *advantage;
    const int64_t *items;
    float *logprob, *entropy, *objective, *value;
} Minibatch;

INLINE void barrier(int team) {
    (void)team;
#ifdef _OPENMP
    if (team > 1) {
#pragma omp barrier
    }
#endif
}

/* c = a b in blocks of ROWS rows, so that those of a stay in the first-level cache */
static void product_by_rows(int64_t height, int64_t width, int64_t depth, Matrix a, Matrix b, float *c,
                            int64_t c_row) {
    for (int64_t i = 0; i < height; i += ROWS) {
        Matrix block = {a.at + i * a.row, a.row, a.column};
        product(least(ROWS, height - i), width, depth, block, b, c + i * c_row, c_row);
    }
}

/* ---- forwards */

static void hidden_forward(const Epoch *e, const Minibatch *m, int64_t l, int share) {
    int64_t inputs = e->sizes[l], outputs = e->sizes[l + 1], twin = share / HALVES, rows = m->rows;
    Columns own = columns(outputs, HALVES, share % HALVES);
    const float *x = l ? layer_of(e->layers, e->sizes, rows, l) + twin * rows * inputs : m->x;
    float *y = layer_of(e->layers, e->sizes, rows, l + 1) + twin * rows * outputs + own.from;
    product_by_rows(rows, own.width, inputs, (Matrix){x, inputs, 1},
                    (Matrix){of(e, share, WEIGHTS, 2 * l), own.stride, 1}, y, outputs);
    activate(e->activation, y, outputs, rows, own.width, of(e, share, WEIGHTS, 2 * l + 1));
}

static void head_forward(const Epoch *e, const Minibatch *m, int share) {
    int64_t top = e->sizes[e->depth], rows = m->rows;
    const float *x = layer_of(e->layers, e->sizes, rows, e->depth);
    Columns own = columns(e->sizes[e->depth + 1], SHARES, share);
    float *z = logits_of(e, rows, share);
    product_by_rows(rows, own.stride, top, (Matrix){x, top, 1},
                    (Matrix){of(e, share, WEIGHTS, 2 * e->depth), own.stride, 1}, z, own.stride);
    activate(NONE, z, own.stride, rows, own.stride, of(e, share, WEIGHTS, 2 * e->depth + 1));
    for (int64_t i = 0; i < rows; i++) {
        int64_t place = m->items[i] - own.from;
        e->tops[share * rows + i] = largest(z + i * own.stride, own.width);
        if (place >= 0 && place < own.width) e->taken[i] = z[i * own.stride + place];
    }
    if (share == SHARES - 1) {
        Matrix critic = {x + rows * top, top, 1}, v = {of(e, share, WEIGHTS, 2 * e->depth + 2), 1, 1};
        product_by_rows(rows, 1, top, critic, v, m->value, 1);
        activate(NONE, m->value, 1, rows, 1, of(e, share, WEIGHTS, 2 * e->depth + 3));
    }
}

/* ---- the gradients at logits and value, as in kernels.c and losses.py */

VECTORISED static void sums(float *z, int64_t width, float top, int keep, float *sum, float *weighted_sum) {
    softmax_sums(z, width, top, keep, sum, weighted_sum);
}

VECTORISED static void gradient(float *z, int64_t width, float top, float scale, float bonus, float shift) {
    softmax_gradient(z, width, top, scale, bonus, shift);
}

INLINE float top_of_row(const Epoch *e, int64_t rows, int64_t i) {
    float top = -INFINITY;
    for (int s = 0; s < SHARES; s++) top = e->tops[s * rows + i] > top ? e->tops[s * rows + i] : top;
    return top;
}

static void softmax(const Epoch *e, const Minibatch *m, int share) {
    Columns own = columns(e->sizes[e->depth + 1], SHARES, share);
    float *z = logits_of(e, m->rows, share), bonus = e->ent_coef / m->rows;
    for (int64_t i = 0; i < m->rows; i++) {
        int64_t place = share * m->rows + i;
        sums(z + i * own.stride, own.width, top_of_row(e, m->rows, i), bonus == 0.0f, e->totals + place,
             e->weighted + place);
    }
}

/* For the shares from `first` to before `last`, a thread's own. */
static void at_logits(const Epoch *e, const Minibatch *m, int first, int last) {
    int64_t rows = m->rows, items = e->sizes[e->depth + 1];
    float bonus = e->ent_coef / rows;
    for (int64_t i = 0; i < rows; i++) {
        float top = top_of_row(e, rows, i), total = 0.0f, weighted = 0.0f, advantage = m->advantage[i];
        for (int s = 0; s < SHARES; s++) {
            total += e->totals[s * rows + i];
            weighted += e->weighted[s * rows + i];
        }
        float log_total = logf(total), entropy = log_total - weighted / total;
        float logprob = e->taken[i] - top - log_total;
        Clipped found = clipped(logprob - m->old_logprob[i], advantage, e->clip_eps);
        float weight = found.weight / rows;
        if (first == 0) {
            m->logprob[i] = logprob;
            m->entropy[i] = entropy;
            m->objective[i] = found.objective;
        }
        float scale = expf(-log_total), shift = bonus * (entropy - log_total) - weight;
        for (int share = first; share < last; share++) {
            Columns own = columns(items, SHARES, share);
            float *z = logits_of(e, rows, share) + i * own.stride;
            int64_t place = m->items[i] - own.from;
            gradient(z, own.width, top, scale, bonus, shift);
            if (place >= 0 && place < own.width) z[place] += weight;
        }
    }
}

static void at_value(const Epoch *e, const Minibatch *m) {
    for (int64_t i = 0; i < m->rows; i++) {
        float error = m->value[i] - m->target[i];
        if (m->old_value) {
            float old = m->old_value[i];
            float clipped = bounded(m->value[i], old - e->clip_eps, old + e->clip_eps) - m->target[i];
            if (__builtin_fabsf(clipped) > __builtin_fabsf(error)) error = 0.0f;
        }
        e->dvalue[i] = error * m->vf_scale;
    }
}

/* ---- backwards */

/* dweight = x^T dz and dbias = the sum of dz's rows, for dz (rows, width) and x (rows, inputs) */
static void of_weights(const float *x, int64_t inputs, Matrix dz, int64_t rows, int64_t width,
                       float *dweight, int64_t stride, float *dbias) {
    product_by_rows(inputs, width, rows, (Matrix){x, 1, inputs}, dz, dweight, stride);
    sum_rows(dz.at, dz.row, rows, width, dbias);
}

/* part (rows, inputs) = dz W^T over a share's columns alone */
static void part_of_dx(Matrix dz, int64_t rows, Columns own, const float *weight, int64_t inputs,
                       float *part) {
    if (own.width == 0)
        memset(part, 0, rows * inputs * sizeof *part);
    else
        product_by_rows(rows, inputs, own.width, dz, (Matrix){weight, 1, own.stride}, part, inputs);
}

static void head_backward(const Epoch *e, const Minibatch *m, int share) {
    int64_t top = e->sizes[e->depth], rows = m->rows, head = 2 * e->depth;
    const float *x = layer_of(e->layers, e->sizes, rows, e->depth);
    Columns own = columns(e->sizes[e->depth + 1], SHARES, share);
    Matrix dz = {logits_of(e, rows, share), own.stride, 1}; /* 0 beyond own.width, as these weights are */
    of_weights(x, top, dz, rows, own.stride, of(e, share, GRADIENT, head), own.stride,
               of(e, share, GRADIENT, head + 1));
    part_of_dx(dz, rows, own, of(e, share, WEIGHTS, head), top, e->of_head + share * rows * e->widest);
    if (share == SHARES - 1)
        of_weights(x + rows * top, top, (Matrix){e->dvalue, 1, 1}, rows, 1, of(e, share, GRADIENT, head + 2),
                   1, of(e, share, GRADIENT, head + 3));
}

VECTORISED static void add(float *sum, const float *part, float scale, int64_t size) {
    for (int64_t j = 0; j < size; j++) sum[j] += scale * part[j];
}

/* dx_{l+1} f'(z_{l+1}) in a share's columns: what comes from the value, or the parts of a sum */
static void at_hidden(const Epoch *e, const Minibatch *m, int64_t l, int share, Columns own, float *dz) {
    int64_t outputs = e->sizes[l + 1], twin = share / HALVES, rows = m->rows, last = l == e->depth - 1;
    int64_t first_part = last ? 0 : HALVES * twin, after = last ? SHARES : first_part + HALVES;
    const float *parts_of_sum = last ? e->of_head : e->of_hidden[(l + 1) % 2];
    for (int64_t i = 0; i < rows; i++) {
        float *row = dz + i * outputs;
        memset(row, 0, own.width * sizeof *row);
        if (last && twin == 1)
            add(row, e->value_weights + own.from, e->dvalue[i], own.width);
        else
            for (int64_t s = first_part; s < after; s++)
                add(row, parts_of_sum + s * rows * e->widest + i * outputs + own.from, 1.0f, own.width);
    }
    const float *y = layer_of(e->layers, e->sizes, rows, l + 1) + twin * rows * outputs + own.from;
    times_slope(e->activation, dz, y, outputs, rows, own.width);
}

static void hidden_backward(const Epoch *e, const Minibatch *m, int64_t l, int share) {
    int64_t inputs = e->sizes[l], outputs = e->sizes[l + 1], twin = share / HALVES, rows = m->rows;
    Columns own = columns(outputs, HALVES, share % HALVES);
    float *dz = layer_of(e->dlayers, e->sizes, rows, l + 1) + twin * rows * outputs + own.from;
    at_hidden(e, m, l, share, own, dz);
    const float *x = l ? layer_of(e->layers, e->sizes, rows, l) + twin * rows * inputs : m->x;
    of_weights(x, inputs, (Matrix){dz, outputs, 1}, rows, own.width, of(e, share, GRADIENT, 2 * l),
               own.stride, of(e, share, GRADIENT, 2 * l + 1));
    if (l)
        part_of_dx((Matrix){dz, outputs, 1}, rows, own, of(e, share, WEIGHTS, 2 * l), inputs,
                   e->of_hidden[l % 2] + share * rows * e->widest);
}

/* ---- Adam */

VECTORISED static double epoch_squares(const float *x, int64_t size) { return squares_of(x, size); }

VECTORISED static void epoch_adam(float *const *own, int64_t size, Rates rates) {
    adam_step(own[WEIGHTS], own[EXP_AVG], own[EXP_AVG_SQ], own[GRADIENT], size, rates);
}

/* ---- a gradient step by a team, of which this thread has the shares from `first` to before `last` */

static void step(const Epoch *e, const Minibatch *m, double *squares, int team, int first, int last) {
#define OWN for (int share = first; share < last; share++)
    for (int64_t l = 0; l < e->depth; l++) {
        OWN hidden_forward(e, m, l, share);
        if (team > 2 || l == e->depth - 1) barrier(team); /* two threads have a twin each */
    }
    OWN head_forward(e, m, share);
    barrier(team);
    OWN softmax(e, m, share);
    barrier(team);
    at_logits(e, m, first, last);
    if (last == SHARES) at_value(e, m);
    OWN head_backward(e, m, share);
    barrier(team);
    for (int64_t l = e->depth - 1; l >= 0; l--) {
        OWN hidden_backward(e, m, l, share);
        if (team > 2) barrier(team);
    }
    OWN squares[LINE * share] = epoch_squares(e->own[share][GRADIENT], e->length[share]);
    barrier(team);
    double total = 0.0;
    for (int s = 0; s < SHARES; s++) total += squares[LINE * s];
    Rates rates = {scale_to(e->max_norm, total), e->beta1, e->beta2, m->rate,
                   1.0f / sqrtf(m->correction2), e->eps};
    OWN epoch_adam(e->own[share], e->length[share], rates);
#undef OWN
}

/* ---- the epoch */

int64_t ppo_epoch_scratch(const float *const *parameters, const int64_t *sizes, int64_t depth,
                          float *const *vectors, int64_t batch_size) {
    Epoch e = {.parameters = parameters, .sizes = sizes, .depth = depth, .vectors = vectors};
    return lay_out(&e, batch_size, 0);
}

int ppo_epoch(const float *const *parameters, const int64_t *sizes, int64_t depth, int activation,
              float *const *vectors, int64_t steps, double lr, float max_norm, double beta1, double beta2,
              float eps, const float *x, const int64_t *items, const float *old_logprob,
              const float *old_value, const float *target, const float *advantage, int64_t samples,
              int64_t batch_size, float clip_eps, float ent_coef, double vf_coef, int clip_vloss,
              int threads, float *scratch, float *logprob, float *entropy, float *objective, float *value) {
    if (!all_within(items, samples, sizes[depth + 1])) return 1;
    int64_t products = sizes[depth] * (sizes[depth + 1] + 1);
    for (int64_t l = 1; l <= depth; l++) products += 2 * sizes[l - 1] * sizes[l];
    Epoch e = {.parameters = parameters, .sizes = sizes, .depth = depth, .activation = activation};
    e.vectors = vectors;
    e.clip_eps = clip_eps, e.ent_coef = ent_coef, e.max_norm = max_norm;
    e.beta1 = (float)beta1, e.beta2 = (float)beta2, e.eps = eps;
    lay_out(&e, batch_size, scratch);
    e.value_weights = of(&e, SHARES - 1, WEIGHTS, 2 * depth + 2);
    int team = threads < SHARES ? threads : SHARES;
    if (products * batch_size < MIN_PRODUCTS) team = 1;
    double squares[LINE * SHARES];
#pragma omp parallel num_threads(team) if (team > 1)
    {
        int size = 1, me = 0;
#ifdef _OPENMP
        size = omp_get_num_threads(), me = omp_get_thread_num();
#endif
        int first = (me * SHARES + size - 1) / size, last = ((me + 1) * SHARES + size - 1) / size;
        int64_t done = steps;
        for (int share = first; share < last; share++) carry(&e, share, 0);
        barrier(size);
        for (int64_t i = 0; i < samples; i += batch_size) {
            done++;
            Minibatch m = {
                .rows = least(batch_size, samples - i), .x = x + i * sizes[0], .items = items + i};
            m.rate = (float)(lr / (1 - pow(beta1, done))), m.correction2 = (float)(1 - pow(beta2, done));
            m.vf_scale = (float)(vf_coef / m.rows);
            m.old_logprob = old_logprob + i, m.old_value = clip_vloss ? old_value + i : 0;
            m.target = target + i, m.advantage = advantage + i;
            m.logprob = logprob + i, m.entropy = entropy + i, m.objective = objective + i;
            m.value = value + i;
            step(&e, &m, squares, size, first, last);
        }
        for (int share = first; share < last; share++) carry(&e, share, 1);
    }
    return 0;
}
