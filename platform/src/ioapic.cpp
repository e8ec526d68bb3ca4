// SPDX-License-Identifier: MIT
#include <lib/bits.hpp>
#include <platform/ioapic.hpp>

namespace platform {
namespace {

using lib::Bits;

// [intel/82093aa] 3.2.4
struct RedirectionEntry : lib::Reg<RedirectionEntry, u64> {
    using Vector = Bits<u64, 7, 0>;
    using DeliveryMode = Bits<u64, 10, 8>;
    using LogicalDestination = Bits<u64, 11>;
    using RemoteIrr = Bits<u64, 14>;
    using LevelTriggered = Bits<u64, 15>;
    using Masked = Bits<u64, 16>;
    using Destination = Bits<u64, 63, 56>;
};
using Entry = RedirectionEntry;
constexpr u64 delivery_fixed = 0, delivery_lowest_priority = 1;

constexpr u64 writable = Entry::Vector::mask | Entry::DeliveryMode::mask | Entry::LogicalDestination::mask |
                         lib::bit(13) | Entry::LevelTriggered::mask | Entry::Masked::mask | Entry::Destination::mask;

constexpr u64 IOREGSEL = 0x00, IOWIN = 0x10, EOIR = 0x40;
constexpr u32 IOAPICID = 0, IOAPICVER = 1, IOAPICARB = 2, IOREDTBL = 0x10;
constexpr u32 version = (Ioapic::pin_count - 1) << 16 | 0x20;

// [intel/vol3] 12.11: the message that a device would write for this entry.
Msi message_of(Entry entry) {
    u64 const mode = entry.get<Entry::DeliveryMode>();
    u64 const level = entry.get<Entry::LevelTriggered>();
    u64 const redirection_hint = mode == delivery_lowest_priority;
    return {lib::layout::local_apic_base | entry.get<Entry::Destination>() << 12 | redirection_hint << 3 |
                u64{entry.get<Entry::LogicalDestination>()} << 2,
            static_cast<u32>(entry.get<Entry::Vector>() | mode << 8 | lib::bit(14) | level << 15)};
}

// Only these go through the local APIC's IRR, so only these are answered by an EOI.
bool is_level(Entry entry) {
    u64 const mode = entry.get<Entry::DeliveryMode>();
    return entry.get<Entry::LevelTriggered>() && (mode == delivery_fixed || mode == delivery_lowest_priority);
}

} // namespace

void Ioapic::reset() {
    u32 const lines = state_.lines; // what drives them is reset by itself
    state_ = {};
    state_.lines = lines;
    for (u64& entry : state_.redirection)
        entry = Entry::Masked::mask;
    returns_ = {};
    held_back_.cancel();
    collect_eoi_vectors();
}

IoReply Ioapic::io(IoRequest const& request) {
    u64 const offset = request.offset & 0xff; // the registers repeat over the page
    if (request.op == Op::Read) {
        if (offset == IOWIN) [[likely]]
            return {read_register(state_.select)};
        return {offset == IOREGSEL ? state_.select : u64{0}};
    }
    if (offset == IOREGSEL)
        state_.select = static_cast<u8>(request.data);
    else
        write(offset, static_cast<u32>(request.data));
    return {};
}

[[gnu::noinline]] void Ioapic::write(u64 offset, u32 value) {
    if (offset == IOWIN)
        write_register(state_.select, value);
    else if (offset == EOIR)
        end_of_interrupt(static_cast<u8>(value));
}

u32 Ioapic::read_register(u32 index) const {
    u32 const pin = (index - IOREDTBL) / 2;
    if (index >= IOREDTBL && pin < pin_count) return static_cast<u32>(state_.redirection[pin] >> (index % 2 * 32));
    switch (index) {
    case IOAPICID:
    case IOAPICARB: return static_cast<u32>(state_.id) << 24;
    case IOAPICVER: return version;
    default: return 0;
    }
}

void Ioapic::write_register(u32 index, u32 value) {
    u32 const pin = (index - IOREDTBL) / 2;
    if (index >= IOREDTBL && pin < pin_count) {
        u64 const old = state_.redirection[pin];
        u64 const mixed = index % 2 != 0 ? (old & 0xffff'ffff) | u64{value} << 32 : (old & ~u64{0xffff'ffff}) | value;
        return write_redirection(pin, mixed);
    }
    if (index == IOAPICID) state_.id = static_cast<u8>(value >> 24 & 0xf);
}

void Ioapic::write_redirection(u32 pin, u64 value) {
    Entry const old{{state_.redirection[pin]}};
    Entry entry{{(value & writable) | (old.raw & Entry::RemoteIrr::mask)}};
    // Switching to edge and back is how drivers of old parts free an input whose EOI got lost.
    if (!is_level(entry)) entry.set<Entry::RemoteIrr>(false);
    state_.redirection[pin] = entry.raw;
    collect_eoi_vectors();
    if ((state_.lines >> pin & 1) != 0 && is_level(entry)) service(pin, false);
    if (changed_) changed_();
}

void Ioapic::set_line(u32 pin, bool level) {
    if (pin >= pin_count) return;
    u32 const bit = 1U << pin;
    if (((state_.lines & bit) != 0) == level) return;
    state_.lines ^= bit;
    if (level) return service(pin, true);
    returns_[pin] = 0;
}

// Sends the message of an asserted input where its entry allows one. An edge on a masked input is lost.
// [intel/82093aa] 3.2.4
void Ioapic::service(u32 pin, bool is_edge) {
    Entry entry{{state_.redirection[pin]}};
    if (entry.get<Entry::Masked>()) return;
    if (is_level(entry)) {
        if (entry.get<Entry::RemoteIrr>()) return;
        entry.set<Entry::RemoteIrr>(true);
        state_.redirection[pin] = entry.raw;
    } else if (!is_edge) {
        return;
    }
    host_.send_msi(message_of(entry));
}

void Ioapic::end_of_interrupt(u8 vector) {
    for (u32 pin = 0; pin < pin_count; pin++) {
        Entry entry{{state_.redirection[pin]}};
        if (!entry.get<Entry::RemoteIrr>() || entry.get<Entry::Vector>() != vector) continue;
        entry.set<Entry::RemoteIrr>(false);
        state_.redirection[pin] = entry.raw;
        if ((state_.lines >> pin & 1) == 0) continue;
        if (returns_[pin] < patience) {
            returns_[pin]++;
            service(pin, false);
        } else {
            held_back_.arm(host_.now() + Nanos{pause_ns});
        }
    }
}

void Ioapic::on(Event const& event) {
    if (held_back_.accepts(event)) service_held_back();
}

void Ioapic::service_held_back() {
    for (u32 pin = 0; pin < pin_count; pin++)
        if ((state_.lines >> pin & 1) != 0) service(pin, false);
}

bool Ioapic::is_masked(u32 pin) const {
    return pin >= pin_count || Entry{{state_.redirection[pin]}}.get<Entry::Masked>();
}

void Ioapic::collect_eoi_vectors() {
    VectorSet vectors;
    for (u64 const raw : state_.redirection) {
        Entry const entry{{raw}};
        bool const can_be_in_service = !entry.get<Entry::Masked>() || entry.get<Entry::RemoteIrr>();
        if (is_level(entry) && can_be_in_service) vectors.insert(static_cast<u8>(entry.get<Entry::Vector>()));
    }
    if (vectors == eoi_vectors_) return;
    eoi_vectors_ = vectors;
    eoi_vectors_changed_ = true;
}

lib::Result<void> Ioapic::restore(State const& state) {
    if (state.lines >> pin_count != 0) return lib::fail(lib::Errc::BadFormat);
    state_ = state;
    for (u64& entry : state_.redirection)
        entry &= writable | Entry::RemoteIrr::mask;
    collect_eoi_vectors();
    eoi_vectors_changed_ = true;
    returns_ = {};
    // What was held back when the state was saved: asserted, open, and not on its way.
    for (u32 pin = 0; pin < pin_count; pin++) {
        Entry const entry{{state_.redirection[pin]}};
        bool const is_open = is_level(entry) && !entry.get<Entry::Masked>() && !entry.get<Entry::RemoteIrr>();
        if (is_open && (state_.lines >> pin & 1) != 0) held_back_.arm(host_.now() + Nanos{pause_ns});
    }
    return {};
}

} // namespace platform
