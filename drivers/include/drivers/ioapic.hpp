#pragma once
// An IOAPIC of the machine. [intel/82093aa] 3.0
// Its registers are reached through an index and a window, so the caller keeps to one CPU at a time (a lock, interrupts
// off). Not supported: remappable format of interrupt remapping, directed end of interrupt, logical destinations.
#include <lib/bits.hpp>
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
    u64 base_;
    u32 gsi_base_;
    u32 input_count_ = 0;
};

} // namespace drivers
