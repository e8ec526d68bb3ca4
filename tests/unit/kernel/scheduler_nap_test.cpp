// SPDX-License-Identifier: MIT
// A CPU that halts in favour of the one that ran last.
#include "kernel/simulated_machine.hpp"

using namespace kernel;

namespace {

constexpr u64 ms = 1'000'000;

TEST(SchedulerNap, OneWhoNapsMakesRoomForAnotherVm) {
    SimulatedMachine machine(1);
    auto& napper = machine.add({}, 1);
    auto& other = machine.add({}, 2);
    napper.busy_min = napper.busy_max = ms;
    other.busy_min = other.busy_max = 50 * ms;
    napper.sleep_min = napper.sleep_max = other.sleep_min = other.sleep_max = 10'000 * ms;
    // The other one has had more of the CPU, so that it has no claim to it while the napper runs.
    machine.wake(other);
    machine.run_for(60 * ms);
    machine.wake(napper);
    machine.run_for(2 * ms);
    ASSERT_EQ(machine.cpus[0].napping, &napper);
    machine.wake(other);
    EXPECT_EQ(machine.cpus[0].task, &other);
}

} // namespace
