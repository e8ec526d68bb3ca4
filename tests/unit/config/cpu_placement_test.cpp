// SPDX-License-Identifier: MIT
#include "parsed.hpp"
#include <config/cpu_placement.hpp>

#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace {

using namespace config;

struct Placed {
    Placed(std::string source, u32 cpu_count) : Placed(std::move(source), HostCpus(cpu_count)) {}
    Placed(std::string source, HostCpus const& host) : text(std::move(source)) {
        parse_description(text, description, diagnostics);
        check_placements(description, host, diagnostics);
    }
    std::vector<std::string> messages() const { return messages_of(diagnostics); }
    // The names of those that may start.
    std::string good() const {
        std::string names;
        for (u32 i = 0; i < description.count; i++)
            if (!description.vms[i].is_refused) names += std::string(description.vms[i].name) + " ";
        return names;
    }
    std::string text;
    Description description;
    Diagnostics diagnostics;
};

std::string vm(std::string const& name, std::string const& more) {
    return "[vm." + name + "]\nmemory = \"64M\"\nkernel = \"k\"\n" + more;
}
std::string const two_to_itself = "vcpus = 2\ncpus = \"1-2\"\nexclusive = true\n";

using Messages = std::vector<std::string>;

TEST(CpuPlacement, ThreeVmsOnFourProcessors) {
    Placed const placed(vm("a", two_to_itself) + vm("b", "cpus = \"3\"\n") + vm("c", "vcpus = 9\n"), 4);
    EXPECT_EQ(placed.messages(), Messages{});
    EXPECT_EQ(placed.good(), "a b c ");
}

TEST(CpuPlacement, ProcessorsThatDoNotExist) {
    Placed const placed(vm("a", "cpus = \"2-5,9\"\n") + vm("b", ""), 4);
    EXPECT_EQ(placed.messages(), Messages{"f:4: cpus: expected processors of this machine, which has 0 to 3, found "
                                          "4-5,9: leave out what it has not"});
    EXPECT_EQ(placed.good(), "b ");
}

TEST(CpuPlacement, TwoThatWantTheSameToThemselves) {
    Placed const placed(vm("a", two_to_itself) + vm("b", "exclusive = true\ncpus = [2, 3]\n") + vm("c", ""), 4);
    EXPECT_EQ(placed.messages(), Messages{"f:11: cpus: expected processors that no other VM has to itself, found 2, "
                                          "which [vm.a] of line 1 has: choose another"});
    EXPECT_EQ(placed.good(), "a c ");
}

TEST(CpuPlacement, ARefusedVmTakesNothing) {
    Placed const placed(vm("a", two_to_itself + "bogus = 1\n") + vm("b", two_to_itself), 4);
    EXPECT_EQ(placed.good(), "b ");
}

TEST(CpuPlacement, ProcessorZeroIsMullions) {
    Placed const placed(vm("a", "exclusive = true\ncpus = \"0-1\"\n"), 4);
    EXPECT_EQ(placed.messages(),
              Messages{"f:5: cpus: expected processors other than 0, where Mullion does its own work, "
                       "for exclusive = true, found 0-1: leave it out"});
}

TEST(CpuPlacement, NoneLeftForMullion) {
    Placed const placed(vm("a", "exclusive = true\nvcpus = 2\n") + vm("b", "exclusive = true\nvcpus = 2\n"), 4);
    EXPECT_EQ(
        placed.messages(),
        Messages{"f:9: exclusive: expected at most 3 vcpus with a processor to themselves, beside those with cpus "
                 "and Mullion's own processor 0, found 4: lower vcpus or share processors"});
    EXPECT_EQ(placed.good(), "a ");
    EXPECT_EQ(Placed(vm("a", "exclusive = true\n"), 1).good(), "");
    EXPECT_EQ(Placed(vm("a", "exclusive = true\n"), 2).good(), "a ");
}

TEST(CpuPlacement, MoreExclusiveVcpusThanProcessors) {
    Placed const placed(vm("a", "exclusive = true\ncpus = \"1-2\"\nvcpus = 3\n"), 4);
    EXPECT_EQ(placed.messages(),
              Messages{"f:5: cpus: expected at least 3 processors for exclusive vcpus, found 2: add processors"});
    EXPECT_EQ(placed.good(), "");
}

TEST(CpuPlacement, NobodyIsLeftWithoutAProcessor) {
    Placed const first(vm("a", two_to_itself) + vm("b", "cpus = \"2\"\n"), 4);
    EXPECT_EQ(first.messages(),
              Messages{"f:10: cpus: expected a processor of a core that no other VM has to itself, found only "
                       "such, 2: choose another"});
    Placed const second(vm("b", "cpus = \"2\"\n") + vm("a", two_to_itself), 4);
    EXPECT_EQ(second.messages(),
              Messages{"f:9: cpus: expected to leave [vm.b] of line 1 a processor, found all that it "
                       "may use: choose others"});
    EXPECT_EQ(second.good(), "b ");
}

TEST(CpuPlacement, ThreadsOfOneCoreAreForOneVm) {
    HostCpus host(6); // threads of a core: 0 and 3, 1 and 4, 2 and 5
    for (u32 cpu = 0; cpu < host.count; cpu++)
        host.core[cpu] = static_cast<u16>(cpu % 3);
    std::string const own = vm("a", "cpus = \"1\"\nexclusive = true\n");
    Placed const two(own + vm("b", "cpus = \"4\"\nexclusive = true\n") + vm("c", "cpus = \"2,5\"\nexclusive = true\n"),
                     host);
    EXPECT_EQ(two.messages(),
              Messages{"f:9: cpus: expected processors of cores that no other VM has to itself, found a thread "
                       "of the core of 1, which [vm.a] of line 1 has: choose another"});
    EXPECT_EQ(two.good(), "a c ");
    Placed const starved(own + vm("b", "cpus = \"4\"\n"), host);
    EXPECT_EQ(starved.good(), "a ");
    EXPECT_EQ(Placed(vm("b", "cpus = \"4\"\n") + own, host).good(), "b ");
    EXPECT_EQ(
        Placed("[mullion]\nshare_cores = true\n" + own + vm("b", "cpus = \"4\"\nexclusive = true\n"), host).good(),
        "a b ");
    // Whoever names none is left whole cores: here those of 2 and 5, and 3 beside Mullion's own.
    EXPECT_EQ(Placed(own + vm("b", "vcpus = 3\nexclusive = true\n"), host).good(), "a b ");
    EXPECT_EQ(Placed(own + vm("b", "vcpus = 4\nexclusive = true\n"), host).good(), "a ");
}

TEST(CpuPlacement, WhatAVmMayUse) {
    Placed const placed(
        vm("a", two_to_itself) + vm("b", "exclusive = true\n") + vm("c", "") + vm("d", "cpus=\"0,3\"\n"), 5);
    auto const text = [&](u32 index) {
        std::array<char, 40> buffer{};
        lib::BufferSink sink(buffer);
        format_cpus(sink, processors_for(placed.description, index, placed.description.vms[index], 5));
        return std::string(sink.view());
    };
    EXPECT_EQ(placed.messages(), Messages{});
    EXPECT_EQ(text(0), "1-2");
    EXPECT_EQ(text(1), "3-4") << "neither Mullion's nor what another names";
    EXPECT_EQ(text(2), "0-4");
    EXPECT_EQ(text(3), "0,3");
}

TEST(CpuPlacement, WordsChangeIt) {
    CpuPlacement placement;
    auto const change = [&](std::string_view word) {
        std::array<char, 200> buffer{};
        lib::BufferSink sink(buffer);
        return std::string(change_placement(word, placement, sink) ? "" : sink.view());
    };
    EXPECT_EQ(change("cpus=1-2,7"), "");
    EXPECT_EQ(placement.cpus.count(), 3U);
    EXPECT_EQ(change("exclusive=true"), "");
    EXPECT_TRUE(placement.exclusive);
    EXPECT_EQ(change("exclusive=false"), "");
    EXPECT_FALSE(placement.exclusive);
    EXPECT_EQ(change("weight=10000"), "");
    EXPECT_EQ(change("cap=0"), "");
    EXPECT_EQ(placement.share.weight, 10'000U);
    EXPECT_EQ(change("cpus=any"), "");
    EXPECT_TRUE(placement.cpus.is_empty());
    EXPECT_EQ(change("cpus="), "cpus: expected processors such as 1-2,4 or any, found ");
    EXPECT_EQ(change("cpus=256"), "cpus: expected processors such as 1-2,4 or any, found 256");
    EXPECT_EQ(change("weight=0"), "weight: expected 1 to 10000, found 0");
    EXPECT_EQ(change("weight=5x"), "weight: expected 1 to 10000, found 5x");
    EXPECT_EQ(change("cap=101"), "cap: expected percent of a CPU, 1 to 100, or 0 for none, found 101");
    EXPECT_EQ(change("exclusive"), "exclusive: expected true or false, found ");
    EXPECT_EQ(change("colour=red"), "expected cpus=, exclusive=, weight= or cap=, found colour=red");
    EXPECT_EQ(placement.share.weight, 10'000U) << "what is refused changes nothing";
}

TEST(CpuPlacement, ListsAreShort) {
    std::array<char, 60> buffer{};
    lib::BufferSink sink(buffer);
    CpuSet cpus;
    for (u32 const cpu : {0U, 1U, 3U, 254U, 255U})
        cpus.add(cpu);
    format_cpus(sink, cpus);
    EXPECT_EQ(sink.view(), "0-1,3,254-255");
}

} // namespace
