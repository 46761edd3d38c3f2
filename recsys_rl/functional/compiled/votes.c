/* The votes of a two-tower head, forwards and backwards: models/fast/votes.py says what is computed. Torch reads the
 * blocks once for each operator. */
#include "kernels.h"

VECTORISED static void add_products(const float *votes, const float *block, int64_t size, float *sum) {
#pragma omp simd
    for (int64_t j = 0; j < size; j++) sum[j] += votes[j] * block[j];
}

VECTORISED static void write_products(const float *votes, const float *by, int64_t size, float *by_block) {
#pragma omp simd
    for (int64_t j = 0; j < size; j++) by_block[j] = votes[j] * by[j];
}

/* Block b is (rows, numbers[b], sizes[b]). The votes (number of all, num_features) of a block follow those of the one
 * before; features from sizes[b] on have none. `query` has rows of `query_row` floats. Writes (rows, width). */
void votes(const float *query, int64_t query_row, int64_t rows, int64_t width, const float *votes,
           int64_t num_features, const float *const *blocks, const int64_t *numbers, const int64_t *sizes,
           int64_t num_blocks, int threads, float *sums) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++) {
        const float *vote = votes;
        memcpy(sums + i * width, query + i * query_row, width * sizeof *sums);
        for (int64_t b = 0; b < num_blocks; b++)
            for (int64_t p = 0; p < numbers[b]; p++, vote += num_features)
                add_products(vote, blocks[b] + (i * numbers[b] + p) * sizes[b], sizes[b], sums + i * width);
    }
}

/* From the gradient (rows, width) at the sums: those at the votes (tasks, number of all, num_features), each task
 * of its rows, and those at the blocks, where `by_blocks` has an address. */
void votes_gradient(const float *by_sums, int64_t rows, int64_t width, const float *votes, int64_t num_features,
                    const float *const *blocks, const int64_t *numbers, const int64_t *sizes, int64_t num_blocks,
                    int64_t tasks, int threads, float *by_votes, float *const *by_blocks) {
    int64_t total = 0;
    for (int64_t b = 0; b < num_blocks; b++) total += numbers[b] * num_features;
    memset(by_votes, 0, tasks * total * sizeof *by_votes);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++)
        for (int64_t i = rows * task / tasks; i < rows * (task + 1) / tasks; i++) {
            const float *by = by_sums + i * width;
            int64_t at = 0;
            for (int64_t b = 0; b < num_blocks; b++)
                for (int64_t p = 0; p < numbers[b]; p++, at += num_features) {
                    int64_t place = (i * numbers[b] + p) * sizes[b];
                    add_products(by, blocks[b] + place, sizes[b], by_votes + task * total + at);
                    if (by_blocks[b]) write_products(votes + at, by, sizes[b], by_blocks[b] + place);
                }
        }
}
