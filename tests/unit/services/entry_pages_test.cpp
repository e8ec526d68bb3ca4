// SPDX-License-Identifier: MIT
// What of Mullion is mapped while ring 3 runs on a CPU that is open to Meltdown: the pages of kernel/entry_pages.hpp.
#include "services/service_machine.hpp"

#include <kernel/entry_pages.hpp>
#include <map>

extern "C" char const entry_start[];
extern "C" char const entry_end[];

namespace services {
namespace {

using kernel::PageEntry;
using kernel::Rights;
namespace x86 = lib::x86;

constexpr u64 upper_half = 0xffff'8000'0000'0000;
constexpr u64 arch_capabilities_bit = 1U << 29, RDCL_NO = 1;

TEST_F(KernelCpu, AnIntelCpuIsOpenToMeltdownUnlessItSaysOtherwise) {
    auto const is_open = [&](u32 edx) {
        cpu.set_cpuid(7, {0, 0, 0, edx});
        kernel::detect_cpu_features();
        return kernel::cpu_features().open_to_meltdown;
    };
    EXPECT_TRUE(is_open(0));
    cpu.populate_read_only_msr(x86::IA32_ARCH_CAPABILITIES, ~RDCL_NO);
    EXPECT_TRUE(is_open(arch_capabilities_bit));
    cpu.populate_read_only_msr(x86::IA32_ARCH_CAPABILITIES, RDCL_NO);
    EXPECT_FALSE(is_open(arch_capabilities_bit));
    EXPECT_TRUE(is_open(0)) << "the MSR is not there";
    cpu.set_cpuid(0, {1, 0x756e'6547, 0x6c65'746e, 0x4965'6e69});
    EXPECT_TRUE(is_open(arch_capabilities_bit)) << "there is no leaf 7";
}

TEST_F(KernelCpu, NoCpuOfAmdOrHygonIsOpenToMeltdown) {
    for (u32 const ebx : {0x6874'7541U, 0x6f67'7948U}) {
        cpu.set_cpuid(0, {7, ebx, 0, 0});
        kernel::detect_cpu_features();
        EXPECT_FALSE(kernel::cpu_features().open_to_meltdown);
    }
}

class EntryPages : public ServiceTest {
protected:
    struct Leaf {
        u64 to;
        u64 size;
        Rights rights;
        bool is_user;
        bool operator==(Leaf const&) const = default;
    };
    using Leaves = std::map<u64, Leaf>; // by virtual address

    EntryPages() {
        // In Mullion's own table everything has a second address in the upper half.
        static bool const is_mapped =
            kernel::kernel_page_table()
                .map(lib::HostVirt{upper_half}, lib::HostPhys{0}, u64{1} << 47, Rights::ReadWrite)
                .has_value();
        EXPECT_TRUE(is_mapped);
        cpu.set_cpuid(0x8000'0001, {0, 0, 0, 1U << 20}); // NX
        kernel::detect_cpu_features();
        cpu.cr3 = kernel::kernel_page_table().root().value;
    }
    ~EntryPages() override {
        kernel::choose_service_page_tables(false); // as other tests want it
    }
    static void collect(u64 table, unsigned level, u64 virt, bool is_user, Leaves& found) {
        for (u64 i = 0; i < 512; i++) {
            PageEntry const entry = kernel::phys_to_virt<PageEntry>(lib::HostPhys{table})[i];
            if (!entry.get<PageEntry::Present>()) continue;
            u64 const size = u64{1} << (12 + 9 * (level - 1));
            u64 at = virt + i * size;
            if (level == 4 && i >= 256) at |= upper_half;
            bool const is_user_here = is_user && entry.get<PageEntry::User>();
            if (level == 1 || entry.get<PageEntry::Large>())
                found[at] = {entry.address().value, size, entry.rights(), is_user_here};
            else
                collect(entry.address().value, level - 1, at, is_user_here, found);
        }
    }
    // What the CPU finds in ring 3's tables, with each right only where all levels give it.
    static Leaves walk(u64 root) {
        Leaves found;
        collect(root, 4, 0, true, found);
        return found;
    }
    static void add(Leaves& to, void const* begin, u64 size, Rights rights) {
        auto const at = reinterpret_cast<u64>(begin);
        for (u64 offset = 0; offset < size; offset += lib::page_size)
            to[(at + offset) | upper_half] = {at + offset, lib::page_size, rights, false};
    }
    static Leaves allowed(void const* context) {
        Leaves pages;
        add(pages, entry_start, static_cast<u64>(entry_end - entry_start), Rights::ReadExecute);
        add(pages, kernel::interrupt_table().data(), lib::page_size, Rights::Read);
        for (u32 i = 0; i < kernel::cpu_count(); i++)
            add(pages, &kernel::cpu(i).tables, lib::page_size, Rights::ReadWrite);
        add(pages, context, lib::page_size, Rights::ReadWrite);
        return pages;
    }
    static Leaves closed_to_ring_3(Leaves const& all) {
        Leaves closed;
        for (auto const& [at, leaf] : all)
            if (!leaf.is_user) closed[at] = leaf;
        return closed;
    }
};

// The guests' memory, which `host` maps, is the service's to read.
TEST_F(EntryPages, NothingElseOfMullionIsMappedInRing3) {
    kernel::choose_service_page_tables(true);
    host.shows_page = true;
    program.emplace_back([&](auto& frame) {
        auto* const context = reinterpret_cast<UserContext*>(&frame);
        auto const found = walk(context->root);
        EXPECT_EQ(closed_to_ring_3(found), allowed(context));
        EXPECT_TRUE(found.contains(Host::page_at));
        for (auto const& [at, leaf] : found) {
            if (!leaf.is_user) continue;
            EXPECT_LT(at, u64{1} << 47);
            EXPECT_NE(leaf.rights, Rights::All);
        }
        call(frame, 1, ~u64{0}, abi::no_deadline);
    });
    services.add("one", file.bytes, &host);
    run_all();
    EXPECT_EQ(entries, 1U);
    EXPECT_TRUE(has_logged("Mullion's memory is not mapped while they run (as the option says)")) << log.text;
}

TEST_F(EntryPages, WhatIsMappedBesidesFillsItsPages) {
    static_assert(sizeof(kernel::DescriptorTables) == lib::page_size);
    static_assert(sizeof(UserContext) == lib::page_size);
    EXPECT_EQ(kernel::interrupt_table().size_bytes(), lib::page_size);
    EXPECT_EQ(reinterpret_cast<u64>(kernel::interrupt_table().data()) % lib::page_size, 0U);
    EXPECT_EQ(reinterpret_cast<u64>(&kernel::this_cpu().tables) % lib::page_size, 0U);
}

TEST_F(EntryPages, EachServiceHasItsOwnRegistersOnly) {
    kernel::choose_service_page_tables(true);
    std::vector<UserContext*> contexts;
    auto const note_context = [&](auto& frame) {
        contexts.push_back(reinterpret_cast<UserContext*>(&frame));
        call(frame, 1, ~u64{0}, abi::no_deadline);
    };
    program = {note_context, note_context};
    services.add("one", file.bytes);
    services.add("two", file.bytes);
    run_all();
    ASSERT_EQ(contexts.size(), 2U);
    for (u32 i = 0; i < 2; i++) {
        auto const found = walk(contexts[i]->root);
        EXPECT_TRUE(found.contains(reinterpret_cast<u64>(contexts[i]) | upper_half));
        EXPECT_FALSE(found.contains(reinterpret_cast<u64>(contexts[1 - i]) | upper_half));
    }
}

// The tables change where ring 3 begins and ends: all of Mullion's code in C++ runs on its own.
TEST_F(EntryPages, MullionRunsOnItsOwnTablesAllTheTime) {
    kernel::choose_service_page_tables(true);
    u64 const own = cpu.cr3;
    program.emplace_back([&](auto& frame) {
        auto const* const context = reinterpret_cast<UserContext*>(&frame);
        EXPECT_EQ(cpu.cr3, own);
        EXPECT_EQ(context->kernel_root, own);
        EXPECT_NE(context->root, own);
        call(frame, 1, ~u64{0}, abi::no_deadline);
    });
    start();
    EXPECT_EQ(entries, 1U);
}

TEST_F(EntryPages, OtherCpusKeepOneTableForBoth) {
    cpu.set_cpuid(0, {7, 0x6874'7541, 0x444d'4163, 0x6974'6e65});
    kernel::detect_cpu_features();
    kernel::choose_service_page_tables(std::nullopt);
    EXPECT_FALSE(kernel::has_service_page_tables());
    EXPECT_TRUE(has_logged("mapped, closed to them, while they run: the CPU is not open to Meltdown")) << log.text;
    program.emplace_back([&](auto& frame) {
        auto const* const context = reinterpret_cast<UserContext*>(&frame);
        EXPECT_EQ(context->root, 0U);
        EXPECT_TRUE(walk(cpu.cr3).contains(upper_half)) << "the walk sees what it is to see";
        call(frame, 1, ~u64{0}, abi::no_deadline);
    });
    start();
    EXPECT_EQ(entries, 1U);
}

TEST_F(EntryPages, NoPageIsGlobalWhereTablesChange) {
    constexpr u64 PGE = 1U << 7;
    cpu.populate_msr(x86::IA32_EFER, 0);
    cpu.populate_msr(x86::IA32_PAT, 0);
    u64 const before = cpu.cr4;
    cpu.cr4 |= PGE; // firmware may have set it
    kernel::choose_service_page_tables(true);
    kernel::enable_cpu_protections();
    EXPECT_EQ(cpu.cr4 & PGE, 0U) << "the TLB would keep Mullion's pages when ring 3's table is loaded";
    kernel::choose_service_page_tables(false);
    kernel::enable_cpu_protections();
    EXPECT_EQ(cpu.cr4 & PGE, PGE);
    cpu.cr4 = before;
}

} // namespace
} // namespace services
