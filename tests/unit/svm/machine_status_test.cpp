// SPDX-License-Identifier: MIT
// SMSW while the guest has CD or NW set in CR0, which the CPU's CR0 never has. [amd/vol3] SMSW
#include "svm/vcpu_fixture.hpp"

#include <lib/memory.hpp>

namespace amd_machine {
namespace {

using vm::Gpr;

class MachineStatus : public VcpuTest {
protected:
    static constexpr u64 written = 0xe001'0011, data = 0x10'1000;
    explicit MachineStatus(u32 features = features_tcg) : VcpuTest(features) {}
    void SetUp() override {
        VcpuTest::SetUp();
        vcpu().set_cr0(written);
    }
    svm::Vmcb store(std::initializer_list<u8> code) {
        write_code(rip, code);
        vcpu().set_rip(rip);
        vcpu().gpr(Gpr::Rdx) = vcpu().gpr(Gpr::R9) = ~u64{0};
        u64 const next_rip = rip + code.size();
        auto const next = after({exit_code::READ_CR0, 0, 0, [=](svm::Vmcb& b) { b.control.next_rip = next_rip; }});
        EXPECT_EQ(next.control.intercepts.cr_reads & 1, 1) << "the next read needs the exit too";
        return next;
    }
};
class MachineStatusOnZen : public MachineStatus {
protected:
    MachineStatusOnZen() : MachineStatus(features_zen2) {}
};

TEST_F(MachineStatus, ARegisterGetsAllThatItsSizeHolds) {
    EXPECT_EQ(store({0x0f, 0x01, 0xe2}).save.rip, rip + 3); // SMSW EDX
    EXPECT_EQ(vcpu().gpr(Gpr::Rdx), written);
    EXPECT_EQ(store({0x66, 0x0f, 0x01, 0xe2}).save.rip, rip + 4); // SMSW DX
    EXPECT_EQ(vcpu().gpr(Gpr::Rdx), 0xffff'ffff'ffff'0011U);
    EXPECT_EQ(store({0x49, 0x0f, 0x01, 0xe1}).save.rip, rip + 4); // SMSW R9
    EXPECT_EQ(vcpu().gpr(Gpr::R9), written);
    EXPECT_EQ(store({0x48, 0x0f, 0x01, 0xe4}).save.rsp, written); // SMSW RSP
}

TEST_F(MachineStatus, AMoveAfterItShowsWhatTheGuestHasWritten) {
    store({0x0f, 0x01, 0xe2});               // SMSW EDX
    write_code(rip + 3, {0x0f, 0x20, 0xc1}); // MOV RCX, CR0
    after({exit_code::READ_CR0, 0, 0, [](svm::Vmcb& b) { b.control.next_rip = b.save.rip + 3; }});
    EXPECT_EQ(vcpu().gpr(Gpr::Rcx), written);
}

// QEMU 10.
TEST_F(MachineStatus, AReadOfAnotherRegisterThatIsCalledOneOfCr0GetsThatRegister) {
    u64 const cr3 = vcpu().cr3(), cr4 = vcpu().cr4();
    store({0x0f, 0x20, 0xe2}); // MOV RDX, CR4
    EXPECT_EQ(vcpu().gpr(Gpr::Rdx), cr4);
    store({0x0f, 0x20, 0xda}); // MOV RDX, CR3
    EXPECT_EQ(vcpu().gpr(Gpr::Rdx), cr3);
    write_code(rip, {0x0f, 0x20, 0xd2}); // MOV RDX, CR2: the CPU does it, without the exit
    vcpu().set_rip(rip);
    auto const next = after({exit_code::READ_CR0, 0, 0, {}});
    EXPECT_EQ(next.save.rip, rip);
    EXPECT_EQ(next.control.intercepts.cr_reads & 1, 0);
    EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
}

TEST_F(MachineStatusOnZen, TheLowHalfOfTheExitInformationNamesNoRegister) {
    EXPECT_EQ(store({0x0f, 0x01, 0xe2}).save.rip, rip + 3);
    EXPECT_EQ(vcpu().gpr(Gpr::Rdx), written);
}

TEST_F(MachineStatus, MemoryGets16Bits) {
    u8* const there = vm->ram().pointer(vm::GuestPhys{data}, 8);
    std::memset(there, 0xee, 8);
    vcpu().gpr(Gpr::Rbx) = data;
    EXPECT_EQ(store({0x0f, 0x01, 0x23}).save.rip, rip + 3); // SMSW [RBX]
    EXPECT_EQ(lib::load<u32>(there), 0xeeee'0011U);
    EXPECT_EQ(store({0x48, 0x0f, 0x01, 0x63, 0x04}).save.rip, rip + 5); // SMSW [RBX + 4], with REX.W
    EXPECT_EQ(lib::load<u32>(there + 4), 0xeeee'0011U);
}

TEST_F(MachineStatus, MemoryThatIsNotMappedIsAPageFault) {
    vcpu().gpr(Gpr::Rbx) = 0x7000'0000'0000;
    auto const next = store({0x0f, 0x01, 0x23}); // SMSW [RBX]
    EXPECT_EQ(injected(next), event(14, 3) | 1U << 11 | u64{2} << 32) << "a write to a page that is not present";
    EXPECT_EQ(next.save.cr2, 0x7000'0000'0000U);
    EXPECT_EQ(next.save.rip, rip);
}

TEST_F(MachineStatus, ProgramsAreRefusedWhereTheirKernelSaysSo) {
    vcpu().set_cr4(vcpu().cr4() | vm::cr4::UMIP);
    store({0x0f, 0x01, 0xe2});
    EXPECT_EQ(vcpu().gpr(Gpr::Rdx), written) << "UMIP is about programs";
    for (u64 const table : {u64{0x1000}, u64{0x2000}, u64{0x3000}})
        *vm->ram().pointer(vm::GuestPhys{table}, 1) |= 4; // the code is a program's
    vmcb().save.cpl = 3;
    EXPECT_EQ(injected(store({0x0f, 0x01, 0xe2})), gp);
    EXPECT_EQ(vcpu().gpr(Gpr::Rdx), ~u64{0});
}

} // namespace
} // namespace amd_machine
