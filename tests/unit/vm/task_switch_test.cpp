// SPDX-License-Identifier: MIT
#include "vm/fake_vcpu.hpp"

#include <vm/task_switch.hpp>

namespace {

using fake::u16;
using fake::u32;
using fake::u64;
using fake::u8;
using vm::Gpr;
using vm::SegmentName;
using vm::TaskSwitchResult;
using Source = vm::TaskSwitch::Source;

// Two tasks of 32 bits, one of 16 bits, and their segments, at addresses of their own.
constexpr u64 gdt = 0x1000, old_tss = 0x2000, new_tss = 0x3000, small_tss = 0x4000, ldt = 0x5000, stack = 0x6000;
constexpr u16 sel_code = 0x08, sel_data = 0x10, sel_old = 0x18, sel_new = 0x20, sel_small = 0x28, sel_ldt = 0x30,
              sel_user_code = 0x38, sel_user_data = 0x40, sel_conforming = 0x48, sel_execute_only = 0x50,
              sel_read_only = 0x58;
constexpr u32 gdt_limit = 0x5f;
constexpr u8 type_available = 0x89, type_busy = 0x8b, type_available_16 = 0x81;
constexpr u32 NT = 0x4000, RF = 0x10000, VM = 0x20000;

constexpr u64 descriptor(u32 base, u32 limit, u8 rights, u8 flags = 0) {
    return (u64{base >> 24} << 56) | (u64{flags} << 52) | (u64{limit >> 16 & 0xf} << 48) | (u64{rights} << 40) |
           (u64{base & 0xff'ffff} << 16) | (limit & 0xffff);
}

class TaskSwitchTest : public fake::VmTest {
protected:
    void SetUp() override {
        auto const entry = [&](u16 selector, u64 value) { put<u64>(gdt + selector, value); };
        entry(sel_code, descriptor(0, 0xf'ffff, 0x9b, 0xc));
        entry(sel_data, descriptor(0, 0xf'ffff, 0x93, 0xc));
        entry(sel_old, descriptor(old_tss, 0x67, type_busy));
        entry(sel_new, descriptor(new_tss, 0x67, type_available));
        entry(sel_small, descriptor(small_tss, 0x2b, type_available_16));
        entry(sel_ldt, descriptor(ldt, 0xf, 0x82));
        entry(sel_user_code, descriptor(0, 0xf'ffff, 0xfb, 0xc));
        entry(sel_user_data, descriptor(0, 0xf'ffff, 0xf3, 0xc));
        entry(sel_conforming, descriptor(0, 0xf'ffff, 0x9f, 0xc));
        entry(sel_execute_only, descriptor(0, 0xf'ffff, 0x99, 0xc));
        entry(sel_read_only, descriptor(0, 0xf'ffff, 0x91, 0xc));
        put<u64>(ldt + 8, descriptor(0x9000, 0xfff, 0x92, 4)); // not accessed yet
        auto& v = vcpu();
        v.set_gdt({gdt, gdt_limit});
        v.set_cr0(0x11);
        v.set_segment(SegmentName::Tr, {sel_old, type_busy, 0x67, old_tss});
        for (auto const name : {SegmentName::Es, SegmentName::Ss, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs})
            v.set_segment(name, {sel_data, vm::segment::data_32, ~u32{0}, 0});
        v.set_segment(SegmentName::Cs, {sel_code, vm::segment::code_32, ~u32{0}, 0});
        v.set_rip(0x1234);
        v.set_rflags(0x202 | RF | NT);
        v.set_dr7(0x7ff);
        for (u32 i = 0; i < 8; i++)
            v.gprs()[i] = 0xa000'0000 + i;
        fill_task();
    }
    void field(u64 offset, u32 value) { put<u32>(new_tss + offset, value); }
    void segment(SegmentName name, u16 selector) { field(0x48 + 4 * static_cast<u64>(name), selector); }
    void fill_task() {
        field(0x1c, 0x7000); // CR3
        field(0x20, 0x4321);
        field(0x24, 0x6);
        for (u32 i = 0; i < 8; i++)
            field(0x28 + 4 * i, 0xb000'0000 + i);
        field(0x28 + 4 * 4, stack + 0x800);
        for (auto const name : {SegmentName::Es, SegmentName::Ss, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs})
            segment(name, sel_data);
        segment(SegmentName::Cs, sel_code);
        field(0x60, 0);
        field(0x64, 0);
    }
    template <typename T> T get(u64 at) {
        T value;
        std::memcpy(&value, vm->ram().pointer(vm::GuestPhys{at}, sizeof(T)), sizeof(T));
        return value;
    }
    u8 rights(u16 selector) { return get<u8>(gdt + selector + 5); }
    void set_rights(u16 selector, u8 value) { put<u8>(gdt + selector + 5, value); }

    static vm::TaskSwitch request(Source source, u16 selector) {
        return {.source = source,
                .selector = selector,
                .is_external = false,
                .is_exception = false,
                .vector = 0,
                .has_error_code = false,
                .error_code = 0};
    }
    TaskSwitchResult jump(u16 to = sel_new) { return vm::switch_task(vcpu(), request(Source::Jump, to), 7); }
    TaskSwitchResult call(u16 to = sel_new) { return vm::switch_task(vcpu(), request(Source::Call, to), 7); }
    TaskSwitchResult iret(u16 to = sel_new) { return vm::switch_task(vcpu(), request(Source::Iret, to), 1); }
    TaskSwitchResult exception(u8 vector, bool has_code = false, u32 code = 0) {
        auto gate = request(Source::Gate, sel_new);
        gate.is_external = gate.is_exception = true;
        gate.vector = vector;
        gate.has_error_code = has_code;
        gate.error_code = code;
        return vm::switch_task(vcpu(), gate, 0);
    }
    // Nothing of the old task's state has changed.
    void expect_old_task() {
        EXPECT_EQ(vcpu().segment(SegmentName::Tr).selector, sel_old);
        EXPECT_EQ(vcpu().rip(), 0x1234U);
        EXPECT_EQ(get<u32>(old_tss + 0x20), 0U);
        EXPECT_EQ(get<u16>(new_tss), 0U);
        EXPECT_EQ(rights(sel_old), type_busy);
        EXPECT_EQ(vcpu().cr0() & vm::cr0::TS, 0U);
    }
    void expect_new_task() { EXPECT_EQ(vcpu().segment(SegmentName::Tr).selector, sel_new); }
    void expect_raised(u8 vector, u32 code) {
        auto const& raised = vcpu().exception();
        EXPECT_EQ(raised.vector, vector);
        EXPECT_TRUE(raised.has_error_code);
        EXPECT_EQ(raised.error_code, code);
    }
    // The switch is complete, but the new task begins with a fault.
    void expect_fault_in_new_task(u8 vector, u32 code) {
        EXPECT_EQ(jump(), TaskSwitchResult::Raised);
        expect_new_task();
        expect_raised(vector, code);
        EXPECT_EQ(vcpu().rip(), get<u32>(new_tss + 0x20));
        // As every VM entry wants it: CS usable, and its privilege is that of SS.
        auto const cs = vcpu().segment(SegmentName::Cs), ss = vcpu().segment(SegmentName::Ss);
        EXPECT_EQ(cs.attributes & 0x99, 0x99);
        EXPECT_EQ(cs.attributes & 0x60, ss.attributes & 0x60);
    }
    void expect_fault_in_old_task(TaskSwitchResult result, u8 vector, u32 code) {
        EXPECT_EQ(result, TaskSwitchResult::Raised);
        expect_old_task();
        expect_raised(vector, code);
    }
    void again() {
        SetUp();
        put<u16>(new_tss, 0);
        put<u32>(old_tss + 0x20, 0);
    }
};

TEST_F(TaskSwitchTest, AJumpSavesTheOldTaskAndLoadsTheNewOne) {
    EXPECT_EQ(jump(), TaskSwitchResult::Done);
    EXPECT_EQ(get<u32>(old_tss + 0x20), 0x1234U + 7);
    EXPECT_EQ(get<u32>(old_tss + 0x24), 0x202U | NT); // RF ended with the instruction
    for (u32 i = 0; i < 8; i++)
        EXPECT_EQ(get<u32>(old_tss + 0x28 + 4 * i), 0xa000'0000 + i);
    for (u32 i = 0; i < 6; i++)
        EXPECT_EQ(get<u32>(old_tss + 0x48 + 4 * i), u32{i == 1 ? sel_code : sel_data});
    EXPECT_EQ(get<u32>(old_tss + 0x1c), 0U); // CR3 is not saved
    EXPECT_EQ(rights(sel_old), type_available);
    EXPECT_EQ(rights(sel_new), type_busy);
    EXPECT_EQ(get<u16>(new_tss), 0U); // no link
    auto& v = vcpu();
    auto const tr = v.segment(SegmentName::Tr);
    EXPECT_EQ(tr.selector, sel_new);
    EXPECT_EQ(tr.base, new_tss);
    EXPECT_EQ(tr.limit, 0x67U);
    EXPECT_EQ(tr.attributes, type_busy);
    EXPECT_EQ(v.rip(), 0x4321U);
    EXPECT_EQ(v.rflags(), 0x6U);
    EXPECT_EQ(v.gpr(Gpr::Rax), 0xb000'0000U);
    EXPECT_EQ(v.gpr(Gpr::Rdi), 0xb000'0007U);
    EXPECT_EQ(v.cr0(), 0x11U | vm::cr0::TS);
    EXPECT_EQ(v.dr7(), 0x6aaU); // local breakpoints end
    EXPECT_EQ(v.cr3(), 0U);     // paging is off
    EXPECT_NE(v.segment(SegmentName::Ldtr).attributes & vm::segment::unusable, 0);
    EXPECT_EQ(v.segment(SegmentName::Cs).attributes, vm::segment::code_32);
    EXPECT_EQ(v.segment(SegmentName::Gs).limit, ~u32{0});
}

TEST_F(TaskSwitchTest, ACallNestsAndAnIretReturns) {
    EXPECT_EQ(call(), TaskSwitchResult::Done);
    EXPECT_EQ(get<u16>(new_tss), sel_old);
    EXPECT_EQ(vcpu().rflags(), 0x6U | NT);
    EXPECT_EQ(rights(sel_old), type_busy);
    EXPECT_EQ(rights(sel_new), type_busy);
    vcpu().set_rip(0x5000);
    EXPECT_EQ(iret(sel_old), TaskSwitchResult::Done);
    EXPECT_EQ(get<u32>(new_tss + 0x20), 0x5001U);
    EXPECT_EQ(get<u32>(new_tss + 0x24), 0x6U); // NT is cleared in what is saved
    EXPECT_EQ(rights(sel_old), type_busy);
    EXPECT_EQ(rights(sel_new), type_available);
    EXPECT_EQ(vcpu().rip(), 0x1234U + 7);
    EXPECT_EQ(vcpu().rflags(), 0x202U | NT);
    EXPECT_EQ(vcpu().gpr(Gpr::Rdx), 0xa000'0002U);
}

TEST_F(TaskSwitchTest, AnExceptionSavesItsOwnRipAndPushesItsErrorCode) {
    EXPECT_EQ(exception(13, true, 0xbeef), TaskSwitchResult::Done);
    EXPECT_EQ(get<u32>(old_tss + 0x20), 0x1234U);
    EXPECT_EQ(get<u32>(old_tss + 0x24), 0x202U | NT | RF);
    EXPECT_EQ(get<u16>(new_tss), sel_old);
    EXPECT_EQ(vcpu().gpr(Gpr::Rsp), stack + 0x7fc);
    EXPECT_EQ(get<u32>(stack + 0x7fc), 0xbeefU);
}

TEST_F(TaskSwitchTest, ASixteenBitTaskHasHalfRegistersAndNoFsAndGs) {
    put<u16>(small_tss + 0x0e, 0x4321);
    put<u16>(small_tss + 0x10, 0xffff & ~0x5000);
    for (u32 i = 0; i < 8; i++)
        put<u16>(small_tss + 0x12 + 2 * i, static_cast<u16>(0xb000 + i));
    u16 const selectors[] = {sel_data, sel_code, sel_data, sel_data, sel_ldt};
    for (u32 i = 0; i < 5; i++)
        put<u16>(small_tss + 0x22 + 2 * i, selectors[i]);
    EXPECT_EQ(call(sel_small), TaskSwitchResult::Done);
    EXPECT_EQ(get<u16>(small_tss), sel_old);
    EXPECT_EQ(vcpu().rip(), 0x4321U);
    EXPECT_EQ(vcpu().rflags(), 0x7fd7U & ~0x1000U);
    EXPECT_EQ(vcpu().gpr(Gpr::Rcx), 0xffff'b001U);
    EXPECT_EQ(vcpu().segment(SegmentName::Fs).selector, 0);
    EXPECT_NE(vcpu().segment(SegmentName::Gs).attributes & vm::segment::unusable, 0);
    EXPECT_EQ(vcpu().segment(SegmentName::Ldtr).base, ldt);
    EXPECT_EQ(vcpu().segment(SegmentName::Tr).attributes, 0x83);
    // And back: the halves are saved, what lies behind them is not touched.
    put<u16>(small_tss + 0x2a, 0x7777);
    EXPECT_EQ(iret(sel_old), TaskSwitchResult::Done);
    EXPECT_EQ(get<u16>(small_tss + 0x0e), 0x4322U);
    EXPECT_EQ(get<u16>(small_tss + 0x14), 0xb001U);
    EXPECT_EQ(get<u16>(small_tss + 0x24), sel_code);
    EXPECT_EQ(get<u16>(small_tss + 0x2a), 0x7777U);
}

TEST_F(TaskSwitchTest, WhatIsWrongWithTheDescriptorFaultsInTheOldTask) {
    struct Case {
        u8 rights;
        u8 jump, iret; // the vectors
    };
    for (auto const& [now, at_jump, at_iret] : {Case{0x8b, 13, 0},
                                                {0x89, 0, 10},
                                                {0x09, 11, 10},
                                                {0x0b, 13, 11},
                                                {0x82, 13, 10},
                                                {0x9b, 13, 10},
                                                {0xff, 13, 10}}) {
        again();
        set_rights(sel_new, now);
        if (at_jump != 0) expect_fault_in_old_task(jump(), at_jump, sel_new);
        again();
        set_rights(sel_new, now);
        if (at_iret != 0) expect_fault_in_old_task(iret(), at_iret, sel_new);
    }
}

TEST_F(TaskSwitchTest, SelectorsBeyondTheGdtOrInAnLdtAreRefused) {
    for (u16 const selector : {u16{0}, u16{3}, u16{0x60}, u16{sel_new | 4}, u16{0xffff}}) {
        expect_fault_in_old_task(jump(selector), 13, selector & 0xfffc);
        expect_fault_in_old_task(iret(selector), 10, selector & 0xfffc);
    }
    vcpu().set_gdt({gdt, sel_new + 6});
    expect_fault_in_old_task(jump(), 13, sel_new);
}

TEST_F(TaskSwitchTest, ShortTssAreInvalid) {
    put<u16>(gdt + sel_new, 0x66);
    expect_fault_in_old_task(jump(), 10, sel_new);
    put<u16>(gdt + sel_small, 0x2a);
    expect_fault_in_old_task(jump(sel_small), 10, sel_small);
    again();
    vcpu().set_segment(SegmentName::Tr, {sel_old, type_busy, 0x5e, old_tss});
    expect_fault_in_old_task(jump(), 10, sel_old);
}

TEST_F(TaskSwitchTest, ExternalEventsSetExtInErrorCodes) {
    set_rights(sel_new, 0x09);
    auto interrupt = request(Source::Gate, sel_new);
    interrupt.is_external = true;
    EXPECT_EQ(vm::switch_task(vcpu(), interrupt, 0), TaskSwitchResult::Raised);
    expect_raised(11, sel_new | 1);
    EXPECT_EQ(vm::switch_task(vcpu(), request(Source::Gate, sel_new), 2), TaskSwitchResult::Raised);
    expect_raised(11, sel_new); // INT n
}

TEST_F(TaskSwitchTest, FaultsOfTheNewTasksSegmentsComeInIt) {
    struct Case {
        SegmentName name;
        u16 selector;
        u8 vector;
    };
    for (auto const& [name, selector, vector] : {Case{SegmentName::Cs, 0, 10},
                                                 {SegmentName::Cs, sel_data, 10},
                                                 {SegmentName::Cs, sel_code | 3, 10},  // DPL is not RPL
                                                 {SegmentName::Cs, sel_user_code, 10}, // the same
                                                 {SegmentName::Cs, sel_old, 10},
                                                 {SegmentName::Cs, 0x60, 10},         // beyond the table
                                                 {SegmentName::Cs, sel_code | 4, 10}, // no LDT
                                                 {SegmentName::Ss, 0, 10},
                                                 {SegmentName::Ss, sel_code, 10},
                                                 {SegmentName::Ss, sel_read_only, 10},
                                                 {SegmentName::Ss, sel_data | 1, 10},  // RPL is not CPL
                                                 {SegmentName::Ss, sel_user_data, 10}, // DPL is not CPL
                                                 {SegmentName::Ds, sel_execute_only, 10},
                                                 {SegmentName::Es, sel_data | 1, 10}, // DPL below RPL
                                                 {SegmentName::Fs, sel_old, 10},
                                                 {SegmentName::Gs, 0x60, 10}}) {
        again();
        segment(name, selector);
        expect_fault_in_new_task(vector, selector & 0xfffc);
    }
}

TEST_F(TaskSwitchTest, AbsentSegmentsFaultInTheNewTask) {
    put<u64>(gdt + sel_conforming, descriptor(0, 0xf'ffff, 0x1b, 0xc));
    segment(SegmentName::Cs, sel_conforming);
    expect_fault_in_new_task(11, sel_conforming);
    again();
    put<u64>(gdt + sel_conforming, descriptor(0, 0xf'ffff, 0x13, 0xc));
    segment(SegmentName::Ss, sel_conforming);
    expect_fault_in_new_task(12, sel_conforming);
    again();
    put<u64>(gdt + sel_conforming, descriptor(0, 0xf'ffff, 0x13, 0xc));
    segment(SegmentName::Gs, sel_conforming);
    expect_fault_in_new_task(11, sel_conforming);
}

TEST_F(TaskSwitchTest, AUserTaskTakesSegmentsOfItsPrivilege) {
    segment(SegmentName::Cs, sel_user_code | 3);
    segment(SegmentName::Ss, sel_user_data | 3);
    segment(SegmentName::Ds, sel_user_data | 3);
    segment(SegmentName::Es, sel_conforming | 3); // for all
    segment(SegmentName::Fs, 3);                  // null
    segment(SegmentName::Gs, sel_data);
    expect_fault_in_new_task(10, sel_data); // the kernel's data
    again();
    segment(SegmentName::Cs, sel_conforming | 3);
    segment(SegmentName::Ss, sel_user_data | 3);
    for (auto const name : {SegmentName::Ds, SegmentName::Es, SegmentName::Fs, SegmentName::Gs})
        segment(name, 0);
    EXPECT_EQ(jump(), TaskSwitchResult::Done);
    EXPECT_EQ(vcpu().segment(SegmentName::Ss).attributes & 0x60, 0x60);
    EXPECT_EQ(vcpu().segment(SegmentName::Cs).selector, sel_conforming | 3);
}

TEST_F(TaskSwitchTest, SegmentsOfTheNewTasksLdtAreLoadedAndMarked) {
    field(0x60, sel_ldt);
    segment(SegmentName::Fs, 0x0c);
    EXPECT_EQ(jump(), TaskSwitchResult::Done);
    EXPECT_EQ(vcpu().segment(SegmentName::Fs).base, 0x9000U);
    EXPECT_EQ(vcpu().segment(SegmentName::Fs).attributes, 0x4093);
    EXPECT_EQ(get<u8>(ldt + 8 + 5), 0x93); // accessed
    again();
    segment(SegmentName::Fs, 0x14); // beyond its limit
    field(0x60, sel_ldt);
    expect_fault_in_new_task(10, 0x14);
    for (u16 const selector : {u16{sel_ldt | 4}, sel_data, sel_old, u16{0x60}}) {
        again();
        field(0x60, selector);
        expect_fault_in_new_task(10, selector);
    }
    again();
    set_rights(sel_ldt, 0x02);
    field(0x60, sel_ldt);
    expect_fault_in_new_task(10, sel_ldt);
}

TEST_F(TaskSwitchTest, InVirtual8086ModeSelectorsAreParagraphs) {
    field(0x24, VM | 0x202);
    field(0x20, 0xffff);
    segment(SegmentName::Cs, 0x1234);
    segment(SegmentName::Ss, 0xffff);
    EXPECT_EQ(jump(), TaskSwitchResult::Done);
    auto const cs = vcpu().segment(SegmentName::Cs), ss = vcpu().segment(SegmentName::Ss);
    EXPECT_EQ(cs.base, 0x1'2340U);
    EXPECT_EQ(cs.limit, 0xffffU);
    EXPECT_EQ(cs.attributes, 0xf3);
    EXPECT_EQ(ss.base, 0xf'fff0U);
    again();
    field(0x24, VM | 0x202);
    field(0x60, sel_data); // no LDT: what VM entry wants of the segments holds all the same
    EXPECT_EQ(jump(), TaskSwitchResult::Raised);
    expect_raised(10, sel_data);
    EXPECT_EQ(vcpu().segment(SegmentName::Cs).attributes, 0xf3);
    EXPECT_EQ(vcpu().segment(SegmentName::Cs).base, u64{sel_code} << 4);
}

TEST_F(TaskSwitchTest, EipBeyondTheCodeSegmentIsAFaultOfTheNewTask) {
    put<u64>(gdt + sel_conforming, descriptor(0, 0x4320, 0x9b, 4));
    segment(SegmentName::Cs, sel_conforming);
    expect_fault_in_new_task(13, 0);
    again();
    field(0x24, VM | 2);
    field(0x20, 0x1'0000);
    EXPECT_EQ(jump(), TaskSwitchResult::Raised);
    expect_new_task();
    expect_raised(13, 0);
}

TEST_F(TaskSwitchTest, TheTrapFlagOfATssIsADebugTrap) {
    field(0x64, 1);
    EXPECT_EQ(jump(), TaskSwitchResult::Raised);
    expect_new_task();
    EXPECT_EQ(vcpu().exception().vector, 1);
    EXPECT_FALSE(vcpu().exception().has_error_code);
    EXPECT_EQ(vcpu().dr6(), 0xffff'8ff0U);
}

TEST_F(TaskSwitchTest, ErrorCodesNeedRoomOnTheNewStack) {
    put<u64>(gdt + sel_read_only, descriptor(stack, 0xff, 0x93, 4));
    segment(SegmentName::Ss, sel_read_only);
    field(0x28 + 16, 0x100);
    EXPECT_EQ(exception(13, true, 5), TaskSwitchResult::Done);
    EXPECT_EQ(get<u32>(stack + 0xfc), 5U);
    again();
    put<u64>(gdt + sel_read_only, descriptor(stack, 0xff, 0x93, 4));
    segment(SegmentName::Ss, sel_read_only);
    field(0x28 + 16, 0x101);
    EXPECT_EQ(exception(17, true, 0), TaskSwitchResult::Raised);
    expect_new_task();
    expect_raised(12, 1);
    again(); // expand-down: from its limit to 64 KiB
    put<u64>(gdt + sel_read_only, descriptor(0, 0xfff, 0x97, 0));
    segment(SegmentName::Ss, sel_read_only);
    field(0x28 + 16, 0xabcd'1004);
    EXPECT_EQ(exception(13, true, 6), TaskSwitchResult::Done);
    EXPECT_EQ(vcpu().gpr(Gpr::Rsp), 0xabcd'1000U);
    again();
    put<u64>(gdt + sel_read_only, descriptor(0, 0xfff, 0x97, 0));
    segment(SegmentName::Ss, sel_read_only);
    field(0x28 + 16, 0x1003);
    EXPECT_EQ(exception(17, true, 6), TaskSwitchResult::Raised);
    expect_raised(12, 1);
}

TEST_F(TaskSwitchTest, FaultsDuringExceptionsBecomeDoubleAndTripleFaults) {
    set_rights(sel_new, 0x09); // #NP
    EXPECT_EQ(exception(13, true, 0), TaskSwitchResult::Raised);
    expect_raised(8, 0);
    EXPECT_EQ(exception(3), TaskSwitchResult::Raised);
    expect_raised(11, sel_new | 1);
    EXPECT_EQ(exception(8, true, 0), TaskSwitchResult::TripleFault);
    expect_old_task();
}

TEST(ExceptionDuring, FollowsTheTable) {
    struct Case {
        u8 first, second;
        int result; // 0: a triple fault
    };
    for (auto const& [first, second, result] : {Case{1, 13, 13},
                                                {13, 1, 1},
                                                {13, 13, 8},
                                                {10, 0, 8},
                                                {13, 14, 14},
                                                {14, 14, 8},
                                                {14, 12, 8},
                                                {14, 17, 17},
                                                {8, 11, 0},
                                                {8, 14, 0},
                                                {8, 17, 17}}) {
        auto const now = vm::exception_during(first, {second, true, 5, 0x77});
        EXPECT_EQ(now ? now->vector : 0, result) << int{first} << " " << int{second};
        if (result == 8) EXPECT_EQ(now->error_code, 0U);
    }
}

// With 32-bit paging: page directory at 0x7000, one table for the lowest 4 MiB at 0x8000.
class PagedTaskSwitch : public TaskSwitchTest {
protected:
    static constexpr u32 writable = 3, read_only = 1, absent = 0;
    void SetUp() override {
        TaskSwitchTest::SetUp();
        put<u32>(0x7000, 0x8000 | 7);
        put<u32>(0xa000, 0x8000 | 7); // the other task's directory
        for (u32 i = 0; i < 1024; i++)
            put<u32>(0x8000 + 4 * i, i << 12 | writable);
        vcpu().set_cr0(0x8001'0011);
        vcpu().set_cr3(0x7000);
        field(0x1c, 0xa000);
    }
    void page(u64 linear, u32 rights) {
        put<u32>(0x8000 + (linear >> 12) * 4, static_cast<u32>(linear & ~u64{0xfff}) | rights);
    }
    u32 entry(u64 linear) { return vm->ram().load_aligned<u32>(vm::GuestPhys{0x8000 + (linear >> 12) * 4}); }
    void expect_page_fault(TaskSwitchResult result, u32 code, u64 at) {
        EXPECT_EQ(result, TaskSwitchResult::Raised);
        expect_raised(14, code);
        EXPECT_EQ(vcpu().exception().cr2, at);
    }
};

TEST_F(PagedTaskSwitch, LoadsCr3) {
    EXPECT_EQ(jump(), TaskSwitchResult::Done);
    EXPECT_EQ(vcpu().cr3(), 0xa000U);
}

TEST_F(PagedTaskSwitch, PageFaultsOfBothTssComeBeforeAnythingChanges) {
    page(new_tss, absent);
    expect_page_fault(jump(), 0, new_tss);
    expect_old_task();
    page(new_tss, read_only);
    expect_page_fault(call(), 3, new_tss); // the link
    expect_old_task();
    EXPECT_EQ(jump(), TaskSwitchResult::Done); // a jump only reads there
    again();
    page(old_tss, read_only);
    expect_page_fault(jump(), 3, old_tss + 0x20);
    expect_old_task();
    page(old_tss, writable);
    page(gdt, read_only);
    expect_page_fault(jump(), 3, gdt + sel_new);
    EXPECT_EQ(rights(sel_new), type_available);
    page(gdt, absent);
    expect_page_fault(iret(), 0, gdt + sel_new);
}

TEST_F(PagedTaskSwitch, AlignmentCheckDoesNotLiftSmapForATss) {
    constexpr u32 user = 4, accessed = 0x20, dirty = 0x40;
    page(new_tss, writable | user);
    vcpu().set_cr4(vm::cr4::SMAP);
    vcpu().set_rflags(vcpu().rflags() | 1U << 18);
    expect_page_fault(jump(), 1, new_tss);
    expect_old_task();
    vcpu().set_cr4(0);
    EXPECT_EQ(jump(), TaskSwitchResult::Done);
    EXPECT_EQ(entry(new_tss) & (accessed | dirty), accessed);
    EXPECT_EQ(entry(old_tss) & (accessed | dirty), accessed | dirty);
}

TEST_F(PagedTaskSwitch, TssMayCrossIntoAnotherPage) {
    constexpr u32 base = 0x3fd0; // EIP of the task is the last of its page's fields but for 12
    put<u64>(gdt + sel_new, descriptor(base, 0x67, type_available));
    std::memcpy(vm->ram().pointer(vm::GuestPhys{base}, 0x68), vm->ram().pointer(vm::GuestPhys{new_tss}, 0x68), 0x68);
    std::memcpy(vm->ram().pointer(vm::GuestPhys{0x20'0000}, 0x38), vm->ram().pointer(vm::GuestPhys{0x4000}, 0x38),
                0x38);
    put<u32>(0x8000 + 4 * 4, 0x20'0000 | writable); // the second page lies elsewhere
    std::memset(vm->ram().pointer(vm::GuestPhys{0x4000}, 0x38), 0, 0x38);
    EXPECT_EQ(jump(), TaskSwitchResult::Done);
    EXPECT_EQ(vcpu().rip(), 0x4321U);
    EXPECT_EQ(vcpu().gpr(Gpr::Rdi), 0xb000'0007U);
    again();
    put<u64>(gdt + sel_new, descriptor(base, 0x67, type_available));
    page(0x4000, absent);
    expect_page_fault(jump(), 0, 0x4000);
}

TEST_F(PagedTaskSwitch, TssWhereThereIsNoMemoryReadsAsOnes) {
    put<u32>(0x8000 + 4 * 3, 0xfed0'0000 | writable);
    EXPECT_EQ(jump(), TaskSwitchResult::Raised);
    expect_new_task();
    EXPECT_EQ(vcpu().rip(), 0xffff'ffffU);
    EXPECT_EQ(vcpu().cr3(), 0xffff'ffffU);
}

TEST_F(PagedTaskSwitch, PageFaultsOfTheStackAreTheNewTasks) {
    page(stack, read_only);
    expect_page_fault(exception(13, true, 0), 3, stack + 0x7fc);
    expect_new_task();
    again();
    segment(SegmentName::Cs, sel_user_code | 3);
    for (auto const name : {SegmentName::Es, SegmentName::Ss, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs})
        segment(name, sel_user_data | 3);
    expect_page_fault(exception(17, true, 0), 7, stack + 0x7fc); // a supervisor page
}

TEST_F(PagedTaskSwitch, PageDirectoryPointersAreCheckedBeforeTheSwitch) {
    vcpu().set_cr4(vm::cr4::PAE);
    put<u64>(0xb000, 0xc000 | 1); // one directory of a 2 MiB page, for both tasks
    put<u64>(0xc000, 0x83);
    vcpu().set_cr3(0xb000);
    put<u64>(0xb020, 0xc000 | 1);
    field(0x1c, 0xb020);
    put<u64>(0xb038, 0xc000 | 3); // bit 1 is reserved
    EXPECT_EQ(jump(), TaskSwitchResult::Raised);
    expect_raised(13, 0);
    expect_old_task();
    put<u64>(0xb038, 0xc002); // not present: anything goes
    EXPECT_EQ(jump(), TaskSwitchResult::Done);
    EXPECT_EQ(vcpu().cr3(), 0xb020U);
}

// Whatever a guest puts there, the switch ends, and leaves a state that VM entry takes.
TEST_F(PagedTaskSwitch, RandomTasksLeaveAValidState) {
    u64 seed = 88172645463325252;
    auto const random = [&] { return seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17; };
    unsigned done = 0;
    for (unsigned round = 0; round < 20000; round++) {
        again();
        for (unsigned i = 0; i < 4; i++) {
            u64 const at = random();
            switch (at % 4) {
            case 0: put<u8>(gdt + 8 + (at >> 8) % (gdt_limit - 8), static_cast<u8>(at >> 32)); break;
            case 1: put<u8>(new_tss + (at >> 8) % 0x68, static_cast<u8>(at >> 32)); break;
            case 2: segment(static_cast<SegmentName>((at >> 8) % 6), static_cast<u16>((at >> 32) & 0x7f)); break;
            default: put<u32>(0x8000 + (at >> 8) % 16 * 4, static_cast<u32>(at >> 32)); break;
            }
        }
        bool const is_gate = (random() & 1) != 0;
        auto const result = is_gate ? exception(13, true, 0) : jump();
        if (result == TaskSwitchResult::Done) done++;
        auto const cs = vcpu().segment(SegmentName::Cs), ss = vcpu().segment(SegmentName::Ss),
                   tr = vcpu().segment(SegmentName::Tr);
        ASSERT_TRUE((tr.attributes & 0x9f) == 0x8b || (tr.attributes & 0x9f) == 0x83);
        ASSERT_EQ(cs.attributes & vm::segment::unusable, 0);
        if ((vcpu().rflags() & VM) != 0) {
            ASSERT_EQ(cs.attributes, 0xf3);
            continue;
        }
        ASSERT_EQ(cs.attributes & 0x99, 0x99);
        if ((cs.attributes & 4) == 0)
            ASSERT_EQ(cs.attributes & 0x60, ss.attributes & 0x60);
        else
            ASSERT_LE(cs.attributes & 0x60, ss.attributes & 0x60);
        for (unsigned i = 0; i < 6; i++) {
            auto const s = vcpu().segment(static_cast<SegmentName>(i));
            if ((s.attributes & vm::segment::unusable) != 0) continue;
            ASSERT_EQ(s.attributes & 0x91, 0x91) << i;
            bool const is_in_pages = (s.attributes & 0x8000) != 0;
            ASSERT_TRUE(is_in_pages ? (s.limit & 0xfff) == 0xfff : s.limit >> 20 == 0) << i;
        }
    }
    EXPECT_GT(done, 1000U);
}

} // namespace
