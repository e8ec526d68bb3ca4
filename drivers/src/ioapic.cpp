#include <drivers/ioapic.hpp>

#include <lib/x86/instructions.hpp>

namespace drivers {
namespace {

constexpr u64 IOREGSEL = 0x00;
constexpr u64 IOWIN = 0x10;
constexpr u8 IOAPICVER = 0x01;
constexpr u32 most_inputs = 240;

constexpr u8 low_half(u32 input) { return static_cast<u8>(0x10 + input * 2); }
constexpr u8 high_half(u32 input) { return static_cast<u8>(0x11 + input * 2); }

} // namespace

u32 IoApic::read(u8 index) const {
    lib::x86::store32(base_ + IOREGSEL, index);
    return lib::x86::load32(base_ + IOWIN);
}

void IoApic::write(u8 index, u32 value) const {
    lib::x86::store32(base_ + IOREGSEL, index);
    lib::x86::store32(base_ + IOWIN, value);
}

void IoApic::write_entry(u32 input, Redirection value) const {
    // Masked while half of it is old, or an interrupt could go to a CPU that nobody meant.
    write(low_half(input), static_cast<u32>(value.with<Redirection::Masked>(true).raw));
    write(high_half(input), static_cast<u32>(value.raw >> 32));
    if (!value.get<Redirection::Masked>()) write(low_half(input), static_cast<u32>(value.raw));
}

lib::Result<void> IoApic::start() {
    u32 const version = read(IOAPICVER);
    u32 const count = (version >> 16 & 0xff) + 1;
    if (version == 0 || version == 0xffff'ffff || count > most_inputs) return lib::fail(lib::Errc::NotFound);
    input_count_ = count;
    for (u32 input = 0; input < count; input++)
        write_entry(input, Redirection{}.with<Redirection::Masked>(true));
    return {};
}

lib::Result<void> IoApic::route(u32 gsi, Route const& route) {
    bool const has_vector =
        route.delivery == Redirection::Delivery::Fixed || route.delivery == Redirection::Delivery::LowestPriority;
    if (!owns(gsi) || (has_vector && route.vector < 16)) return lib::fail(lib::Errc::OutOfRange);
    if (route.apic_id >= 0xff) return lib::fail(lib::Errc::Unsupported);
    Redirection entry;
    entry.set<Redirection::Vector>(route.vector);
    entry.set<Redirection::Mode>(route.delivery);
    entry.set<Redirection::ActiveLow>(route.is_active_low);
    entry.set<Redirection::Level>(route.is_level);
    entry.set<Redirection::Masked>(route.is_masked);
    entry.set<Redirection::Destination>(static_cast<u8>(route.apic_id));
    write_entry(gsi - gsi_base_, entry);
    return {};
}

void IoApic::set_masked(u32 gsi, bool masked) {
    if (!owns(gsi)) return;
    u32 const input = gsi - gsi_base_;
    // The mask is in the lower half: one read and one write.
    Redirection low{{read(low_half(input))}};
    low.set<Redirection::Masked>(masked);
    lib::x86::store32(base_ + IOWIN, static_cast<u32>(low.raw));
}

Redirection IoApic::entry(u32 gsi) const {
    if (!owns(gsi)) return Redirection{}.with<Redirection::Masked>(true);
    u32 const input = gsi - gsi_base_;
    return Redirection{{u64{read(high_half(input))} << 32 | read(low_half(input))}};
}

} // namespace drivers
