// SPDX-License-Identifier: MIT
#include "kernel/kernel_cpu.hpp"
#include "support/machine_memory.hpp"

#include <kernel/apic.hpp>
#include <kernel/page_table.hpp>
#include <kernel/traps.hpp>

namespace {

using fakes::MsrWrite;
using kernel::LocalApic;
using lib::u32;
using lib::u64;
namespace x86 = lib::x86;

class X2Apic : public KernelCpu {
protected:
    void SetUp() override { use_x2apic(); }
    std::vector<MsrWrite> icr_writes() const {
        std::vector<MsrWrite> found;
        for (auto const& write : cpu.msr_writes)
            if (write.index == 0x830) found.push_back(write);
        return found;
    }
};

TEST(X2ApicChoice, IsForMachinesThatCannotDoWithout) {
    static_assert(!kernel::wants_x2apic({}));
    static_assert(kernel::wants_x2apic({.is_handed_over = true}));
    static_assert(kernel::wants_x2apic({.has_wide_ids = true}));
    static_assert(kernel::wants_x2apic({.is_opted_out = true, .has_wide_ids = true}));
    static_assert(kernel::wants_x2apic({.is_virtual = true}));
    static_assert(!kernel::wants_x2apic({.is_opted_out = true, .is_virtual = true}));
}

TEST_F(X2Apic, ACpuThatIsInItByItselfIsTakenBackByWayOfOff) {
    support::give_memory();
    cpu.hook_msr(x86::IA32_APIC_BASE, {}, [&, was = u64{0xfee0'0d00}](u64 value) mutable {
        bool const is_allowed = (was & 0xc00) != 0xc00 || (value & 0xc00) != 0x800; // [intel/vol3] figure 12-27
        was = value;
        return is_allowed;
    });
    cpu.populate_msr(x86::IA32_APIC_BASE, 0xfee0'0d00);
    EXPECT_TRUE(LocalApic::is_handed_over_in_x2apic());
    kernel::set_kernel_page_table(*kernel::PageTable::create({true, true}));
    u64 const page = kernel::map_device(kernel::HostPhys{0xfed0'0000}, 0x1000)->value + 0x1000; // the next one mapped
    auto& registers = cpu.add_ram(page, 0x1000);
    kernel::local_apic() = {};
    ASSERT_TRUE(LocalApic::enable(false));
    EXPECT_EQ(registers[0xf0], 0xff);
    kernel::local_apic() = {}; // later tests map it anew
    EXPECT_EQ(cpu.peek_msr(x86::IA32_APIC_BASE) & 0xc00, 0x800U);
}

TEST_F(X2Apic, IsReachedThroughXapicModeOnly) {
    cpu.populate_msr(x86::IA32_APIC_BASE, 0xfee0'0100); // off
    cpu.hook_msr(x86::IA32_APIC_BASE, {}, [&, was = u64{0xfee0'0100}](u64 value) mutable {
        bool const is_step_allowed = !((was & 0xc00) == 0 && (value & 0xc00) == 0xc00); // [intel/vol3] figure 12-27
        was = value;
        return is_step_allowed;
    });
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic));
    EXPECT_EQ(cpu.peek_msr(x86::IA32_APIC_BASE), 0xfee0'0d00U);
    EXPECT_EQ(cpu.peek_msr(0x80f), 0x1ffU); // enabled, spurious vector
    EXPECT_EQ(cpu.peek_msr(0x832), u64{2} << 17 | kernel::vectors::timer);
    EXPECT_EQ(cpu.peek_msr(0x835) >> 16 & 1, 1U);
    EXPECT_TRUE(kernel::local_apic().is_x2apic() && kernel::local_apic().has_tsc_deadline());
}

TEST_F(X2Apic, ForgetsWhatFirmwareLeftInService) {
    cpu.populate_msr(0x812, 0x80000001);
    unsigned ends = 0;
    cpu.hook_msr(0x80b, {}, [&](u64 value) {
        if (ends++ == 1) cpu.populate_msr(0x812, 0);
        return value == 0;
    });
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic));
    EXPECT_EQ(ends, 2U);
    cpu.populate_msr(0x812, 1); // one that never goes away must not hang the machine
    ends = 10;
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic));
    EXPECT_LE(ends, 10U + 256);
}

TEST_F(X2Apic, IsEnabledBeforeItsNmiIsUnmasked) {
    cpu.populate_msr(0x80f, 0xff); // as after INIT: off, and masks cannot be cleared. [intel/vol3] 12.4.7.2
    bool is_unmasked = false;
    cpu.hook_msr(0x836, {}, [&](u64 value) {
        is_unmasked = (value >> 16 & 1) == 0 && (cpu.peek_msr(0x80f) >> 8 & 1) != 0;
        return true;
    });
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic));
    EXPECT_TRUE(is_unmasked);
}

TEST_F(X2Apic, SendsToWideIds) {
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic));
    auto& apic = kernel::local_apic();
    cpu.populate_msr(0x802, 0x12345);
    EXPECT_EQ(apic.id(), 0x12345U);
    apic.send_ipi(0x12345, 0x40);
    apic.send_init(7);
    apic.send_startup(7, 8);
    apic.send_nmi_to_others();
    apic.send_to_others(0xe3);
    EXPECT_EQ(icr_writes(), (std::vector<MsrWrite>{{0x830, 0x0001'2345'0000'4040},
                                                   {0x830, 0x0000'0007'0000'4500},
                                                   {0x830, 0x0000'0007'0000'4608},
                                                   {0x830, 0xc'4400},
                                                   {0x830, 0xc'40e3}}));
    EXPECT_EQ(cpu.unfenced_icr_writes, 0U);
}

TEST_F(X2Apic, ArmsByDeadline) {
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic));
    auto& apic = kernel::local_apic();
    apic.arm_timer(123'456);
    EXPECT_EQ(cpu.peek_msr(x86::IA32_TSC_DEADLINE), 123'456U);
    apic.arm_timer(kernel::TimerQueue::never);
    EXPECT_EQ(cpu.peek_msr(x86::IA32_TSC_DEADLINE), 0U);
}

TEST_F(X2Apic, CountsDownWhereThereIsNoDeadline) {
    use_x2apic(false);
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic));
    auto& apic = kernel::local_apic();
    EXPECT_FALSE(apic.has_tsc_deadline());
    // A timer at a tenth of the TSC's 1 GHz.
    cpu.tsc_step = 100;
    u64 started = 0;
    u32 initial = 0;
    cpu.hook_msr(
        0x838, [&] { return initial; },
        [&](u64 value) {
            initial = static_cast<u32>(value);
            started = cpu.tsc;
            return true;
        });
    cpu.hook_msr(0x839, [&] { return initial - (cpu.tsc - started) / 10; });
    apic.calibrate_timer(1'000'000'000);
    EXPECT_EQ(initial, 0U);
    cpu.tsc_step = 0;
    cpu.tsc = 5'000'000;
    apic.arm_timer(6'000'000);
    EXPECT_NEAR(initial, 100'000, 200);
    apic.arm_timer(1); // passed: at once, and not never
    EXPECT_EQ(initial, 1U);
    apic.arm_timer(~u64{0} - 1); // too far: as far as it can
    EXPECT_EQ(initial, ~u32{0});
    apic.arm_timer(kernel::TimerQueue::never);
    EXPECT_EQ(initial, 0U);
}

TEST_F(X2Apic, DispatchesAndAcknowledges) {
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic));
    static unsigned calls;
    calls = 0;
    u32 const unexpected = kernel::this_cpu().device_vectors.unexpected;
    kernel::set_interrupt_handler(0xe8, kernel::InterruptHandler::to_function<+[] { calls++; }>());
    cpu.msr_writes.clear();
    kernel::dispatch_interrupt(0xe8);
    kernel::dispatch_interrupt(0x42);                      // nobody's: acknowledged all the same
    kernel::dispatch_interrupt(kernel::vectors::spurious); // never acknowledged
    EXPECT_EQ(calls, 1U);
    EXPECT_EQ(cpu.msr_writes, (std::vector<MsrWrite>{{0x80b, 0}, {0x80b, 0}}));
    EXPECT_EQ(kernel::this_cpu().device_vectors.unexpected, unexpected + 1);
    kernel::set_interrupt_handler(0xe8, {});
}

TEST_F(X2Apic, KicksOthersOnly) {
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic));
    kernel::kick(kernel::this_cpu().index);
    EXPECT_TRUE(icr_writes().empty());
}

TEST_F(KernelCpu, XapicRegistersAreReachedByTheirPage) {
    support::give_memory();
    cpu.set_cpuid(1, {0, 0, 0, 0});
    kernel::detect_cpu_features();
    cpu.populate_msr(x86::IA32_APIC_BASE, 0xfee0'0900);
    kernel::set_kernel_page_table(*kernel::PageTable::create({true, true}));
    // enable() maps the page behind this one, and does so once.
    u64 const page = kernel::map_device(kernel::HostPhys{0xfed0'0000}, 0x1000)->value + 0x1000;
    std::map<u64, u64> registers;
    unsigned pending = 0;
    cpu.add_mmio(page, 0x1000,
                 {.load =
                      [&](u64 offset, unsigned) {
                          if (offset == 0x300 && pending > 0) return pending-- > 0 ? u64{1} << 12 : 0;
                          return registers[offset];
                      },
                  .store = [&](u64 offset, unsigned, u64 value) { registers[offset] = value; },
                  .widths = 4}); // [intel/vol3] 12.4.1
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic));
    EXPECT_EQ(kernel::kernel_page_table().translate(kernel::HostVirt{page})->value, 0xfee0'0000U);
    auto& apic = kernel::local_apic();
    EXPECT_FALSE(apic.is_x2apic());
    EXPECT_EQ(registers[0xf0], 0x1ffU);
    registers[0x20] = 0x0300'0000;
    EXPECT_EQ(apic.id(), 3U);
    pending = 3; // the one before is still on its way
    cpu.mmio_writes.clear();
    apic.send_ipi(5, 0x40);
    EXPECT_EQ(cpu.pause_count, 3U);
    EXPECT_EQ(cpu.mmio_writes,
              (std::vector<fakes::MmioWrite>{{page + 0x310, 4, 0x0500'0000}, {page + 0x300, 4, 0x4040}}));
    u64 const mapped = kernel::memory_use().free;
    ASSERT_TRUE(LocalApic::enable(kernel::cpu_features().x2apic)); // the next CPU
    EXPECT_EQ(kernel::memory_use().free, mapped);
}

} // namespace
