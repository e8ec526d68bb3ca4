// SPDX-License-Identifier: MIT
#pragma once
// Configuration space of one PCI function with a type-0 header: identification, command and status, base address
// registers, capabilities. Every register is 32 bits of which a mask says what a guest may change, so that no sequence
// of writes leads anywhere else. [pci/3.0] 6.1, 6.2
//
// Not supported: expansion ROMs, built-in self test, error reporting (the status register's error bits stay 0),
// extended capabilities (registers from 0x100 on read as 0).
#include <array>
#include <lib/delegate.hpp>
#include <optional>
#include <platform/abi.hpp>
#include <platform/msix_table.hpp>
#include <platform/state.hpp>
#include <span>

namespace platform {

class PciFunction {
public:
    static constexpr u32 register_count = 64, bar_count = 6;
    struct Identity {
        u16 vendor, device;
        u32 class_code; // base class, subclass, programming interface
        u8 revision;
        u16 subsystem_vendor, subsystem;
    };
    struct State {
        std::array<u32, register_count> registers;
    };
    enum class BarKind : u8 { None, Io, Memory32, Memory64 };
    struct Range {
        Space space;
        u64 base, size;
    };

    explicit PciFunction(Identity const& identity);
    PciFunction(PciFunction const&) = delete;
    PciFunction& operator=(PciFunction const&) = delete;

    // What the function has; for the constructor of a device model. A wrong use is an error of ours.
    // `size`: a power of two, 4 to 256 bytes of ports or 16 bytes and more of memory. Memory64 also takes `number` + 1.
    void add_bar(u32 number, BarKind kind, u64 size);
    // Appends a capability that no guest can change: id, next pointer and `body`. Returns where it is.
    u32 add_capability(u8 id, std::span<u8 const> body);
    // The table and the pending bits lie in BAR `bar` at these offsets.
    void add_msix(MsixTable& table, u32 bar, u32 table_offset, u32 pending_offset);
    void add_interrupt_pin(); // INTA#
    // Lets the guest change `mask` of a register.
    void make_writable(u32 offset, u32 mask) { writable_[offset / 4] |= mask; }
    // Accesses to this register go to `portal`, whatever their size. It returns what a read gives.
    using Portal = lib::Delegate<u32(Op op, u32 data)>;
    void open_portal(u32 offset, Portal portal) {
        portal_register_ = offset / 4;
        portal_ = portal;
    }
    void set_fixed(u32 offset, u32 value); // a register that is the same for ever
    // `decoding`: what a BAR decodes may have changed; `line`: what intx() returns may have.
    void listen(lib::Delegate<void()> decoding, lib::Delegate<void()> line) {
        decoding_changed_ = decoding;
        line_changed_ = line;
    }

    // `changed`: is_bus_master() has changed by a write of the guest.
    void listen_to_bus_master(lib::Delegate<void()> changed) { bus_master_changed_ = changed; }

    // One of the 1024 registers of a function.
    u32 read(u32 index);
    // `mask`: the bits that the access covers.
    void write(u32 index, u32 value, u32 mask);
    void reset();
    State save() const { return {registers_}; }
    // Refuses registers that this function could not have.
    lib::Result<void> restore(State const& state);

    bool is_bus_master() const { return (registers_[1] & bus_master) != 0; }
    // Where the BAR answers, if the command register lets it.
    std::optional<Range> decoded(u32 bar) const;
    u32 bars_in_use() const;
    // The device's interrupt condition, for when MSI-X is off.
    void set_interrupt(bool is_wanted);
    // The level of INTA#. A function that uses MSI-X does not drive it. [pci/3.0] 6.8.3.3
    bool intx() const {
        bool const has_messages = msix_ != nullptr && msix_->is_enabled();
        return is_interrupt_wanted_ && !has_messages && (registers_[1] & intx_disable) == 0;
    }

private:
    static constexpr u32 io_enable = 1 << 0, memory_enable = 1 << 1, bus_master = 1 << 2, intx_disable = 1 << 10;
    struct Bar {
        u64 size;
        BarKind kind;
    };
    void control_msix();

    std::array<u32, register_count> registers_{}, writable_{}, initial_{};
    std::array<Bar, bar_count> bars_{};
    u32 last_capability_ = 0;
    u32 capabilities_end_ = 0x40;
    MsixTable* msix_ = nullptr;
    u32 msix_register_ = 0;
    bool is_interrupt_wanted_ = false;
    u32 portal_register_ = 0;
    Portal portal_;
    lib::Delegate<void()> decoding_changed_;
    lib::Delegate<void()> line_changed_;
    lib::Delegate<void()> bus_master_changed_;
};

} // namespace platform
