// Dropout without a generator: what happens to a number depends on a seed, its row and its column,
// so that the backward pass draws again what the forward pass drew, and neither threads, nor blocks,
// nor vectors of another width change it. kernels/dropout.py defines the same in PyTorch.
#pragma once

#include "vectors.h"

namespace etude {

// A mixing of 32 bits, each of which depends on all (Wellons 2018, "Prospecting for hash
// functions", lowbias32).
template <class W>
inline W mixed(W x) {
    x = x ^ (x >> 16);
    x = x * 0x7feb352du;
    x = x ^ (x >> 15);
    x = x * 0x846ca68bu;
    return x ^ (x >> 16);
}

struct Dropout {
    uint32_t low, high, threshold;
    float factor;
    bool on;

    // `threshold`: 2^32 times the share that is dropped, 0 for none; `factor`: of what stays.
    Dropout(int64_t seed, int64_t threshold, float factor)
        : low(uint32_t(seed)),
          high(uint32_t(uint64_t(seed) >> 32)),
          threshold(uint32_t(threshold)),
          factor(factor),
          on(threshold > 0) {}

    // What the columns of a row draw from.
    uint32_t row(int64_t number) const { return mixed(mixed(low ^ uint32_t(number)) + high); }

    // `factor` or 0 for the columns from `first`.
    floats factors(uint32_t key, int64_t first) const {
        const words column = reinterpret<words>(lanes() + int32_t(first));
        const words drawn = mixed(words(column * 0x9e3779b9u + key));
        const ints stays = drawn >= threshold;
        return choose(stays, splat(factor), floats{});
    }
};

}  // namespace etude
