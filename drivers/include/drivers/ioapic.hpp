// SPDX-License-Identifier: MIT
#pragma once
// An IOAPIC of the machine. [intel/82093aa] 3.0
// Its registers are reached through an index and a window, so the caller keeps to one CPU at a time (a lock, interrupts
// off). Not supported: remappable format of interrupt remapping, directed end of interrupt, logical destinations.
#include <array>
#include <kernel/interrupts.hpp>
#include <kernel/spinlock.hpp>
#include <lib/bits.hpp>
#include <lib/fixed_vector.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace drivers {

using lib::u32;
using lib::u64;
using lib::u8;

struct Redirection : lib::Reg<Redirection, u64> {
    enum class Delivery : u8 { Fixed = 0, LowestPriority = 1, Smi = 2, Nmi = 4, Init = 5, ExtInt = 7 };
    using Vector = lib::Bits<u64, 7, 0, u8>;
    using Mode = lib::Bits<u64, 10, 8, Delivery>;
    using LogicalDestination = lib::Bits<u64, 11>;
    using DeliveryPending = lib::Bits<u64, 12>; // read-only
    using ActiveLow = lib::Bits<u64, 13>;
    using RemoteIrr = lib::Bits<u64, 14>; // read-only: level interrupt accepted, EOI not seen
    using Level = lib::Bits<u64, 15>;
    using Masked = lib::Bits<u64, 16>;
    using Destination = lib::Bits<u64, 63, 56, u8>; // physical: an APIC id
};

class IoApic {
public:
    constexpr IoApic() = default;
    // `base`: virtual address of the uncached mapping of its page.
    constexpr IoApic(u64 base, u32 gsi_base) : base_(base), gsi_base_(gsi_base) {}

    // Counts the inputs and masks them all. NotFound if nothing sound answers.
    lib::Result<void> start();
    u32 gsi_base() const { return gsi_base_; }
    u32 input_count() const { return input_count_; }
    bool owns(u32 gsi) const { return gsi >= gsi_base_ && gsi - gsi_base_ < input_count_; }

    // Sends the GSI to one CPU, masked or not. OutOfRange for another IOAPIC's GSI or a vector below 16, Unsupported
    // for an APIC id above 254, which needs interrupt remapping.
    struct Route {
        u8 vector;
        u32 apic_id;
        bool is_active_low = false;
        bool is_level = false;
        bool is_masked = false;
        Redirection::Delivery delivery = Redirection::Delivery::Fixed;
    };
    lib::Result<void> route(u32 gsi, Route const& route);
    // Nothing happens for a GSI of another IOAPIC.
    void set_masked(u32 gsi, bool masked);
    Redirection entry(u32 gsi) const;

private:
    u32 read(u8 index) const;
    void write(u8 index, u32 value) const;
    void write_entry(u32 input, Redirection value) const;
    u64 base_ = 0;
    u32 gsi_base_ = 0;
    u32 input_count_ = 0;
};

// All I/O APICs of the machine, by the GSIs that they own. Any CPU may call.
class IoApics {
public:
    static constexpr u32 most = 16;
    // Masks its inputs and keeps it. NotFound: nothing sound answers. Busy: another one owns some of its GSIs.
    // OutOfRange: there are too many.
    lib::Result<void> add(u64 base, u32 gsi_base);
    u32 count();
    // One GSI has one user. NotFound: no I/O APIC owns it. Busy: it has a user.
    lib::Result<void> claim(u32 gsi);
    void release(u32 gsi); // and masks it
    // Of a GSI that is claimed.
    lib::Result<void> route(u32 gsi, IoApic::Route const& route);
    void set_masked(u32 gsi, bool masked);
    Redirection entry(u32 gsi);

private:
    struct One {
        IoApic hardware;
        std::array<u64, 4> claimed{}; // a bit per input
    };
    using Ones = lib::FixedVector<One, most>;
    static One* owner_of(Ones& ones, u32 gsi);
    kernel::Guarded<Ones, kernel::LockRank::Interrupts> ones_;
};

// An input as the source of an interrupt. It owns its GSI.
class IoApicInput final : public kernel::InterruptSource {
public:
    struct Shape {
        bool is_active_low = false;
        bool is_level = false;
    };
    IoApicInput(IoApics& ioapics, u32 gsi, Shape shape) : ioapics_(ioapics), gsi_(gsi), shape_(shape) {}
    ~IoApicInput() {
        if (is_claimed_) ioapics_.release(gsi_);
    }
    IoApicInput(IoApicInput const&) = delete;
    IoApicInput& operator=(IoApicInput const&) = delete;
    // Before anything else. IoApics::claim()'s errors.
    lib::Result<void> claim();

    // kernel::InterruptSource
    lib::Result<void> set_target(kernel::InterruptTarget target) override;
    void set_masked(bool masked) override { ioapics_.set_masked(gsi_, masked); }
    bool is_underway() override;
    // [intel/82093aa] 3.2.4: an edge at a masked input is ignored.
    bool keeps_while_masked() const override { return shape_.is_level; }

private:
    IoApics& ioapics_;
    u32 gsi_;
    Shape shape_;
    bool is_claimed_ = false;
};

} // namespace drivers
