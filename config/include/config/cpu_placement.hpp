// SPDX-License-Identifier: MIT
#pragma once
// Which of the machine's processors VMs get: whether what a description, or the operator, asks for can be had beside
// the other VMs. Processor 0 is where Mullion does its own work, so nobody has that to himself. Two VMs never run on
// siblings of one core at the same time, unless the description says share_cores = true.
#include <config/description.hpp>

namespace config {

using lib::u16;
using lib::u32;

// The machine's processors: 0 to count - 1, and which of them are threads of one core.
struct HostCpus {
    explicit HostCpus(u32 number) : count(number) {
        for (u32 cpu = 0; cpu < max_cpus; cpu++)
            core[cpu] = static_cast<u16>(cpu);
    }
    // These, and the other threads of their cores.
    CpuSet cores_of(CpuSet const& cpus) const;

    u32 count;
    std::array<u16, max_cpus> core; // any number, equal for threads of one core
};

struct PlacementProblem {
    Key key{}; // the mistake is in its line
    std::array<char, 200> text{};
    u16 length = 0;
    std::string_view message() const { return {text.data(), length}; }
};

// Whether VM `index` of `description` can have `wanted` on a machine with these processors. Beside all other VMs that
// are not refused, whether they run or not.
bool check_placement(Description const& description, u32 index, CpuPlacement const& wanted, HostCpus const& host,
                     PlacementProblem& problem);
// The same for every VM in order, each beside those before it. Those that cannot be are refused, with a diagnostic.
void check_placements(Description& description, HostCpus const& host, Diagnostics& diagnostics);
// The processors that a VM may use, when check_placement() has nothing against it.
CpuSet processors_for(Description const& description, u32 index, CpuPlacement const& wanted, u32 cpu_count);

// Changes `placement` by a word such as "cpus=1-2", "cpus=any", "exclusive=true", "weight=200" or "cap=50" ("cap=0":
// none). False: `error` says what was expected.
bool change_placement(std::string_view word, CpuPlacement& placement, lib::TextSink& error);
// "1-2,4", or "any".
void format_cpus(lib::TextSink& sink, CpuSet const& cpus);

} // namespace config
