// SPDX-License-Identifier: MIT
#include "vm/fake_vcpu.hpp"

#include <vm/guest_walk.hpp>

namespace {

using fake::u32;
using fake::u64;
using fake::u8;
using vm::WalkAccess;

constexpr u64 P = 1, W = 2, U = 4, PS = 0x80, NX = u64{1} << 63;
constexpr WalkAccess read{}, write{.is_write = true}, user_read{.is_user = true},
    user_write{.is_write = true, .is_user = true}, fetch{.is_fetch = true},
    user_fetch{.is_user = true, .is_fetch = true}, implicit{.is_implicit = true};
constexpr u64 NXE = 0x800, SMEP = u64{1} << 20, SMAP = u64{1} << 21, PKE = u64{1} << 22, AC = u64{1} << 18;
constexpr u64 A = 0x20, D = 0x40;
constexpr u64 root = 0x1000, second = 0x2000, third = 0x3000, fourth = 0x4000;

class Walk : public fake::VmTest {
protected:
    u64 at(u64 linear, WalkAccess access = read) {
        auto const found = vm::translate(vcpu(), linear, access);
        EXPECT_TRUE(found) << std::hex << linear;
        return found ? found->value : ~u64{0};
    }
    // The error code of the #PF.
    u32 fault(u64 linear, WalkAccess access = read) {
        auto const found = vm::translate(vcpu(), linear, access);
        EXPECT_FALSE(found) << std::hex << linear;
        if (found) return ~0U;
        EXPECT_EQ(found.error().vector, 14);
        EXPECT_TRUE(found.error().has_error_code);
        EXPECT_EQ(found.error().cr2, linear);
        return found.error().error_code;
    }
    void mode(u64 cr0, u64 cr4, u64 efer) {
        vcpu().set_cr0(cr0);
        vcpu().set_cr3(root);
        vcpu().set_cr4(cr4);
        vcpu().set_efer(efer);
    }
    void legacy(bool large_pages) { mode(0x8001'0001, large_pages ? 0x10 : 0, 0); }
    void pae() { mode(0x8001'0001, 0x20, NXE); }
    void four_levels(u64 cr4 = 0) { mode(0x8001'0001, 0x20 | cr4, 0x500 | NXE); }
    // One page at linear 0.
    void map(u64 rights, u64 cr4 = 0) {
        four_levels(cr4);
        put<u64>(root, second | P | W | U);
        put<u64>(second, third | P | W | U);
        put<u64>(third, fourth | P | W | U);
        put<u64>(fourth, 0x5000 | rights);
    }
    u64 entry(u64 at) {
        u64 value = 0;
        std::memcpy(&value, vm->ram().pointer(vm::GuestPhys{at}, 8), 8);
        return value;
    }
};

TEST_F(Walk, WithoutPagingLinearIsPhysical) {
    mode(0x11, 0, 0);
    EXPECT_EQ(at(0x1'2345'6789, user_write), 0x2345'6789U);
}

TEST_F(Walk, LegacyPages) {
    legacy(false);
    put<u32>(root + 4 * 0x300, second | P | W | U);
    put<u32>(second + 4 * 0x12, 0x0030'0000 | P | W | U);
    EXPECT_EQ(at(0xc001'2345), 0x0030'0345U);
    EXPECT_EQ(at(0xffff'ffff'c001'2345), 0x0030'0345U); // linear addresses have 32 bits there
    EXPECT_EQ(fault(0xc001'3345), 0U);
    EXPECT_EQ(fault(0x0001'2345, user_write), 6U);
}

TEST_F(Walk, LegacyLargePagesNeedCr4) {
    put<u32>(root, 0x0040'0000 | P | W | U | PS);
    legacy(true);
    EXPECT_EQ(at(0x0012'3456), 0x0052'3456U);
    put<u32>(root, 0x0040'0000 | 3U << 13 | P | PS); // PSE-36
    EXPECT_EQ(at(0x0012'3456), 0x3'0052'3456U);
    put<u32>(root, second | P | W | U | PS);
    put<u32>(second, 0x7000 | P);
    legacy(false);
    EXPECT_EQ(at(0x123), 0x7123U); // the bit is ignored
}

TEST_F(Walk, PaePages) {
    pae();
    vcpu().set_cr3(root | 0x20);               // the root is aligned to 32 bytes only
    put<u64>(root + 0x20 + 8 * 3, second | P); // no rights there
    put<u64>(second + 8 * 5, third | P | W | U);
    put<u64>(third + 8 * 9, 0x1'0000'5000 | P | W | U | NX);
    put<u64>(second + 8 * 6, 0x0080'0000 | P | W | U | PS);
    EXPECT_EQ(at(0xc0a0'9123, user_write), 0x1'0000'5123U);
    EXPECT_EQ(at(0xc0c1'2345, user_write), 0x0081'2345U);
    EXPECT_EQ(fault(0x8000'0000), 0U);
}

TEST_F(Walk, FourLevels) {
    four_levels();
    constexpr u64 linear = 0xffff'8880'4060'3456; // indices 273, 2?, ...
    put<u64>(root + 8 * (linear >> 39 & 511), second | P | W | U);
    put<u64>(second + 8 * (linear >> 30 & 511), third | P | W | U);
    put<u64>(third + 8 * (linear >> 21 & 511), fourth | P | W | U);
    put<u64>(fourth + 8 * (linear >> 12 & 511), 0x0070'0009'9000 | P | W | U | NX);
    EXPECT_EQ(at(linear), 0x0070'0009'9456U);
    put<u64>(third + 8 * (linear >> 21 & 511),
             0x4020'0000 | 1U << 12 | P | W | PS); // PAT of a large page is not its address
    EXPECT_EQ(at(linear), 0x4020'0000 + (linear & 0x1f'ffff));
    put<u64>(second + 8 * (linear >> 30 & 511), 0x8000'0000 | P | PS);
    EXPECT_EQ(at(linear), 0x8000'0000 + (linear & 0x3fff'ffff));
}

TEST_F(Walk, RightsAreWhatAllLevelsGrant) {
    four_levels();
    for (unsigned level = 0; level < 4; level++) {
        u64 const tables[] = {root, second, third, fourth};
        for (unsigned i = 0; i < 4; i++)
            put<u64>(tables[i], (i < 3 ? tables[i + 1] : 0x5000) | P | W | U);
        put<u64>(tables[level], (level < 3 ? tables[level + 1] : 0x5000) | P | U);
        EXPECT_EQ(at(0, user_read), 0x5000U);
        EXPECT_EQ(fault(0, user_write), 7U);
        EXPECT_EQ(fault(0, write), 3U); // CR0.WP
        vcpu().set_cr0(0x8000'0001);
        EXPECT_EQ(at(0, write), 0x5000U);
        EXPECT_EQ(fault(0, user_write), 7U);
        vcpu().set_cr0(0x8001'0001);
        put<u64>(tables[level], (level < 3 ? tables[level + 1] : 0x5000) | P | W);
        EXPECT_EQ(at(0, write), 0x5000U);
        EXPECT_EQ(fault(0, user_read), 5U);
    }
}

TEST_F(Walk, TablesOutsideOfRamAreNotPresent) {
    four_levels();
    for (u64 const table : {u64{0xfee0'0000}, u64{0x000f'ffff'ffff'f000}, u64{4 * lib::MiB}}) {
        vcpu().set_cr3(table);
        EXPECT_EQ(fault(0x1000), 0U) << std::hex << table;
        vcpu().set_cr3(root);
        put<u64>(root, table | P | W | U);
        EXPECT_EQ(fault(0x1000), table > u64{1} << 39 ? 9U : 0U) << std::hex << table;
        put<u64>(root, 0);
    }
}

TEST_F(Walk, TablesThatPointAtThemselvesEnd) {
    four_levels();
    put<u64>(root, root | P | W | U);
    EXPECT_EQ(at(0x123), root + 0x123);
}

TEST_F(Walk, NonCanonicalAddressesAreGeneralProtection) {
    four_levels();
    put<u64>(root, second | P | W | U);
    put<u64>(second, 0 | P | W | U | PS);
    for (u64 const linear : {u64{0x0000'8000'0000'0000}, u64{0x1000'0000'0000'0000}, u64{0xffff'7fff'ffff'ffff}}) {
        auto const found = vm::translate(vcpu(), linear, read);
        ASSERT_FALSE(found) << std::hex << linear;
        EXPECT_EQ(found.error().vector, 13);
        EXPECT_EQ(found.error().error_code, 0U);
    }
}

TEST_F(Walk, ReservedBitsAreAFaultOfTheirOwn) {
    for (u64 const bad : {u64{1} << 39, u64{1} << 51}) { // the CPU has 39 address bits
        map(P | W | bad);
        EXPECT_EQ(fault(0, write), 11U) << std::hex << bad;
        put<u64>(fourth, 0x5000 | P);
        put<u64>(third, fourth | P | U | bad);
        EXPECT_EQ(fault(0, user_read), 13U) << std::hex << bad;
    }
    map(P);
    put<u64>(root, second | P | PS);
    EXPECT_EQ(fault(0), 9U) << "bit 7 of the top level";
    map(P);
    put<u64>(third, 0x2000 | P | W | PS);
    EXPECT_EQ(fault(0), 9U) << "an address within a large page";
    map(P | NX);
    EXPECT_EQ(at(0), 0x5000U);
    vcpu().set_efer(0x500);
    EXPECT_EQ(fault(0), 9U) << "NX is reserved without EFER.NXE";
    map(P);
    put<u64>(second, 0x4000'0000 | P | PS);
    EXPECT_EQ(at(0), 0x4000'0000U);
}

TEST_F(Walk, ReservedBitsOfTheOtherModes) {
    pae();
    put<u64>(root, second | P);
    put<u64>(second, third | P | W | U);
    put<u64>(third, 0x5000 | P | u64{1} << 52);
    EXPECT_EQ(fault(0), 9U);
    put<u64>(third, 0x5000 | P);
    EXPECT_EQ(at(0), 0x5000U);
    legacy(true);
    put<u32>(root, 0x0040'0000 | 1U << 21 | P | PS);
    EXPECT_EQ(fault(0), 9U);
    put<u32>(root, 0x0040'0000 | 0x80U << 13 | P | PS); // bit 39 of the address
    EXPECT_EQ(fault(0), 9U);
}

TEST_F(Walk, FetchesObeyNxAndSmep) {
    map(P | W | NX);
    EXPECT_EQ(fault(0, fetch), 0x11U);
    map(P | W | U);
    EXPECT_EQ(at(0, fetch), 0x5000U);
    map(P | W | U, SMEP);
    EXPECT_EQ(fault(0, fetch), 0x11U);
    EXPECT_EQ(at(0, user_fetch), 0x5000U);
    map(0, SMEP);
    EXPECT_EQ(fault(0, user_fetch), 0x14U);
    vcpu().set_efer(0x500);
    map(P);
    vcpu().set_efer(0x500);
    EXPECT_EQ(fault(0, user_fetch), 5U) << "without NXE and SMEP the code does not say that it was a fetch";
}

TEST_F(Walk, SmapKeepsTheKernelOutOfUserPages) {
    map(P | W | U, SMAP);
    EXPECT_EQ(fault(0, read), 1U);
    EXPECT_EQ(fault(0, write), 3U);
    EXPECT_EQ(at(0, user_read), 0x5000U);
    EXPECT_EQ(at(0, fetch), 0x5000U) << "that is SMEP's";
    vcpu().set_rflags(AC | 2);
    EXPECT_EQ(at(0, write), 0x5000U);
    EXPECT_EQ(fault(0, implicit), 1U) << "AC is for explicit accesses";
    map(P | W, SMAP);
    EXPECT_EQ(at(0, implicit), 0x5000U);
}

TEST_F(Walk, KeysForbidDataOfUserPages) {
    constexpr u64 key_5 = u64{5} << 59;
    map(P | W | U | A | D | key_5, PKE);
    auto& pkru = cpu.pkru;
    pkru = ~(3U << 10); // all keys but this one forbid everything
    EXPECT_EQ(at(0, user_write), 0x5000U);
    EXPECT_EQ(at(0, write), 0x5000U);
    pkru = 1U << 10;
    EXPECT_EQ(fault(0, user_read), 0x25U);
    EXPECT_EQ(fault(0, user_write), 0x27U);
    EXPECT_EQ(fault(0, read), 0x21U);
    EXPECT_EQ(at(0, user_fetch), 0x5000U) << "keys are for data";
    pkru = 2U << 10;
    EXPECT_EQ(at(0, user_read), 0x5000U);
    EXPECT_EQ(fault(0, user_write), 0x27U);
    EXPECT_EQ(fault(0, write), 0x23U);
    vcpu().set_cr0(0x8000'0001);
    EXPECT_EQ(at(0, write), 0x5000U) << "without CR0.WP the kernel may write";
    EXPECT_EQ(fault(0, user_write), 0x27U);
    map(P | W | key_5, PKE);
    pkru = 3U << 10;
    EXPECT_EQ(at(0, read), 0x5000U) << "a supervisor's page has no key";
    map(P | W | U | key_5);
    EXPECT_EQ(at(0, user_write), 0x5000U) << "CR4.PKE is clear";
}

TEST_F(Walk, WalksMarkWhatTheyUse) {
    map(P | W);
    EXPECT_EQ(at(0, read), 0x5000U);
    for (u64 const table : {root, second, third, fourth})
        EXPECT_EQ(entry(table) & (A | D), A) << std::hex << table;
    EXPECT_EQ(at(0, write), 0x5000U);
    EXPECT_EQ(entry(third) & (A | D), A);
    EXPECT_EQ(entry(fourth) & (A | D), A | D);
    map(P);
    EXPECT_EQ(fault(0, write), 3U);
    EXPECT_EQ(entry(fourth) & (A | D), 0U) << "a fault marks nothing";
    EXPECT_EQ(entry(root) & A, 0U);
}

// There is a short way for entries that have their marks.
TEST_F(Walk, MarkedEntriesAreJudgedAsUnmarkedOnes) {
    constexpr u64 choices[] = {P | W | U, P | W, P | U, P, P | W | U | NX, 0};
    for (auto const [cr4, efer] :
         {std::pair{u64{0}, 0x500 | NXE}, std::pair{SMAP, 0x500 | NXE}, std::pair{u64{0}, u64{0x500}}})
        for (u64 const upper : choices)
            for (u64 const leaf : choices)
                for (u64 const target : {u64{0x5000}, u64{0x20'0000} | PS, u64{0x20'4000} | PS, u64{1} << 39})
                    for (WalkAccess const& access : {read, write, user_read, user_write, fetch, implicit}) {
                        bool const is_large = (target & PS) != 0;
                        auto const walk_with = [&](u64 marks) {
                            map(leaf);
                            mode(0x8001'0001, 0x20 | cr4, efer);
                            put<u64>(root, second | P | W | U | marks);
                            put<u64>(second, third | upper | marks);
                            put<u64>(third, (is_large ? target | leaf | D * (marks != 0) : fourth | P | W | U) | marks);
                            put<u64>(fourth, target | leaf | marks | D * (marks != 0));
                            return vm::translate(vcpu(), 0x123, access);
                        };
                        auto const slow = walk_with(0), fast = walk_with(A);
                        ASSERT_EQ(slow.has_value(), fast.has_value())
                            << std::hex << upper << " " << leaf << " " << target;
                        if (slow) ASSERT_EQ(slow->value, fast->value);
                        if (!slow) ASSERT_EQ(slow.error().error_code, fast.error().error_code);
                    }
}

TEST_F(Walk, MarksOfTheOtherModes) {
    legacy(false);
    put<u32>(root, second | P | W);
    put<u32>(second, 0x5000 | P | W);
    put<u32>(second + 4, 0x1234'5678);
    EXPECT_EQ(at(0, write), 0x5000U);
    EXPECT_EQ(entry(root) & 0xffff'ffff, second | P | W | A);
    EXPECT_EQ(entry(second), 0x1234'5678'0000'0000U | 0x5000 | P | W | A | D) << "and not the next entry";
    pae();
    put<u64>(root, second | P);
    put<u64>(second, third | P | W);
    put<u64>(third, 0x5000 | P | W);
    EXPECT_EQ(at(0, read), 0x5000U);
    EXPECT_EQ(entry(root), second | P) << "reserved there";
    EXPECT_EQ(entry(third), 0x5000 | P | W | A);
}

TEST_F(Walk, FetchesCodeOverPagesAndStopsWhereThereIsNone) {
    four_levels();
    put<u64>(root, second | P | W | U);
    put<u64>(second, third | P | W | U);
    put<u64>(third, fourth | P | W | U);
    put<u64>(fourth, 0x8000 | P);
    put<u64>(fourth + 8, 0x6000 | P);
    for (u64 i = 0; i < 16; i++) {
        put<u8>(0x8ff8 + i % 8, static_cast<u8>(i % 8));
        put<u8>(0x6000 + i, static_cast<u8>(8 + i));
    }
    vcpu().set_segment(vm::SegmentName::Cs, {8, vm::segment::long_code, 0, 0x5555'0000}); // no base in 64-bit mode
    vcpu().set_rip(0xff8);
    std::array<u8, 16> bytes{};
    EXPECT_EQ(vm::fetch_code(vcpu(), bytes), 15U);
    for (u8 i = 0; i < 15; i++)
        EXPECT_EQ(bytes[i], i);
    put<u64>(fourth + 8, 0);
    EXPECT_EQ(vm::fetch_code(vcpu(), bytes), 8U);
    vcpu().set_rip(0x5000);
    EXPECT_EQ(vm::fetch_code(vcpu(), bytes), 0U);
}

TEST_F(Walk, CodeOfPagesThatAlternateIsNeverStale) {
    four_levels();
    put<u64>(root, second | P | W | U);
    put<u64>(second, third | P | W | U);
    put<u64>(third, fourth | P | W | U);
    constexpr u64 pages = 6; // more than are remembered
    auto const frame = [](u64 page) { return 0x1'0000 + page * 0x1000; };
    for (u64 page = 0; page < 2 * pages; page++)
        put<u8>(frame(page), static_cast<u8>(page + 1));
    vcpu().set_segment(vm::SegmentName::Cs, {8, vm::segment::long_code, 0, 0});
    auto const expect_code = [&](u64 page, u64 of) {
        std::array<u8, 16> bytes{};
        vcpu().set_rip(page * 0x1000);
        EXPECT_EQ(vm::fetch_code(vcpu(), bytes), 15U);
        EXPECT_EQ(bytes[0], of + 1);
    };
    for (u64 page = 0; page < pages; page++)
        put<u64>(fourth + page * 8, frame(page) | P);
    for (u64 i = 0; i < 3 * pages; i++) {
        expect_code(i % 2, i % 2);
        expect_code(i % pages, i % pages);
    }
    for (u64 page = 0; page < pages; page++) {
        put<u64>(fourth + page * 8, frame(page + pages) | P);
        expect_code(page, page + pages);
        expect_code((page + 1) % pages, page + 1 < pages ? page + 1 : pages);
    }
}

TEST_F(Walk, FetchesRealModeCodeAtItsBase) {
    mode(0x10, 0, 0);
    vcpu().set_segment(vm::SegmentName::Cs, {0x1000, vm::segment::code_16, 0xffff, 0x1'0000});
    vcpu().set_rip(4);
    put<u8>(0x1'0004, 0xf4);
    std::array<u8, 16> bytes{};
    EXPECT_EQ(vm::fetch_code(vcpu(), bytes), 15U);
    EXPECT_EQ(bytes[0], 0xf4);
    vcpu().set_segment(vm::SegmentName::Cs, {0xf000, vm::segment::code_16, 0xffff, 0xffff'0000});
    EXPECT_EQ(vm::fetch_code(vcpu(), bytes), 0U); // no RAM there
}

} // namespace
