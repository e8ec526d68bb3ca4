// SPDX-License-Identifier: MIT
// The monitor's commands about networks.
#include <algorithm>
#include <manage/monitor.hpp>
#include <manage/port_figures.hpp>

namespace manage {
namespace {

// Of each network, as if each VM had as many NICs on it as it may have: its name, its router, the columns, the uplink,
// the NICs.
constexpr u32 router_line = 1, columns_line = 2, uplink_line = 3, first_nic_line = 4;
constexpr u32 lines_of_network = first_nic_line + lib::max_vms * config::max_nics;

} // namespace

void Monitor::print_mac(config::MacAddress const& mac) {
    for (std::size_t i = 0; i < mac.size(); i++)
        lib::format(terminal_, i == 0 ? "{:02x}" : ":{:02x}", mac[i]);
}

PortFigures Monitor::uplink_of(u32 network) const {
    return network_ == nullptr ? PortFigures{} : network_->figures_of_uplink(network);
}

RouterFigures Monitor::router_of(u32 network) const {
    return network_ == nullptr ? RouterFigures{} : network_->figures_of_router(network);
}

// At most 2 * lib::max_networks lines, and one for each NIC of a VM.
void Monitor::net_list(Words const&) {
    auto const networks = vms_.networks();
    if (networks.empty()) return terminal_.write("no network is described\n");
    for (config::NetworkDescription const& network : networks) {
        auto const number = static_cast<u32>(&network - networks.data());
        print_network(terminal_, network, uplink_of(number));
        if (network.mode == config::NetworkMode::Nat) print_router(terminal_, network, router_of(number));
        for (u32 i = 0; i < vms_.vm_count(); i++) {
            VmStatus const vm = vms_.vm_status(i);
            for (config::NicDescription const& nic : vm.nics) {
                if (nic.network_name != network.name) continue;
                terminal_.write("  ");
                print_mac(nic.mac);
                lib::format(terminal_, "  vm {}, nic {}, {}", vm.name, &nic - vm.nics.data(), name_of(vm.phase));
                if (nic.address != 0) lib::format(terminal_, ", {}", lib::Ipv4Text(nic.address).view());
                terminal_.write("\n");
            }
        }
    }
}

void Monitor::net_show(Words const& arguments) {
    auto const networks = vms_.networks();
    if (networks.empty()) return terminal_.write("no network is described\n");
    position_ = 0;
    end_ = networks.size() * lines_of_network;
    if (arguments.size() > 0) {
        auto const found = std::ranges::find(networks, arguments[0], &config::NetworkDescription::name);
        if (found == networks.end()) return lib::format(terminal_, "there is no network {}\n", arguments[0]);
        position_ = static_cast<std::size_t>(found - networks.begin()) * lines_of_network;
        end_ = position_ + lines_of_network;
    }
    mode_ = Mode::Ports;
    continue_printing();
}

void Monitor::print_port_line(u32 index) {
    u32 const number = index / lines_of_network, line = index % lines_of_network;
    config::NetworkDescription const& network = vms_.networks()[number];
    if (line == 0) return print_network(terminal_, network, uplink_of(number));
    if (line == router_line) {
        if (network.mode != config::NetworkMode::Nat) return;
        print_router(terminal_, network, router_of(number));
        return print_routed(terminal_, router_of(number));
    }
    if (line == columns_line) return print_port_heading(terminal_);
    if (line == uplink_line) {
        bool const has_uplink = network.uplink.kind != config::UplinkDescription::Kind::None;
        if (has_uplink) print_port(terminal_, {}, 0, uplink_of(number));
        return;
    }
    u32 const vm = (line - first_nic_line) / config::max_nics, nic = (line - first_nic_line) % config::max_nics;
    if (vm >= vms_.vm_count()) return;
    VmStatus const status = vms_.vm_status(vm);
    if (nic >= status.nics.size() || status.nics[nic].network_name != network.name) return;
    print_port(terminal_, status.name, nic,
               network_ == nullptr ? PortFigures{} : network_->figures_of(status.name, nic));
}

} // namespace manage
