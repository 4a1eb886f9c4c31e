// What a decoder layer does to each row between its matrix products: RMS norm, rotary positions,
// SwiGLU; and the softmax cross-entropy of a row of logits. See kernels/fused.py for definitions.
//
// Work is taken in small chunks rather than dealt in equal shares: a thread whose core is busy with
// another program takes less of it. No sum crosses a chunk, so who takes which changes no bit.
#include "checks.h"
#include "vectors.h"

using namespace etude;

namespace {

// y = w * round(x * rstd), rstd = 1 / sqrt(mean(x^2) + eps); rounded in between as the model's own
// code does, which writes the normalised row in the dtype of the weights.
template <class E>
void rms_norm(const E* x, const E* weight, E* y, float* rstd, int64_t rows, int64_t width,
              float eps) {
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t row = 0; row < rows; ++row) {
        const E* from = x + row * width;
        floats squares = {};
        for (int64_t i = 0; i < width; i += LANES) {
            const floats v = load(from + i, width - i);
            squares += v * v;
        }
        const float scale = 1.0f / __builtin_sqrtf(sum(squares) / width + eps);
        if (rstd) rstd[row] = scale;
        for (int64_t i = 0; i < width; i += LANES) {
            const floats normal = rounded<E>(load(from + i, width - i) * scale);
            store(y + row * width + i, normal * load(weight + i, width - i), width - i);
        }
    }
}

// dx = residual + rstd * (w g - xn * mean(w g * xn)), xn = x * rstd; `residual` may be null.
template <class E>
void rms_norm_backward(const E* gradient, const E* x, const E* weight, const float* rstd,
                       const E* residual, E* dx, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t row = 0; row < rows; ++row) {
        const E *g = gradient + row * width, *from = x + row * width;
        const float scale = rstd[row];
        floats products = {};
        for (int64_t i = 0; i < width; i += LANES) {
            const int64_t left = width - i;
            products += load(g + i, left) * load(weight + i, left) * load(from + i, left);
        }
        const float mean = sum(products) * scale / width;
        for (int64_t i = 0; i < width; i += LANES) {
            const int64_t left = width - i;
            const floats normal = load(from + i, left) * scale;
            floats d = (load(g + i, left) * load(weight + i, left) - normal * mean) * scale;
            if (residual) d += load(residual + row * width + i, left);
            store(dx + row * width + i, d, left);
        }
    }
}

// In place, each head of each row: (a, b) -> (a c1 - b s1, b c2 + a s2), a and b its two halves,
// c and s the row's cosines and sines, (width,) float; or, backwards, the transposed rotation.
template <class E>
void rotate(E* x, int64_t stride, const float* cosine, const float* sine, int64_t rows,
            int64_t heads, int64_t width, bool backwards) {
    const int64_t half = width / 2;
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t row = 0; row < rows; ++row) {
        const float *c = cosine + row * width, *s = sine + row * width;
        for (int64_t head = 0; head < heads; ++head) {
            E* at = x + row * stride + head * width;
            for (int64_t i = 0; i < half; i += LANES) {
                const int64_t left = half - i;
                const floats a = load(at + i, left), b = load(at + half + i, left);
                const floats c1 = load(c + i, left), c2 = load(c + half + i, left);
                const floats s1 = load(s + i, left), s2 = load(s + half + i, left);
                const floats first = backwards ? a * c1 + b * s2 : a * c1 - b * s1;
                const floats second = backwards ? b * c2 - a * s1 : b * c2 + a * s2;
                store(at + i, first, left);
                store(at + half + i, second, left);
            }
        }
    }
}

// Below -88 e^-x leaves the range of float, and the quotient is 0.
inline floats sigmoid(floats x) {
    const floats power = exponential(least(-x, splat(88.0f)));
    const floats quotient = splat(1.0f) / (splat(1.0f) + power);
    return choose(x < splat(-88.0f), floats{}, quotient);
}

template <class E>
void swiglu(const E* gate, const E* up, E* y, int64_t count) {
#pragma omp parallel for schedule(dynamic, 1024)
    for (int64_t i = 0; i < count; i += LANES) {
        const int64_t left = count - i;
        const floats g = load(gate + i, left);
        // silu is rounded before the product, as the model's own code writes it.
        const floats s = rounded<E>(g * sigmoid(g));
        store(y + i, s * load(up + i, left), left);
    }
}

// In place: gate and up become their gradients; y, if not null, gets silu(gate) * up again.
template <class E>
void swiglu_backward(const E* gradient, E* gate, E* up, E* y, int64_t count) {
#pragma omp parallel for schedule(dynamic, 1024)
    for (int64_t i = 0; i < count; i += LANES) {
        const int64_t left = count - i;
        const floats d = load(gradient + i, left);
        const floats g = load(gate + i, left), u = load(up + i, left);
        const floats sigma = sigmoid(g), s = g * sigma;
        if (y) store(y + i, rounded<E>(s) * u, left);
        store(gate + i, d * u * (sigma + s * (splat(1.0f) - sigma)), left);
        store(up + i, d * s, left);
    }
}

// loss[row] = log sum e^(logits - top) + (top - logits[target]), top the largest; in place, logits become softmax - one-hot.
template <class E>
void cross_entropy(E* logits, const int64_t* targets, float* loss, int64_t rows, int64_t width,
                   bool gradient) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t row = 0; row < rows; ++row) {
        E* at = logits + row * width;
        const int64_t whole = width - width % LANES, target = targets[row];
        floats highest = splat(-__builtin_inff());
        for (int64_t i = 0; i < whole; i += LANES) highest = most(load(at + i), highest);
        float top = largest(highest);
        for (int64_t i = whole; i < width; ++i) top = __builtin_fmaxf(top, as_float(at[i]));
        floats total = {};
        for (int64_t i = 0; i < width; i += LANES) {
            floats e = exponential(load(at + i, width - i) - top);
            if (width - i < LANES) e = choose(lanes() < int(width - i), e, splat(0));
            total += e;
        }
        // The largest logit is taken off both terms before they meet: their difference is exact
        // where they are near each other, while top + log(total) would lose the logarithm's bits.
        const float log_total = __builtin_logf(sum(total));
        const float below = as_float(at[target]) - top;
        loss[row] = log_total - below;
        if (!gradient) continue;
        const float picked = sum(exponential(splat(below - log_total))) / LANES - 1;
        for (int64_t i = 0; i < width; i += LANES)
            store(at + i, exponential((load(at + i, width - i) - top) - log_total), width - i);
        store(at + target, splat(picked), 1);
    }
}

}  // namespace

#define BOTH(name, parameters, ...)                                  \
    extern "C" const char* name##_bf16 parameters(bf16) __VA_ARGS__  \
    extern "C" const char* name##_float parameters(float) __VA_ARGS__

#define PARAMETERS(E)                                                                          \
    (const E* x, int64_t x_is, const E* weight, int64_t weight_is, E* y, int64_t y_is,         \
     float* rstd, int64_t rstd_is, int64_t rows, int64_t width, float eps)
BOTH(rms_norm, PARAMETERS, {
    const char* why = Checks()
                          .array("x", x, x_is, rows * width)
                          .array("weight", weight, weight_is, width)
                          .array("y", y, y_is, rows * width)
                          .array("rstd", rstd, rstd_is, rows)
                          .why();
    if (!why) rms_norm(x, weight, y, rstd, rows, width, eps);
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                           \
    (const E* g, int64_t g_is, const E* x, int64_t x_is, const E* weight, int64_t weight_is,    \
     const float* rstd, int64_t rstd_is, const E* residual, int64_t residual_is, E* dx,         \
     int64_t dx_is, int64_t rows, int64_t width)
BOTH(rms_norm_backward, PARAMETERS, {
    const char* why = Checks()
                          .array("gradient", g, g_is, rows * width)
                          .array("x", x, x_is, rows * width)
                          .array("weight", weight, weight_is, width)
                          .array("rstd", rstd, rstd_is, rows)
                          .optional("residual", residual, residual_is, rows * width)
                          .array("dx", dx, dx_is, rows * width)
                          .why();
    if (!why) rms_norm_backward(g, x, weight, rstd, residual, dx, rows, width);
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                         \
    (E* x, int64_t x_is, int64_t step, const float* cosine, int64_t cosine_is,                \
     const float* sine, int64_t sine_is, int64_t rows, int64_t heads, int64_t width,          \
     int64_t backwards)
BOTH(rotate, PARAMETERS, {
    const char* why = Checks()
                          .that(width % 2 == 0, "a head's width is odd")
                          .rows("x", x, x_is, rows, heads * width, step)
                          .array("cosine", cosine, cosine_is, rows * width)
                          .array("sine", sine, sine_is, rows * width)
                          .why();
    if (!why) rotate(x, step, cosine, sine, rows, heads, width, backwards != 0);
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                  \
    (const E* gate, int64_t gate_is, const E* up, int64_t up_is, E* y, int64_t y_is,   \
     int64_t count)
BOTH(swiglu, PARAMETERS, {
    const char* why = Checks()
                          .array("gate", gate, gate_is, count)
                          .array("up", up, up_is, count)
                          .array("y", y, y_is, count)
                          .why();
    if (!why) swiglu(gate, up, y, count);
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                       \
    (const E* gradient, int64_t gradient_is, E* gate, int64_t gate_is, E* up, int64_t up_is, \
     E* y, int64_t y_is, int64_t count)
BOTH(swiglu_backward, PARAMETERS, {
    const char* why = Checks()
                          .array("gradient", gradient, gradient_is, count)
                          .array("gate", gate, gate_is, count)
                          .array("up", up, up_is, count)
                          .optional("y", y, y_is, count)
                          .why();
    if (!why) swiglu_backward(gradient, gate, up, y, count);
    return why;
})
#undef PARAMETERS

#define PARAMETERS(E)                                                                      \
    (E* logits, int64_t logits_is, const int64_t* targets, int64_t targets_is, float* loss, \
     int64_t loss_is, int64_t rows, int64_t width, int64_t gradient)
BOTH(cross_entropy, PARAMETERS, {
    Checks checks;
    checks.array("logits", logits, logits_is, rows * width)
        .array("targets", targets, targets_is, rows)
        .array("loss", loss, loss_is, rows);
    for (int64_t row = 0; row < rows && !checks.why(); ++row)
        checks.that(targets[row] >= 0 && targets[row] < width, "a target is no column of the logits");
    if (!checks.why()) cross_entropy(logits, targets, loss, rows, width, gradient != 0);
    return checks.why();
})
#undef PARAMETERS
