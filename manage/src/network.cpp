// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <cstring>
#include <kernel/log.hpp>
#include <kernel/random.hpp>
#include <manage/network.hpp>

namespace manage {
namespace {

using config::UplinkDescription;
using kernel::PciFunction;
namespace service = lib::service;

static_assert(sizeof(service::PortTable) <= lib::page_size);
static_assert(service::max_forwards == config::max_forwards);
constexpr unsigned routing_order = std::bit_width(service::routing_size / lib::page_size - 1);

bool is_meant(UplinkDescription const& uplink, PciFunction const& function) {
    if (uplink.kind == UplinkDescription::Kind::First)
        return Controllers::is_nic(function) && function.owner == kernel::PciOwner::Nobody;
    return function.address == kernel::PciAddress{uplink.segment, uplink.bus, uplink.device, uplink.function};
}

PciFunction* find(kernel::Pci& pci, UplinkDescription const& uplink) {
    for (u32 i = 0; PciFunction* const function = pci.function(i); i++)
        if (is_meant(uplink, *function)) return function;
    return nullptr;
}

} // namespace

std::expected<u32, std::string_view> Network::attach(Nic const& nic) {
    if (!make_pages()) return std::unexpected("there is too little memory for the network service");
    if (!has_uplinks_ && !describe_routers(nic.networks))
        return std::unexpected("there is too little memory for the routers of networks");
    take_uplinks(nic.networks);
    if (auto const started = start_service(); !started) return std::unexpected(started.error());
    service::DeviceEntry entry{};
    entry.kind = service::DeviceKind::Net;
    entry.network = nic.network;
    entry.address = nic.address;
    std::ranges::copy(nic.mac, entry.mac);
    auto const added = add({.owner = nic.owner,
                            .number = nic.number,
                            .queue_count = queue_count,
                            .ram = nic.ram,
                            .medium = {},
                            .is_medium_read_only = false,
                            .is_reached_by_dma = false},
                           entry);
    if (added) counts().ports[*added] = {};
    return added;
}

lib::Result<void> Network::make_pages() {
    if (has_pages_) return {};
    TRY(ServedDevices::make_pages());
    counts_frame_ = TRY(kernel::allocate_zeroed_frame());
    has_pages_ = true;
    return {};
}

service::PortTable& Network::counts() const { return *kernel::phys_to_virt<service::PortTable>(counts_frame_); }

namespace {

service::RouterEntry describe(config::NetworkDescription const& network, u32 number) {
    config::NatDescription const& nat = network.nat;
    service::RouterEntry entry{};
    entry.is_present = 1;
    entry.address = nat.router();
    entry.prefix_length = nat.subnet.prefix_length;
    entry.outside_address = nat.outside.address;
    entry.outside_prefix_length = nat.outside.prefix_length;
    entry.gateway = nat.gateway;
    entry.name_server = nat.name_server;
    for (config::ForwardDescription const& forward : nat.all_forwards()) {
        bool const is_tcp = forward.protocol == config::ForwardProtocol::Tcp;
        entry.forwards[entry.forward_count++] = {is_tcp ? service::Transport::Tcp : service::Transport::Udp,
                                                 forward.address, forward.outside_port, forward.inside_port};
    }
    std::ranges::copy(config::router_mac(number), entry.mac);
    return entry;
}

} // namespace

// Before the service starts.
lib::Result<void> Network::describe_routers(std::span<config::NetworkDescription const> networks) {
    if (has_routers_) return {};
    for (config::NetworkDescription const& network : networks) {
        if (network.mode != config::NetworkMode::Nat || network.is_refused) continue;
        if (!has_routers_) {
            routing_frames_ = TRY(kernel::allocate_frames(routing_order));
            std::memset(kernel::phys_to_virt<u8>(routing_frames_), 0, service::routing_size);
            has_routers_ = true;
        }
        auto const number = static_cast<u32>(&network - networks.data());
        board().routers[number] = describe(network, number);
    }
    return {};
}

// Other numbers for each instance: by what the last one has shown, nobody can guess its ports.
void Network::draw_seed() {
    std::array<u8, sizeof(service::Board::seed)> bytes{};
    u32 const count = kernel::has_random() ? kernel::random(bytes) : 0;
    std::memcpy(board().seed, bytes.data(), count);
}

RouterFigures Network::figures_of_router(u32 network) const {
    RouterFigures figures;
    if (!has_routers_ || network >= lib::max_networks || board().routers[network].is_present == 0) return figures;
    figures.is_present = true;
    std::memcpy(&figures.said, &counts().routers[network], sizeof(figures.said));
    return figures;
}

// A copy: the service may write to the page at any time.
PortFigures Network::figures_at(u32 port) const {
    PortFigures figures{.is_attached = true};
    std::memcpy(&figures.said, &counts().ports[port], sizeof(figures.said));
    return figures;
}

PortFigures Network::figures_of(std::string_view owner, u32 nic) const {
    u32 const number = lib::max_disks + nic; // the owner counts its disks first
    for (u32 i = 0; i < most; i++)
        if (owner_of(i) != nullptr && number_of(i) == number && owner_of(i)->owner_name() == owner)
            return figures_at(i);
    return {};
}

PortFigures Network::figures_of_uplink(u32 network) const {
    for (u32 i = 0; has_pages_ && i < service::max_controllers; i++) {
        service::ControllerEntry const& entry = board().controllers[i];
        if (entry.kind == service::ControllerKind::E1000 && entry.network == network)
            return figures_at(service::max_devices + i);
    }
    return {};
}

// A network whose uplink cannot be had joins its VMs all the same. Places come before "first", which takes what is
// left.
void Network::take_uplinks(std::span<config::NetworkDescription const> networks) {
    if (has_uplinks_) return;
    has_uplinks_ = true;
    kernel::Pci* const pci = kernel::machine_pci();
    for (auto const kind : {UplinkDescription::Kind::Pci, UplinkDescription::Kind::First})
        for (config::NetworkDescription const& network : networks) {
            if (network.uplink.kind != kind || network.is_refused) continue;
            PciFunction* const function = pci != nullptr ? find(*pci, network.uplink) : nullptr;
            auto const number = static_cast<u32>(&network - networks.data());
            std::string_view why = "there is no such NIC";
            if (function != nullptr && !Controllers::is_nic(*function)) {
                why = "there is no driver for it";
            } else if (function != nullptr) {
                auto const taken = controllers_.take_nic(*pci, *function, number, board().controllers);
                if (taken) continue;
                why = name_of(taken.error());
            }
            kernel::log_error("network {}: uplink {}: {}; the network stays internal", network.name,
                              network.uplink_text, why);
        }
}

void Network::ended() {
    controllers_.stop();
    for (u32 i = 0; i < service::max_controllers; i++)
        counts().ports[service::max_devices + i].link = service::LinkState::Unknown;
}

lib::Result<void> Network::furnish(kernel::Service& instance) {
    TRY(instance.map(
        {lib::HostVirt{service::statistics_at}, counts_frame_, lib::page_size, kernel::Rights::ReadWrite}));
    if (has_routers_) {
        draw_seed();
        TRY(instance.map(
            {lib::HostVirt{service::routing_at}, routing_frames_, service::routing_size, kernel::Rights::ReadWrite}));
    }
    TRY(controllers_.furnish(instance));
    return ServedDevices::furnish(instance);
}

u64 Network::call(service::Call number, u64 first, u64 second) {
    using service::Call;
    if (number == Call::Interrupt || number == Call::Misuse || number == Call::Stopped)
        return ServedDevices::call(number, first, second);
    return controllers_.call(number, first, second);
}

} // namespace manage
