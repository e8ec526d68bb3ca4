// SPDX-License-Identifier: MIT
#pragma once
// Configuration space of the machine's PCI functions: by memory (ECAM) where the firmware's MCFG table says, else by
// the ports 0xcf8 and 0xcfc. [pci/3.0] 3.2.2.3, [pcie/4.0] 7.2 Not supported: segments without ECAM, the ports' second
// mechanism of the first PCI machines.
#include <array>
#include <kernel/page_table.hpp>
#include <kernel/spinlock.hpp>
#include <lib/delegate.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace kernel {

using lib::u16;
using lib::u32;

struct PciAddress {
    u16 segment = 0;
    u8 bus = 0;
    u8 device = 0;   // to 31
    u8 function = 0; // to 7
    friend bool operator==(PciAddress const&, PciAddress const&) = default;
};

class PciConfig {
public:
    // Maps registers; what is mapped stays so.
    using Map = lib::Delegate<lib::Result<HostVirt>(HostPhys base, u64 size)>;
    struct Ecam {
        HostPhys base; // of bus 0, even if first_bus is another one
        u16 segment;
        u8 first_bus, last_bus;
    };
    static constexpr u32 most_ecams = 8;
    static constexpr u32 bus_size = 1024 * 1024;

    explicit constexpr PciConfig(Map map) : map_(map) {}

    // While one CPU runs.
    // Looks for the ports.
    bool find_ports();
    // Uses this ECAM for its buses. Busy: it overlaps with one that is there. OutOfRange: there are too many. NotFound:
    // the ports show other functions on its first bus than it does. NoMemory.
    lib::Result<void> add_ecam(Ecam const& ecam);
    // Whether the bus can be reached; maps its ECAM if it must.
    bool open_bus(u16 segment, u8 bus);
    // The segments there are: for (i = 0; segment(i, number); i++).
    bool segment(u32 index, u16& number) const;
    // The first doubleword of a function, of any bus: by the ports if they reach it, without opening its bus.
    u32 probe(PciAddress const& at);
    bool has_ports() const { return has_ports_; }
    u32 ecam_count() const { return ecam_count_; }

    // From any CPU, of a bus that was opened. `offset` is a multiple of the width. What does not exist, or lies beyond
    // the 256 bytes that the ports reach (4096 by ECAM), reads as ones and ignores writes.
    u8 read8(PciAddress const& at, u32 offset) { return static_cast<u8>(read(at, offset, 1)); }
    u16 read16(PciAddress const& at, u32 offset) { return static_cast<u16>(read(at, offset, 2)); }
    u32 read32(PciAddress const& at, u32 offset) { return read(at, offset, 4); }
    void write16(PciAddress const& at, u32 offset, u16 value) { write(at, offset, 2, value); }
    void write32(PciAddress const& at, u32 offset, u32 value) { write(at, offset, 4, value); }

private:
    struct Window {
        Ecam ecam{};
        std::array<u64, 256> buses{}; // where they are mapped; 0: not yet
    };
    Window const* window_of(u16 segment, u8 bus) const;
    u32 read(PciAddress const& at, u32 offset, unsigned width);
    void write(PciAddress const& at, u32 offset, unsigned width, u32 value);
    bool agrees_with_ports(Window const& window, u8 bus);
    u32 read_port(PciAddress const& at, u32 offset, unsigned width);

    Map map_;
    bool has_ports_ = false;
    u32 ecam_count_ = 0;
    std::array<Window, most_ecams> windows_{};
    Spinlock<LockRank::Pci> ports_lock_; // an access is two steps
};

} // namespace kernel
