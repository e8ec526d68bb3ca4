// SPDX-License-Identifier: MIT
#pragma once
// A driver for one queue of one virtio-blk disk, for measurements: each request is an indirect table of three
// descriptors, as Linux makes them, and the event indices are in use. [virtio/1.2] 2.7, 4.1, 5.2
//
// Not here: other buses than PCI bus 0, more than one segment of data, writes that must not overlap reads, errors that
// a driver could survive.
#include "runtime/runtime.hpp"

#include <array>
#include <atomic>

namespace guest {

class VirtioDisk {
public:
    static constexpr u16 queue_size = 64;
    static constexpr u32 slots = 32; // requests at the same time
    enum Type : u32 { Read = 0, Write = 1, Flush = 4 };

    // Sets up the first disk on the bus. Its queue then interrupts with `vector` on the first CPU. False: there is no
    // disk, or it refused what the standard lets a driver ask.
    bool start(u8 vector);

    // Fills a slot. `size` is a multiple of 512; a flush has no data.
    void prepare(u32 slot, Type type, u64 sector, void* data, u32 size);
    // Puts a slot into the available ring, where publish() shows it to the device.
    [[gnu::always_inline]] void put(u32 slot) {
        rings_.available[next_ % queue_size] = static_cast<u16>(slot);
        next_++;
    }
    // Returns whether the device asks for a doorbell. [virtio/1.2] 2.7.10
    [[gnu::always_inline]] bool publish() {
        u16 const before = rings_.available_index;
        __atomic_store_n(&rings_.available_index, next_, __ATOMIC_RELEASE);
        std::atomic_thread_fence(std::memory_order_seq_cst);
        u16 const event = __atomic_load_n(&rings_.available_event, __ATOMIC_RELAXED);
        return static_cast<u16>(next_ - event - 1) < static_cast<u16>(next_ - before);
    }
    [[gnu::always_inline]] void ring_by_port() { x86::out16(doorbell_port_, 0); }
    [[gnu::always_inline]] void ring_by_memory() { x86::store16(doorbell_address_, 0); }
    // Whether the device has given nothing back since take_back().
    [[gnu::always_inline]] bool is_waiting() { return seen_ == __atomic_load_n(&rings_.used_index, __ATOMIC_ACQUIRE); }
    // Returns how many requests have come back, and asks for an interrupt for the next one.
    [[gnu::always_inline]] u32 take_back() {
        u32 count = 0;
        while (!is_waiting()) {
            while (!is_waiting()) {
                u32 const slot = rings_.used[seen_ % queue_size].id;
                if (requests_.data()[slot % slots].status != 0) errors_++;
                seen_++;
                count++;
            }
            __atomic_store_n(&rings_.used_event, seen_, __ATOMIC_RELAXED);
            std::atomic_thread_fence(std::memory_order_seq_cst);
        }
        return count;
    }
    u32 errors() const { return errors_; }

    // What a device does with `count` requests, for a copy of the driver that has none.
    void pretend(u16 count);

private:
    struct Descriptor {
        u64 address;
        u32 size;
        u16 flags, next;
    };
    struct alignas(4096) Rings {
        std::array<Descriptor, queue_size> descriptors;
        alignas(64) u16 available_flags;
        u16 available_index;
        std::array<u16, queue_size> available;
        u16 used_event;
        alignas(64) u16 used_flags;
        u16 used_index;
        struct {
            u32 id, size;
        } used[queue_size];
        u16 available_event;
    };
    struct alignas(64) Request {
        std::array<Descriptor, 3> table;
        struct {
            u32 type, reserved;
            u64 sector;
        } header;
        u8 status;
    };
    bool find_registers(u32 device);
    bool agree();

    Rings rings_{};
    std::array<Request, slots> requests_{};
    u64 common_ = 0; // the registers of the common configuration
    u64 doorbell_address_ = 0;
    u16 doorbell_port_ = 0;
    u16 next_ = 0, seen_ = 0;
    u32 errors_ = 0;
};

} // namespace guest
