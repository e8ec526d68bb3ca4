// SPDX-License-Identifier: MIT
#include "description_parser.hpp"
#include "description_values.hpp"
#include <algorithm>

namespace config {
namespace {

// Planned, so a person may have read of them.
constexpr std::array<std::string_view, 1> later_network_keys = {"vlan"};
constexpr std::array<std::string_view, 2> later_nic_keys = {"addresses", "rate"};

} // namespace

void DescriptionParser::network_header(std::string_view name, u32 line, u32 column) {
    if (name.empty() || name.size() > max_vm_name) {
        diagnostics_.add(line, column,
                         "[network.{}]: expected a name of 1 to {} characters, found {}: write [network.NAME]",
                         short_of(name), max_vm_name, name.size());
        return;
    }
    auto const known = out_.all_networks();
    if (auto const same = std::ranges::find(known, name, &NetworkDescription::name); same != known.end()) {
        diagnostics_.add(line, column,
                         "[network.{}]: expected a new name, found the one of line {}: choose another name", name,
                         same->line);
        return;
    }
    if (out_.network_count == max_networks) {
        diagnostics_.add(line, column, "[network.{}]: expected at most {} networks, found more: remove some", name,
                         max_networks);
        return;
    }
    network_ = &out_.networks[out_.network_count++];
    *network_ = {};
    network_->name = name;
    network_->line = line;
    section_ = Section::Network;
}

void DescriptionParser::not_yet(std::string_view word, u32 line, u32 column) {
    diagnostics_.add(line, column, "{}: not supported yet: expected no such line, found one: remove it", word);
}

void DescriptionParser::set_of_network(std::string_view word, Value const& value, u32 line, u32 column) {
    if (std::ranges::contains(later_network_keys, word)) return not_yet(word, line, column);
    auto const* const found = std::ranges::find(network_key_names, word);
    if (found == network_key_names.end()) return unknown("key of a network", word, network_key_names, line, column);
    auto const key = static_cast<NetworkKey>(found - network_key_names.begin());
    u32& first = network_->line_of(key);
    if (first != 0) {
        diagnostics_.add(line, column, "{}: expected once, found also in line {}: remove one", word, first);
        return;
    }
    first = line;
    if (key == NetworkKey::Uplink) return set_uplink(value);
    set_of_nat(key, value);
}

// Whether the machine has that NIC is found when the first VM on the network starts.
void DescriptionParser::set_uplink(Value const& value) {
    std::string_view& text = network_->uplink_text;
    if (value.type == ValueType::String && !take_text("uplink", value, text)) return;
    auto const uplink = value.type == ValueType::String ? parse_uplink(text) : std::nullopt;
    if (!uplink)
        return at(value,
                  "uplink: expected \"first\" or the place of a NIC such as \"pci:00:03.0\", found {}: correct it",
                  short_of(value.source));
    for (NetworkDescription const& other : out_.all_networks()) {
        if (&other == network_ || other.uplink != *uplink) continue;
        return at(value, "uplink: expected another NIC than that of the network in line {}, found the same: {}",
                  other.line, "write another");
    }
    network_->uplink = *uplink;
}

void DescriptionParser::nic_header(VmDescription& vm, u32 line, u32 column) {
    if (vm.nic_count == max_nics) {
        diagnostics_.add(line, column, "[[vm.{}.nic]]: expected at most {} NICs, found more: remove some", vm.name,
                         max_nics);
        vm.is_refused = true;
        return;
    }
    vm_ = &vm;
    nic_ = &vm.nics[vm.nic_count++];
    *nic_ = {};
    nic_->line = line;
    section_ = Section::Nic;
}

void DescriptionParser::set_of_nic(std::string_view word, Value const& value, u32 line, u32 column) {
    if (std::ranges::contains(later_nic_keys, word)) return not_yet(word, line, column);
    auto const* const found = std::ranges::find(nic_key_names, word);
    if (found == nic_key_names.end()) return unknown("key of a NIC", word, nic_key_names, line, column);
    bool const is_mac = static_cast<NicKey>(found - nic_key_names.begin()) == NicKey::Mac;
    u32& first = is_mac ? nic_->mac_line : nic_->network_line;
    if (first != 0) {
        diagnostics_.add(line, column, "{}: expected once, found also in line {}: remove one", word, first);
        return;
    }
    first = line;
    if (is_mac) return set_mac(value);
    if (value.type != ValueType::String || value.string.empty())
        return at(value, "network: expected the name of a [network.NAME], found {}: write \"NAME\"",
                  short_of(value.source));
    (void)take_text("network", value, nic_->network_name);
}

void DescriptionParser::set_mac(Value const& value) {
    auto const mac = value.type == ValueType::String ? parse_mac(value.string) : std::nullopt;
    if (!mac)
        return at(value, "mac: expected an address such as \"52:54:00:12:34:56\", found {}: correct it",
                  short_of(value.source));
    bool const is_group = ((*mac)[0] & 1) != 0; // [802.3] 3.2.3
    if (is_group || *mac == MacAddress{})
        return at(value, "mac: expected the address of one NIC (its first byte even, and not all 0), found {}: {}",
                  short_of(value.source), "correct it");
    nic_->mac = *mac;
}

// When all networks are known.
void DescriptionParser::check_nics(VmDescription& vm) {
    for (NicDescription& nic : std::span(vm.nics).first(vm.nic_count)) {
        if (nic.mac_line == 0) nic.mac = default_mac(vm.name, static_cast<u32>(&nic - vm.nics.data()));
        if (nic.network_line == 0)
            diagnostics_.add(nic.line, 1, "[[vm.{}.nic]]: expected network = ..., found none: add it", vm.name);
        if (nic.network_name.empty()) continue; // a message says so
        auto const known = out_.all_networks();
        auto const found = std::ranges::find(known, nic.network_name, &NetworkDescription::name);
        if (found == known.end()) {
            diagnostics_.add(nic.network_line, 1,
                             "network: expected the name of a [network.NAME], found \"{}\": correct it, or add that",
                             short_of(nic.network_name));
            continue;
        }
        if (found->is_refused) vm.is_refused = true;
        if (found->mode == NetworkMode::Nat && nic.mac == router_mac(nic.network))
            diagnostics_.add(nic.mac_line, 1, "mac: expected another address than that of the network's router, {}",
                             "found the same: write another");
        if (nic.mac != MacAddress{}) check_mac(vm, nic); // else a message says what is wrong with it
    }
}

// Against all NICs before it.
void DescriptionParser::check_mac(VmDescription const& vm, NicDescription const& nic) {
    for (VmDescription const& other : std::span(out_.vms).first(static_cast<std::size_t>(&vm - out_.vms.data()) + 1))
        for (NicDescription const& before : other.all_nics()) {
            if (&before == &nic) return;
            if (before.mac != nic.mac || before.network_name != nic.network_name) continue;
            diagnostics_.add(
                nic.mac_line != 0 ? nic.mac_line : nic.line, 1,
                "mac: expected another address than that of the NIC in line {}, on the same network, found "
                "the same: write another",
                before.line);
            return;
        }
}

} // namespace config
