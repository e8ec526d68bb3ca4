// SPDX-License-Identifier: MIT
// The monitor's commands about networks.
#include <manage/monitor.hpp>

namespace manage {

void Monitor::print_mac(config::MacAddress const& mac) {
    for (std::size_t i = 0; i < mac.size(); i++)
        lib::format(terminal_, i == 0 ? "{:02x}" : ":{:02x}", mac[i]);
}

// At most lib::max_networks lines, and one for each NIC of a VM.
void Monitor::net_list(Words const&) {
    auto const networks = vms_.networks();
    if (networks.empty()) return terminal_.write("no network is described\n");
    for (config::NetworkDescription const& network : networks) {
        bool const has_uplink = network.uplink.kind != config::UplinkDescription::Kind::None;
        lib::format(terminal_, "{}: {}{}\n", network.name, has_uplink ? "uplink " : "internal",
                    has_uplink ? network.uplink_text : "");
        for (u32 i = 0; i < vms_.vm_count(); i++) {
            VmStatus const vm = vms_.vm_status(i);
            for (config::NicDescription const& nic : vm.nics) {
                if (nic.network_name != network.name) continue;
                terminal_.write("  ");
                print_mac(nic.mac);
                lib::format(terminal_, "  vm {}, nic {}, {}\n", vm.name, &nic - vm.nics.data(), name_of(vm.phase));
            }
        }
    }
}

} // namespace manage
