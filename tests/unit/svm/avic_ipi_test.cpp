// SPDX-License-Identifier: MIT
// Interrupts on their way to vCPUs with AVIC: from the CPU of another vCPU, and from us.
#include "support/sleepers.hpp"
#include "svm/avic_machine.hpp"

#include <chrono>
#include <optional>
#include <random>
#include <thread>

namespace amd_machine {
namespace {

using svm::AvicMode;
using svm::IncompleteIpi;

constexpr u64 base_x2apic = 0xfee0'0d00;
constexpr u32 logical_bit = 1U << 11;

class AvicIpiTest : public AvicMachine {
public:
protected:
    explicit AvicIpiTest(u32 features = features_zen4, u32 signature = signature_zen4)
        : AvicMachine(features, signature) {}
    void SetUp() override {
        create_several(4);
        for (u32 i = 1; i < 4; i++)
            start(i);
        for (u32 i = 0; i < 4; i++)
            stop_interrupts(i); // what arrives stays to be seen in IRR
        sleepers.emplace(*vm);
        current = 0;
    }
    void stop_interrupts(u32 index) { vcpu_at(index).set_rflags(2); }
    bool has(u32 index, u8 vector) { return page(index).test(reg::IRR, vector); }
    // Sends as the guest of the current vCPU does, the exit included. False: there was none.
    bool send_with_exit(u64 icr) {
        auto const exit = send(icr);
        if (exit) run({{exit_code::AVIC_INCOMPLETE_IPI, icr, *exit}});
        return exit.has_value();
    }
    static u64 to(u32 destination, u32 low) { return u64{destination} << 56 | low; }
    std::vector<u32> woken() { return sleepers->take_woken(); }
    std::optional<support::Sleepers> sleepers;
};
class OldAvicIpiTest : public AvicIpiTest {
protected:
    OldAvicIpiTest() : AvicIpiTest(features_zen2, signature_zen2) {}
};

TEST_F(AvicIpiTest, TheTargetThatDoesNotRunIsWokenAndNotSentASecondTime) {
    ASSERT_TRUE(send_with_exit(to(2, 0x61)));
    EXPECT_EQ(woken(), std::vector<u32>{2});
    EXPECT_TRUE(has(2, 0x61));
    EXPECT_FALSE(vcpu_at(2).apic().is_anything_posted());
    EXPECT_FALSE(has(1, 0x61) || has(3, 0x61));
}

TEST_F(AvicIpiTest, OfAllTargetsThoseThatDoNotRunAreWoken) {
    EXPECT_TRUE(send_with_exit(0xc'0062)); // all but itself
    EXPECT_EQ(woken(), (std::vector<u32>{1, 2, 3}));
    EXPECT_FALSE(has(0, 0x62));
    EXPECT_TRUE(send_with_exit(0xc'0062));
    EXPECT_TRUE(woken().empty()) << "they know";
    for (current = 1; current < 4; current++)
        run({});
    current = 0;
    EXPECT_TRUE(send_with_exit(0x8'0063));
    EXPECT_EQ(woken(), (std::vector<u32>{1, 2, 3})) << "it runs itself";
    EXPECT_TRUE(has(0, 0x63));
    EXPECT_FALSE(send_with_exit(0x4'0064)) << "itself alone needs nobody";
    EXPECT_TRUE(has(0, 0x64));
}

TEST_F(AvicIpiTest, WhatTheCpuDoesNotSendIsSentByUs) {
    EXPECT_TRUE(send_with_exit(to(1, 0x4400))); // NMI
    EXPECT_EQ(woken(), std::vector<u32>{1});
    EXPECT_TRUE(send_with_exit(to(3, 0x4161))); // lowest priority
    EXPECT_TRUE(has(3, 0x61));
    EXPECT_EQ(woken(), std::vector<u32>{3});
    EXPECT_EQ(page(0)[reg::ICR_LOW], 0x4161U);
}

TEST_F(AvicIpiTest, TheBusyBitDoesNotStay) {
    run({{exit_code::AVIC_INCOMPLETE_IPI, to(1, 0x5400), u64{IncompleteIpi::invalid_type} << 32}});
    EXPECT_EQ(page(0)[reg::ICR_LOW], 0x4400U);
}

TEST_F(AvicIpiTest, EveryCauseEndsInADeliveryOrAnError) {
    for (u32 const cause :
         {IncompleteIpi::invalid_type, IncompleteIpi::invalid_target, IncompleteIpi::invalid_page, 9U}) {
        run({{exit_code::AVIC_INCOMPLETE_IPI, to(2, 0x60 + cause), u64{cause} << 32}});
        current = 2;
        run({});
        EXPECT_TRUE(has(2, static_cast<u8>(0x60 + cause))) << cause;
        current = 0;
    }
    EXPECT_TRUE(send_with_exit(to(2, 0x0f)));
    vcpu().apic().mmio_write(reg::ESR, 4, 0);
    EXPECT_EQ(vcpu().apic().mmio_read(reg::ESR, 4), 1U << 5) << "illegal vector sent";
}

TEST_F(AvicIpiTest, AnIcrWriteThatTrapsAsARegisterIsSentToo) {
    page()[reg::ICR_HIGH] = 1U << 24;
    run({trapped(reg::ICR_LOW, 0x4066)});
    current = 1;
    run({});
    EXPECT_TRUE(has(1, 0x66));
}

TEST_F(AvicIpiTest, TargetsThatAcceptNothingArePassedBy) {
    current = 1;
    vcpu().apic().mmio_write(reg::SVR, 4, 0xff);
    run({});
    current = 0;
    EXPECT_TRUE(send_with_exit(0xc'0071));
    EXPECT_TRUE(send_with_exit(to(1, 0x72)));
    EXPECT_TRUE(send_with_exit(to(9, 0x73))) << "nobody";
    current = 1;
    run({});
    EXPECT_FALSE(has(1, 0x71) || has(1, 0x72));
    EXPECT_TRUE(has(2, 0x71) && has(3, 0x71));
}

TEST_F(AvicIpiTest, ATargetWithoutAvicFindsWhatTheCpuSent) {
    vcpu().apic().mmio_write(reg::LVT_LINT0, 4, 0x700);
    run({});
    ASSERT_EQ(mode(), AvicMode::Off);
    current = 1;
    EXPECT_TRUE(send_with_exit(to(0, 0x81)));
    EXPECT_EQ(woken(), std::vector<u32>{0});
    current = 0;
    run({});
    EXPECT_EQ(vcpu().apic().highest_pending(), 0x81);
}

TEST_F(AvicIpiTest, InX2ApicModeTheDestinationHas32Bits) {
    for (current = 0; current < 4; current++) {
        EXPECT_EQ(vcpu().write_apic_base(base_x2apic | (current == 0 ? 0x100 : 0)), vm::MsrResult::Done);
        run({});
        ASSERT_EQ(mode(), AvicMode::X2Apic);
    }
    current = 0;
    EXPECT_TRUE(send_with_exit(u64{3} << 32 | 0x91));
    EXPECT_EQ(woken(), std::vector<u32>{3});
    EXPECT_TRUE(send_with_exit(u64{0x6} << 32 | logical_bit | 0x92));
    EXPECT_EQ(woken(), (std::vector<u32>{1, 2}));
    EXPECT_TRUE(send_with_exit(u64{2} << 32 | 0x4400));
    EXPECT_EQ(woken(), std::vector<u32>{2});
    EXPECT_EQ(page(0)[reg::ICR_HIGH], 2U);
}

// --- from us

TEST_F(AvicIpiTest, OneThatRunsElsewhereIsReachedByTheDoorbell) {
    run({{.code = exit_code::INTR, .before = [&](svm::Vmcb&) {
              on_other_cpu([&] { vcpu().post_interrupt(0x55, vm::TriggerMode::Edge); });
              EXPECT_TRUE(has(0, 0x55)) << "before it rings";
              EXPECT_EQ(doorbells(), std::vector<u64>{host_apic_id});
          }}});
    EXPECT_TRUE(woken().empty());
    EXPECT_FALSE(vcpu().apic().is_anything_posted());
}

TEST_F(OldAvicIpiTest, TheErratumDoesNotKeepUsFromIt) {
    run({{.code = exit_code::INTR,
          .before = [&](svm::Vmcb&) { on_other_cpu([&] { vcpu().post_interrupt(0x55, vm::TriggerMode::Edge); }); }}});
    EXPECT_EQ(doorbells(), std::vector<u64>{host_apic_id});
}

// The table does not say that the target runs, so the sender, on the other CPU, exits.
TEST_F(OldAvicIpiTest, TheExitForARunningTargetRingsToo) {
    current = 1;
    run({{.code = exit_code::INTR, .before = [&](svm::Vmcb&) {
              on_other_cpu([&] {
                  ASSERT_TRUE(backend->enable_on_this_cpu());
                  current = 0;
                  EXPECT_TRUE(send_with_exit(to(1, 0x56)));
                  vcpu().unload();
                  current = 1;
              });
          }}});
    EXPECT_EQ(doorbells(), std::vector<u64>{host_apic_id});
    EXPECT_TRUE(has(1, 0x56));
    EXPECT_TRUE(woken().empty());
}

TEST_F(AvicIpiTest, ACpuThatNoDoorbellNamesIsKicked) {
    kernel::this_cpu().apic_id = 0x1000;
    svm::PhysicalIdEntry seen{};
    run({{.code = exit_code::INTR, .before = [&](svm::Vmcb&) {
              seen = entry(0);
              on_other_cpu([&] { vcpu().post_interrupt(0x55, vm::TriggerMode::Edge); });
          }}});
    EXPECT_FALSE(is_running(seen));
    EXPECT_TRUE(doorbells().empty());
    EXPECT_TRUE(has(0, 0x55));
    kernel::this_cpu().apic_id = host_apic_id;
}

TEST_F(AvicIpiTest, OneThatDoesNotRunIsWoken) {
    vcpu().post_interrupt(0x55, vm::TriggerMode::Edge);
    EXPECT_TRUE(has(0, 0x55));
    EXPECT_TRUE(doorbells().empty());
    EXPECT_EQ(woken(), std::vector<u32>{0});
}

TEST_F(AvicIpiTest, ALevelTriggeredInterruptIsTheOwnersToAccept) {
    run({{.code = exit_code::INTR, .before = [&](svm::Vmcb&) {
              on_other_cpu([&] { vcpu().post_interrupt(0x55, vm::TriggerMode::Level); });
              EXPECT_FALSE(has(0, 0x55));
          }}});
    EXPECT_TRUE(doorbells().empty());
    EXPECT_TRUE(has(0, 0x55));
    EXPECT_TRUE(page().test(reg::TMR, 0x55));
    // And so is the next of that vector, whose bit in TMR has to go.
    page().clear(reg::IRR, 0x55);
    vcpu().post_interrupt(0x55, vm::TriggerMode::Edge);
    EXPECT_FALSE(has(0, 0x55));
    run({});
    EXPECT_TRUE(has(0, 0x55));
    EXPECT_FALSE(page().test(reg::TMR, 0x55));
}

TEST_F(AvicIpiTest, AnIllegalVectorIsAnErrorOfTheApic) {
    vcpu().post_interrupt(3, vm::TriggerMode::Edge);
    EXPECT_FALSE(has(0, 3));
    run({});
    vcpu().apic().mmio_write(reg::ESR, 4, 0);
    EXPECT_EQ(vcpu().apic().mmio_read(reg::ESR, 4), 1U << 6);
}

TEST_F(AvicIpiTest, HltEndsByWhatTheGuestCanTake) {
    vcpu().set_rflags(0x202);
    write_code(0x10'0000, {0xf4, 0x90});
    auto const halt = [&](u8 vector, u32 tpr, u64 rflags) {
        vcpu().set_activity(vm::Activity::Running);
        vcpu().set_rip(0x10'0000);
        return run({{.code = exit_code::HLT, .before = [&, vector, tpr, rflags](svm::Vmcb& b) {
                         b.save.rflags = rflags;
                         page()[reg::TPR] = tpr;
                         page().set(reg::IRR, vector);
                     }}});
    };
    EXPECT_EQ(halt(0x55, 0x50, 0x202), kernel::RunResult::Sleep) << "held back by the TPR";
    EXPECT_FALSE(vcpu().has_wake_event());
    EXPECT_EQ(halt(0x65, 0x50, 0x202), kernel::RunResult::Work) << "it goes on";
    EXPECT_EQ(halt(0x65, 0x50, 2), kernel::RunResult::Sleep) << "for ever";
    EXPECT_FALSE(vcpu().has_wake_event());
}

// The CPU's part and ours together reach exactly those whose APICs accept the interrupt.
class AvicModelTest : public AvicIpiTest, public ::testing::WithParamInterface<bool> {
protected:
    void change_something(std::mt19937_64& random) {
        bool const is_x2apic = GetParam();
        auto& apic = vcpu().apic();
        u32 const what = random() % 6;
        u32 const lint0 = random() % 2 != 0 ? 0x700 : 0x10700;
        u32 const svr = random() % 4 != 0 ? 0x1ff : 0xff;
        if (what == 0) is_x2apic ? (void)apic.write_x2apic(0x80f, svr) : apic.mmio_write(reg::SVR, 4, svr);
        if (what == 1) is_x2apic ? (void)apic.write_x2apic(0x835, lint0) : apic.mmio_write(reg::LVT_LINT0, 4, lint0);
        if (what == 2 && !is_x2apic) apic.mmio_write(reg::LDR, 4, u64{random() & 0xff} << 24);
        if (what == 3 && !is_x2apic) apic.mmio_write(reg::LDR, 4, u64{1} << (24 + random() % 8));
        if (what == 4 && !is_x2apic) apic.mmio_write(reg::DFR, 4, random() % 4 == 0 ? 0x0fff'ffff : 0xffff'ffff);
        run({});
    }
    u64 random_icr(std::mt19937_64& random) {
        u32 const vector = 0x20 + random() % 0xd0, shorthand = random() % 4 == 0 ? random() % 4 : 0;
        bool const logical = random() % 2 != 0;
        u32 destination;
        if (GetParam())
            destination = random() % 16 == 0 ? ~0U : random() % (logical ? 32 : 6);
        else if (!logical)
            destination = random() % 8 == 0 ? 255 : random() % 6;
        else // what names nobody in the sender's model is not looked up; FFh is everybody, with a logical id or without
            destination = std::min<u32>(random() % 256 | 1U << random() % 4, 254);
        u32 const low = shorthand << 18 | (logical ? logical_bit : 0) | vector;
        return (GetParam() ? u64{destination} << 32 : u64{destination} << 56) | low;
    }
    void forget(u32 index, u8 vector) {
        page(index).clear(reg::IRR, vector);
        auto const control = vcpu_at(index).vmcb_for_tests().control.interrupt_control;
        vcpu_at(index).apic().set_virtualized(control.get<svm::InterruptControl::AvicEnable>()); // counts anew
    }
    bool accepts(u32 index, u64 icr) {
        auto const low = static_cast<u32>(icr), high = static_cast<u32>(icr >> 32);
        auto& apic = vcpu_at(index).apic();
        if (!apic.is_software_enabled()) return false;
        bool const logical = (low & logical_bit) != 0;
        u32 const destination = GetParam() ? high : vm::bus_destination(static_cast<u8>(high >> 24), logical);
        switch (low >> 18 & 3) {
        case 1: return index == current;
        case 2: return true;
        case 3: return index != current;
        default: return apic.matches(destination, logical);
        }
    }
};

TEST_P(AvicModelTest, ReachesExactlyThoseWhoAccept) {
    std::mt19937_64 random(7);
    if (GetParam())
        for (current = 0; current < 4; current++) {
            EXPECT_EQ(vcpu().write_apic_base(base_x2apic | (current == 0 ? 0x100 : 0)), vm::MsrResult::Done);
            run({});
        }
    unsigned sent = 0, alone = 0;
    for (unsigned step = 0; step < 4000; step++) {
        current = random() % 4;
        change_something(random);
        current = random() % 4;
        if (mode() == AvicMode::Off) continue;
        u64 const icr = random_icr(random);
        auto const vector = static_cast<u8>(icr);
        u32 const sender = current;
        std::array<bool, 4> expected{};
        for (u32 i = 0; i < 4; i++) {
            expected[i] = accepts(i, icr);
            forget(i, vector);
        }
        sent++;
        if (!send_with_exit(icr)) alone++;
        for (current = 0; current < 4; current++) {
            run({});
            ASSERT_EQ(has(current, vector), expected[current])
                << "step " << step << " icr " << std::hex << icr << " from " << sender << " to " << current;
            forget(current, vector);
            entries.clear();
        }
    }
    EXPECT_GT(sent, 1000U);
    EXPECT_GT(alone, 20U);
}

INSTANTIATE_TEST_SUITE_P(Modes, AvicModelTest, ::testing::Values(false, true));

// A vCPU that halts again and again, and another CPU that sends it interrupts at any moment: as AVIC does, or as we do.
// Each interrupt arrives. [LOCKING.md]
class AvicThreads : public AvicMachine {
protected:
    // The CPU looks at IRR at VMRUN, and delivers.
    void take(u8 vector) {
        auto word = page().shared(vm::ApicPage::vector_word(reg::IRR, vector));
        u32 const mask = vm::ApicPage::vector_bit(vector);
        if ((word.fetch_and(~mask) & mask) != 0) taken_.fetch_add(1);
    }
    std::atomic<bool> is_finished_{false};
    std::atomic<u32> taken_{0};
};

TEST_F(AvicThreads, NoWakeUpIsLost) {
    constexpr u8 vector = 0x55;
    constexpr u32 rounds = 20'000;
    create_several(1);
    write_code(0x10'0000, {0xf4, 0x90});
    std::thread sender([&] {
        fakes::Cpu its_cpu;
        its_cpu.populate_msr(svm::AVIC_DOORBELL, 0);
        its_cpu.populate_msr(lib::x86::IA32_X2APIC_BASE + 0x30, 0);
        on_other_cpu([&] {
            for (u32 i = 0; i < rounds && !is_finished_.load(); i++) {
                if (i % 2 == 0) {
                    vcpu().post_interrupt(vector, vm::TriggerMode::Edge);
                } else {
                    page()
                        .shared(vm::ApicPage::vector_word(reg::IRR, vector))
                        .fetch_or(vm::ApicPage::vector_bit(vector), std::memory_order_seq_cst);
                    if (!is_running(entry(0))) vcpu().post(vm::request::interrupt); // the exit
                }
                while (taken_.load() != i + 1 && !is_finished_.load())
                    std::this_thread::yield();
            }
        });
    });
    // A lost wake-up leaves its round without an end. On a busy computer each hand-over waits for a slice of others, so
    // the test ends after some seconds with the rounds that it has done.
    using Clock = std::chrono::steady_clock;
    constexpr auto enough = std::chrono::seconds(10), too_long = std::chrono::seconds(30);
    auto const begin = Clock::now();
    auto last_arrival = begin;
    bool is_lost = false;
    for (u32 seen = 0; taken_.load() < rounds && !is_lost;) {
        vcpu().set_rip(0x10'0000);
        auto const leave = run({{.code = exit_code::HLT, .before = [&](svm::Vmcb&) { take(vector); }}});
        entries.clear();
        ASSERT_NE(leave, kernel::RunResult::Stopped);
        while (leave == kernel::RunResult::Sleep && taken_.load() < rounds && !vcpu().has_wake_event()) {
            is_lost = Clock::now() - last_arrival > too_long;
            if (is_lost) break;
            std::this_thread::yield();
        }
        if (u32 const now_taken = taken_.load(); now_taken != seen) {
            seen = now_taken;
            last_arrival = Clock::now();
            if (last_arrival - begin > enough) break;
        } else if (Clock::now() - last_arrival > too_long) {
            is_lost = true;
        }
    }
    is_finished_ = true;
    sender.join();
    EXPECT_FALSE(is_lost) << "after " << taken_.load() << " rounds";
    EXPECT_GE(taken_.load(), 100U);
}

} // namespace
} // namespace amd_machine
