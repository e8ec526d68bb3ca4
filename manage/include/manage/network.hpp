// SPDX-License-Identifier: MIT
#pragma once
// NICs of VMs and the service that serves them, which carries frames between those of one network, and to the outside
// by the machine's NICs that it drives.
#include <config/description.hpp>
#include <manage/controllers.hpp>
#include <manage/served_devices.hpp>

namespace manage {

// What the router of a network says.
struct RouterFigures {
    bool is_present = false; // else the rest means nothing
    lib::service::RouterStatistics said{};
};

// What is counted at the port of a NIC or an uplink.
struct PortFigures {
    bool is_attached = false; // else the rest means nothing
    lib::service::PortStatistics said{};
};

class Network final : public ServedDevices {
public:
    static constexpr std::string_view service_name = "network";
    static constexpr u32 queue_count = 2; // of a NIC
    // All of it lives until the NIC has left.
    struct Nic {
        DeviceOwner* owner;
        u32 number;                                           // among the devices of its owner
        std::span<vm::RamBlock const> ram;                    // of the guest
        std::span<config::NetworkDescription const> networks; // all of them: the same for each NIC
        u32 network;
        config::MacAddress mac;
        u32 address = 0; // IPv4, behind a router; 0: there is none
    };

    Network(kernel::Services& services, std::span<u8 const> program)
        : ServedDevices(services, service_name, program),
          controllers_(lib::Delegate<void(u32)>::to<&Network::interrupt_came>(*this), Controllers::Line{}) {}

    // In the run loop of CPU 0. Starts the service with the first NIC, and gives it the uplinks of all networks.
    // Returns the NIC's number here; an error is a sentence without its subject.
    std::expected<u32, std::string_view> attach(Nic const& nic);

    // Of a VM's NIC, and of the uplink of a network, by its number among all.
    PortFigures figures_of(std::string_view owner, u32 nic) const;
    PortFigures figures_of_uplink(u32 network) const;
    RouterFigures figures_of_router(u32 network) const;

    // kernel::ServiceHost
    lib::Result<void> furnish(kernel::Service& instance) override;
    void ended() override;
    u64 call(lib::service::Call number, u64 first, u64 second) override;

private:
    lib::Result<void> make_pages();
    lib::Result<void> describe_routers(std::span<config::NetworkDescription const> networks);
    void draw_seed();
    PortFigures figures_at(u32 port) const;
    lib::service::PortTable& counts() const;
    void take_uplinks(std::span<config::NetworkDescription const> networks);
    void interrupt_came(u32 controller) { services().post(service(), lib::service::event_controller(controller)); }

    Controllers controllers_;
    lib::HostPhys counts_frame_{}, routing_frames_{};
    bool has_routers_ = false;
    bool has_pages_ = false;
    bool has_uplinks_ = false; // those that there are have been taken
};

} // namespace manage
