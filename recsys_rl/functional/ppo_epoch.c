/* An epoch of PPO on the classic network in one call: functional/ppo_epoch.py says why.
 *
 * Each step is a function of kernels.c or dense.c that Python calls as well, in the same order and with the
 * same numbers, and so are the results. */
#include "kernels.h"

/* dL / dV of vf_coef times losses.value_loss, or of clipped_value_loss with an old value */
INLINE float value_gradient(float value, float target, const float *old, float clip_eps) {
    float error = value - target;
    if (old) {
        float move = value - *old;
        move = move < -clip_eps ? -clip_eps : move > clip_eps ? clip_eps : move;
        float clipped = *old + move - target;
        if (__builtin_fabsf(clipped) > __builtin_fabsf(error)) return 0.0f;
    }
    return error;
}

int ppo_epoch(const float *const *parameters, const int64_t *sizes, int64_t depth, int activation,
              float *const *gradients, float *const *adam_vectors, int64_t num_weights, int64_t steps,
              double lr, float max_norm, double beta1, double beta2, float eps, const float *x,
              const int64_t *items, const float *old_logprob, const float *old_value, const float *target,
              const float *advantage, int64_t samples, int64_t batch_size, float clip_eps, float ent_coef,
              double vf_coef, int clip_vloss, int threads, float *scratch, float *logprob, float *entropy,
              float *objective, float *value) {
    int64_t width = sizes[depth + 1], hidden = 0;
    for (int64_t l = 1; l <= depth; l++) hidden += 2 * sizes[l];
    float *logits = scratch, *layers = logits + batch_size * width, *dlayers = layers + batch_size * hidden;
    float *dvalue = dlayers + batch_size * hidden;
    for (int64_t start = 0; start < samples; start += batch_size) {
        int64_t rows = least(batch_size, samples - start);
        const float *inputs = x + start * sizes[0];
        float scale = (float)(vf_coef / rows);
        dense_forward(parameters, sizes, depth, activation, inputs, rows, threads, layers, logits,
                      value + start);
        if (policy_gradient(logits, items + start, old_logprob + start, advantage + start, rows, 1, width,
                            clip_eps, ent_coef, threads, logprob + start, entropy + start,
                            objective + start))
            return 1;
        for (int64_t i = start; i < start + rows; i++)
            dvalue[i - start] =
                scale * value_gradient(value[i], target[i], clip_vloss ? old_value + i : 0, clip_eps);
        dense_backward(parameters, sizes, depth, activation, inputs, rows, threads, layers, logits, dvalue,
                       dlayers, gradients);
        steps++;
        adam(adam_vectors[0], adam_vectors[1], adam_vectors[2], adam_vectors[3], num_weights, max_norm,
             beta1, beta2, lr / (1 - pow(beta1, steps)), 1 - pow(beta2, steps), eps, threads);
    }
    return 0;
}
