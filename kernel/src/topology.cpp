// SPDX-License-Identifier: MIT
#include <kernel/topology.hpp>

namespace kernel {
namespace {

using lib::u32;
using lib::u8;

constexpr u32 v2_topology = 0x1f, topology = 0xb;
constexpr u32 type_thread = 1;
constexpr unsigned most_levels = 8;

// Bits that number `count` things.
constexpr u8 bits_for(u32 count) { return count <= 1 ? u8{0} : static_cast<u8>(std::bit_width(count - 1)); }

// False when the leaf is not there.
bool read_extended(TopologyCpuid cpuid, u32 leaf, TopologyLevels& levels) {
    if ((cpuid(leaf, 0).ebx & 0xffff) == 0) return false;
    for (unsigned i = 0; i < most_levels; i++) {
        auto const level = cpuid(leaf, i);
        u32 const type = level.ecx >> 8 & 0xff;
        if (type == 0) break;
        auto const shift = static_cast<u8>(level.eax & 0x1f);
        if (type == type_thread) levels.core_shift = shift;
        levels.package_shift = shift;
    }
    return true;
}

} // namespace

TopologyLevels read_topology_levels(TopologyCpuid cpuid) {
    TopologyLevels levels;
    auto const first = cpuid(0, 0);
    bool const is_amd = first.ebx == 0x6874'7541 || first.ebx == 0x6f67'7948; // "Auth", "Hygo"
    if (first.eax >= v2_topology && read_extended(cpuid, v2_topology, levels)) return levels;
    if (first.eax >= topology && read_extended(cpuid, topology, levels)) return levels;
    auto const basic = cpuid(1, 0);
    bool const has_threads = (basic.edx >> 28 & 1) != 0; // HTT: more than one CPU in the package
    if (!has_threads) return levels;
    u32 const in_package = basic.ebx >> 16 & 0xff;
    levels.package_shift = bits_for(in_package);
    if (is_amd) {
        u32 const last = cpuid(0x8000'0000, 0).eax;
        u32 const sizes = last >= 0x8000'0008 ? cpuid(0x8000'0008, 0).ecx : 0;
        if (u32 const id_bits = sizes >> 12 & 0xf; id_bits != 0) levels.package_shift = static_cast<u8>(id_bits);
        bool const has_extensions = (cpuid(0x8000'0001, 0).ecx >> 22 & 1) != 0;
        if (has_extensions && last >= 0x8000'001e)
            levels.core_shift = bits_for((cpuid(0x8000'001e, 0).ebx >> 8 & 0xff) + 1);
    } else if (first.eax >= 4) {
        u32 const cores = (cpuid(4, 0).eax >> 26) + 1;
        u8 const core_bits = bits_for(cores);
        levels.core_shift =
            levels.package_shift > core_bits ? static_cast<u8>(levels.package_shift - core_bits) : u8{0};
    }
    if (levels.core_shift > levels.package_shift) levels.package_shift = levels.core_shift;
    return levels;
}

u32 Topology::node_number(u32 domain) {
    if (domain == no_domain) return 0;
    for (u32 i = 0; i < node_count_; i++)
        if (domains_[i] == domain) return i;
    if (node_count_ == max_nodes) return 0;
    domains_[node_count_] = domain;
    return node_count_++;
}

u32 Topology::node_of_domain(u32 domain) const {
    for (u32 i = 0; i < node_count_; i++)
        if (domains_[i] == domain) return i;
    return 0;
}

void Topology::add(u32 cpu, u32 apic_id, u32 domain) {
    u32 const thread_mask = (u32{1} << levels_.core_shift) - 1;
    places_[cpu] = {apic_id, apic_id >> levels_.package_shift, apic_id >> levels_.core_shift, apic_id & thread_mask,
                    node_number(domain)};
    count_ = cpu + 1;
}

CpuSet Topology::siblings(u32 cpu) const {
    CpuSet set;
    for (u32 i = 0; i < count_; i++)
        if (places_[i].core == places_[cpu].core) set.add(i);
    return set;
}

CpuSet Topology::cpus_of_node(u32 node) const {
    CpuSet set;
    for (u32 i = 0; i < count_; i++)
        if (places_[i].node == node) set.add(i);
    return set;
}

std::optional<u32> Topology::domain_of(CpuSet const& cpus) const {
    std::optional<u32> node;
    for (u32 i = 0; i < count_; i++) {
        if (!cpus.has(i)) continue;
        if (node && *node != places_[i].node) return std::nullopt;
        node = places_[i].node;
    }
    return node ? std::optional<u32>(domain_of_node(*node)) : std::nullopt;
}

u32 Topology::core_count() const {
    u32 cores = 0;
    for (u32 i = 0; i < count_; i++)
        cores += siblings(i).next(0) == i ? 1 : 0;
    return cores;
}

namespace {
constinit Topology the_topology;
}
Topology& machine_topology() { return the_topology; }

} // namespace kernel
