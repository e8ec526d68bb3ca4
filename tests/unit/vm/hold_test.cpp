// SPDX-License-Identifier: MIT
// A VM that is held, as pause() does, and a guest that ends itself at that moment.
#include "support/sleepers.hpp"
#include "vm/fake_vcpu.hpp"

namespace {

using kernel::RunResult;
using lib::u32;
using lib::u64;

constexpr u32 vcpus = 2;

// A VM of two vCPUs in a real scheduler, with the parts of the run loop and of pause() that decide which vCPU runs.
class HeldVmTest : public fake::VmTest {
protected:
    HeldVmTest() : VmTest(vcpus) {
        sleepers.emplace(*vm);
        kernel::wake(vcpu(0)); // the other one waits for INIT and SIPI
        vcpu(1).leaves_by = RunResult::Sleep;
    }
    // What kernel::RunLoop does. False: nobody wants to run.
    bool run_one() {
        auto& scheduler = kernel::scheduler();
        auto* const entity = scheduler.pick(0, ++now).entity;
        if (entity == nullptr) return false;
        auto& runnable = static_cast<kernel::Runnable&>(*entity);
        switch (runnable.run()) {
        case RunResult::Work: break;
        case RunResult::Yield: scheduler.yield(0); break;
        case RunResult::Sleep:
            if (!runnable.has_wake_event()) scheduler.sleep(0, ++now);
            break;
        case RunResult::Stopped:
            scheduler.stop(0, ++now);
            runnable.stopped();
            break;
        }
        return true;
    }
    void run_all() {
        for (u32 i = 0; i < 4 * vcpus && run_one(); i++) {
        }
    }
    void let_go() {
        vm->hold(false);
        for (u32 i = 0; i < vcpus; i++)
            vm->wake(vm->vcpu(i));
    }

    static constexpr unsigned event_count = 7;
    void happen(unsigned event) {
        switch (event) {
        case 0: // pause() begins
            vm->hold(true);
            for (u32 i = 0; i < vcpus; i++)
                vm->vcpu(i).post(vm::request::leave);
            break;
        case 1: let_go(); break;                              // resume()
        case 2: vm->stop(vm::EndReason::PowerOff, ""); break; // by a vCPU that is on its way out
        case 3: vm->stop(vm::EndReason::Crash, ""); break;
        case 4: run_one(); break;
        case 5: // HLT
            vm->vcpu(0).set_activity(vm::Activity::Halted);
            vcpu(0).leaves_by = RunResult::Sleep;
            break;
        default: // an interrupt for one that sleeps
            vm->vcpu(0).post(vm::request::interrupt);
            break;
        }
    }

    u64 now = u64{1} << 62; // later than whatever the clock said
    std::optional<support::Sleepers> sleepers;
};

class OneLife : public HeldVmTest {
public:
    void TestBody() override {}
    bool ends(unsigned life, unsigned length) {
        for (unsigned step = 0; step < length; step++, life /= event_count)
            happen(life % event_count);
        vm->stop(vm::EndReason::Reset, "");
        run_all();
        return platform.stops == vcpus;
    }
    static constexpr unsigned events = event_count;
};

TEST(HeldVm, EndsWhateverCameBefore) {
    constexpr unsigned length = 4;
    unsigned lives = 1;
    for (unsigned i = 0; i < length; i++)
        lives *= OneLife::events;
    for (unsigned life = 0; life < lives; life++) {
        OneLife one;
        ASSERT_TRUE(one.ends(life, length)) << "life " << life;
    }
}

TEST_F(HeldVmTest, RunsNothingUntilItIsLetGo) {
    happen(0);
    run_all();
    EXPECT_FALSE(run_one()) << "all sleep";
    vcpu(0).post(vm::request::interrupt);
    run_all();
    EXPECT_FALSE(run_one());
    EXPECT_NE(vcpu(0).requests() & vm::request::interrupt, 0U) << "it has not run";
    let_go();
    run_all();
    EXPECT_EQ(vcpu(0).requests() & vm::request::interrupt, 0U);
    vm->stop(vm::EndReason::PowerOff, "");
    while (platform.stops != vcpus)
        ASSERT_TRUE(run_one());
}

} // namespace
