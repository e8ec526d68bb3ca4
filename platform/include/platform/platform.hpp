#pragma once
// The virtual platform of one VM: a PC's chipset without PCI. Owns every device by value, is the Host they see, and
// routes their lines to the 8259 pair and the I/O APIC.
//
// Global system interrupts: 0 is the 8259 pair's INTR on input 0 of the I/O APIC, 2 is ISA IRQ 0, 3 to 15 are the ISA
// IRQs of that number, 16 to 23 reach the I/O APIC only. One source drives one line; the HPET's first two comparators
// can take the lines of the PIT and the RTC.
//
// Not supported: PCI (reads of 0xcf8 and 0xcfc float), DMA controllers, floppy, keyboard.
#include <array>
#include <platform/acpi_pm.hpp>
#include <platform/bus.hpp>
#include <platform/hpet.hpp>
#include <platform/i8042.hpp>
#include <platform/ioapic.hpp>
#include <platform/pic.hpp>
#include <platform/pit.hpp>
#include <platform/rtc.hpp>
#include <platform/serial_port.hpp>
#include <platform/system_ports.hpp>
#include <span>

namespace platform {

struct PlatformConfig {
    Host& host;
    u64 wall_clock_at_start_seconds; // UTC since 1970, at host.now() of construction
    u32 vcpu_count;
    u64 ram_below_4g;
    u64 ram_above_4g;
};

// Who an Event is for. Devices that are attached later take numbers from FirstFree on.
enum class DeviceId : u16 { Pit, Rtc, AcpiPm, Com1, Ioapic, Hpet, FirstFree };

class Platform final : public Host {
public:
    static constexpr u32 max_devices = 32;

    explicit Platform(PlatformConfig const& config);
    Platform(Platform const&) = delete;
    Platform& operator=(Platform const&) = delete;

    // One access of a vCPU. Unclaimed reads give all ones; only the low `size` bytes of the reply count.
    IoReply io(Space space, u64 address, u8 size, Op op, u64 data) { return bus_.io(space, address, size, op, data); }
    void io_string(u16 port, u8 size, Op op, std::span<u8> bytes) { bus_.io_string(port, size, op, bytes); }
    void on(Event const& event) {
        if (event.device < devices_.size() && devices_[event.device] != nullptr) devices_[event.device]->on(event);
    }
    void reset();
    // Brings the 8259 pair and the PIT where a PC's BIOS leaves them: vectors 8 and 70h, the PIT's interrupt open and
    // running at 18.2 Hz. Kernels that wait with HLT before they have set anything up depend on it. [ibm/at]
    void set_up_as_firmware();
    void power_button() { acpi_pm_.power_button(); }

    // The INTA cycle of whoever takes INTR or an ExtINT message.
    u8 acknowledge_interrupt() { return pic_.acknowledge(); }
    bool has_pic_interrupt() const { return pic_.output(); }
    // A local APIC's EOI of `vector` for a level-triggered interrupt.
    void end_of_interrupt(u8 vector) { ioapic_.end_of_interrupt(vector); }
    bool eoi_wanted(u8 vector) const { return ioapic_.eoi_vectors().contains(vector); }
    // The vectors for which eoi_wanted() is true, for an EOI-exit bitmap; the flag is true once after each change.
    VectorSet const& eoi_vectors() const { return ioapic_.eoi_vectors(); }
    bool take_eoi_vectors_changed() { return ioapic_.take_eoi_vectors_changed(); }

    // For a device outside of this class, at construction of the VM. `id` gets its events; see Bus::attach for the
    // rest.
    lib::Result<void> attach(Device& device, u16 id);
    Bus& bus() { return bus_; }

    // What restore() needs to build the same machine at the same moment of Host::now() elsewhere. Fails with OutOfRange
    // when the buffer is not of saved_size() bytes, restore() with BadFormat when the bytes are not a saved state; then
    // nothing has changed, or the platform must be reset.
    static u32 saved_size();
    lib::Result<void> save(std::span<u8> out) const;
    lib::Result<void> restore(std::span<u8 const> in);

    // Host, as the devices see it.
    Nanos now() override { return host_.now(); }
    void arm_timer(u16 device, u32 id, u64 generation, Nanos deadline) override {
        host_.arm_timer(device, id, generation, deadline);
    }
    void cancel_timer(u16 device, u32 id) override { host_.cancel_timer(device, id); }
    void set_irq_line(u32 gsi, bool level) override;
    void set_intr_line(bool level) override;
    void send_msi(Msi message) override { host_.send_msi(message); }
    u32 console_write(std::span<u8 const> bytes) override { return host_.console_write(bytes); }
    u32 console_read(std::span<u8> bytes) override { return host_.console_read(bytes); }
    void request(VmRequest what) override { host_.request(what); }

private:
    void attach_devices();
    void claim(Device& device, u16 number, Space space, u64 base, u64 size, u8 width);
    void masks_changed();
    void legacy_changed();
    void route(u32 gsi, bool level);
    void before_irr_is_read() { pit_.catch_up(); }
    template <typename Self, typename Visit> static void for_each_saveable(Self& self, Visit visit);

    Host& host_;
    Bus bus_;
    std::array<Device*, max_devices> devices_{};
    PicPair pic_;
    Ioapic ioapic_;
    Pit pit_;
    Rtc rtc_;
    Hpet hpet_;
    AcpiPm acpi_pm_;
    SerialPort com1_;
    I8042 i8042_;
    SystemPorts system_ports_;
};

} // namespace platform
