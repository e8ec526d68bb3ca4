// SPDX-License-Identifier: MIT
#include <bit>
#include <lib/assert.hpp>
#include <platform/pci_function.hpp>

namespace platform {
namespace {

// Registers by their number, that is, offset / 4. [pci/3.0] 6.1
constexpr u32 ID = 0, COMMAND_STATUS = 1, CLASS_REVISION = 2, CACHE_LINE = 3, BAR0 = 4, SUBSYSTEM = 11,
              CAPABILITIES_POINTER = 13, INTERRUPT = 15;
constexpr u32 INTERRUPT_STATUS = 1 << 19, CAPABILITIES_LIST = 1 << 20; // status, in the upper half of register 1
constexpr u32 BAR_IO = 1, BAR_64 = 4, bar_io_flags = 3, bar_memory_flags = 0xf; // [pci/3.0] 6.2.5.1
constexpr u8 MSIX_CAPABILITY = 0x11;
constexpr u32 MSIX_FUNCTION_MASK = 1U << 30, MSIX_ENABLE = 1U << 31; // message control, in the capability's first dword
constexpr u32 interrupt_line_mask = 0xff, cache_line_mask = 0xff;

} // namespace

PciFunction::PciFunction(Identity const& identity) {
    registers_[ID] = identity.vendor | u32{identity.device} << 16;
    registers_[CLASS_REVISION] = identity.revision | identity.class_code << 8;
    registers_[SUBSYSTEM] = identity.subsystem_vendor | u32{identity.subsystem} << 16;
    writable_[CACHE_LINE] = cache_line_mask;
    writable_[INTERRUPT] = interrupt_line_mask;
    initial_ = registers_;
}

void PciFunction::add_bar(u32 number, BarKind kind, u64 size) {
    bool const is_64 = kind == BarKind::Memory64;
    ASSERT(number + (is_64 ? 1 : 0) < bar_count && std::has_single_bit(size));
    ASSERT(kind == BarKind::Io ? size >= 4 && size <= 256 : size >= 16 && (is_64 || size <= u64{1} << 31));
    bars_[number] = {size, kind};
    u32 const index = BAR0 + number;
    bool const is_io = kind == BarKind::Io;
    set_fixed(index * 4, is_io ? BAR_IO : is_64 ? BAR_64 : 0);
    writable_[index] = static_cast<u32>(~(size - 1)) & ~(is_io ? bar_io_flags : bar_memory_flags);
    if (is_64) writable_[index + 1] = static_cast<u32>(~(size - 1) >> 32);
    writable_[COMMAND_STATUS] |= (is_io ? io_enable : memory_enable) | bus_master;
}

u32 PciFunction::add_capability(u8 id, std::span<u8 const> body) {
    u32 const at = capabilities_end_;
    u32 const end = (at + 2 + static_cast<u32>(body.size()) + 3) & ~3U;
    ASSERT(end <= register_count * 4);
    // In whole registers: a VM has hundreds of these bytes.
    u32 word = id, filled = 2;
    u32 offset = at;
    for (u8 const byte : body) {
        word |= u32{byte} << (filled++ * 8);
        if (filled < 4) continue;
        set_fixed(offset, word);
        offset += 4;
        word = filled = 0;
    }
    if (filled != 0) set_fixed(offset, word);
    if (last_capability_ == 0)
        set_fixed(CAPABILITIES_POINTER * 4, at);
    else
        set_fixed(last_capability_, registers_[last_capability_ / 4] | at << 8); // which had no next one
    set_fixed(COMMAND_STATUS * 4, registers_[COMMAND_STATUS] | CAPABILITIES_LIST);
    last_capability_ = at;
    capabilities_end_ = end;
    return at;
}

void PciFunction::add_msix(MsixTable& table, u32 bar, u32 table_offset, u32 pending_offset) {
    ASSERT(msix_ == nullptr && (table_offset | pending_offset) % 8 == 0);
    u32 const size = table.count() - 1, where = table_offset | bar, pending = pending_offset | bar;
    auto const byte = [](u32 value, u32 index) { return static_cast<u8>(value >> (index * 8)); };
    u8 const body[] = {byte(size, 0),  byte(size, 1),    byte(where, 0),   byte(where, 1),   byte(where, 2),
                       byte(where, 3), byte(pending, 0), byte(pending, 1), byte(pending, 2), byte(pending, 3)};
    msix_register_ = add_capability(MSIX_CAPABILITY, body) / 4;
    writable_[msix_register_] = MSIX_FUNCTION_MASK | MSIX_ENABLE;
    msix_ = &table;
}

void PciFunction::add_interrupt_pin() {
    set_fixed(INTERRUPT * 4, 1 << 8);
    writable_[COMMAND_STATUS] |= intx_disable;
}

void PciFunction::set_fixed(u32 offset, u32 value) { registers_[offset / 4] = initial_[offset / 4] = value; }

u32 PciFunction::read(u32 index) {
    if (index >= register_count) return 0;
    if (portal_ && index == portal_register_) return portal_(Op::Read, 0);
    bool const shows_interrupt = index == COMMAND_STATUS && is_interrupt_wanted_;
    return registers_[index] | (shows_interrupt ? INTERRUPT_STATUS : 0);
}

void PciFunction::write(u32 index, u32 value, u32 mask) {
    if (index >= register_count) return;
    if (portal_ && index == portal_register_) {
        portal_(Op::Write, value);
        return;
    }
    u32 const before = registers_[index];
    u32 const taken = mask & writable_[index];
    registers_[index] = (before & ~taken) | (value & taken);
    if (registers_[index] == before) return;
    bool const is_command = index == COMMAND_STATUS;
    if ((is_command || index == msix_register_) && msix_ != nullptr) control_msix();
    if ((is_command || (index >= BAR0 && index < BAR0 + bar_count)) && decoding_changed_) decoding_changed_();
    if ((is_command || (index == msix_register_ && msix_ != nullptr)) && line_changed_) line_changed_();
    if (is_command && ((registers_[index] ^ before) & bus_master) != 0 && bus_master_changed_) bus_master_changed_();
}

void PciFunction::control_msix() {
    u32 const control = registers_[msix_register_];
    // A message is a write to memory: without the right to make one it waits. [pci/3.0] 6.8.3.3
    msix_->set_control((control & MSIX_ENABLE) != 0, (control & MSIX_FUNCTION_MASK) != 0 || !is_bus_master());
}

void PciFunction::reset() {
    registers_ = initial_;
    is_interrupt_wanted_ = false;
    if (msix_ != nullptr) msix_->reset();
    if (decoding_changed_) decoding_changed_();
    if (line_changed_) line_changed_();
}

lib::Result<void> PciFunction::restore(State const& state) {
    for (u32 i = 0; i < register_count; i++)
        if (((state.registers[i] ^ initial_[i]) & ~writable_[i]) != 0) return lib::fail(lib::Errc::BadFormat);
    registers_ = state.registers;
    if (msix_ != nullptr) control_msix();
    if (decoding_changed_) decoding_changed_();
    return {};
}

std::optional<PciFunction::Range> PciFunction::decoded(u32 bar) const {
    Bar const& shape = bars_[bar];
    u32 const low = registers_[BAR0 + bar], command = registers_[COMMAND_STATUS];
    switch (shape.kind) {
    case BarKind::None: return {};
    case BarKind::Io:
        if ((command & io_enable) == 0) return {};
        return Range{Space::Pio, low & ~bar_io_flags, shape.size};
    case BarKind::Memory32:
    case BarKind::Memory64: break;
    }
    if ((command & memory_enable) == 0) return {};
    u64 const high = shape.kind == BarKind::Memory64 ? registers_[BAR0 + bar + 1] : 0;
    return Range{Space::Mmio, (low & ~bar_memory_flags) | high << 32, shape.size};
}

u32 PciFunction::bars_in_use() const {
    u32 count = 0;
    for (Bar const& bar : bars_)
        count += bar.kind != BarKind::None;
    return count;
}

void PciFunction::set_interrupt(bool is_wanted) {
    if (is_interrupt_wanted_ == is_wanted) return;
    is_interrupt_wanted_ = is_wanted;
    if (line_changed_) line_changed_();
}

} // namespace platform
