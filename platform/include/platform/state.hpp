// SPDX-License-Identifier: MIT
#pragma once
// What a device's saved state must be: plain bytes without padding, so that copying it out shows nothing of ours, and a
// version, so that a state of another layout is refused.
#include <concepts>
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <type_traits>

namespace platform {

template <typename T>
concept PlainState = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>;

// restore() refuses a state that the device could not be in where that state would lead it out of bounds; it re-arms
// timers but drives no lines, since those who listen to the lines are restored too.
template <typename T>
concept Saveable =
    PlainState<typename T::State> && requires(T device, T const constant, typename T::State const state) {
        { T::state_version } -> std::convertible_to<lib::u16>;
        { constant.save() } -> std::same_as<typename T::State>;
        { device.restore(state) } -> std::same_as<lib::Result<void>>;
    };

} // namespace platform
