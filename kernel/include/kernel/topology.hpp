// SPDX-License-Identifier: MIT
#pragma once
// Which CPUs share a core, a package, a NUMA node. Pure: CPUID is asked through a delegate, the node comes from the
// caller (ACPI's proximity domain). Not supported: levels between core and package (module, tile, die), hybrid core
// types.
#include <lib/cpu_set.hpp>
#include <lib/delegate.hpp>
#include <lib/x86/instructions.hpp>
#include <optional>

namespace kernel {

using lib::CpuSet;
using lib::max_cpus;

using TopologyCpuid = lib::Delegate<lib::x86::CpuidResult(lib::u32 leaf, lib::u32 subleaf)>;

// An APIC ID is package : core : thread; here is where each part begins.
struct TopologyLevels {
    lib::u8 core_shift = 0;
    lib::u8 package_shift = 0;
    friend bool operator==(TopologyLevels const&, TopologyLevels const&) = default;
};
// [intel/vol3] 9.9, leaves 1Fh, 0Bh, or 1 and 4; [amd/vol3] E.4.7 and E.4.17, leaves 8000_0008h and 8000_001Eh. With
// none of them every CPU is a core of its own.
TopologyLevels read_topology_levels(TopologyCpuid cpuid);

struct CpuPlace {
    lib::u32 apic_id = 0;
    lib::u32 package = 0; // numbers of the hardware's, with gaps
    lib::u32 core = 0;    // unique in the machine
    lib::u32 thread = 0;
    lib::u32 node = 0; // 0, 1, ... without gaps
};

class Topology {
public:
    void set_levels(TopologyLevels levels) { levels_ = levels; }
    // CPUs are added by rising index, each once.
    void add(lib::u32 cpu, lib::u32 apic_id, lib::u32 domain);

    lib::u32 cpu_count() const { return count_; }
    CpuPlace const& place(lib::u32 cpu) const { return places_[cpu]; }
    // The CPUs of the same core, `cpu` included.
    CpuSet siblings(lib::u32 cpu) const;
    CpuSet cpus_of_node(lib::u32 node) const;
    lib::u32 core_count() const;
    lib::u32 node_count() const { return node_count_ == 0 ? 1 : node_count_; }
    // The node of an ACPI proximity domain; 0 when no CPU lies there.
    lib::u32 node_of_domain(lib::u32 domain) const;
    lib::u32 domain_of_node(lib::u32 node) const { return node < node_count_ ? domains_[node] : 0; }
    // The proximity domain that all of these CPUs are of, if there is one: where a VM on them has its memory best.
    std::optional<lib::u32> domain_of(CpuSet const& cpus) const;

private:
    static constexpr lib::u32 no_domain = 0xffff'ffff; // drivers::AcpiCpu
    static constexpr lib::u32 max_nodes = 64;
    lib::u32 node_number(lib::u32 domain);

    TopologyLevels levels_{};
    std::array<CpuPlace, max_cpus> places_{};
    std::array<lib::u32, max_nodes> domains_{};
    lib::u32 count_ = 0;
    lib::u32 node_count_ = 0;
};

Topology& machine_topology();

} // namespace kernel
