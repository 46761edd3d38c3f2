/* Where an epoch's numbers lie (ppo_epoch.c): each share's columns of every layer together. */
#ifndef RECSYS_RL_SHARES_H
#define RECSYS_RL_SHARES_H
#include "layers.h"

#define SHARES 4 /* of the head's columns, and so many threads at most */
#define HALVES 2 /* of a hidden layer's columns, for each of the twins */
_Static_assert(SHARES == 2 * HALVES, "a share has columns of the head, and of one twin's hidden layers");

#define LINE 8 /* doubles in a cache line */

enum { WEIGHTS, EXP_AVG, EXP_AVG_SQ, GRADIENT, VECTORS };

typedef struct {
    /* The network, as in dense.c, and Adam's vectors, in which its parameters lie alike. */
    const float *const *parameters;
    const int64_t *sizes;
    int64_t depth;
    int activation;
    float *const *vectors;
    /* Dials */
    float clip_eps, ent_coef, max_norm, beta1, beta2, eps;
    /* Of each share its part of those vectors, `length` numbers. */
    float *own[SHARES][VECTORS];
    int64_t length[SHARES];
    const float *value_weights; /* v */
    /* Scratch of a minibatch: x_1, ..., x_L and the gradients at z_1, ..., z_L; logits, share by share;
     * parts of the sums dx: of the head, and of the hidden layers by turns; a number for each share and row,
     * or row. */
    float *layers, *dlayers, *logits, *of_head, *of_hidden[2], *tops, *totals, *weighted, *taken, *dvalue;
    int64_t widest;
} Epoch;

/* Columns of a layer; their rows begin `stride` floats apart where they lie together, at a cache line. */
typedef struct {
    int64_t from, width, stride;
} Columns;

INLINE int64_t whole_lines(int64_t size) { return parts(size, 32) * 32; }

INLINE Columns columns(int64_t size, int64_t shares, int64_t share) {
    int64_t unit = whole_lines(parts(size, shares)), from = least(size, share * unit);
    int64_t width = least(unit, size - from);
    return (Columns){from, width, whole_lines(width)};
}

/* What a share has of one parameter: `rows` of `width` floats, from `place` on in the flat vectors, where
 * they are `row` floats apart, and from `offset` on in its own, where they are `stride` apart. */
typedef struct {
    int64_t rows, width, row, stride, place, offset;
} Block;

INLINE Block block(const Epoch *e, int share, int64_t parameter) {
    int64_t offset = 0, top = e->sizes[e->depth], items = e->sizes[e->depth + 1];
    for (int64_t k = 0;; k++) {
        Block b = {1, 0, 0, 0, e->parameters[k] - e->vectors[WEIGHTS], offset};
        if (k < 2 * e->depth) { /* W_l or b_l */
            int64_t outputs = e->sizes[k / 2 + 1], twin = share / HALVES;
            Columns own = columns(outputs, HALVES, share % HALVES);
            b.rows = k % 2 ? 1 : e->sizes[k / 2];
            b.width = own.width, b.row = outputs, b.stride = own.stride;
            b.place += twin * b.rows * outputs + own.from;
        } else if (k < 2 * e->depth + 2) { /* V or c */
            Columns own = columns(items, SHARES, share);
            b.rows = k % 2 ? 1 : top;
            b.width = own.width, b.row = items, b.stride = own.stride;
            b.place += own.from;
        } else if (share == SHARES - 1) { /* v or d: the last thread's, as the critic's hidden layers are */
            b.width = k % 2 ? 1 : top;
            b.stride = whole_lines(b.width);
        }
        if (k == parameter) return b;
        offset += b.rows * b.stride;
    }
}

INLINE float *of(const Epoch *e, int share, int vector, int64_t parameter) {
    return e->own[share][vector] + block(e, share, parameter).offset;
}

/* Weights and moments to where the share has them, or back */
static void carry(const Epoch *e, int share, int back) {
    if (!back)
        for (int vector = 0; vector < VECTORS; vector++)
            memset(e->own[share][vector], 0, e->length[share] * sizeof(float));
    for (int vector = WEIGHTS; vector < GRADIENT; vector++)
        for (int64_t k = 0; k < 2 * e->depth + 4; k++) {
            Block b = block(e, share, k);
            float *flat = e->vectors[vector] + b.place, *own = e->own[share][vector] + b.offset;
            for (int64_t i = 0; i < b.rows; i++, flat += b.row, own += b.stride)
                memcpy(back ? flat : own, back ? own : flat, b.width * sizeof(float));
        }
}

INLINE float *layer_of(float *layers, const int64_t *sizes, int64_t rows, int64_t l) {
    for (int64_t k = 1; k < l; k++) layers += 2 * rows * sizes[k];
    return layers;
}

INLINE float *logits_of(const Epoch *e, int64_t rows, int share) {
    float *z = e->logits;
    for (int s = 0; s < share; s++) z += rows * columns(e->sizes[e->depth + 1], SHARES, s).stride;
    return z;
}

/* How many floats the epoch takes; says where each thing lies in `scratch`, unless that is NULL. */
static int64_t lay_out(Epoch *e, int64_t batch_size, float *scratch) {
    int64_t hidden = 0, used = 0;
    for (int64_t l = 1; l <= e->depth; l++) {
        hidden += 2 * e->sizes[l];
        e->widest = e->sizes[l] > e->widest ? e->sizes[l] : e->widest;
    }
    for (int share = 0; share < SHARES; share++) {
        Block last = block(e, share, 2 * e->depth + 3);
        e->length[share] = last.offset + last.rows * last.stride;
        for (int vector = 0; vector < VECTORS; vector++, used += e->length[share])
            if (scratch) e->own[share][vector] = scratch + used;
    }
    int64_t logits = e->sizes[e->depth + 1] + 32 * SHARES, of_dx = SHARES * e->widest;
    struct {
        float **array;
        int64_t numbers; /* for each row */
    } arrays[] = {{&e->logits, logits},
                  {&e->layers, hidden},
                  {&e->dlayers, hidden},
                  {&e->of_head, of_dx},
                  {&e->of_hidden[0], of_dx},
                  {&e->of_hidden[1], of_dx},
                  {&e->tops, SHARES},
                  {&e->totals, SHARES},
                  {&e->weighted, SHARES},
                  {&e->taken, 1},
                  {&e->dvalue, 1}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        if (scratch) *arrays[i].array = scratch + used;
        used += whole_lines(batch_size * arrays[i].numbers);
    }
    return used;
}

#endif
