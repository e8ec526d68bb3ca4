// SPDX-License-Identifier: MIT
#pragma once
// NICs of VMs and the service that serves them, which carries frames between those of one network.
#include <config/description.hpp>
#include <manage/served_devices.hpp>

namespace manage {

class Network final : public ServedDevices {
public:
    static constexpr std::string_view service_name = "network";
    static constexpr u32 queue_count = 2; // of a NIC
    // All of it lives until the NIC has left.
    struct Nic {
        DeviceOwner* owner;
        u32 number;                        // among the devices of its owner
        std::span<vm::RamBlock const> ram; // of the guest
        u32 network;
        config::MacAddress mac;
    };

    Network(kernel::Services& services, std::span<u8 const> program) : ServedDevices(services, service_name, program) {}

    // In the run loop of CPU 0. Starts the service with the first NIC. Returns the NIC's number here; an error is a
    // sentence without its subject.
    std::expected<u32, std::string_view> attach(Nic const& nic);

    // kernel::ServiceHost
    void ended() override {} // nothing writes to memory but its instructions
};

} // namespace manage
