// SPDX-License-Identifier: MIT
#pragma once
// The whole contract between the virtual platform and whoever hosts it: plain values, a narrow Host, bounds-checked
// guest memory; and between a device and the board that it sits on. The same structs can be a function argument today
// and a ring entry between processes tomorrow.
//
// Rules for a device model: it never blocks, spins, locks, allocates after construction, owns a clock or knows which
// vCPU called. One thread enters the platform of a VM at a time. Time and completions arrive as events.
#include <array>
#include <lib/guest_memory.hpp>
#include <lib/limits.hpp>
#include <lib/memory.hpp>
#include <lib/split_queue.hpp>
#include <lib/types.hpp>
#include <span>
#include <type_traits>

namespace platform {

using lib::GuestPhys;
using lib::Nanos;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

enum class Space : u8 { Pio, Mmio };
enum class Op : u8 { Read, Write };

// One access. `offset` is relative to the region that the device declared; `size` is 1, 2, 4 or 8 bytes and never
// crosses the region's end; `data` holds the value in its low bytes, upper bytes zero.
struct IoRequest {
    u64 offset;
    u64 data;
    u16 region;
    u8 size;
    Op op;
    u32 reserved;
};
static_assert(sizeof(IoRequest) == 24 && std::is_trivially_copyable_v<IoRequest>);

struct IoReply {
    u64 data; // of a read; bytes above the size are ignored. Ignored for a write
};
inline constexpr IoReply floating_bus{~u64{0}}; // what a read returns that nobody answers

enum class EventKind : u8 { Timer, ConsoleInput, ConsoleSpace };

// Timer: `id` and `generation` as given to arm_timer. ConsoleInput: bytes wait for Host::console_read.
// ConsoleSpace: Host::console_write has room again after it took less than it was given.
struct Event {
    u64 generation;
    u32 id;
    u16 device;
    EventKind kind;
    u8 reserved;
};
static_assert(sizeof(Event) == 16 && std::is_trivially_copyable_v<Event>);

// Where a device wants to be called. `number` is what it finds in IoRequest::region, `width` its widest access (1, 2, 4
// or 8 bytes).
struct Region {
    u16 number;
    Space space;
    u8 width;
    u64 base;
    u64 size;
};

struct Msi {
    u64 address; // [intel/vol3] 12.11.1, as a device would write it
    u32 data;
};

enum class VmRequest : u8 { Reset, PowerOff };

// What the platform may ask of the world. Nothing here blocks, allocates or returns a pointer.
class Host {
public:
    virtual Nanos now() = 0; // guest-visible machine time: does not run while the VM is paused
    // Replaces an earlier timer of the same device and id. Expiry arrives as Event::Timer, never from inside this call.
    virtual void arm_timer(u16 device, u32 id, u64 generation, Nanos deadline) = 0;
    virtual void cancel_timer(u16 device, u32 id) = 0;
    virtual void send_msi(Msi message) = 0;
    virtual void set_lint0(bool level) = 0;                   // of the first vCPU
    virtual u32 console_write(std::span<u8 const> bytes) = 0; // how many were taken; fewer: wait for ConsoleSpace
    virtual u32 console_read(std::span<u8> bytes) = 0;        // how many there were
    virtual void request(VmRequest what) = 0;
    virtual u32 random(std::span<u8> bytes) = 0; // how many there were: unpredictable to every guest
    // Queues of disks and NICs are served outside of the platform, which checked that the parts of the queue are RAM.
    // `device` counts the VM's disks, then its NICs. Each of these takes effect later, in the order of the calls. The
    // answers are Platform::served_interrupt() and the functions beside it.
    virtual void start_served_queue(u32 device, u32 queue,
                                    lib::QueueSetup const& setup) = 0; // work comes with a doorbell
    virtual void stop_served_queues(u32 device) = 0; // all of the device; ends with one Platform::served_stopped()
    virtual void served_doorbell(u32 device, u32 queue) = 0;

protected:
    ~Host() = default;
};

// The lines between the devices of one platform.
class Wires {
public:
    virtual void set_irq_line(u32 gsi, bool level) = 0; // true: asserted (polarity is not modelled)
    virtual void set_intr_line(bool level) = 0;         // the 8259 pair's INTR output
    virtual void doorbells_changed() {}                 // those of virtio devices moved, or work or not

protected:
    ~Wires() = default;
};

struct DiskFacts {
    u64 sectors;     // of 512 bytes
    u32 queue_count; // 1 to lib::max_disk_queues
    bool is_there;
    bool is_read_only;
    bool can_discard = true; // give blocks back by DISCARD
};

struct NicFacts {
    std::array<u8, 6> mac;
    bool is_there;
};

// What does not change while a VM runs, for devices that tell the guest of it.
struct MachineFacts {
    u64 wall_clock_at_start_seconds; // UTC since 1970, at Host::now() of construction
    u32 vcpu_count;
    u64 ram_below_4g;
    u64 ram_above_4g;
    u32 physical_address_bits; // of the guest's CPUs
    bool has_random_numbers;   // Host::random gives some
    std::array<DiskFacts, lib::max_disks> disks{};
    std::array<NicFacts, lib::max_nics> nics{};
};

// What every device is built with: the world outside, the lines inside, and the number under which events reach it.
struct Plug {
    Host& host;
    Wires& wires;
    lib::GuestMemory const& memory;
    MachineFacts const& facts; // for the constructor only
    u16 device;
};

class Device {
public:
    virtual IoReply io(IoRequest const& request) = 0;
    // The accesses of an INS or OUTS: all like `request`, one after the other, as the bytes hold or will hold them. A
    // device that has much to do for each may do better, as long as nobody can tell.
    virtual void io_string(IoRequest const& request, std::span<u8> bytes) {
        IoRequest one = request;
        for (u8* at = bytes.data(); at != bytes.data() + bytes.size(); at += request.size) {
            if (request.op == Op::Write) one.data = lib::load_sized(at, request.size);
            IoReply const reply = io(one);
            if (request.op == Op::Read) lib::store_sized(at, request.size, reply.data);
        }
    }
    virtual void on(Event const& event) = 0;
    virtual void reset() = 0;

protected:
    ~Device() = default;
};

} // namespace platform
