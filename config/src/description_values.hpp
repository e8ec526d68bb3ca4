// SPDX-License-Identifier: MIT
#pragma once
// Values within the strings of a description, and how near two words are.
#include <config/description.hpp>
#include <optional>
#include <string_view>

namespace config {

using lib::u32;
using lib::u64;

// "256M", "1G", "512 MiB"; K, M, G and T count in powers of 1024.
std::optional<u64> parse_size(std::string_view text);
// "1-2,4"; every number below max_cpus.
bool parse_cpu_list(std::string_view text, CpuSet& out);
// "52:54:00:12:34:56"
std::optional<MacAddress> parse_mac(std::string_view text);
// "first", "pci:00:03.0" or "pci:0000:00:03.0"
std::optional<UplinkDescription> parse_uplink(std::string_view text);
// "192.0.2.1"
std::optional<u32> parse_ipv4(std::string_view text);
// "192.0.2.0/24"
std::optional<SubnetDescription> parse_subnet(std::string_view text);
// "tcp 8080 -> web:80"; the line is not set.
std::optional<ForwardDescription> parse_forward(std::string_view text);
// The address of a VM's NIC for which none is given: the same each time, and for each NIC another one.
MacAddress default_mac(std::string_view vm, u32 nic);
// How many letters must be inserted, removed or replaced; words longer than 24 letters are far from everything.
u32 distance(std::string_view a, std::string_view b);

} // namespace config
