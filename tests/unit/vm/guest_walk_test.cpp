#include "vm/fake_vcpu.hpp"

#include <vm/guest_walk.hpp>

namespace {

using fake::u32;
using fake::u64;
using fake::u8;
using vm::WalkAccess;

constexpr u64 P = 1, W = 2, U = 4, PS = 0x80, NX = u64{1} << 63;
constexpr WalkAccess read{false, false, true}, write{true, false, true}, user_read{false, true, true},
    user_write{true, true, true}, unchecked{true, true, false};
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
    void pae() { mode(0x8001'0001, 0x20, 0); }
    void four_levels() { mode(0x8001'0001, 0x20, 0x500); }
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
    put<u64>(fourth + 8 * (linear >> 12 & 511), 0x000f'0000'0009'9000 | P | W | U | NX);
    EXPECT_EQ(at(linear), 0x000f'0000'0009'9456U);
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
        EXPECT_EQ(at(0, unchecked), 0x5000U);
    }
}

TEST_F(Walk, TablesOutsideOfRamAreNotPresent) {
    four_levels();
    for (u64 const table : {u64{0xfee0'0000}, u64{0x000f'ffff'ffff'f000}, u64{4 * lib::MiB}}) {
        vcpu().set_cr3(table);
        EXPECT_EQ(fault(0x1000), 0U) << std::hex << table;
        vcpu().set_cr3(root);
        put<u64>(root, table | P | W | U);
        EXPECT_EQ(fault(0x1000), 0U) << std::hex << table;
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
