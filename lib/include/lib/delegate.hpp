// SPDX-License-Identifier: MIT
#pragma once
// A member function bound to its object, without allocation: what std::function is where there is a heap.
#include <type_traits>
#include <utility>

namespace lib {

template <typename Signature> class Delegate;

template <typename R, typename... Args> class Delegate<R(Args...)> {
public:
    constexpr Delegate() = default;

    template <auto Method, typename Object> static constexpr Delegate to(Object& object) {
        Delegate result;
        result.object_ = &object;
        result.call_ = [](void* self, Args... args) -> R {
            return (static_cast<Object*>(self)->*Method)(std::forward<Args>(args)...);
        };
        return result;
    }
    template <R (*Function)(Args...)> static constexpr Delegate to_function() {
        Delegate result;
        result.call_ = [](void*, Args... args) -> R { return Function(std::forward<Args>(args)...); };
        return result;
    }
    R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }
    constexpr explicit operator bool() const { return call_ != nullptr; }

private:
    void* object_ = nullptr;
    R (*call_)(void*, Args...) = nullptr;
};

} // namespace lib
