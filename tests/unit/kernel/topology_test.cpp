// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <kernel/topology.hpp>
#include <map>

using namespace kernel;
using lib::u32;

namespace {

// CPUID as a table; what is not in it reads as 0, as behind the last leaf of an AMD CPU.
struct CpuidTable {
    std::map<std::pair<u32, u32>, lib::x86::CpuidResult> leaves;
    lib::x86::CpuidResult read(u32 leaf, u32 subleaf) {
        auto const found = leaves.find({leaf, subleaf});
        return found == leaves.end() ? lib::x86::CpuidResult{} : found->second;
    }
    TopologyLevels levels() { return read_topology_levels(TopologyCpuid::to<&CpuidTable::read>(*this)); }
};

constexpr u32 intel = 0x756e'6547, amd = 0x6874'7541;
constexpr u32 htt = 1U << 28;

} // namespace

TEST(Topology, Leaf1FWithDiesEndsAtThePackage) {
    CpuidTable cpuid{{{{0, 0}, {0x1f, intel, 0, 0}},
                      {{0x1f, 0}, {1, 2, 0x100, 0}},
                      {{0x1f, 1}, {5, 32, 0x201, 0}},
                      {{0x1f, 2}, {6, 64, 0x502, 0}}}};
    EXPECT_EQ(cpuid.levels(), (TopologyLevels{1, 6}));
}

TEST(Topology, LeafBWithoutThreads) {
    CpuidTable cpuid{{{{0, 0}, {0xd, intel, 0, 0}}, {{0xb, 0}, {0, 1, 0x100, 0}}, {{0xb, 1}, {3, 8, 0x201, 0}}}};
    EXPECT_EQ(cpuid.levels(), (TopologyLevels{0, 3}));
}

TEST(Topology, EmptyLeaf1FFallsBackToLeafB) {
    CpuidTable cpuid{{{{0, 0}, {0x1f, intel, 0, 0}}, {{0xb, 0}, {1, 2, 0x100, 0}}, {{0xb, 1}, {4, 16, 0x201, 0}}}};
    EXPECT_EQ(cpuid.levels(), (TopologyLevels{1, 4}));
}

TEST(Topology, AmdExtendedLeaves) {
    CpuidTable cpuid{{{{0, 0}, {0xa, amd, 0, 0}},
                      {{1, 0}, {0, 16U << 16, 0, htt}},
                      {{0x8000'0000, 0}, {0x8000'001e, 0, 0, 0}},
                      {{0x8000'0001, 0}, {0, 0, 1U << 22, 0}},
                      {{0x8000'0008, 0}, {0, 0, 4U << 12 | 15, 0}},
                      {{0x8000'001e, 0}, {0, 1U << 8, 0, 0}}}};
    EXPECT_EQ(cpuid.levels(), (TopologyLevels{1, 4}));
}

TEST(Topology, OldIntelWithLeaf4) {
    CpuidTable cpuid{{{{0, 0}, {5, intel, 0, 0}}, {{1, 0}, {0, 8U << 16, 0, htt}}, {{4, 0}, {3U << 26, 0, 0, 0}}}};
    EXPECT_EQ(cpuid.levels(), (TopologyLevels{1, 3}));
}

TEST(Topology, NothingKnownMakesEveryCpuACore) {
    CpuidTable cpuid{{{{0, 0}, {1, intel, 0, 0}}}};
    EXPECT_EQ(cpuid.levels(), (TopologyLevels{0, 0}));
}

TEST(Topology, LyingShiftsStayInBounds) {
    CpuidTable cpuid{
        {{{0, 0}, {0xb, intel, 0, 0}}, {{0xb, 0}, {0xffff'ffff, 1, 0x100, 0}}, {{0xb, 1}, {0xffff'ffff, 1, 0x201, 0}}}};
    auto const levels = cpuid.levels();
    Topology topology;
    topology.set_levels(levels);
    topology.add(0, 0xffff'fffe, 0);
    EXPECT_EQ(topology.core_count(), 1U);
}

TEST(Topology, SiblingsAndNodes) {
    Topology topology;
    topology.set_levels({1, 3});
    u32 const domains[] = {7, 7, 7, 7, 3, 3, 3, 3};
    for (u32 i = 0; i < 8; i++)
        topology.add(i, i < 4 ? i : i + 4, domains[i]); // second package: APIC IDs 8 to 11
    EXPECT_EQ(topology.siblings(2), CpuSet::single(2) | CpuSet::single(3));
    EXPECT_EQ(topology.core_count(), 4U);
    EXPECT_EQ(topology.node_count(), 2U);
    EXPECT_EQ(topology.node_of_domain(3), 1U);
    EXPECT_EQ(topology.place(5).package, 1U);
    EXPECT_EQ(topology.place(5).thread, 1U);
    CpuSet second;
    for (u32 i = 4; i < 8; i++)
        second.add(i);
    EXPECT_EQ(topology.cpus_of_node(1), second);
    EXPECT_EQ(topology.domain_of(second), std::optional(topology.domain_of_node(1)));
    second.add(0);
    EXPECT_EQ(topology.domain_of(second), std::nullopt); // of both nodes
    EXPECT_EQ(topology.domain_of(CpuSet{}), std::nullopt);
}

TEST(Topology, NoSratIsOneNode) {
    Topology topology;
    topology.add(0, 0, 0xffff'ffff);
    topology.add(1, 1, 0xffff'ffff);
    EXPECT_EQ(topology.node_count(), 1U);
    EXPECT_EQ(topology.cpus_of_node(0).count(), 2U);
    EXPECT_EQ(topology.core_count(), 2U);
}

TEST(CpuSet, WalksItsMembers) {
    CpuSet set;
    for (u32 const cpu : {0U, 63U, 64U, 255U})
        set.add(cpu);
    std::vector<u32> seen;
    set.for_each([&](u32 cpu) { seen.push_back(cpu); });
    EXPECT_EQ(seen, (std::vector<u32>{0, 63, 64, 255}));
    EXPECT_EQ(set.count(), 4U);
    EXPECT_FALSE(set.has(256));
    EXPECT_EQ(CpuSet{}.next(0), max_cpus);
}
