#pragma once
// A bounded queue for one producer and one consumer that may run on different CPUs, or one in an interrupt handler.
#include <array>
#include <atomic>
#include <lib/types.hpp>
#include <optional>
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
