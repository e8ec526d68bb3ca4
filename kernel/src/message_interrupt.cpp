// SPDX-License-Identifier: MIT
#include <kernel/message_interrupt.hpp>
#include <kernel/page_table.hpp>

namespace kernel {
namespace {

using lib::Errc;

// [pci/3.0] 6.8.2.3 and 6.8.2.4
constexpr u32 control_offset = 2, table_offset = 4;
constexpr u16 table_is_on = 1 << 15, table_is_masked = 1 << 14;
constexpr u32 bar_bits = 7, entry_is_masked = 1;
// [pci/3.0] 6.8.1.3
constexpr u16 msi_is_on = 1, msi_count = 7 << 4, msi_is_wide = 1 << 7, msi_has_mask = 1 << 8;
// [intel/vol3] 12.11.1: physical destination, and in the data fixed delivery of an edge.
constexpr u32 message_address = 0xfee0'0000;

} // namespace

lib::Result<void> MessageInterrupt::open(Pci& pci, PciFunction const& function) {
    pci_ = &pci;
    at_ = function.address;
    if (function.message_table != 0) return open_table(function);
    if (function.messages == 0) return lib::fail(Errc::Unsupported);
    capability_ = function.msi_at;
    open_capability();
    return {};
}

lib::Result<void> MessageInterrupt::open_table(PciFunction const& function) {
    u32 const where = config().read32(at_, function.msix_at + table_offset);
    unsigned const bar = where & bar_bits;
    u64 const offset = where & ~bar_bits;
    u64 const size = u64{function.message_table} * sizeof(Entry);
    if (bar >= PciFunction::bar_count) return lib::fail(Errc::BadFormat);
    PciBar const& range = function.bars[bar];
    bool const is_memory = range.kind == PciBar::Kind::Memory || range.kind == PciBar::Kind::Memory64;
    if (!is_memory || range.base == 0 || size > range.size || offset > range.size - size)
        return lib::fail(Errc::BadFormat);
    HostVirt const table = TRY(map_device(HostPhys{range.base + offset}, size));
    capability_ = function.msix_at;
    // Masked as a whole until each entry is. [pci/3.0] 6.8.2.3
    config().write16(at_, capability_ + control_offset, table_is_on | table_is_masked);
    entries_ = reinterpret_cast<Entry volatile*>(table.value);
    for (u32 i = 0; i < function.message_table; i++)
        entries_[i].control = entry_is_masked;
    config().write16(at_, capability_ + control_offset, table_is_on);
    table_bar_ = bar;
    table_ = {lib::align_down(offset, lib::page_size), lib::align_up(offset + size, lib::page_size)};
    return {};
}

void MessageInterrupt::open_capability() {
    u16 const control = config().read16(at_, capability_ + control_offset);
    is_wide_ = (control & msi_is_wide) != 0;
    has_mask_ = (control & msi_has_mask) != 0;
    config().write16(at_, capability_ + control_offset, control & static_cast<u16>(~(msi_is_on | msi_count)));
}

lib::Result<void> MessageInterrupt::set_target(InterruptTarget target) {
    if (target.apic_id > widest_interrupt_apic_id) return lib::fail(Errc::Unsupported);
    u32 const address = message_address | target.apic_id << 12;
    if (has_table()) {
        entries_[0].address = address;
        entries_[0].address_high = 0;
        entries_[0].data = target.vector;
        return {};
    }
    config().write32(at_, capability_ + 4, address);
    if (is_wide_) config().write32(at_, capability_ + 8, 0);
    config().write16(at_, capability_ + (is_wide_ ? 12 : 8), target.vector);
    return {};
}

void MessageInterrupt::set_masked(bool masked) {
    if (has_table()) {
        entries_[0].control = masked ? entry_is_masked : 0;
        return;
    }
    u16 const control = config().read16(at_, capability_ + control_offset);
    if (has_mask_) {
        config().write32(at_, capability_ + (is_wide_ ? 16 : 12), masked ? ~0U : 0);
        if (masked || (control & msi_is_on) != 0) return;
    }
    config().write16(at_, capability_ + control_offset,
                     static_cast<u16>(masked ? control & ~msi_is_on : control | msi_is_on));
}

// A read from the function pushes the messages that it has sent before to the CPU. [pci/3.0] 3.2.5
bool MessageInterrupt::is_underway() {
    if (has_table())
        static_cast<void>(entries_[0].control);
    else
        static_cast<void>(config().read32(at_, 0));
    return false;
}

} // namespace kernel
