// SPDX-License-Identifier: MIT
#pragma once
// PCI bus 0 of the virtual machine in the shape of Intel's Q35: configuration space by ports 0xcf8 and 0xcfc and by a
// window of memory (ECAM), the host bridge at 00:00.0, the LPC bridge of ICH9 at 00:1f.0, and up to 30 functions more.
// [pci/3.0] 3.2.2.3.2, [pcie] 7.2.2, [intel/3-series] 5.1, [intel/ich] 13.1
//
// BARs answer inside of three fixed windows only (lib/platform_layout.hpp): ports from 0x1000 on, memory below 4 GiB,
// and memory above RAM. A BAR that is not wholly within one is not decoded, so none ever covers RAM, another device,
// the I/O APIC or a local APIC, and moving one changes this class alone. Where two BARs overlap, the function with the
// lower number wins, then the lower BAR. An access that is not wholly within a BAR floats.
//
// Interrupt pin A of the function at slot n drives GSI 16 + n % 4, as _PRT says; the lines are shared. GSIs 20 to 23
// are the HPET's.
//
// Not supported: other buses (reads give ones), functions other than 0 of a slot, hot plug, moving the ECAM window
// (PCIEXBAR is fixed) or the ACPI registers (PMBASE is fixed), INTx to the 8259 pair (the PIRQ registers say "not
// routed").
#include <array>
#include <lib/platform_layout.hpp>
#include <platform/pci_function.hpp>

namespace platform {

class PciHost final : public Device {
public:
    static constexpr u32 slot_count = 32, host_bridge_slot = 0, lpc_slot = 31;
    static constexpr u32 max_bars = 64; // of all functions
    static constexpr u32 line_count = lib::layout::pci_gsi_count;
    static constexpr u16 state_version = 1;
    // Functions that are plugged in save themselves, after this device in the list.
    struct State {
        u32 address;
        u32 lines; // bit n: GSI 16 + n is up
        PciFunction::State host_bridge, lpc;
    };
    enum RegionNumber : u16 { ConfigAddress, ConfigData, Ecam, PortWindow, LowWindow, HighWindow };

    explicit PciHost(Plug const& plug);

    // `device` gets the accesses to the BARs of `function`, whose number it finds in IoRequest::region. OutOfRange:
    // there is no such slot or it is taken; NoMemory: too many BARs.
    lib::Result<void> plug_in(u32 slot, PciFunction& function, Device& device);

    // Where a BAR of a device answers, if no other BAR covers a part of it.
    std::optional<u64> place_of(Device const& device, u16 bar) const;

    IoReply io(IoRequest const& request) override;
    void on(Event const&) override {}
    void reset() override;
    State save() const { return {address_, lines_, host_bridge_.save(), lpc_.save()}; }
    lib::Result<void> restore(State const& state);

private:
    struct Slot {
        PciFunction* function;
        Device* device;
    };
    struct Decoded {
        PciFunction::Range range;
        Device* device;
        u16 bar;
    };
    void attach(u32 slot, PciFunction& function, Device* device);
    IoReply configuration(u32 function, u32 offset, IoRequest const& request);
    IoReply bar_io(Space space, u64 address, IoRequest const& request);
    bool is_in_window(PciFunction::Range const& range) const;
    void collect_decoded();
    void drive_lines();

    Wires& wires_;
    lib::layout::Window high_window_;
    PciFunction host_bridge_, lpc_;
    std::array<Slot, slot_count> slots_{};
    std::array<Decoded, max_bars> decoded_{};
    u32 decoded_count_ = 0, bar_count_ = 0;
    u32 address_ = 0;
    u32 lines_ = 0;
    std::array<Region, 6> all_regions_;

public:
    std::span<Region const> const regions; // the high window is left out where there is no room for it
};

} // namespace platform
