// SPDX-License-Identifier: MIT
#pragma once
// Every device of the platform: the one list that a new device is added to. From it follow their numbers, their order
// of construction and reset, which regions are attached, and the saved state.
#include <platform/acpi_pm.hpp>
#include <platform/hpet.hpp>
#include <platform/i8042.hpp>
#include <platform/ioapic.hpp>
#include <platform/pci_host.hpp>
#include <platform/pic.hpp>
#include <platform/pit.hpp>
#include <platform/rtc.hpp>
#include <platform/serial_port.hpp>
#include <platform/system_ports.hpp>
#include <platform/virtio_blk.hpp>
#include <platform/virtio_net.hpp>
#include <platform/virtio_rng.hpp>
#include <tuple>
#include <utility>

namespace platform {

template <typename D>
concept ListedDevice = std::derived_from<D, Device> && Saveable<D> && std::constructible_from<D, Plug const&> &&
                       requires(D const& device) { std::span<Region const>(device.regions); };

template <ListedDevice... D> class DeviceList {
public:
    static constexpr u16 count = sizeof...(D);
    // The number under which events reach a device.
    template <typename Wanted> static constexpr u16 number_of() {
        u16 number = 0;
        static_cast<void>(((std::is_same_v<D, Wanted> || (number++, false)) || ...));
        return number;
    }

    DeviceList(Host& host, Wires& wires, lib::GuestMemory const& memory, MachineFacts const& facts)
        : devices_(Plug{host, wires, memory, facts, number_of<D>()}...) {}

    template <typename Wanted> Wanted& get() { return std::get<Wanted>(devices_); }
    template <typename Wanted> Wanted const& get() const { return std::get<Wanted>(devices_); }
    // Calls `visit` with each, in the order of the list.
    template <typename Visit> void for_each(Visit visit) { (visit(std::get<D>(devices_)), ...); }
    template <typename Visit> void for_each(Visit visit) const { (visit(std::get<D>(devices_)), ...); }

private:
    std::tuple<D...> devices_;
};

// Interrupt controllers come before what they serve, so that lines which fall in a reset are seen by controllers with
// nothing enabled. PciHost comes first: a later device covers its windows and is found before them, and so does the
// reset register at 0xcf9 cover a byte of the configuration address port. A device with a `pci_slot` is plugged in
// there.
using Devices = DeviceList<PciHost, PicPair, Ioapic, Pit, Rtc, Hpet, AcpiPm, SerialPort, I8042, SystemPorts, VirtioRng,
                           Disk<0>, Disk<1>, Disk<2>, Disk<3>, Nic<0>, Nic<1>>;
static_assert(lib::max_disks == 4 && lib::max_nics == 2);

} // namespace platform
