// SPDX-License-Identifier: MIT
// Networks with a router: `mode = "nat"` and the keys that belong to it.
#include "description_parser.hpp"
#include "description_values.hpp"
#include <algorithm>

namespace config {
namespace {

constexpr u32 shortest_prefix = 8, longest_prefix = 30;
constexpr u32 default_subnet = 10U << 24 | 77U << 16; // 10.77.N.0/24, for network N
constexpr u32 default_prefix = 24;

} // namespace

void DescriptionParser::set_of_nat(NetworkKey key, Value const& value) {
    NatDescription& nat = network_->nat;
    switch (key) {
    case NetworkKey::Uplink: return;
    case NetworkKey::Mode: return set_mode(value);
    case NetworkKey::Subnet: return set_subnet("subnet", value, nat.subnet);
    case NetworkKey::Address: return set_subnet("address", value, nat.outside);
    case NetworkKey::Gateway: return set_address("gateway", value, nat.gateway);
    case NetworkKey::Dns: return set_address("dns", value, nat.name_server);
    case NetworkKey::Forward: return set_forwards(value);
    }
}

void DescriptionParser::set_mode(Value const& value) {
    bool const is_text = value.type == ValueType::String;
    if (is_text && value.string == "routed")
        return at(value, "mode: \"routed\" is not supported yet: expected \"bridge\" or \"nat\": choose one");
    if (!is_text || (value.string != "bridge" && value.string != "nat"))
        return at(value, "mode: expected \"bridge\" or \"nat\", found {}: choose one", short_of(value.source));
    network_->mode = value.string == "nat" ? NetworkMode::Nat : NetworkMode::Bridge;
}

void DescriptionParser::set_subnet(std::string_view key, Value const& value, SubnetDescription& target) {
    auto const subnet = value.type == ValueType::String ? parse_subnet(value.string) : std::nullopt;
    if (!subnet || subnet->prefix_length < shortest_prefix || subnet->prefix_length > longest_prefix ||
        !lib::is_ipv4_of_a_station(subnet->address))
        return at(value,
                  "{}: expected an IPv4 address and a length of {} to {}, such as \"10.77.1.{}/24\", found {}: {}", key,
                  shortest_prefix, longest_prefix, key == "subnet" ? 0 : 2, short_of(value.source), "correct it");
    target = *subnet;
}

void DescriptionParser::set_address(std::string_view key, Value const& value, u32& target) {
    auto const address = value.type == ValueType::String ? parse_ipv4(value.string) : std::nullopt;
    if (!address || !lib::is_ipv4_of_a_station(*address))
        return at(value, "{}: expected an IPv4 address such as \"192.0.2.1\", found {}: correct it", key,
                  short_of(value.source));
    target = *address;
}

void DescriptionParser::set_forwards(Value const& value) {
    if (value.type != ValueType::Array)
        return at(value, "forward: expected a list such as [\"tcp 8080 -> web:80\"], found {}: write it in brackets",
                  short_of(value.source));
    for_each_item(value, &DescriptionParser::add_forward);
}

void DescriptionParser::add_forward(Value const& item) {
    std::string_view text;
    if (item.type == ValueType::String && !take_text("forward", item, text)) return;
    auto const forward = item.type == ValueType::String ? parse_forward(text) : std::nullopt;
    if (!forward)
        return at(item, "forward: expected protocol and ports such as \"tcp 8080 -> web:80\", found {}: correct it",
                  short_of(item.source));
    NatDescription& nat = network_->nat;
    for (ForwardDescription const& other : nat.all_forwards())
        if (other.protocol == forward->protocol && other.outside_port == forward->outside_port)
            return at(item, "forward: expected another port than that of line {}, found {} {} twice: remove one",
                      other.line, forward->protocol == ForwardProtocol::Tcp ? "tcp" : "udp", forward->outside_port);
    if (nat.forward_count == max_forwards)
        return at(item, "forward: expected at most {} of one network, found more: remove some", max_forwards);
    ForwardDescription& made = nat.forwards[nat.forward_count++];
    made = *forward;
    made.line = item.line;
}

// When all tables are known.
void DescriptionParser::find_networks_of_nics() {
    auto const known = out_.all_networks();
    for (VmDescription& vm : std::span(out_.vms).first(out_.count))
        for (NicDescription& nic : std::span(vm.nics).first(vm.nic_count)) {
            auto const found = std::ranges::find(known, nic.network_name, &NetworkDescription::name);
            nic.network = found != known.end() ? static_cast<u32>(found - known.begin()) : max_networks;
        }
}

void DescriptionParser::check_network() {
    if (network_->mode == NetworkMode::Nat) return check_nat();
    constexpr std::array only_of_nat = {NetworkKey::Subnet, NetworkKey::Address, NetworkKey::Gateway, NetworkKey::Dns,
                                        NetworkKey::Forward};
    for (NetworkKey const key : only_of_nat)
        if (u32 const line = network_->line_of(key); line != 0 && !network_->is_refused)
            diagnostics_.add(line, 1, "{}: expected only with mode = \"nat\", found without: add that, or remove it",
                             network_key_names[static_cast<std::size_t>(key)]);
}

void DescriptionParser::check_nat() {
    if (network_->line_of(NetworkKey::Uplink) == 0)
        diagnostics_.add(network_->line_of(NetworkKey::Mode), 1,
                         "mode: expected uplink = ... with \"nat\", found none: add it, or remove mode");
    SubnetDescription& subnet = network_->nat.subnet;
    u32 const number = static_cast<u32>(network_ - out_.networks.data());
    if (subnet.prefix_length == 0) subnet = {default_subnet + (number << 8), default_prefix};
    if (network_->is_refused) return; // a message says why
    check_addresses();
    give_addresses();
    check_forwards();
}

void DescriptionParser::check_addresses() {
    NatDescription const& nat = network_->nat;
    u32 const gateway_line = network_->line_of(NetworkKey::Gateway),
              address_line = network_->line_of(NetworkKey::Address);
    if (gateway_line != 0 && address_line == 0)
        diagnostics_.add(gateway_line, 1,
                         "gateway: expected only with address = ..., found without: add it, or remove gateway");
    if (address_line == 0) return;
    if (gateway_line != 0 && (!nat.outside.contains(nat.gateway) || nat.gateway == nat.outside.address))
        diagnostics_.add(gateway_line, 1,
                         "gateway: expected another address in the network of address = ..., found none such: {}",
                         "correct it");
    if (nat.subnet.contains(nat.outside.address) || nat.outside.contains(nat.subnet.address))
        diagnostics_.add(address_line, 1, "address: expected one outside of the subnet of the VMs, {}/{}, {}",
                         lib::Ipv4Text(nat.subnet.address & nat.subnet.mask()).view(), nat.subnet.prefix_length,
                         "found one inside: choose another subnet");
}

// In the order of the file, so that a VM has the same address each time.
void DescriptionParser::give_addresses() {
    NatDescription const& nat = network_->nat;
    u32 const number = static_cast<u32>(network_ - out_.networks.data()), last = nat.router() | ~nat.subnet.mask();
    u32 next = nat.router() + 1;
    for (VmDescription& vm : std::span(out_.vms).first(out_.count))
        for (NicDescription& nic : std::span(vm.nics).first(vm.nic_count)) {
            if (nic.network != number) continue;
            if (next == last) // which is for all stations
                return diagnostics_.add(network_->line_of(NetworkKey::Subnet), 1,
                                        "subnet: expected an address for each NIC on the network, found too few: {}",
                                        "choose a shorter prefix");
            nic.address = next++;
        }
}

void DescriptionParser::check_forwards() {
    NatDescription& nat = network_->nat;
    for (ForwardDescription& forward : std::span(nat.forwards).first(nat.forward_count)) {
        auto const vms = std::span(out_.vms).first(out_.count);
        if (!std::ranges::contains(vms, forward.vm, &VmDescription::name)) {
            diagnostics_.add(forward.line, 1,
                             "forward: expected the name of a VM, found \"{}\": correct it, or add that",
                             short_of(forward.vm));
            continue;
        }
        forward.address = address_of(forward.vm);
        if (forward.address == 0)
            diagnostics_.add(forward.line, 1, "forward: expected a VM with a NIC on network {}, found none of {}: {}",
                             network_->name, forward.vm, "add a [[vm.NAME.nic]], or remove this");
    }
}

// Of the VM's first NIC on this network; 0: it has none.
u32 DescriptionParser::address_of(std::string_view vm) const {
    auto const number = static_cast<u32>(network_ - out_.networks.data());
    for (VmDescription const& one : std::span(out_.vms).first(out_.count))
        for (NicDescription const& nic : one.all_nics())
            if (one.name == vm && nic.network == number) return nic.address;
    return 0;
}

} // namespace config
