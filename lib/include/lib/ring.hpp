// SPDX-License-Identifier: MIT
#pragma once
// A bounded queue for one producer and one consumer that may run on different CPUs, or one in an interrupt handler.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <lib/types.hpp>
#include <optional>
#include <span>
#include <type_traits>

namespace lib {

template <typename T, u32 Capacity> class Ring {
    static_assert((Capacity & (Capacity - 1)) == 0, "a power of two, so that indices may wrap freely");
    static_assert(std::is_trivially_copyable_v<T>);

public:
    // False when full; the value is then not stored.
    bool push(T value) {
        u32 const head = head_.load(std::memory_order_relaxed);
        if (head - tail_.load(std::memory_order_acquire) == Capacity) return false;
        slots_[head % Capacity] = value;
        head_.store(head + 1, std::memory_order_release);
        return true;
    }
    // As many as there is room for, in order; how many.
    u32 push_some(std::span<T const> values) {
        u32 const head = head_.load(std::memory_order_relaxed);
        u32 const room = Capacity - (head - tail_.load(std::memory_order_acquire));
        u32 const count = values.size() < room ? static_cast<u32>(values.size()) : room;
        u32 const at = head % Capacity;
        u32 const before_wrap = std::min(count, Capacity - at);
        std::memcpy(slots_.data() + at, values.data(), before_wrap * sizeof(T));
        if (before_wrap != count)
            std::memcpy(slots_.data(), values.data() + before_wrap, (count - before_wrap) * sizeof(T));
        head_.store(head + count, std::memory_order_release);
        return count;
    }
    u32 pop_some(std::span<T> values) {
        u32 const tail = tail_.load(std::memory_order_relaxed);
        u32 const held = head_.load(std::memory_order_acquire) - tail;
        u32 const count = values.size() < held ? static_cast<u32>(values.size()) : held;
        u32 const at = tail % Capacity;
        u32 const before_wrap = std::min(count, Capacity - at);
        std::memcpy(values.data(), slots_.data() + at, before_wrap * sizeof(T));
        if (before_wrap != count)
            std::memcpy(values.data() + before_wrap, slots_.data(), (count - before_wrap) * sizeof(T));
        tail_.store(tail + count, std::memory_order_release);
        return count;
    }
    std::optional<T> pop() {
        u32 const tail = tail_.load(std::memory_order_relaxed);
        if (head_.load(std::memory_order_acquire) == tail) return std::nullopt;
        T const value = slots_[tail % Capacity];
        tail_.store(tail + 1, std::memory_order_release);
        return value;
    }
    u32 size() const { return head_.load(std::memory_order_acquire) - tail_.load(std::memory_order_acquire); }
    u32 space() const { return Capacity - size(); }
    bool is_empty() const { return size() == 0; }
    bool is_full() const { return size() == Capacity; }
    static constexpr u32 capacity() { return Capacity; }

private:
    std::atomic<u32> head_{0};
    std::atomic<u32> tail_{0};
    std::array<T, Capacity> slots_{};
};

} // namespace lib
