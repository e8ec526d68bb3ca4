// SPDX-License-Identifier: MIT
#pragma once
// The virtual platform of one VM: a PC's chipset with one PCI bus. Owns every device by value, wires their lines to the
// 8259 pair and the I/O APIC, and finds the device for an access.
//
// Global system interrupts: 0 is the 8259 pair's INTR on input 0 of the I/O APIC, 2 is ISA IRQ 0, 3 to 15 are the ISA
// IRQs of that number, 16 to 19 are PCI's pins, 20 to 23 the HPET's; from 16 on they reach the I/O APIC only. One
// device drives one line; the HPET's first two comparators can take the lines of the PIT and the RTC.
//
// Not supported: DMA controllers, floppy, keyboard.
#include <array>
#include <platform/bus.hpp>
#include <platform/device_list.hpp>
#include <platform/doorbells.hpp>
#include <span>

namespace platform {

class Platform final : private Wires {
public:
    // `memory`: the guest's, for devices that read and write it.
    Platform(Host& host, lib::GuestMemory const& memory, MachineFacts const& facts);
    Platform(Platform const&) = delete;
    Platform& operator=(Platform const&) = delete;

    // One access of a vCPU. Unclaimed reads give all ones; only the low `size` bytes of the reply count.
    IoReply io(Space space, u64 address, u8 size, Op op, u64 data) { return bus_.io(space, address, size, op, data); }
    void io_string(u16 port, u8 size, Op op, std::span<u8> bytes) { bus_.io_string(port, size, op, bytes); }
    void on(Event const& event) {
        if (event.device < by_number_.size()) by_number_[event.device]->on(event);
    }
    void reset();
    // Brings the 8259 pair and the PIT where a PC's BIOS leaves them: vectors 8 and 70h, the PIT's interrupt open and
    // running at 18.2 Hz. Kernels that wait with HLT before they have set anything up depend on it. [ibm/at]
    void set_up_as_firmware();
    // What the one that serves a device's queues says. It is not trusted: a number that is out of range, a device that
    // is not there and a queue that is not started are ignored, and so are interrupts and misuse while a stop is under
    // way. `device` counts as in Host::start_served_queue().
    void served_interrupt(u32 device, u32 queue) {
        if (device < served_.size()) served_[device]->serving_interrupts(queue);
    }
    // The driver broke a rule in a queue, which is served no more: the driver must reset the device.
    void served_misused(u32 device) {
        if (device < served_.size()) served_[device]->serving_found_misuse();
    }
    // The earliest Host::stop_served_queues() of the device that is under way has taken effect: nothing of it touches
    // the guest's memory any more.
    void served_stopped(u32 device) {
        if (device < served_.size()) served_[device]->serving_stopped();
    }
    // For vCPUs, without the lock that everything else here needs.
    Doorbells const& doorbells() const { return doorbells_; }
    void power_button() { devices_.get<AcpiPm>().power_button(); }

    // The INTA cycle of whoever takes INTR or an ExtINT message.
    u8 acknowledge_interrupt() { return pic().acknowledge(); }
    bool has_pic_interrupt() const { return devices_.get<PicPair>().output(); }
    // A local APIC's EOI of `vector` for a level-triggered interrupt.
    void end_of_interrupt(u8 vector) { ioapic().end_of_interrupt(vector); }
    bool eoi_wanted(u8 vector) const { return eoi_vectors().contains(vector); }
    // The vectors for which eoi_wanted() is true, for an EOI-exit bitmap; the flag is true once after each change.
    VectorSet const& eoi_vectors() const { return devices_.get<Ioapic>().eoi_vectors(); }
    bool take_eoi_vectors_changed() { return ioapic().take_eoi_vectors_changed(); }

    // What restore() needs to build the same machine at the same moment of Host::now() elsewhere. Fails with OutOfRange
    // when the buffer is not of saved_size() bytes, restore() with BadFormat when the bytes are not a saved state; then
    // nothing has changed, or the platform must be reset.
    u32 saved_size() const;
    lib::Result<void> save(std::span<u8> out) const;
    lib::Result<void> restore(std::span<u8 const> in);

    // A level on one of the platform's inputs.
    void set_irq_line(u32 gsi, bool level) override;

private:
    void set_intr_line(bool level) override;
    void doorbells_changed() override;
    void masks_changed();
    void legacy_changed();
    void route(u32 gsi, bool level);
    void before_irr_is_read() { devices_.get<Pit>().catch_up(); }
    PicPair& pic() { return devices_.get<PicPair>(); }
    Ioapic& ioapic() { return devices_.get<Ioapic>(); }

    Host& host_;
    lib::GuestMemory memory_;
    Bus bus_;
    std::array<Device*, Devices::count> by_number_{};
    std::array<ServedVirtio*, lib::max_served_devices> served_{};
    Doorbells doorbells_;
    Devices devices_;
};

} // namespace platform
