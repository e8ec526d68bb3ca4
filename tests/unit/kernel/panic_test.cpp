// SPDX-License-Identifier: MIT
// Locks out of order, broken invariants and traps end in a readable panic.
#include "kernel/kernel_cpu.hpp"

#include <cstring>
#include <kernel/direct_map.hpp>
#include <kernel/page_table.hpp>
#include <kernel/panic.hpp>
#include <kernel/spinlock.hpp>
#include <kernel/traps.hpp>
#include <lib/assert.hpp>
#include <string>

extern "C" {
extern unsigned char table_bytes[] asm("symbol_table"); // tests/fakes/src/image_symbols.cpp
extern char code_begin[] asm("text_start");
extern char code_end[] asm("text_end");
void trap_dispatch(kernel::TrapFrame& frame);
}

namespace {

using kernel::Guarded;
using kernel::LockRank;
using lib::u32;
using lib::u64;

using LockDeathTest = PanicTest;
using PanicDeathTest = PanicTest;

TEST_F(LockDeathTest, LocksAreTakenInRisingRankOnly) {
    Guarded<int, LockRank::Memory> memory;
    Guarded<int, LockRank::ConsoleOutput> console;
    EXPECT_EQ(memory.with([&](int& a) { return console.with([&](int& b) { return a + b; }); }), 0);
    EXPECT_EQ(kernel::this_cpu().held_lock_ranks, 0U);
    EXPECT_DEATH(console.with([&](int&) { memory.with([](int&) {}); }), "PANIC on CPU 0: assertion failed: .*held");
    EXPECT_DEATH(memory.with([&](int&) { memory.with([](int&) {}); }), "assertion failed"); // and never twice
}

TEST_F(LockDeathTest, APlatformThatIsEnteredFromItsOwnHostCallIsAPanic) {
    kernel::Spinlock<LockRank::Platform> lock;
    kernel::LockGuard const locked(lock);
    EXPECT_DEATH(kernel::LockGuard const again(lock), "assertion failed: .*held");
}

TEST_F(LockDeathTest, ASecondLockOfARankNeedsTheFirst) {
    kernel::Spinlock<LockRank::Scheduler> a, b;
    kernel::Spinlock<LockRank::Timers> higher;
    EXPECT_DEATH(b.lock_second(), "assertion failed: .*held");
    a.lock();
    b.lock_second();
    EXPECT_DEATH(a.lock(), "assertion failed: .*held");
    b.unlock_second();
    higher.lock();
    EXPECT_DEATH(b.lock_second(), "assertion failed: .*held");
    higher.unlock();
    a.unlock();
    EXPECT_EQ(kernel::this_cpu().held_lock_ranks, 0U);
}

TEST_F(LockDeathTest, InterruptsAreOffUnderALockAndBackBehindIt) {
    Guarded<int, LockRank::Memory> data;
    cpu.interrupts_enabled = true;
    data.with([&](int&) { EXPECT_FALSE(cpu.interrupts_enabled); });
    EXPECT_TRUE(cpu.interrupts_enabled);
    cpu.interrupts_enabled = false;
    data.with([](int&) {});
    EXPECT_FALSE(cpu.interrupts_enabled);
}

TEST_F(PanicDeathTest, AssertionsSayWhereTheyAre) {
    int const one = 1;
    EXPECT_DEATH(ASSERT(one == 2), "assertion failed: one == 2 at .*panic_test.cpp");
}

TEST_F(PanicDeathTest, TrapsPrintRegisters) {
    kernel::TrapFrame frame{};
    frame.vector = 14;
    frame.rip = 0x1234;
    frame.r15 = 0xabcdef;
    frame.rbp = 0xdead'beef'0000'0000; // a broken frame chain must not fault again
    EXPECT_DEATH(trap_dispatch(frame), "page fault .#PF.(.|\n)*rip 0000000000001234(.|\n)*r15 0000000000abcdef");
}

TEST_F(PanicDeathTest, RefusalsSayWhatToDo) {
    EXPECT_DEATH(kernel::refuse_to_start("no VT-x", "buy one"), "cannot start: no VT-x(.|\n)*what to do: buy one");
}

TEST_F(PanicTest, AGeneralProtectionFaultWithAFixupGoesOnThere) {
    kernel::TrapFrame frame{};
    frame.vector = 13;
    frame.rip = 0x3333;
    trap_dispatch(frame);
    EXPECT_EQ(frame.rip, 0x4444U);
}

TEST_F(PanicTest, FindsTheSymbolBelowAnAddress) {
    auto const text = reinterpret_cast<u64>(code_begin);
    auto const offset = static_cast<u32>(text - kernel::kernel_base);
    struct Table {
        u64 count;
        u32 entries[4]; // address, name
        char names[16];
    } const table{2, {offset + 16, 24, offset + 64, 28}, "one\0two"};
    std::memcpy(table_bytes, &table, sizeof(table));
    EXPECT_TRUE(kernel::symbol_at(text).name.empty()); // before the first
    EXPECT_EQ(kernel::symbol_at(text + 16).name, "one");
    EXPECT_EQ(kernel::symbol_at(text + 63).name, "one");
    EXPECT_EQ(kernel::symbol_at(text + 63).offset, 47U);
    EXPECT_EQ(kernel::symbol_at(text + 64).name, "two");
    EXPECT_EQ(kernel::symbol_at(text + 255).name, "two");
    EXPECT_TRUE(kernel::symbol_at(reinterpret_cast<u64>(code_end)).name.empty());
    EXPECT_TRUE(kernel::symbol_at(0).name.empty());
    std::memset(table_bytes, 0, sizeof(table));
    EXPECT_TRUE(kernel::symbol_at(text + 16).name.empty());
}

} // namespace
