// What a BERT-shaped encoder layer does to each row between its matrix products: the sum with the
// residual and its layer norm, with dropout, and GELU. See kernels/fused.py for definitions.
#include "checks.h"
#include "dropout.h"
#include "vectors.h"

using namespace etude;

namespace {

// z = w * (s - mean) * rstd + b of one row.
template <class E>
void normalized(const E* s, const E* weight, const E* bias, E* z, float mean, float rstd,
                int64_t width) {
    for (int64_t i = 0; i < width; i += LANES) {
        const int64_t left = width - i;
        const floats normal = (load(s + i, left) - mean) * rstd;
        store(z + i, normal * load(weight + i, left) + load(bias + i, left), left);
    }
}

// s = x + M * y, in place of y, and z = w * (s - mean) * rstd + b; M: dropout, see dropout.h.
template <class E>
void add_norm(E* y, const E* x, const E* weight, const E* bias, E* z, float* mean, float* rstd,
              int64_t rows, int64_t width, float eps, const Dropout& dropout) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        E* at = y + row * width;
        const uint32_t key = dropout.row(row);
        floats total = {};
        for (int64_t i = 0; i < width; i += LANES) {
            const int64_t left = width - i;
            floats v = load(at + i, left);
            if (dropout.on) v *= dropout.factors(key, i);
            v = rounded<E>(v + load(x + row * width + i, left));
            store(at + i, v, left);
            total += v;  // beyond the row's end all are zero
        }
        const float middle = sum(total) / width;
        floats squares = {};
        for (int64_t i = 0; i < width; i += LANES) {
            floats v = load(at + i, width - i) - middle;
            if (width - i < LANES) v = choose(lanes() < int(width - i), v, floats{});
            squares += v * v;
        }
        mean[row] = middle;
        rstd[row] = 1.0f / __builtin_sqrtf(sum(squares) / width + eps);
        normalized(at, weight, bias, z + row * width, middle, rstd[row], width);
    }
}

template <class E>
void layer_norm(const E* s, const E* weight, const E* bias, const float* mean, const float* rstd,
                E* z, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row)
        normalized(s + row * width, weight, bias, z + row * width, mean[row], rstd[row], width);
}

// ds = rstd (w g - mean(w g) - n mean(w g n)), n = (s - mean) rstd, and dy = M * ds; g is the sum
// of two gradients. `also` may be null, and `dy` without dropout.
template <class E>
void add_norm_backward(const E* gradient, const E* also, const E* s, const E* weight,
                       const float* mean, const float* rstd, E* ds, E* dy, int64_t rows,
                       int64_t width, const Dropout& dropout) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t at = row * width;
        const float middle = mean[row], scale = rstd[row];
        const auto weighted = [&](int64_t i, int64_t left) {
            floats g = load(gradient + at + i, left);
            if (also) g += load(also + at + i, left);
            return g * load(weight + i, left);
        };
        floats total = {}, products = {};
        for (int64_t i = 0; i < width; i += LANES) {
            const int64_t left = width - i;
            const floats wg = weighted(i, left);
            total += wg;
            products += wg * (load(s + at + i, left) - middle);
        }
        const float first = sum(total) / width, second = sum(products) * scale / width;
        const uint32_t key = dropout.row(row);
        for (int64_t i = 0; i < width; i += LANES) {
            const int64_t left = width - i;
            const floats normal = (load(s + at + i, left) - middle) * scale;
            const floats d = (weighted(i, left) - first - normal * second) * scale;
            store(ds + at + i, d, left);
            if (dy) store(dy + at + i, d * dropout.factors(key, i), left);
        }
    }
}

// erfc(z), with power = e^(-z^2), of z = |x| / sqrt 2, within 1.2e-7 of itself wherever it is
// (Press et al. 1992, "Numerical Recipes", erfcc): as t e^(-z^2 + P(t)), t = 1 / (1 + z / 2).
inline floats erfc_of(floats z, floats power) {
    const floats t = splat(1.0f) / (splat(1.0f) + 0.5f * z);
    floats p = splat(0.17087277f);
    p = p * t - 0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t - 1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t - 0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    p = p * t - 1.26551223f;
    return t * power * exponential(p);
}

// The share of a normal distribution below x, and e^(-x^2 / 2).
inline floats normal_share(floats x, floats& power) {
    const floats z = choose(x < floats{}, -x, x) * 0.70710678f;
    power = exponential(x * x * -0.5f);  // x squared rounds once where z squared rounds thrice
    const floats above = 0.5f * erfc_of(z, power);
    return choose(x < floats{}, above, splat(1.0f) - above);
}

template <class E>
void gelu(const E* g, E* y, int64_t count) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += LANES) {
        const floats x = load(g + i, count - i);
        floats power;
        store(y + i, x * normal_share(x, power), count - i);
    }
}

// In place: g becomes its gradient; y gets gelu(g) again.
template <class E>
void gelu_backward(const E* gradient, E* g, E* y, int64_t count) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += LANES) {
        const int64_t left = count - i;
        const floats x = load(g + i, left);
        floats power;
        const floats share = normal_share(x, power);
        store(y + i, x * share, left);
        store(g + i, load(gradient + i, left) * (share + x * power * 0.39894228f), left);
    }
}

}  // namespace

#define BOTH(name, parameters, ...)                                  \
    extern "C" const char* name##_bf16 parameters(bf16) __VA_ARGS__  \
    extern "C" const char* name##_float parameters(float) __VA_ARGS__

#define PARAMETERS(E)                                                                          \
    (E* y, int64_t y_is, const E* x, int64_t x_is, const E* weight, int64_t weight_is,         \
     const E* bias, int64_t bias_is, E* z, int64_t z_is, float* mean, int64_t mean_is,         \
     float* rstd, int64_t rstd_is, int64_t rows, int64_t width, float eps, int64_t seed,       \
     int64_t threshold, float factor)
BOTH(add_norm, PARAMETERS, {
    const char* why = Checks()
                          .array("y", y, y_is, rows * width)
                          .array("x", x, x_is, rows * width)
                          .array("weight", weight, weight_is, width)
                          .array("bias", bias, bias_is, width)
                          .array("z", z, z_is, rows * width)
                          .array("mean", mean, mean_is, rows)
                          .array("rstd", rstd, rstd_is, rows)
                          .why();
    if (!why)
        add_norm(y, x, weight, bias, z, mean, rstd, rows, width, eps, {seed, threshold, factor});
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                          \
    (const E* s, int64_t s_is, const E* weight, int64_t weight_is, const E* bias,              \
     int64_t bias_is, const float* mean, int64_t mean_is, const float* rstd, int64_t rstd_is,  \
     E* z, int64_t z_is, int64_t rows, int64_t width)
BOTH(layer_norm, PARAMETERS, {
    const char* why = Checks()
                          .array("s", s, s_is, rows * width)
                          .array("weight", weight, weight_is, width)
                          .array("bias", bias, bias_is, width)
                          .array("mean", mean, mean_is, rows)
                          .array("rstd", rstd, rstd_is, rows)
                          .array("z", z, z_is, rows * width)
                          .why();
    if (!why) layer_norm(s, weight, bias, mean, rstd, z, rows, width);
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                            \
    (const E* g, int64_t g_is, const E* also, int64_t also_is, const E* s, int64_t s_is,         \
     const E* weight, int64_t weight_is, const float* mean, int64_t mean_is, const float* rstd,  \
     int64_t rstd_is, E* ds, int64_t ds_is, E* dy, int64_t dy_is, int64_t rows, int64_t width,   \
     int64_t seed, int64_t threshold, float factor)
BOTH(add_norm_backward, PARAMETERS, {
    const char* why = Checks()
                          .array("gradient", g, g_is, rows * width)
                          .optional("also", also, also_is, rows * width)
                          .array("s", s, s_is, rows * width)
                          .array("weight", weight, weight_is, width)
                          .array("mean", mean, mean_is, rows)
                          .array("rstd", rstd, rstd_is, rows)
                          .array("ds", ds, ds_is, rows * width)
                          .optional("dy", dy, dy_is, rows * width)
                          .that((threshold > 0) == (dy != nullptr), "dy is there with dropout alone")
                          .why();
    if (!why)
        add_norm_backward(g, also, s, weight, mean, rstd, ds, dy, rows, width,
                          {seed, threshold, factor});
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E) (const E* g, int64_t g_is, E* y, int64_t y_is, int64_t count)
BOTH(gelu, PARAMETERS, {
    const char* why = Checks().array("g", g, g_is, count).array("y", y, y_is, count).why();
    if (!why) gelu(g, y, count);
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                      \
    (const E* gradient, int64_t gradient_is, E* g, int64_t g_is, E* y, int64_t y_is,       \
     int64_t count)
BOTH(gelu_backward, PARAMETERS, {
    const char* why = Checks()
                          .array("gradient", gradient, gradient_is, count)
                          .array("g", g, g_is, count)
                          .array("y", y, y_is, count)
                          .why();
    if (!why) gelu_backward(gradient, g, y, count);
    return why;
})
#undef PARAMETERS
