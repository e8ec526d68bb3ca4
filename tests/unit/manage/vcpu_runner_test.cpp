// SPDX-License-Identifier: MIT
// A vCPU that is paused, and a guest that ends itself at that moment.
#include <manage/vcpu_runner.hpp>

#include "vm/fake_vcpu.hpp"
#include <vector>

namespace {

using kernel::RunResult;
using lib::u32;

constexpr u32 vcpus = 2;

// A VM of two vCPUs and as much of the run loop and of pause() as decides who runs.
class PausedVmTest : public fake::VmTest {
protected:
    PausedVmTest() : VmTest(vcpus) {
        vm->set_waker(vm::Vm::Waker::to<&PausedVmTest::wake>(*this));
        for (u32 i = 0; i < vcpus; i++) {
            runners[i] = std::make_unique<manage::VcpuRunner>(vcpu(i), 0, is_held,
                                                              lib::Delegate<void()>::to<&PausedVmTest::stopped>(*this));
            is_awake[i] = i == 0; // the other one waits for INIT and SIPI
        }
    }
    void wake(vm::Vcpu& who) { is_awake[who.id()] = true; }
    void stopped() { stops++; }
    // What kernel::RunLoop does with one that it picked.
    void run(u32 i) {
        if (!is_awake[i] || has_stopped[i]) return;
        switch (runners[i]->run()) {
        case RunResult::Work:
        case RunResult::Yield: break;
        case RunResult::Sleep:
            is_awake[i] = false;
            if (runners[i]->has_wake_event()) is_awake[i] = true;
            break;
        case RunResult::Stopped:
            has_stopped[i] = true;
            runners[i]->stopped();
            break;
        }
    }

    static constexpr unsigned event_count = 8;
    void happen(unsigned event) {
        switch (event) {
        case 0: // pause() begins
            is_held = true;
            for (u32 i = 0; i < vcpus; i++)
                vm->vcpu(i).post(vm::request::leave);
            break;
        case 1: // resume()
            is_held = false;
            for (u32 i = 0; i < vcpus; i++)
                wake(vm->vcpu(i));
            break;
        case 2: vm->stop(vm::EndReason::PowerOff, ""); break; // by a vCPU that is on its way out
        case 3: vm->stop(vm::EndReason::Crash, ""); break;
        case 4: run(0); break;
        case 5: run(1); break;
        case 6: // HLT
            vm->vcpu(0).set_activity(vm::Activity::Halted);
            vcpu(0).leaves_by = vm::Leave::Sleep;
            break;
        default: // an interrupt for one that sleeps
            vm->vcpu(0).post(vm::request::interrupt);
            break;
        }
    }

    std::atomic<bool> is_held{false};
    std::array<std::unique_ptr<manage::VcpuRunner>, vcpus> runners;
    std::array<bool, vcpus> is_awake{}, has_stopped{};
    u32 stops = 0;
};

class OneLife : public PausedVmTest {
public:
    void TestBody() override {}
    bool ends(unsigned life, unsigned length) {
        vcpu(1).leaves_by = vm::Leave::Sleep;
        for (unsigned step = 0; step < length; step++, life /= event_count)
            happen(life % event_count);
        vm->stop(vm::EndReason::Reset, "");
        for (int i = 0; i < 4; i++)
            for (u32 v = 0; v < vcpus; v++)
                run(v);
        return stops == vcpus;
    }
    static constexpr unsigned events = event_count;
};

TEST(PausedVm, EndsWhateverCameBefore) {
    constexpr unsigned length = 4;
    unsigned lives = 1;
    for (unsigned i = 0; i < length; i++)
        lives *= OneLife::events;
    for (unsigned life = 0; life < lives; life++) {
        OneLife one;
        ASSERT_TRUE(one.ends(life, length)) << "life " << life;
    }
}

TEST_F(PausedVmTest, RunsNothingUntilItIsLetGo) {
    happen(0);
    run(0);
    EXPECT_FALSE(is_awake[0]);
    vcpu(0).post(vm::request::interrupt);
    run(0);
    EXPECT_FALSE(is_awake[0]);
    EXPECT_NE(vcpu(0).requests() & vm::request::interrupt, 0U) << "it has not run";
    happen(1);
    run(0);
    EXPECT_TRUE(is_awake[0]);
    EXPECT_EQ(vcpu(0).requests() & vm::request::interrupt, 0U);
}

} // namespace
