// SPDX-License-Identifier: MIT
#include <kernel/pci_config.hpp>
#include <lib/assert.hpp>
#include <lib/x86/instructions.hpp>

namespace kernel {
namespace {

namespace x86 = lib::x86;
using lib::Errc;

constexpr u16 CONFIG_ADDRESS = 0xcf8, CONFIG_DATA = 0xcfc;
constexpr u32 address_enable = 1U << 31;
constexpr u32 port_space = 256, ecam_space = 4096;

constexpr u32 ones(unsigned width) { return width == 4 ? ~0U : (1U << width * 8) - 1; }

constexpr u32 port_address(PciAddress const& at, u32 offset) {
    return address_enable | u32{at.bus} << 16 | u32{at.device} << 11 | u32{at.function} << 8 | (offset & ~3U);
}
constexpr u64 ecam_offset(PciAddress const& at, u32 offset) {
    return u64{at.device} << 15 | u64{at.function} << 12 | offset;
}

constexpr bool overlap(PciConfig::Ecam const& a, PciConfig::Ecam const& b) {
    return a.segment == b.segment && a.first_bus <= b.last_bus && b.first_bus <= a.last_bus;
}

} // namespace

bool PciConfig::find_ports() {
    // The register keeps what is written; where there is no host bridge, ones are read.
    InterruptGuard const no_interrupts;
    LockGuard const locked(ports_lock_);
    x86::out32(CONFIG_ADDRESS, address_enable);
    has_ports_ = x86::in32(CONFIG_ADDRESS) == address_enable;
    return has_ports_;
}

lib::Result<void> PciConfig::add_ecam(Ecam const& ecam) {
    if (ecam_count_ == most_ecams || ecam.first_bus > ecam.last_bus) return lib::fail(Errc::OutOfRange);
    for (u32 i = 0; i < ecam_count_; i++)
        if (overlap(windows_[i].ecam, ecam)) return lib::fail(Errc::Busy);
    Window& window = windows_[ecam_count_];
    window = {ecam, {}};
    ecam_count_++;
    bool const is_open = open_bus(ecam.segment, ecam.first_bus);
    if (is_open && (ecam.segment != 0 || !has_ports_ || agrees_with_ports(window, ecam.first_bus))) return {};
    ecam_count_--;
    return lib::fail(is_open ? Errc::NotFound : Errc::NoMemory);
}

// Firmware's tables have been known to point at the wrong place, and a write there would hit something else.
bool PciConfig::agrees_with_ports(Window const& window, u8 bus) {
    for (u8 device = 0; device < 32; device++) {
        PciAddress const at{0, bus, device, 0};
        if (x86::load32(window.buses[bus] + ecam_offset(at, 0)) != read_port(at, 0, 4)) return false;
    }
    return true;
}

bool PciConfig::open_bus(u16 segment, u8 bus) {
    for (u32 i = 0; i < ecam_count_; i++) {
        Window& window = windows_[i];
        if (window.ecam.segment != segment || bus < window.ecam.first_bus || bus > window.ecam.last_bus) continue;
        u64& mapped = window.buses[bus];
        if (mapped != 0) return true;
        auto const result = map_(window.ecam.base + u64{bus} * bus_size, bus_size);
        if (!result) return false;
        mapped = result->value;
        return true;
    }
    return segment == 0 && has_ports_;
}

bool PciConfig::segment(u32 index, u16& number) const {
    if (has_ports_ && index-- == 0) {
        number = 0;
        return true;
    }
    for (u32 i = 0; i < ecam_count_; i++) {
        u16 const here = windows_[i].ecam.segment;
        bool is_new = here != 0 || !has_ports_;
        for (u32 earlier = 0; earlier < i; earlier++)
            is_new = is_new && windows_[earlier].ecam.segment != here;
        if (!is_new || index-- != 0) continue;
        number = here;
        return true;
    }
    return false;
}

u32 PciConfig::probe(PciAddress const& at) {
    if (at.segment == 0 && has_ports_) return read_port(at, 0, 4);
    return open_bus(at.segment, at.bus) ? read32(at, 0) : ~0U;
}

PciConfig::Window const* PciConfig::window_of(u16 segment, u8 bus) const {
    for (u32 i = 0; i < ecam_count_; i++) {
        Window const& window = windows_[i];
        if (window.ecam.segment == segment && window.buses[bus] != 0) return &window;
    }
    return nullptr;
}

u32 PciConfig::read_port(PciAddress const& at, u32 offset, unsigned width) {
    auto const data = static_cast<u16>(CONFIG_DATA + (offset & 3));
    InterruptGuard const no_interrupts;
    LockGuard const locked(ports_lock_);
    x86::out32(CONFIG_ADDRESS, port_address(at, offset));
    if (width == 1) return x86::in8(data);
    return width == 2 ? x86::in16(data) : x86::in32(data);
}

u32 PciConfig::read(PciAddress const& at, u32 offset, unsigned width) {
    ASSERT(offset % width == 0);
    Window const* const window = window_of(at.segment, at.bus);
    if (window == nullptr) {
        bool const is_reached = at.segment == 0 && has_ports_ && offset < port_space;
        return is_reached ? read_port(at, offset, width) : ones(width);
    }
    if (offset >= ecam_space) return ones(width);
    u64 const where = window->buses[at.bus] + ecam_offset(at, offset);
    if (width == 1) return x86::load8(where);
    return width == 2 ? x86::load16(where) : x86::load32(where);
}

void PciConfig::write(PciAddress const& at, u32 offset, unsigned width, u32 value) {
    ASSERT(offset % width == 0);
    if (Window const* const window = window_of(at.segment, at.bus)) {
        if (offset >= ecam_space) return;
        u64 const where = window->buses[at.bus] + ecam_offset(at, offset);
        if (width == 2)
            x86::store16(where, static_cast<u16>(value));
        else
            x86::store32(where, value);
        return;
    }
    if (at.segment != 0 || !has_ports_ || offset >= port_space) return;
    auto const data = static_cast<u16>(CONFIG_DATA + (offset & 3));
    InterruptGuard const no_interrupts;
    LockGuard const locked(ports_lock_);
    x86::out32(CONFIG_ADDRESS, port_address(at, offset));
    if (width == 2)
        x86::out16(data, static_cast<u16>(value));
    else
        x86::out32(data, value);
}

} // namespace kernel
