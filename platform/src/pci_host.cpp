// SPDX-License-Identifier: MIT
#include <algorithm>
#include <lib/assert.hpp>
#include <platform/pci_host.hpp>

namespace platform {
namespace {

namespace layout = lib::layout;

constexpr u32 ADDRESS_ENABLE = 1U << 31, address_writable = ADDRESS_ENABLE | 0x00ff'fffc;
constexpr u16 INTEL = 0x8086, MCH_82G33 = 0x29c0, LPC_ICH9 = 0x2918;
constexpr u32 HOST_BRIDGE_CLASS = 0x06'0000, ISA_BRIDGE_CLASS = 0x06'0100;
constexpr u32 IO_ENABLE = 1, MEMORY_ENABLE = 2, BUS_MASTER = 4; // hard-wired in both bridges

constexpr u32 PCIEXBAR = 0x60, PCIEXBAREN = 1, LENGTH_64_MIB = 2 << 1; // [intel/3-series] 5.1.16
static_assert(layout::ecam_size == 64 * lib::MiB);
constexpr u32 PMBASE = 0x40, ACPI_CNTL = 0x44, PIRQ_A = 0x60, PIRQ_E = 0x68; // [intel/ich] 13.1
constexpr u32 ACPI_EN = 0x80;                                                // and SCI on IRQ 9
constexpr u32 not_routed = 0x8080'8080;                                      // four PIRQ registers

constexpr bool contains(layout::Window const& window, PciFunction::Range const& range) {
    return range.base >= window.base && range.size <= window.size &&
           range.base - window.base <= window.size - range.size;
}

} // namespace

PciHost::PciHost(Plug const& plug)
    : wires_(plug.wires),
      high_window_(layout::pci_high_window(plug.facts.ram_above_4g, plug.facts.physical_address_bits)),
      host_bridge_({INTEL, MCH_82G33, HOST_BRIDGE_CLASS, 2, 0, 0}), lpc_({INTEL, LPC_ICH9, ISA_BRIDGE_CLASS, 2, 0, 0}),
      all_regions_{{{ConfigAddress, Space::Pio, 4, layout::pci_config_address, 4},
                    {ConfigData, Space::Pio, 4, layout::pci_config_data, 4},
                    {PortWindow, Space::Pio, 4, layout::pci_ports.base, layout::pci_ports.size},
                    {Ecam, Space::Mmio, 4, layout::ecam_base, layout::ecam_size},
                    {LowWindow, Space::Mmio, 8, layout::pci_low_window.base, layout::pci_low_window.size},
                    {HighWindow, Space::Mmio, 8, high_window_.base, high_window_.size}}},
      regions(std::span(all_regions_).first(high_window_.size == 0 ? 5 : 6)) {
    host_bridge_.set_fixed(0x04, MEMORY_ENABLE | BUS_MASTER);
    host_bridge_.set_fixed(PCIEXBAR, layout::ecam_base | LENGTH_64_MIB | PCIEXBAREN);
    lpc_.set_fixed(0x04, IO_ENABLE | MEMORY_ENABLE | BUS_MASTER);
    lpc_.set_fixed(PMBASE, layout::pm1a_evt | 1);
    lpc_.set_fixed(ACPI_CNTL, ACPI_EN);
    lpc_.set_fixed(PIRQ_A, not_routed);
    lpc_.set_fixed(PIRQ_E, not_routed);
    attach(host_bridge_slot, host_bridge_, nullptr);
    attach(lpc_slot, lpc_, nullptr);
}

void PciHost::attach(u32 slot, PciFunction& function, Device* device) {
    slots_[slot] = {&function, device};
    bar_count_ += function.bars_in_use();
    function.listen(lib::Delegate<void()>::to<&PciHost::collect_decoded>(*this),
                    lib::Delegate<void()>::to<&PciHost::drive_lines>(*this));
}

lib::Result<void> PciHost::plug_in(u32 slot, PciFunction& function, Device& device) {
    if (slot >= slot_count || slots_[slot].function != nullptr) return lib::fail(lib::Errc::OutOfRange);
    if (bar_count_ + function.bars_in_use() > max_bars) return lib::fail(lib::Errc::NoMemory);
    attach(slot, function, &device);
    return {};
}

IoReply PciHost::io(IoRequest const& request) {
    switch (request.region) {
    case LowWindow: return bar_io(Space::Mmio, layout::pci_low_window.base + request.offset, request);
    case HighWindow: return bar_io(Space::Mmio, high_window_.base + request.offset, request);
    case PortWindow: return bar_io(Space::Pio, layout::pci_ports.base + request.offset, request);
    case Ecam:
        return configuration(static_cast<u32>(request.offset >> 12), static_cast<u32>(request.offset & 0xfff), request);
    case ConfigData:
        if ((address_ & ADDRESS_ENABLE) == 0) return floating_bus;
        return configuration(address_ >> 8 & 0xffff, (address_ & 0xfc) + static_cast<u32>(request.offset), request);
    default: break;
    }
    if (request.size != 4) return floating_bus; // only a whole dword reaches the address register
    if (request.op == Op::Read) return {address_};
    address_ = static_cast<u32>(request.data) & address_writable;
    return {};
}

// `function`: bus, slot and function as in a requester ID.
IoReply PciHost::configuration(u32 function, u32 offset, IoRequest const& request) {
    u32 const slot = function >> 3;
    if (slot >= slot_count || function % 8 != 0 || slots_[slot].function == nullptr) return floating_bus;
    PciFunction& target = *slots_[slot].function;
    u64 result = 0;
    u32 const size = std::min<u32>(request.size, sizeof(result));
    for (u32 done = 0; done < size;) { // a piece for each register that it touches
        u32 const at = offset + done, in_register = at % 4;
        u32 const count = std::min(size - done, 4 - in_register);
        constexpr std::array<u32, 5> masks{0, 0xff, 0xffff, 0xff'ffff, ~0U}; // of so many bytes
        u32 const mask = masks.data()[count];
        if (request.op == Op::Read)
            result |= u64{target.read(at / 4) >> (in_register * 8) & mask} << (done * 8);
        else
            target.write(at / 4, static_cast<u32>(request.data >> (done * 8)) << (in_register * 8),
                         mask << (in_register * 8));
        done += count;
    }
    return {result};
}

IoReply PciHost::bar_io(Space space, u64 address, IoRequest const& request) {
    for (u32 i = 0; i < decoded_count_; i++) {
        Decoded const& entry = decoded_.data()[i];
        u64 const offset = address - entry.range.base;
        if (entry.range.space != space || offset >= entry.range.size) continue;
        if (request.size > entry.range.size - offset) break;
        return entry.device->io({offset, request.data, entry.bar, request.size, request.op, 0});
    }
    return floating_bus;
}

bool PciHost::is_in_window(PciFunction::Range const& range) const {
    if (range.space == Space::Pio) return contains(layout::pci_ports, range);
    return contains(layout::pci_low_window, range) || contains(high_window_, range);
}

void PciHost::collect_decoded() {
    decoded_count_ = 0;
    for (Slot const& slot : slots_) {
        if (slot.device == nullptr) continue;
        for (u16 bar = 0; bar < PciFunction::bar_count; bar++)
            if (auto const range = slot.function->decoded(bar); range && is_in_window(*range))
                decoded_[decoded_count_++] = {*range, slot.device, bar};
    }
    wires_.doorbells_changed();
}

std::optional<u64> PciHost::place_of(Device const& device, u16 bar) const {
    auto const all = std::span(decoded_).first(decoded_count_);
    auto const found =
        std::ranges::find_if(all, [&](Decoded const& entry) { return entry.device == &device && entry.bar == bar; });
    if (found == all.end()) return std::nullopt;
    PciFunction::Range const& range = found->range;
    bool const is_alone = std::ranges::all_of(all, [&](Decoded const& other) {
        bool const is_apart =
            other.range.base - range.base >= range.size && range.base - other.range.base >= other.range.size;
        return &other == &*found || other.range.space != range.space || is_apart;
    });
    return is_alone ? std::optional(range.base) : std::nullopt;
}

void PciHost::drive_lines() {
    u32 wanted = 0;
    for (u32 slot = 0; slot < slot_count; slot++)
        if (slots_[slot].function != nullptr && slots_[slot].function->intx()) wanted |= 1U << slot % line_count;
    u32 const changed = wanted ^ lines_;
    lines_ = wanted;
    for (u32 line = 0; line < line_count; line++)
        if ((changed >> line & 1) != 0) wires_.set_irq_line(layout::pci_first_gsi + line, (wanted >> line & 1) != 0);
}

void PciHost::reset() {
    address_ = 0;
    host_bridge_.reset();
    lpc_.reset();
}

lib::Result<void> PciHost::restore(State const& state) {
    if ((state.address & ~address_writable) != 0 || state.lines >> line_count != 0)
        return lib::fail(lib::Errc::BadFormat);
    TRY(host_bridge_.restore(state.host_bridge));
    TRY(lpc_.restore(state.lpc));
    address_ = state.address;
    lines_ = state.lines;
    return {};
}

} // namespace platform
