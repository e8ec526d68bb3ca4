// SPDX-License-Identifier: MIT
// When a vCPU uses AVIC, what its control block and the tables say, and the exits for what the CPU leaves to us.
#include "svm/avic_machine.hpp"

namespace amd_machine {
namespace {

using svm::AvicMode;
using svm::IncompleteIpi;
namespace clean = svm::clean;

constexpr u64 rip = 0x10'0000;

class AvicTest : public AvicMachine {
protected:
    explicit AvicTest(u32 features = features_zen4, u32 signature = signature_zen4)
        : AvicMachine(features, signature) {}
    void SetUp() override { create_several(3); }
    svm::Vmcb after(Exit exit) {
        entries.clear();
        EXPECT_EQ(run({std::move(exit)}), kernel::RunResult::Work) << vm->end_text();
        return entries.back();
    }
    svm::LogicalIdEntry logical(u32 index) { return tables().logical(index); }
    u64 root() { return static_cast<svm::NptSpace&>(vm->space()).root().value; }
    u64 root_with_apic() { return static_cast<svm::NptSpace&>(vm->space()).root_with_apic().value; }
    void write_base(u64 value) {
        EXPECT_EQ(vcpu().write_apic_base(value), vm::MsrResult::Done);
        run({});
    }
};
// AVIC without x2AVIC, and with the erratum.
class OldAvicTest : public AvicTest {
protected:
    OldAvicTest() : AvicTest(features_zen2, signature_zen2) {}
};

constexpr u64 base_xapic = 0xfee0'0900, base_x2apic = 0xfee0'0d00, base_off = 0xfee0'0100;

u32 logical_entry(u8 id) { return 1U << 31 | id; }

TEST_F(AvicTest, ComesOnWhenTheApicIsEnabled) {
    EXPECT_EQ(mode(), AvicMode::XApic);
    EXPECT_EQ(vmcb().control.nested_cr3, root_with_apic());
    EXPECT_EQ(entry(0).raw, 1ULL << 63 | kernel::virt_to_phys(&page(0)).value);
    EXPECT_EQ(entry(1).raw, 0U) << "never ran";
    vcpu().apic().mmio_write(reg::SVR, 4, 0xff);
    run({});
    EXPECT_EQ(mode(), AvicMode::Off);
    EXPECT_EQ(vmcb().control.nested_cr3, root()) << "accesses to the page exit again";
    EXPECT_FALSE(is_valid(entry(0))) << "it accepts nothing";
}

TEST_F(AvicTest, TheTableSaysWhereAVcpuRuns) {
    svm::PhysicalIdEntry seen{};
    run({{.code = exit_code::INTR, .before = [&](svm::Vmcb&) { seen = entry(0); }}});
    EXPECT_TRUE(is_running(seen));
    EXPECT_EQ(seen.get<svm::PhysicalIdEntry::HostApicId>(), host_apic_id);
    EXPECT_FALSE(is_running(entry(0)));
    EXPECT_TRUE(is_valid(entry(0)));
    EXPECT_EQ(entry(0).get<svm::PhysicalIdEntry::HostApicId>(), 0U);
}

TEST_F(OldAvicTest, TheErratumsCpusAreNotToldThatAVcpuRuns) {
    bool seen = true;
    run({{.code = exit_code::INTR, .before = [&](svm::Vmcb&) { seen = is_running(entry(0)); }}});
    EXPECT_EQ(mode(), AvicMode::XApic);
    EXPECT_FALSE(seen);
    EXPECT_TRUE(is_valid(entry(0)));
}

TEST_F(AvicTest, FollowsTheApicsMode) {
    write_base(base_x2apic);
    EXPECT_EQ(mode(), AvicMode::X2Apic);
    EXPECT_EQ(vmcb().control.nested_cr3, root()) << "no page in x2APIC mode";
    EXPECT_EQ(vmcb().control.msrpm_base, backend->x2avic_msr_permissions().value);
    write_base(base_off);
    EXPECT_EQ(mode(), AvicMode::Off);
    EXPECT_EQ(vmcb().control.msrpm_base, backend->msr_permissions().value);
    EXPECT_FALSE(is_valid(entry(0)));
    write_base(base_xapic);
    EXPECT_EQ(mode(), AvicMode::Off) << "as after power-on: disabled by software";
    vcpu().apic().mmio_write(reg::SVR, 4, 0x1ff);
    run({});
    EXPECT_EQ(mode(), AvicMode::XApic);
}

TEST_F(AvicTest, EveryChangeIsMarked) {
    run({});
    EXPECT_EQ(vmcb().control.clean_bits, clean::all | clean::avic);
    u32 const asid = vmcb().control.asid;
    EXPECT_EQ(vcpu().write_apic_base(base_x2apic), vm::MsrResult::Done);
    entries.clear();
    run({});
    u32 const changed = clean::interrupt_control | clean::avic | clean::nested_paging | clean::permission_maps;
    EXPECT_EQ(entries[0].control.clean_bits & changed, 0U);
    EXPECT_EQ(entries[0].control.asid, asid);
    EXPECT_EQ(entries[0].control.tlb_control, svm::TlbControl::FlushAsid) << "the page at FEE00000h is another";
}

// In x2APIC mode such a CPU could not help, and guests use that mode where they find it.
TEST_F(OldAvicTest, GuestsGetNoX2ApicMode) {
    EXPECT_EQ(vcpu().write_apic_base(base_x2apic), vm::MsrResult::GeneralProtection);
    EXPECT_NE(mode(), AvicMode::Off);
}

TEST_F(AvicTest, GivesWayToThePic) {
    after(trapped(reg::LVT_LINT0, 0x700));
    EXPECT_EQ(mode(), AvicMode::Off);
    EXPECT_TRUE(is_valid(entry(0)));
    platform.pic = true;
    vcpu().post(vm::request::interrupt);
    entries.clear();
    run({});
    EXPECT_EQ(entries[0].control.event_injection.raw, event(0x20, 0));
    vcpu().apic().mmio_write(reg::LVT_LINT0, 4, 0x10700);
    run({});
    EXPECT_EQ(mode(), AvicMode::XApic);
    // The 8259 pair is wired to the first vCPU only.
    start(1);
    after(trapped(reg::LVT_LINT0, 0x700));
    EXPECT_EQ(mode(), AvicMode::XApic);
}

TEST_F(AvicTest, AnInterruptCutOffByAnExceptionIsPutOffWithoutAvic) {
    auto const delivering = [](svm::Vmcb& b) {
        b.control.exit_int_info.raw = event(0x50, 0);
        b.save.rflags = 2;
    };
    auto const fault = after({exit_code::EXCEPTION_AC, 0, 0, delivering});
    EXPECT_EQ(fault.control.event_injection.raw, event(lib::x86::exception_ac, 3) | 1U << 11);
    EXPECT_EQ(mode(), AvicMode::Off);
    vcpu().set_rflags(0x202);
    vcpu().post(vm::request::interrupt);
    entries.clear();
    run({});
    EXPECT_EQ(entries[0].control.event_injection.raw, event(0x50, 0)) << "it was acknowledged long ago";
    vcpu().post(vm::request::interrupt);
    run({});
    EXPECT_EQ(mode(), AvicMode::XApic);
}

TEST_F(AvicTest, InitTurnsItOff) {
    vcpu().signal_init();
    run({});
    EXPECT_EQ(mode(), AvicMode::Off);
    EXPECT_FALSE(is_valid(entry(0)));
}

TEST_F(AvicTest, NothingPendingIsLostWhenItComesAndGoes) {
    vcpu().set_rflags(2);
    vcpu().apic().mmio_write(reg::LVT_LINT0, 4, 0x700);
    run({});
    vcpu().apic().accept(0x61, vm::TriggerMode::Edge);
    vcpu().apic().mmio_write(reg::LVT_LINT0, 4, 0x10000);
    run({});
    EXPECT_EQ(mode(), AvicMode::XApic);
    EXPECT_TRUE(page().test(reg::IRR, 0x61));
    // The CPU delivers it, and another comes.
    page().clear(reg::IRR, 0x61);
    page().set(reg::ISR, 0x61);
    page().set(reg::IRR, 0x71);
    after(trapped(reg::LVT_LINT0, 0x700));
    EXPECT_EQ(mode(), AvicMode::Off);
    EXPECT_EQ(vcpu().apic().highest_pending(), 0x71);
    vcpu().apic().acknowledge(0x71);
    vcpu().apic().end_of_interrupt();
    EXPECT_EQ(vcpu().apic().highest_isr(), 0x61);
}

TEST_F(AvicTest, TaskPriorityIsKeptInStepWithCr8) {
    // Written by the guest: the CPU has updated both, and the page has a sub-class.
    after({exit_code::INTR, 0, 0, [this](svm::Vmcb& b) {
               b.control.interrupt_control.set<svm::InterruptControl::VirtualTpr>(9);
               page()[reg::TPR] = 0x93;
           }});
    EXPECT_EQ(page()[reg::TPR], 0x93U);
    // Written by us.
    vcpu().apic().set_task_priority(0x40);
    vcpu().post(vm::request::interrupt);
    entries.clear();
    run({});
    EXPECT_EQ(entries[0].control.interrupt_control.get<svm::InterruptControl::VirtualTpr>(), 4);
    EXPECT_EQ(entries[0].control.clean_bits & clean::interrupt_control, 0U);
}

TEST_F(AvicTest, AVcpuThatFollowsAnotherOfItsVmFlushes) {
    start(1);
    entries.clear();
    for (u32 const next : {0U, 1U, 1U, 0U}) {
        current = next;
        run({});
    }
    ASSERT_EQ(entries.size(), 4U);
    EXPECT_EQ(entries[0].control.tlb_control, svm::TlbControl::FlushAsid);
    EXPECT_EQ(entries[1].control.tlb_control, svm::TlbControl::FlushAsid);
    EXPECT_EQ(entries[2].control.tlb_control, svm::TlbControl::Nothing);
    EXPECT_EQ(entries[3].control.tlb_control, svm::TlbControl::FlushAsid);
}

TEST_F(AvicTest, TrappedWritesActOnThePage) {
    after(trapped(reg::LVT_TIMER, 0xffff'ffff & ~0x1'0000U & ~0x6'0000U));
    EXPECT_EQ(page()[reg::LVT_TIMER], 0xffU) << "what is reserved is gone";
    EXPECT_EQ(vcpu().rip(), rip) << "the CPU is behind the instruction already";
    after(trapped(reg::ID, 0xffff'ffff));
    EXPECT_EQ(page()[reg::ID], 0U);
    after(trapped(reg::SVR, 0x0ff));
    EXPECT_EQ(mode(), AvicMode::Off);
    EXPECT_EQ(vcpu().exit_counts()[static_cast<unsigned>(vm::ExitReason::ApicAccess)], 0U);
}

TEST_F(AvicTest, AccessesThatDoNotHappenAreEmulated) {
    struct Case {
        u32 offset;
        bool is_write;
    };
    for (auto const& [offset, is_write] : {Case{reg::CURRENT_COUNT, false}, Case{reg::CURRENT_COUNT, true},
                                           Case{reg::APR, false}, Case{reg::VERSION, true}, Case{reg::PPR, true},
                                           Case{reg::ISR, true}, Case{reg::IRR + 0x70, true}, Case{0x400, true}}) {
        write_code(rip, {is_write ? u8{0x89} : u8{0x8b}, 0x13}); // MOV [RBX], EDX or MOV EDX, [RBX]
        vcpu().set_rip(rip);
        vcpu().gpr(vm::Gpr::Rbx) = 0xfee0'0000U + offset;
        vcpu().gpr(vm::Gpr::Rdx) = 0xdead'beef'dead'beef;
        after(before_access(offset, is_write));
        EXPECT_EQ(vcpu().rip(), rip + 2) << offset;
        EXPECT_EQ(vcpu().gpr(vm::Gpr::Rdx), is_write ? 0xdead'beef'dead'beef : 0U) << offset;
    }
    EXPECT_EQ(vcpu().exit_counts()[static_cast<unsigned>(vm::ExitReason::ApicAccess)], 8U);
    EXPECT_TRUE(platform.accesses.empty()) << "not the devices'";
}

TEST_F(AvicTest, OneInTheWayOfADeliveryStopsTheVm) {
    Exit exit = before_access(reg::CURRENT_COUNT, true);
    exit.before = [](svm::Vmcb& b) { b.control.exit_int_info.raw = event(0x50, 0); };
    EXPECT_EQ(run({exit}), kernel::RunResult::Stopped);
}

TEST_F(AvicTest, X2ApicRegistersThatShouldHaveBeenInterceptedAreRefused) {
    write_base(base_x2apic);
    EXPECT_EQ(after(before_access(reg::CURRENT_COUNT, false)).control.event_injection.raw, event(13, 3) | 1U << 11);
}

// Whether the CPU has cleared ISR or not before the exit.
TEST_F(AvicTest, TheEndOfALevelTriggeredInterruptReachesTheIoapic) {
    for (bool const is_cleared : {false, true}) {
        platform.ended.clear();
        page().set(reg::TMR, 0x73);
        page().set(reg::ISR, 0x41);
        page()[reg::PPR] = 0x70;
        if (!is_cleared) page().set(reg::ISR, 0x73);
        Exit exit = trapped(reg::EOI, 0);
        exit.info_2 = 0x73;
        after(exit);
        EXPECT_EQ(platform.ended, std::vector<u8>{0x73});
        EXPECT_FALSE(page().test(reg::ISR, 0x73));
        EXPECT_TRUE(page().test(reg::ISR, 0x41));
        EXPECT_EQ(page()[reg::PPR], 0x40U);
    }
}

TEST_F(AvicTest, LogicalIdsOfTheFlatModel) {
    EXPECT_EQ(logical(0).raw, 0U);
    after(trapped(reg::LDR, 0x01ff'ffff));
    EXPECT_EQ(logical(0).raw, logical_entry(0));
    start(1);
    after(trapped(reg::LDR, 0x0a00'0000)); // two bits
    EXPECT_EQ(logical(1).raw, logical_entry(1));
    EXPECT_EQ(logical(3).raw, logical_entry(1));
    start(2);
    after(trapped(reg::LDR, 0x0900'0000)); // two that others have
    EXPECT_EQ(logical(0).raw, 0U);
    EXPECT_EQ(logical(3).raw, 0U);
    EXPECT_EQ(logical(1).raw, logical_entry(1));
    after(trapped(reg::LDR, 0x8000'0000));
    EXPECT_EQ(logical(0).raw, logical_entry(0));
    EXPECT_EQ(logical(7).raw, logical_entry(2));
}

TEST_F(AvicTest, LogicalIdsOfTheClusterModel) {
    start(1);
    for (u32 const index : {0U, 1U}) {
        current = index;
        after(trapped(reg::LDR, index == 0 ? 0x2800'0000 : 0xe100'0000));
        after(trapped(reg::DFR, 0x0fff'ffff));
        if (index == 0)
            for (u32 i = 0; i < svm::AvicTables::logical_entries; i++)
                EXPECT_EQ(logical(i).raw, 0U) << "two models at once: " << i;
    }
    EXPECT_EQ(logical(2 * 4 + 3).raw, logical_entry(0));
    EXPECT_EQ(logical(14 * 4).raw, logical_entry(1));
    after(trapped(reg::LDR, 0xf100'0000)); // the cluster that is everybody
    EXPECT_EQ(logical(14 * 4).raw, 0U);
    // One in x2APIC mode has a logical id that an xAPIC's message can name too.
    current = 0;
    write_base(base_x2apic);
    EXPECT_EQ(logical(2 * 4 + 3).raw, 0U);
}

TEST_F(AvicTest, X2ApicMsrsThatTheCpuDoesAlone) {
    u8 const* const map = kernel::phys_to_virt<u8>(backend->x2avic_msr_permissions());
    auto const access = [&](u32 index) { return 3U & ~static_cast<u32>(map[index / 4] >> index % 4 * 2); };
    constexpr u32 read = 1, write = 2;
    for (u32 index = 0x800; index < 0x900; index++) {
        u32 const offset = (index - 0x800) * 16;
        u32 expected = 0;
        switch (offset) {
        case reg::TPR:
        case reg::ICR_LOW: expected = read | write; break;
        case reg::EOI:
        case reg::SELF_IPI: expected = write; break;
        case reg::ID:
        case reg::VERSION:
        case reg::PPR:
        case reg::LDR:
        case reg::SVR:
        case reg::INITIAL_COUNT:
        case reg::DIVIDE: expected = read; break;
        default:
            expected =
                (offset >= reg::ISR && offset <= reg::ESR) || (offset >= reg::LVT_TIMER && offset <= reg::LVT_ERROR)
                    ? read
                    : 0;
        }
        EXPECT_EQ(access(index), expected) << std::hex << index;
    }
}

TEST_F(AvicTest, TheOtherPermissionsAreTheSame) {
    u8 const* const plain = kernel::phys_to_virt<u8>(backend->msr_permissions());
    u8 const* const x2avic = kernel::phys_to_virt<u8>(backend->x2avic_msr_permissions());
    constexpr u32 first = 0x800 / 4, last = 0x83f / 4;
    for (u32 i = 0; i < 2 * lib::page_size; i++)
        if (i < first || i > last) EXPECT_EQ(plain[i], x2avic[i]) << i;
}

class WithoutAvicTest : public AvicMachine {};

TEST_F(WithoutAvicTest, CanBeTurnedOff) {
    svm::Disabled disabled;
    ASSERT_TRUE(disabled.parse("avic"));
    create_several(1, disabled);
    EXPECT_EQ(mode(), AvicMode::Off);
    EXPECT_EQ(vmcb().control.avic_backing_page, 0U);
    EXPECT_EQ(static_cast<svm::NptSpace&>(vm->space()).avic(), nullptr);
    EXPECT_EQ(static_cast<svm::NptSpace&>(vm->space()).root_with_apic().value, 0U);
    EXPECT_EQ(vmcb().control.clean_bits & clean::avic, 0U);
}

TEST_F(WithoutAvicTest, GivesAllMemoryBack) {
    auto made = svm::Backend::create({});
    ASSERT_TRUE(made);
    ASSERT_TRUE((*made)->enable_on_this_cpu());
    u64 const before = kernel::memory_use().free;
    {
        auto machine = vm::Vm::create({.name = "test", .memory = 4 * lib::MiB, .vcpu_count = 3}, **made, platform);
        ASSERT_TRUE(machine);
    }
    EXPECT_EQ(kernel::memory_use().free, before);
    (*made)->disable_on_this_cpu();
}

} // namespace
} // namespace amd_machine
