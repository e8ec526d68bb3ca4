// SPDX-License-Identifier: MIT
#pragma once
// A list with room for a fixed number of elements inside itself.
#include <array>
#include <lib/assert.hpp>
#include <lib/types.hpp>
#include <span>
#include <type_traits>

namespace lib {

template <typename T, u32 Capacity> class FixedVector {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    // False when full; the value is then not stored.
    [[nodiscard]] constexpr bool push_back(T const& value) {
        if (count_ == Capacity) return false;
        items_[count_++] = value;
        return true;
    }
    constexpr void clear() { count_ = 0; }
    constexpr u32 size() const { return count_; }
    constexpr bool is_empty() const { return count_ == 0; }
    constexpr bool is_full() const { return count_ == Capacity; }
    static constexpr u32 capacity() { return Capacity; }

    constexpr T& operator[](u32 index) {
        ASSERT(index < count_);
        return items_[index];
    }
    constexpr T const& operator[](u32 index) const {
        ASSERT(index < count_);
        return items_[index];
    }
    constexpr T* begin() { return items_.data(); }
    constexpr T* end() { return items_.data() + count_; }
    constexpr T const* begin() const { return items_.data(); }
    constexpr T const* end() const { return items_.data() + count_; }
    constexpr std::span<T const> span() const { return {items_.data(), count_}; }

private:
    u32 count_ = 0;
    std::array<T, Capacity> items_{};
};

} // namespace lib
