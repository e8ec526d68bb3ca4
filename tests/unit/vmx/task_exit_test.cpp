// SPDX-License-Identifier: MIT
#include "vmx/vcpu_exit_fixture.hpp"

namespace intel_machine {
namespace {

namespace field = vmx::field;
namespace reason = vmx::reason;
using vm::Gpr;
using vm::SegmentName;

// Two tasks in guest memory; what becomes of them is tested in vm/task_switch_test.cpp.
class TaskExit : public VcpuExit {
protected:
    static constexpr u64 gdt = 0x1000, old_tss = 0x2000, new_tss = 0x3000;
    static constexpr u64 to_new_task = 0x20, iret = 1U << 30, jump = 2U << 30, gate = 3U << 30;
    void SetUp() override {
        VcpuExit::SetUp();
        put<u64>(gdt + 8, 0x00cf'9b00'0000'ffff);
        put<u64>(gdt + 0x10, 0x00cf'9300'0000'ffff);
        put<u64>(gdt + 0x18, 0x0000'8b00'2000'0067);
        set_new_task(0x89);
        vcpu().set_gdt({gdt, 0x27});
        vcpu().set_segment(SegmentName::Tr, {0x18, 0x8b, 0x67, old_tss});
        put<u32>(new_tss + 0x20, 0x4321);
        put<u32>(new_tss + 0x24, 0x202);
        put<u32>(new_tss + 0x38, 0x6800);
        for (u64 offset = 0x48; offset <= 0x5c; offset += 4)
            put<u32>(new_tss + offset, offset == 0x4c ? 8 : 0x10);
    }
    void set_new_task(u8 rights) { put<u64>(gdt + 0x20, 0x0000'0000'3000'0067 | u64{rights} << 40); }
    template <typename T> void put(u64 at, T value) {
        std::memcpy(vm->ram().pointer(vm::GuestPhys{at}, sizeof(T)), &value, sizeof(T));
    }
    u32 get(u64 at) { return lib::load<u32>(vm->ram().pointer(vm::GuestPhys{at}, 4)); }
    Exit through_gate(u32 vectoring, u32 length = 2) {
        return {reason::task_switch, gate | to_new_task, length, [this, vectoring] {
                    poke(field::IDT_VECTORING_INFO, vectoring);
                    poke(field::IDT_VECTORING_ERROR_CODE, 0xab);
                }};
    }
};

TEST_F(TaskExit, AJumpRunsTheNewTask) {
    auto const entry = after({reason::task_switch, jump | to_new_task, 7, [&] {
                                  poke(field::GUEST_INTERRUPTIBILITY, 1);
                                  poke(field::GUEST_PENDING_DEBUG, 1U << 14);
                              }});
    EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
    EXPECT_EQ(entry.rip, 0x4321U);
    EXPECT_EQ(entry.interruption, 0U);
    EXPECT_EQ(get(old_tss + 0x20), rip + 7);
    EXPECT_EQ(field(field::GUEST_TR), 0x20U);
    EXPECT_EQ(field(field::GUEST_TR_BASE), new_tss);
    EXPECT_EQ(field(field::GUEST_INTERRUPTIBILITY), 0U);
    EXPECT_EQ(field(field::GUEST_PENDING_DEBUG), 0U);
    EXPECT_EQ(vcpu().exit_counts()[static_cast<unsigned>(vm::ExitReason::TaskSwitch)], 1U);
}

TEST_F(TaskExit, TheEventThatCameThroughAGateIsDelivered) {
    auto const entry = after(through_gate(hardware_exception(8, true)));
    EXPECT_EQ(entry.rip, 0x4321U);
    EXPECT_EQ(entry.interruption, 0U);
    EXPECT_EQ(get(old_tss + 0x20), rip); // a fault: the length that the field has means nothing
    EXPECT_EQ(get(0x6800 - 4), 0xabU);
}

TEST_F(TaskExit, AnIntSavesTheNextInstruction) {
    after(through_gate(event(0x80, 4), 2));
    EXPECT_EQ(get(old_tss + 0x20), rip + 2);
}

TEST_F(TaskExit, NmisAreBlockedInTheirTaskUntilItsIret) {
    after(through_gate(event(2, 2)));
    EXPECT_EQ(field(field::GUEST_INTERRUPTIBILITY), 8U);
    EXPECT_EQ(after({reason::task_switch, iret | 0x18, 1}).rip, rip);
    EXPECT_EQ(field(field::GUEST_INTERRUPTIBILITY), 0U);
}

TEST_F(TaskExit, AFaultComesInPlaceOfTheEvent) {
    set_new_task(0x09);
    auto entry = after({reason::task_switch, jump | to_new_task, 7});
    EXPECT_EQ(entry.interruption, hardware_exception(11, true));
    EXPECT_EQ(entry.error_code, 0x20U);
    EXPECT_EQ(entry.rip, rip);
    entry = after(through_gate(event(0x31, 0)));
    EXPECT_EQ(entry.interruption, hardware_exception(11, true));
    EXPECT_EQ(entry.error_code, 0x21U);
    EXPECT_EQ(after({reason::cpuid}).interruption, 0U) << "and no interrupt follows";
}

TEST_F(TaskExit, AFaultOfADoubleFaultsTaskEndsTheVm) {
    set_new_task(0x09);
    EXPECT_EQ(run({through_gate(hardware_exception(8, true))}), kernel::RunResult::Stopped);
    EXPECT_NE(vm->end_text().find("triple fault in a task switch"), std::string_view::npos) << vm->end_text();
}

TEST_F(TaskExit, TheTrapFlagOfATssIsADebugTrap) {
    put<u32>(new_tss + 0x64, 1);
    EXPECT_EQ(after({reason::task_switch, jump | to_new_task, 7}).interruption, hardware_exception(1, false));
    EXPECT_EQ(vcpu().dr6() & 0x8000, 0x8000U);
}

TEST_F(TaskExit, PageDirectoryPointersOfTheNewTaskAreLoaded) {
    vcpu().set_cr4(vm::cr4::PAE);
    put<u64>(0x9000, 0xa000 | 1);
    put<u64>(0x9020, 0xb000 | 1);
    put<u64>(0xa000, 0x83); // 2 MiB, 1:1
    put<u64>(0xb000, 0x83);
    vcpu().set_cr3(0x9000);
    vcpu().set_cr0(0x8000'0011);
    EXPECT_EQ(field(field::GUEST_PDPTE0), 0xa001U);
    put<u32>(new_tss + 0x1c, 0x9020);
    EXPECT_EQ(after({reason::task_switch, jump | to_new_task, 7}).rip, 0x4321U);
    EXPECT_EQ(field(field::GUEST_CR3), 0x9020U);
    EXPECT_EQ(field(field::GUEST_PDPTE0), 0xb001U);
}

} // namespace
} // namespace intel_machine
