// What an entry refuses before it reads or writes: arrays of another type or size than it needs.
//
// A caller passes for each array its address and one number that tells what lies there:
//
//     elements << 4 | strided << 3 | type            -1: no array (None)
//
// `elements` reaches from the address to the last element, gaps between rows included; `strided`
// says that there may be such gaps. An entry returns null, or the text of the first check that
// failed; nothing has been touched then.
#pragma once

#include <cstdint>
#include <cstdio>

#include "vectors.h"

namespace etude {

template <class E>
constexpr int64_t TYPE = -1;
template <>
constexpr int64_t TYPE<float> = 0;
template <>
constexpr int64_t TYPE<bf16> = 1;
template <>
constexpr int64_t TYPE<int64_t> = 2;
template <>
constexpr int64_t TYPE<int32_t> = 3;
template <>
constexpr int64_t TYPE<uint8_t> = 4;
template <>
constexpr int64_t TYPE<int8_t> = 5;

class Checks {
   public:
    // An array without gaps, of `count` elements.
    template <class E>
    Checks& array(const char* name, const E*, int64_t what, int64_t count) {
        if (!typed<E>(name, what)) return *this;
        if (what >> 3 & 1) return refuse("%s is not contiguous", name);
        if (what >> 4 != count)
            return refuse("%s has %lld elements, not %lld", name, what >> 4, count);
        return *this;
    }

    // Likewise, or none.
    template <class E>
    Checks& optional(const char* name, const E* data, int64_t what, int64_t count) {
        return what == -1 ? *this : array(name, data, what, count);
    }

    // An array without gaps, of at least `count` elements.
    template <class E>
    Checks& at_least(const char* name, const E*, int64_t what, int64_t count) {
        if (!typed<E>(name, what)) return *this;
        if (what >> 3 & 1) return refuse("%s is not contiguous", name);
        if (what >> 4 < count)
            return refuse("%s has %lld elements, fewer than %lld", name, what >> 4, count);
        return *this;
    }

    // Rows of `width` elements each, `step` apart.
    template <class E>
    Checks& rows(const char* name, const E*, int64_t what, int64_t count, int64_t width,
                 int64_t step) {
        if (!typed<E>(name, what)) return *this;
        if (count > 1 && width > 0 && step < width)
            return refuse("rows of %s overlap: %lld elements, a step of %lld", name, width, step);
        const int64_t needed = count > 0 && width > 0 ? (count - 1) * step + width : 0;
        if (what >> 4 != needed)
            return refuse("%s reaches over %lld elements, not %lld", name, what >> 4, needed);
        return *this;
    }

    Checks& that(bool holds, const char* otherwise) {
        return holds ? *this : refuse("%s", otherwise);
    }

    const char* why() const { return failed ? text() : nullptr; }

   private:
    bool failed = false;

    template <class E>
    bool typed(const char* name, int64_t what) {
        if (failed) return false;
        if (what == -1) return refuse("%s is missing", name), false;
        if ((what & 7) != TYPE<E>) return refuse("%s has another dtype", name), false;
        return true;
    }

    template <class... Values>
    Checks& refuse(const char* format, Values... values) {
        if (!failed) std::snprintf(text(), SIZE, format, shown(values)...);
        failed = true;
        return *this;
    }

    static const char* shown(const char* value) { return value; }
    static long long shown(int64_t value) { return value; }

    static constexpr int SIZE = 160;
    static char* text() {
        static thread_local char memory[SIZE];
        return memory;
    }
};

}  // namespace etude
