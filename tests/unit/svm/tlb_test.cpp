// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <set>
#include <svm/npt.hpp>
#include <svm/tlb.hpp>
#include <svm/vmcb.hpp>

namespace {

using lib::u32;
using lib::u64;

TEST(AsidPool, GivesEachAsidOnceBeforeItFlushesAll) {
    svm::AsidPool pool;
    pool.start(16, 0);
    std::set<u32> given;
    for (unsigned i = 0; i < 15; i++) {
        auto const lease = pool.take();
        EXPECT_TRUE(lease.asid >= 1 && lease.asid <= 15);
        EXPECT_TRUE(given.insert(lease.asid).second);
        EXPECT_TRUE(pool.is_current(lease));
        EXPECT_EQ(pool.take_flush(), i == 0);
    }
    auto const again = pool.take();
    EXPECT_EQ(again.asid, 1U);
    EXPECT_TRUE(pool.take_flush());
}

TEST(AsidPool, WrappingEndsAllLeases) {
    svm::AsidPool pool;
    pool.start(3, 0);
    auto const first = pool.take();
    pool.take();
    EXPECT_TRUE(pool.is_current(first));
    pool.take();
    EXPECT_FALSE(pool.is_current(first)) << "somebody else has its number now";
    EXPECT_FALSE(pool.is_current(svm::AsidLease{}));
}

TEST(AsidPool, ALeaseOfOneCpuIsNoneOfAnother) {
    svm::AsidPool a, b;
    a.start(16, 0);
    b.start(16, 1);
    auto const lease = a.take();
    for (unsigned i = 0; i < 100; i++) {
        EXPECT_FALSE(b.is_current(lease));
        b.expire();
    }
}

TEST(GuestPresence, SeesEachFlushOnce) {
    svm::GuestPresence presence;
    presence.enter();
    presence.leave();
    EXPECT_FALSE(presence.enter());
    presence.leave();
    svm::flush_everywhere();
    EXPECT_TRUE(presence.enter());
    EXPECT_FALSE(presence.may_use_older_than(svm::flush_epoch()));
    EXPECT_TRUE(presence.may_use_older_than(svm::flush_epoch() + 1));
    presence.leave();
    EXPECT_FALSE(presence.may_use_older_than(svm::flush_epoch() + 1));
}

TEST(NptEntry, IsAUserEntryOfTheLongModeFormat) {
    using svm::NptEntry;
    auto const all = NptEntry::leaf(lib::HostPhys{0x4000'0000}, 3, kernel::Rights::All);
    EXPECT_EQ(all.raw, 0x4000'00e7U);
    EXPECT_EQ(NptEntry::leaf(lib::HostPhys{0x5000}, 1, kernel::Rights::Read).raw, 0x8000'0000'0000'5065U);
    EXPECT_EQ(NptEntry::leaf(lib::HostPhys{0x5000}, 1, kernel::Rights::ReadWrite).raw, 0x8000'0000'0000'5067U);
    EXPECT_EQ(NptEntry::table(lib::HostPhys{0x6000}).raw & 7, 7U);
    EXPECT_EQ(all.piece(3, 3).raw, 0x4060'00e7U);
    EXPECT_EQ(all.piece(3, 3).piece(5, 2).raw, 0x4060'5067U);
}

TEST(Intercepts, LieWhereTheManualPutsThem) {
    svm::Intercepts intercepts{};
    intercepts.set(svm::exit_code::INTR);
    intercepts.set(svm::exit_code::SHUTDOWN);
    EXPECT_EQ(intercepts.words[0], 0x8000'0001U);
    intercepts.set(svm::exit_code::VMRUN);
    intercepts.set(svm::exit_code::XSETBV);
    EXPECT_EQ(intercepts.words[1], 1U | 1U << 13);
    intercepts.set(svm::exit_code::TLBSYNC);
    EXPECT_EQ(intercepts.words[2], 1U << 4);
    EXPECT_TRUE(intercepts.has(svm::exit_code::VMRUN));
    intercepts.set(svm::exit_code::VMRUN, false);
    EXPECT_FALSE(intercepts.has(svm::exit_code::VMRUN));
}

TEST(ExitCode, HasNames) {
    EXPECT_EQ(svm::exit_code::name(svm::exit_code::CPUID), "CPUID");
    EXPECT_EQ(svm::exit_code::name(svm::exit_code::SHUTDOWN), "shutdown");
    EXPECT_EQ(svm::exit_code::name(svm::exit_code::XSETBV), "XSETBV");
    EXPECT_EQ(svm::exit_code::name(svm::exit_code::TLBSYNC), "TLBSYNC");
    EXPECT_EQ(svm::exit_code::name(svm::exit_code::NPF), "nested page fault");
    EXPECT_EQ(svm::exit_code::name(0x1234), "?");
}

} // namespace
