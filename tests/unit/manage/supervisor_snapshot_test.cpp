// SPDX-License-Identifier: MIT
// Snapshots of VMs, from the supervisor's point of view.
#include "fake_machine.hpp"

namespace {

using namespace supervisor_test;

TEST_F(SupervisorTest, AVmIsSavedEndedAndRestored) {
    start(vm("a") + vm("b"));
    u64 const free = machine.free;
    EXPECT_FALSE(supervisor.save(0)) << "it runs";
    ASSERT_TRUE(supervisor.pause(0));
    ASSERT_TRUE(supervisor.save(0));
    EXPECT_EQ(phase(0), VmPhase::Saving);
    EXPECT_FALSE(supervisor.resume(0));
    settle();
    EXPECT_EQ(phase(0), VmPhase::Paused);
    EXPECT_EQ(supervisor.vm_status(0).snapshot, 64 * lib::MiB);
    EXPECT_FALSE(supervisor.save(0)) << "one is enough";
    ASSERT_TRUE(supervisor.kill(0));
    finish();
    EXPECT_EQ(machine.free, free) << "the snapshot takes what the VM gave back";
    ASSERT_TRUE(supervisor.restore(0));
    EXPECT_FALSE(supervisor.discard(0)) << "it is needed";
    settle();
    EXPECT_EQ(phase(0), VmPhase::Paused);
    ASSERT_TRUE(supervisor.resume(0));
    EXPECT_EQ(phase(0), VmPhase::Running);
    ASSERT_TRUE(supervisor.discard(0));
    EXPECT_EQ(machine.free, free);
    EXPECT_FALSE(supervisor.discard(0));
}

TEST_F(SupervisorTest, AVmThatIsKilledWhileItIsSavedLeavesNoSnapshot) {
    start(vm("a") + vm("b"));
    u64 const free = machine.free;
    ASSERT_TRUE(supervisor.pause(0));
    ASSERT_TRUE(supervisor.save(0));
    ASSERT_TRUE(supervisor.kill(0));
    EXPECT_EQ(machine.free, free);
    finish();
    EXPECT_EQ(phase(0), VmPhase::Off);
    EXPECT_FALSE(supervisor.restore(0)) << "there is nothing";
}

TEST_F(SupervisorTest, TheMachineIsSwitchedOffWhileAVmIsSaved) {
    start(vm("a"));
    ASSERT_TRUE(supervisor.pause(0));
    ASSERT_TRUE(supervisor.save(0));
    supervisor.end_machine(manage::MachineEnd::PowerOff, false);
    EXPECT_EQ(phase(0), VmPhase::SwitchingOff);
    end(0, EndReason::PowerOff);
    EXPECT_EQ(machine.end, "power-off 0");
}

TEST_F(SupervisorTest, ASnapshotNeedsFreeMemory) {
    std::string big = vm("a");
    start(big.replace(big.find("64M"), 3, "600M"));
    u64 const free = machine.free;
    ASSERT_TRUE(supervisor.pause(0));
    EXPECT_FALSE(supervisor.save(0));
    EXPECT_EQ(phase(0), VmPhase::Paused);
    EXPECT_EQ(machine.free, free);
}

} // namespace
