// SPDX-License-Identifier: MIT
#pragma once
// The machine's controllers that one service gets: disk controllers, or NICs. Each has registers, ports, an interrupt,
// memory for DMA, and the right to write to memory, which ends with each instance.
#include <array>
#include <kernel/message_interrupt.hpp>
#include <kernel/service.hpp>
#include <lib/delegate.hpp>
#include <lib/service_board.hpp>

namespace manage {

using lib::u32;
using lib::u64;
using lib::u8;

class Controllers {
public:
    static constexpr u32 most = lib::service::max_controllers;

    // The input at which this ISA interrupt arrives; for each once. nullptr: it cannot be had.
    using Line = lib::Delegate<kernel::InterruptSource*(u8 irq)>;

    // `interrupted` is called with the controller's number, in its interrupt.
    Controllers(lib::Delegate<void(u32)> interrupted, Line line) : interrupted_(interrupted), line_(line) {}

    // Takes the disk controllers among the machine's PCI functions, and describes them. In the run loop of CPU 0, once.
    void find(kernel::Pci& pci, std::span<lib::service::ControllerEntry> board);
    // Whether there is a driver for this NIC.
    static bool is_nic(kernel::PciFunction const& function);
    // Takes a NIC, and describes it as the uplink of a network. In the run loop of CPU 0, before the service's first
    // instance. Busy: it has an owner. OutOfRange: there are too many.
    lib::Result<void> take_nic(kernel::Pci& pci, kernel::PciFunction& function, u32 network,
                               std::span<lib::service::ControllerEntry> board);
    u32 count() const { return count_; }
    // Maps all of them into a new instance, before its first instruction.
    lib::Result<void> furnish(kernel::Service& instance);
    // None of them writes to memory any more.
    void stop();
    // System calls; the arguments are hostile.
    u64 call(lib::service::Call number, u64 controller, u64 argument);

private:
    struct One {
        kernel::PciFunction* function = nullptr;
        Controllers* owner = nullptr;
        u32 number = 0;
        std::array<lib::service::BarEntry, lib::service::max_bars> bars{};
        std::array<lib::u16, lib::service::max_bars> ports{};  // the first port of a BAR of ports
        std::array<u8, lib::service::max_bars> first_offset{}; // and the first of its ports that are the controller's
        lib::HostPhys memory{};
        kernel::MessageInterrupt source;
        void interrupted() { owner->interrupted_(number); }
    };

    lib::Result<void> add(kernel::PciFunction& function, lib::service::ControllerKind kind,
                          lib::service::ControllerEntry& entry);
    static void read_bars(One& one);
    static void add_legacy_ports(One& one);
    lib::Result<void> connect(One& one, lib::service::ControllerKind kind);
    lib::Result<void> connect(One& one, kernel::InterruptSource& source, std::string_view name);
    lib::Result<void> connect_lines(One& one);
    lib::Result<void> map_registers(kernel::Service& instance, One const& one, u32 bar);
    u64 access_port(One const& one, u64 argument, bool is_write);

    lib::Delegate<void(u32)> interrupted_;
    Line line_;
    kernel::Pci* pci_ = nullptr;
    u32 count_ = 0;
    std::array<One, most> all_{};
};

} // namespace manage
