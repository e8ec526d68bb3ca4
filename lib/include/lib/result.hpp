// SPDX-License-Identifier: MIT
#pragma once
// Recoverable errors: Result<T> and TRY. Our own bugs: ASSERT (lib/assert.hpp). A guest's doing: vm::Outcome.
#include <expected>
#include <utility>

namespace lib {

enum class Errc : unsigned char {
    NoMemory,
    OutOfRange,
    NotFound,
    Busy,
    TimedOut,
    Unsupported, // this machine cannot do it
    BadState,
    BadGuest,  // the guest asked for something that cannot be
    BadFormat, // parsed input is not what its format says
    Io,
};

constexpr char const* name_of(Errc error) {
    switch (error) {
    case Errc::NoMemory: return "out of memory";
    case Errc::OutOfRange: return "out of range";
    case Errc::NotFound: return "not found";
    case Errc::Busy: return "busy";
    case Errc::TimedOut: return "timed out";
    case Errc::Unsupported: return "not supported by this machine";
    case Errc::BadState: return "not possible in this state";
    case Errc::BadGuest: return "bad request of the guest";
    case Errc::BadFormat: return "bad format";
    case Errc::Io: return "input/output error";
    }
    return "?";
}

// A class of its own because std::expected may be dropped without a word.
template <typename T> class [[nodiscard]] Result : public std::expected<T, Errc> {
public:
    using std::expected<T, Errc>::expected;
};

constexpr std::unexpected<Errc> fail(Errc error) { return std::unexpected<Errc>{error}; }

} // namespace lib

// Evaluates to the value, or returns the error from the enclosing function.
#define TRY(expr) TRY_WITH_NAME(expr, __COUNTER__)
#define TRY_WITH_NAME(expr, number) TRY_WITH_NAME_(expr, number)
#define TRY_WITH_NAME_(expr, number)                                                                                   \
    ({                                                                                                                 \
        auto try_result_##number = (expr);                                                                             \
        if (!try_result_##number) [[unlikely]]                                                                         \
            return ::std::unexpected{try_result_##number.error()};                                                     \
        ::lib::detail::take(std::move(try_result_##number));                                                           \
    })

namespace lib::detail {
template <typename T, typename E> constexpr T take(std::expected<T, E>&& result) {
    if constexpr (!std::is_void_v<T>) return *std::move(result);
}
} // namespace lib::detail
