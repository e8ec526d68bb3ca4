#include <cstring>
#include <lib/assert.hpp>
#include <platform/platform.hpp>

namespace platform {
namespace {

constexpr u32 com1_irq = 4;

constexpr u16 id_of(DeviceId id) { return static_cast<u16>(id); }

} // namespace

// The devices get *this while it is under construction: they keep it, and call only now(), which needs host_ alone.
Platform::Platform(PlatformConfig const& config)
    : host_(config.host), pic_(*this), ioapic_(*this, id_of(DeviceId::Ioapic)), pit_(*this, id_of(DeviceId::Pit)),
      rtc_(*this, id_of(DeviceId::Rtc),
           RtcConfig{config.wall_clock_at_start_seconds, config.ram_below_4g, config.ram_above_4g, config.vcpu_count}),
      hpet_(*this, id_of(DeviceId::Hpet)), acpi_pm_(*this, id_of(DeviceId::AcpiPm)),
      com1_(*this, config.host, com1_irq), i8042_(*this), system_ports_(*this) {
    attach_devices();
    pic_.listen(lib::Delegate<void()>::to<&Platform::masks_changed>(*this),
                lib::Delegate<void()>::to<&Platform::before_irr_is_read>(*this));
    ioapic_.listen(lib::Delegate<void()>::to<&Platform::masks_changed>(*this));
    rtc_.listen(lib::Delegate<void()>::to<&AcpiPm::rtc_alarm>(acpi_pm_));
    hpet_.listen(lib::Delegate<void()>::to<&Platform::legacy_changed>(*this));
    pic_.set_level_triggered(AcpiPm::sci_gsi, true); // as firmware does
    masks_changed();
}

void Platform::claim(Device& device, u16 number, Space space, u64 base, u64 size, u8 width) {
    ASSERT(bus_.attach(device, number, Region{base, size, space, false}, width).has_value());
}

void Platform::attach_devices() {
    ASSERT(attach(pit_, id_of(DeviceId::Pit)).has_value());
    ASSERT(attach(rtc_, id_of(DeviceId::Rtc)).has_value());
    ASSERT(attach(acpi_pm_, id_of(DeviceId::AcpiPm)).has_value());
    ASSERT(attach(com1_, id_of(DeviceId::Com1)).has_value());
    ASSERT(attach(ioapic_, id_of(DeviceId::Ioapic)).has_value());
    ASSERT(attach(hpet_, id_of(DeviceId::Hpet)).has_value());

    claim(pic_, PicPair::Master, Space::Pio, 0x20, 2, 1);
    claim(pic_, PicPair::Slave, Space::Pio, 0xa0, 2, 1);
    claim(pic_, PicPair::Elcr, Space::Pio, 0x4d0, 2, 1);
    claim(ioapic_, 0, Space::Mmio, Ioapic::default_base, Ioapic::window_size, 4);
    claim(hpet_, 0, Space::Mmio, Hpet::base, Hpet::window_size, 8);
    claim(pit_, Pit::Counters, Space::Pio, 0x40, 4, 1);
    claim(pit_, Pit::SystemControl, Space::Pio, 0x61, 1, 1);
    claim(rtc_, 0, Space::Pio, 0x70, 4, 1);
    claim(com1_, 0, Space::Pio, 0x3f8, SerialPort::port_count, 1);
    claim(acpi_pm_, AcpiPm::Pm1Event, Space::Pio, AcpiPm::pm1a_evt, 4, 4);
    claim(acpi_pm_, AcpiPm::Pm1Control, Space::Pio, AcpiPm::pm1a_cnt, 2, 2);
    claim(acpi_pm_, AcpiPm::PmTimer, Space::Pio, AcpiPm::pm_tmr, 4, 4);
    claim(i8042_, I8042::Data, Space::Pio, 0x60, 1, 1);
    claim(i8042_, I8042::Command, Space::Pio, 0x64, 1, 1);
    claim(system_ports_, SystemPorts::ResetControl, Space::Pio, SystemPorts::reset_control_port, 1, 1);
    claim(system_ports_, SystemPorts::Port92, Space::Pio, 0x92, 1, 1);
    claim(system_ports_, SystemPorts::PostCode, Space::Pio, 0x80, 1, 1);
    claim(system_ports_, SystemPorts::Delay, Space::Pio, 0xed, 1, 1);
}

lib::Result<void> Platform::attach(Device& device, u16 id) {
    if (id >= devices_.size() || devices_[id] != nullptr) return lib::fail(lib::Errc::OutOfRange);
    devices_[id] = &device;
    return {};
}

void Platform::set_irq_line(u32 gsi, bool level) {
    bool const is_replaced = hpet_.replaces_legacy();
    if (gsi == Hpet::legacy_lines || gsi == Hpet::legacy_lines + 1) {
        if (is_replaced) route(gsi == Hpet::legacy_lines ? Pit::gsi : Rtc::irq, level);
    } else if (!is_replaced || (gsi != Pit::gsi && gsi != Rtc::irq)) {
        route(gsi, level);
    }
}

void Platform::route(u32 gsi, bool level) {
    if (gsi == 0) return; // taken by the 8259 pair
    if (gsi < 16) pic_.set_line(gsi == Pit::gsi ? 0 : gsi, level);
    ioapic_.set_line(gsi, level);
}

void Platform::set_intr_line(bool level) {
    ioapic_.set_line(0, level);
    host_.set_intr_line(level);
}

void Platform::legacy_changed() {
    bool const is_replaced = hpet_.replaces_legacy();
    route(Pit::gsi, is_replaced ? hpet_.legacy_level(0) : pit_.level());
    route(Rtc::irq, is_replaced ? hpet_.legacy_level(1) : rtc_.level());
    masks_changed();
}

void Platform::masks_changed() {
    bool const is_open = !pic_.is_masked(0) || !ioapic_.is_masked(Pit::gsi);
    pit_.set_interrupt_visible(is_open && !hpet_.replaces_legacy());
}

void Platform::reset() {
    // Interrupt controllers first, so that lines which fall are seen by controllers with nothing enabled.
    pic_.reset();
    pic_.set_level_triggered(AcpiPm::sci_gsi, true);
    ioapic_.reset();
    for (Device* const device : devices_)
        if (device != nullptr) device->reset();
    i8042_.reset();
    system_ports_.reset();
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
constexpr u32 record_size(u32 state_size) { return static_cast<u32>(sizeof(RecordHeader)) + state_size; }

} // namespace

template <typename Self, typename Visit> void Platform::for_each_saveable(Self& self, Visit visit) {
    u16 number = 0;
    auto const one = [&]<typename D>(D& device) {
        static_assert(Saveable<std::remove_const_t<D>>);
        visit(number++, device);
    };
    one(self.pic_);
    one(self.ioapic_);
    one(self.pit_);
    one(self.rtc_);
    one(self.hpet_);
    one(self.acpi_pm_);
    one(self.com1_);
    one(self.i8042_);
    one(self.system_ports_);
}

u32 Platform::saved_size() {
    return record_size(sizeof(PicPair::State)) + record_size(sizeof(Ioapic::State)) + record_size(sizeof(Pit::State)) +
           record_size(sizeof(Rtc::State)) + record_size(sizeof(Hpet::State)) + record_size(sizeof(AcpiPm::State)) +
           record_size(sizeof(SerialPort::State)) + record_size(sizeof(I8042::State)) +
           record_size(sizeof(SystemPorts::State));
}

lib::Result<void> Platform::save(std::span<u8> out) const {
    if (out.size() != saved_size()) return lib::fail(lib::Errc::OutOfRange);
    u64 at = 0;
    for_each_saveable(*this, [&](u16 number, auto const& device) {
        auto const state = device.save();
        RecordHeader const header{number, device.state_version, sizeof(state)};
        std::memcpy(&out[at], &header, sizeof(header));
        std::memcpy(&out[at + sizeof(header)], &state, sizeof(state));
        at += record_size(sizeof(state));
    });
    return {};
}

lib::Result<void> Platform::restore(std::span<u8 const> in) {
    if (in.size() != saved_size()) return lib::fail(lib::Errc::OutOfRange);
    u64 at = 0;
    lib::Result<void> result;
    for_each_saveable(*this, [&](u16 number, auto& device) {
        typename std::remove_reference_t<decltype(device)>::State state;
        RecordHeader header;
        std::memcpy(&header, &in[at], sizeof(header));
        std::memcpy(&state, &in[at + sizeof(header)], sizeof(state));
        at += record_size(sizeof(state));
        if (!result) return;
        if (header.device != number || header.version != device.state_version || header.size != sizeof(state))
            result = lib::fail(lib::Errc::BadFormat);
        else
            result = device.restore(state);
    });
    if (result) host_.set_intr_line(pic_.output());
    return result;
}

} // namespace platform
