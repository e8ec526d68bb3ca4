// SPDX-License-Identifier: MIT
#include <cstring>
#include <lib/assert.hpp>
#include <platform/platform.hpp>

namespace platform {

// The devices get *this as their wires while it is under construction: they keep it, and drive no line yet.
Platform::Platform(Host& host, lib::GuestMemory const& memory, MachineFacts const& facts)
    : host_(host), memory_(memory), devices_(host, *this, memory_, facts) {
    devices_.for_each([&, number = 0U]<typename D>(D& device) mutable {
        by_number_[number++] = &device;
        if constexpr (std::derived_from<D, ServedVirtio>) served_[D::number] = &device;
        for (Region const& region : device.regions)
            ASSERT(bus_.attach(device, region).has_value());
        if constexpr (requires { D::pci_slot; })
            if (D::is_in(facts))
                ASSERT(devices_.template get<PciHost>().plug_in(D::pci_slot, device.function(), device).has_value());
    });
    pic().listen(lib::Delegate<void()>::to<&Platform::masks_changed>(*this),
                 lib::Delegate<void()>::to<&Platform::before_irr_is_read>(*this));
    ioapic().listen(lib::Delegate<void()>::to<&Platform::masks_changed>(*this));
    devices_.get<Rtc>().listen(lib::Delegate<void()>::to<&AcpiPm::rtc_alarm>(devices_.get<AcpiPm>()));
    devices_.get<Hpet>().listen(lib::Delegate<void()>::to<&Platform::legacy_changed>(*this));
    pic().set_level_triggered(AcpiPm::sci_gsi, true); // as firmware does
    masks_changed();
}

void Platform::set_irq_line(u32 gsi, bool level) {
    bool const is_replaced = devices_.get<Hpet>().replaces_legacy();
    if (gsi == Hpet::legacy_lines || gsi == Hpet::legacy_lines + 1) {
        if (is_replaced) route(gsi == Hpet::legacy_lines ? Pit::gsi : Rtc::irq, level);
    } else if (!is_replaced || (gsi != Pit::gsi && gsi != Rtc::irq)) {
        route(gsi, level);
    }
}

void Platform::route(u32 gsi, bool level) {
    if (gsi == 0) return; // taken by the 8259 pair
    if (gsi < 16) pic().set_line(gsi == Pit::gsi ? 0 : gsi, level);
    ioapic().set_line(gsi, level);
}

void Platform::set_intr_line(bool level) {
    ioapic().set_line(0, level);
    host_.set_lint0(level);
}

// Writes down, for each served device on the bus, its doorbells that no other BAR covers.
void Platform::doorbells_changed() {
    PciHost const& bus = devices_.get<PciHost>();
    for (u32 number = 0; number < served_.size(); number++) {
        ServedVirtio const* const device = served_[number];
        u32 const queues = device == nullptr ? 0 : device->queues_with_doorbells();
        if (queues == 0) {
            doorbells_.clear(number);
            continue;
        }
        auto const ports = bus.place_of(*device, VirtioPci::doorbell_bar);
        auto const registers = bus.place_of(*device, VirtioPci::registers_bar);
        doorbells_.set(number, ports.value_or(Doorbells::nowhere),
                       registers ? *registers + VirtioPci::doorbells_at : Doorbells::nowhere, queues);
    }
}

void Platform::legacy_changed() {
    Hpet const& hpet = devices_.get<Hpet>();
    bool const is_replaced = hpet.replaces_legacy();
    route(Pit::gsi, is_replaced ? hpet.legacy_level(0) : devices_.get<Pit>().level());
    route(Rtc::irq, is_replaced ? hpet.legacy_level(1) : devices_.get<Rtc>().level());
    masks_changed();
}

void Platform::masks_changed() {
    bool const is_open = !pic().is_masked(0) || !ioapic().is_masked(Pit::gsi);
    devices_.get<Pit>().set_interrupt_visible(is_open && !devices_.get<Hpet>().replaces_legacy());
}

void Platform::reset() {
    devices_.for_each([](auto& device) { device.reset(); });
    pic().set_level_triggered(AcpiPm::sci_gsi, true);
    masks_changed();
}

void Platform::set_up_as_firmware() {
    auto const out = [this](u64 port, u8 value) { bus_.io(Space::Pio, port, 1, Op::Write, value); };
    constexpr u64 pic1 = 0x20, pic2 = 0xa0, pit_counter = 0x40, pit_control = 0x43;
    constexpr u8 timer_and_cascade = 0x05;
    for (u64 const chip : {pic1, pic2}) { // ICW1 to ICW4 and the mask [intel/8259a]
        bool const is_first = chip == pic1;
        out(chip, 0x11);
        out(chip + 1, is_first ? 0x08 : 0x70);
        out(chip + 1, is_first ? 0x04 : 0x02);
        out(chip + 1, 0x01);
        out(chip + 1, is_first ? static_cast<u8>(~timer_and_cascade) : u8{0xff});
    }
    out(pit_control, 0x34); // counter 0, both bytes, mode 2
    out(pit_counter, 0);    // 65536
    out(pit_counter, 0);
}

namespace {

// What precedes each device's state.
struct RecordHeader {
    u16 device;
    u16 version;
    u32 size;
};

} // namespace

u32 Platform::saved_size() const {
    u32 size = 0;
    devices_.for_each([&]<typename D>(D const&) { size += sizeof(RecordHeader) + sizeof(typename D::State); });
    return size;
}

lib::Result<void> Platform::save(std::span<u8> out) const {
    if (out.size() != saved_size()) return lib::fail(lib::Errc::OutOfRange);
    u8* at = out.data();
    devices_.for_each([&]<typename D>(D const& device) {
        typename D::State const state = device.save();
        RecordHeader const header{Devices::number_of<D>(), D::state_version, sizeof(state)};
        std::memcpy(at, &header, sizeof(header));
        std::memcpy(at + sizeof(header), &state, sizeof(state));
        at += sizeof(header) + sizeof(state);
    });
    return {};
}

lib::Result<void> Platform::restore(std::span<u8 const> in) {
    if (in.size() != saved_size()) return lib::fail(lib::Errc::OutOfRange);
    u8 const* at = in.data();
    lib::Result<void> result;
    devices_.for_each([&]<typename D>(D& device) {
        typename D::State state;
        RecordHeader header;
        std::memcpy(&header, at, sizeof(header));
        std::memcpy(&state, at + sizeof(header), sizeof(state));
        at += sizeof(header) + sizeof(state);
        if (!result) return;
        bool const is_ours = header.device == Devices::number_of<D>() && header.version == D::state_version &&
                             header.size == sizeof(state);
        result = is_ours ? device.restore(state) : lib::fail(lib::Errc::BadFormat);
    });
    if (result) host_.set_lint0(pic().output());
    return result;
}

} // namespace platform
