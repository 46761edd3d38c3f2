/* The dense layers of actor and critic forwards and backwards, in one call each.
 *
 * models/fast/dense.py says what is computed and has the same in torch. At 64 rows torch takes some thirty
 * operators of a few microseconds each around products that take little longer, and its products don't use
 * all that every processor has. Here a block of a layer is finished while it lies in the first-level cache.
 */
#include "products.h"

#define COLUMNS 32             /* a task's part of the result, and with it the least that a thread gets */
#define MIN_PRODUCTS (1 << 20) /* multiplications; fewer are done before a second thread is awake */

enum { NONE, TANH, RELU, ELU }; /* the activations, in the order of dense.ACTIVATIONS */

INLINE float tanh_of(float z) {
    float e = exp_of_negative(-2.0f * __builtin_fabsf(z));
    return __builtin_copysignf((1.0f - e) / (1.0f + e), z);
}

INLINE float elu_of(float z) { return z > 0.0f ? z : exp_of_negative(z > 0.0f ? 0.0f : z) - 1.0f; }

/* f'(z) from x = f(z) */
INLINE float slope(int activation, float x) {
    if (activation == TANH) return 1.0f - x * x;
    return activation == NONE || x > 0.0f ? 1.0f : activation == ELU ? x + 1.0f : 0.0f;
}

/* x <- f(x + bias) for a block of a matrix whose rows are `row` floats apart */
VECTORISED static void activate(int activation, float *x, int64_t row, int64_t height, int64_t width,
                                const float *bias) {
    float floor = activation == RELU ? 0.0f : -INFINITY;
    for (int64_t i = 0; i < height; i++, x += row)
        if (activation == TANH)
#pragma omp simd
            for (int64_t j = 0; j < width; j++) x[j] = tanh_of(x[j] + bias[j]);
        else if (activation == ELU)
#pragma omp simd
            for (int64_t j = 0; j < width; j++) x[j] = elu_of(x[j] + bias[j]);
        else
#pragma omp simd
            for (int64_t j = 0; j < width; j++) x[j] = x[j] + bias[j] < floor ? floor : x[j] + bias[j];
}

/* d <- d f'(z) for such a block, from x = f(z) */
VECTORISED static void times_slope(int activation, float *d, const float *x, int64_t row, int64_t height,
                                   int64_t width) {
    for (int64_t i = 0; i < height; i++, d += row, x += row)
#pragma omp simd
        for (int64_t j = 0; j < width; j++) d[j] *= slope(activation, x[j]);
}

/* The sum of such a block's rows */
VECTORISED static void sum_rows(const float *x, int64_t row, int64_t height, int64_t width, float *sum) {
    for (int64_t j = 0; j < width; j++) sum[j] = 0.0f;
    for (int64_t i = 0; i < height; i++)
#pragma omp simd
        for (int64_t j = 0; j < width; j++) sum[j] += x[i * row + j];
}

/* ---- one layer. Twins, the actor's layer and the critic's, lie side by side in weight, bias and result. */

typedef struct {
    int64_t twins, inputs, outputs;
    const float *weight, *bias; /* (twins, inputs, outputs), (twins, outputs) */
} Layer;

INLINE int useful(int threads, Layer layer, int64_t rows) {
    return layer.twins * layer.inputs * layer.outputs * rows < MIN_PRODUCTS ? 1 : threads;
}

/* y (twins, rows, outputs) = f(x W + b); x_twin is the step from one twin's x to the other's, or 0. */
static void forward(Layer layer, const float *x, int64_t x_twin, int64_t rows, int activation, int threads,
                    float *y) {
    int64_t inputs = layer.inputs, outputs = layer.outputs;
    int64_t across = parts(outputs, COLUMNS), down = parts(rows, ROWS);
    threads = useful(threads, layer, rows);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < layer.twins * across * down; task++) {
        int64_t twin = task / down / across, j = task / down % across * COLUMNS, i = task % down * ROWS;
        int64_t height = least(ROWS, rows - i), width = least(COLUMNS, outputs - j);
        Matrix a = {x + twin * x_twin + i * inputs, inputs, 1};
        Matrix b = {layer.weight + twin * inputs * outputs + j, outputs, 1};
        float *block = y + (twin * rows + i) * outputs + j;
        product(height, width, inputs, a, b, block, outputs);
        activate(activation, block, outputs, height, width, layer.bias + twin * outputs + j);
    }
}

/* From dz (twins, rows, outputs): dweight = x^T dz, dbias = sum of dz's rows, and unless dx is NULL
 * dx = dz W^T f'(x), where f is the activation whose result x is. */
static void backward(Layer layer, const float *x, int64_t x_twin, const float *dz, int64_t rows,
                     int activation, int threads, float *dweight, float *dbias, float *dx) {
    int64_t inputs = layer.inputs, outputs = layer.outputs;
    int64_t across = parts(outputs, COLUMNS), down = parts(inputs, ROWS);
    int64_t x_across = parts(inputs, COLUMNS), x_down = parts(rows, ROWS);
    int64_t of_x = dx ? layer.twins * x_across * x_down : 0, of_weight = layer.twins * across * down;
    threads = useful(threads, layer, rows);
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t task = 0; task < of_x + of_weight; task++) {
        if (task < of_x) {
            int64_t twin = task / x_down / x_across, j = task / x_down % x_across * COLUMNS;
            int64_t i = task % x_down * ROWS;
            int64_t height = least(ROWS, rows - i), width = least(COLUMNS, inputs - j);
            Matrix a = {dz + (twin * rows + i) * outputs, outputs, 1};
            Matrix b = {layer.weight + (twin * inputs + j) * outputs, 1, outputs};
            float *block = dx + (twin * rows + i) * inputs + j;
            product(height, width, outputs, a, b, block, inputs);
            times_slope(activation, block, x + twin * x_twin + i * inputs + j, inputs, height, width);
        } else {
            int64_t part = task - of_x, twin = part / down / across;
            int64_t j = part / down % across * COLUMNS, i = part % down * ROWS;
            int64_t height = least(ROWS, inputs - i), width = least(COLUMNS, outputs - j);
            Matrix a = {x + twin * x_twin + i, 1, inputs}, b = {dz + twin * rows * outputs + j, outputs, 1};
            product(height, width, rows, a, b, dweight + (twin * inputs + i) * outputs + j, outputs);
            if (i == 0) sum_rows(b.at, outputs, rows, width, dbias + twin * outputs + j);
        }
    }
}

/* ---- the network. Parameters, and their gradients, are W_1, b_1, ..., W_L, b_L, V, c, v, d; sizes are
 * those of x_0, ..., x_L and of the outputs; in `layers` lie x_1, ..., x_L one behind the other, and in
 * `dlayers` the gradients at z_1, ..., z_L, the first of which models/fast/dense.py reads. */

INLINE Layer hidden(const float *const *parameters, const int64_t *sizes, int64_t l) {
    return (Layer){2, sizes[l], sizes[l + 1], parameters[2 * l], parameters[2 * l + 1]};
}

INLINE Layer head(const float *const *parameters, int64_t inputs, int64_t outputs) {
    return (Layer){1, inputs, outputs, parameters[0], parameters[1]};
}

void dense_forward(const float *const *parameters, const int64_t *sizes, int64_t depth, int activation,
                   const float *x, int64_t rows, int threads, float *layers, float *output, float *value) {
    int64_t x_twin = 0, top = sizes[depth];
    for (int64_t l = 0; l < depth; l++) {
        forward(hidden(parameters, sizes, l), x, x_twin, rows, activation, threads, layers);
        x = layers;
        x_twin = rows * sizes[l + 1];
        layers += 2 * x_twin;
    }
    forward(head(parameters + 2 * depth, top, sizes[depth + 1]), x, 0, rows, NONE, threads, output);
    forward(head(parameters + 2 * depth + 2, top, 1), x + x_twin, 0, rows, NONE, threads, value);
}

void dense_backward(const float *const *parameters, const int64_t *sizes, int64_t depth, int activation,
                    const float *x, int64_t rows, int threads, const float *layers, const float *doutput,
                    const float *dvalue, float *dlayers, float *const *gradients) {
    int64_t top = sizes[depth], critic = rows * top; /* where x_L of the critic begins */
    float *const *of_heads = gradients + 2 * depth;
    for (int64_t l = 1; l < depth; l++) {
        layers += 2 * rows * sizes[l];
        dlayers += 2 * rows * sizes[l];
    }
    backward(head(parameters + 2 * depth, top, sizes[depth + 1]), layers, 0, doutput, rows, activation,
             threads, of_heads[0], of_heads[1], dlayers);
    backward(head(parameters + 2 * depth + 2, top, 1), layers + critic, 0, dvalue, rows, activation, threads,
             of_heads[2], of_heads[3], dlayers + critic);
    for (int64_t l = depth - 1; l > 0; l--) {
        const float *dz = dlayers;
        layers -= 2 * rows * sizes[l];
        dlayers -= 2 * rows * sizes[l];
        backward(hidden(parameters, sizes, l), layers, rows * sizes[l], dz, rows, activation, threads,
                 gradients[2 * l], gradients[2 * l + 1], dlayers);
    }
    backward(hidden(parameters, sizes, 0), x, 0, dlayers, rows, NONE, threads, gradients[0], gradients[1],
             0);
}
