// SPDX-License-Identifier: MIT
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
    if (route.apic_id > kernel::widest_interrupt_apic_id) return lib::fail(lib::Errc::Unsupported);
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
    // Until it is read back the write may be on its way, and an interrupt go out.
    if (masked) static_cast<void>(lib::x86::load32(base_ + IOWIN));
}

Redirection IoApic::entry(u32 gsi) const {
    if (!owns(gsi)) return Redirection{}.with<Redirection::Masked>(true);
    u32 const input = gsi - gsi_base_;
    return Redirection{{u64{read(high_half(input))} << 32 | read(low_half(input))}};
}

IoApics::One* IoApics::owner_of(Ones& ones, u32 gsi) {
    for (auto& one : ones)
        if (one.hardware.owns(gsi)) return &one;
    return nullptr;
}

lib::Result<void> IoApics::add(u64 base, u32 gsi_base) {
    IoApic ioapic(base, gsi_base);
    return ones_.with([&](Ones& ones) -> lib::Result<void> {
        TRY(ioapic.start());
        for (auto const& other : ones) {
            u64 const begin = other.hardware.gsi_base();
            if (gsi_base < begin + other.hardware.input_count() && begin < u64{gsi_base} + ioapic.input_count())
                return lib::fail(lib::Errc::Busy);
        }
        if (!ones.push_back({ioapic, {}})) return lib::fail(lib::Errc::OutOfRange);
        return {};
    });
}

u32 IoApics::count() {
    return ones_.with([](Ones& ones) { return ones.size(); });
}

lib::Result<void> IoApics::claim(u32 gsi) {
    return ones_.with([&](Ones& ones) -> lib::Result<void> {
        One* const one = owner_of(ones, gsi);
        if (one == nullptr) return lib::fail(lib::Errc::NotFound);
        u32 const input = gsi - one->hardware.gsi_base();
        if ((one->claimed[input / 64] >> input % 64 & 1) != 0) return lib::fail(lib::Errc::Busy);
        one->claimed[input / 64] |= lib::bit(input % 64);
        return {};
    });
}

void IoApics::release(u32 gsi) {
    ones_.with([&](Ones& ones) {
        One* const one = owner_of(ones, gsi);
        if (one == nullptr) return;
        one->hardware.set_masked(gsi, true);
        u32 const input = gsi - one->hardware.gsi_base();
        one->claimed[input / 64] &= ~lib::bit(input % 64);
    });
}

lib::Result<void> IoApics::route(u32 gsi, IoApic::Route const& route) {
    return ones_.with([&](Ones& ones) -> lib::Result<void> {
        One* const one = owner_of(ones, gsi);
        return one != nullptr ? one->hardware.route(gsi, route) : lib::fail(lib::Errc::NotFound);
    });
}

void IoApics::set_masked(u32 gsi, bool masked) {
    ones_.with([&](Ones& ones) {
        if (One* const one = owner_of(ones, gsi)) one->hardware.set_masked(gsi, masked);
    });
}

Redirection IoApics::entry(u32 gsi) {
    return ones_.with([&](Ones& ones) {
        One const* const one = owner_of(ones, gsi);
        return one != nullptr ? one->hardware.entry(gsi) : Redirection{}.with<Redirection::Masked>(true);
    });
}

lib::Result<void> IoApicInput::claim() {
    TRY(ioapics_.claim(gsi_));
    is_claimed_ = true;
    return {};
}

lib::Result<void> IoApicInput::set_target(kernel::InterruptTarget target) {
    return ioapics_.route(gsi_, {.vector = target.vector,
                                 .apic_id = target.apic_id,
                                 .is_active_low = shape_.is_active_low,
                                 .is_level = shape_.is_level,
                                 .is_masked = true});
}

bool IoApicInput::is_underway() {
    Redirection const entry = ioapics_.entry(gsi_);
    return entry.get<Redirection::DeliveryPending>() || (shape_.is_level && entry.get<Redirection::RemoteIrr>());
}

} // namespace drivers
