// SPDX-License-Identifier: MIT
#include "fake_machine.hpp"
#include <random>

namespace {

using namespace supervisor_test;
using manage::MachineEnd;

std::string const restarts = "restart = \"always\"\n";

TEST_F(SupervisorTest, StartsWhatStartsByItself) {
    start(vm("a") + vm("b", "autostart = false\n"));
    EXPECT_EQ(phase(0), VmPhase::Running);
    EXPECT_EQ(phase(1), VmPhase::Off);
    EXPECT_EQ(machine.free, FakeMachine::all_memory - 64 * lib::MiB);
    end(0, EndReason::PowerOff);
    EXPECT_EQ(machine.end, "power-off 0");
    EXPECT_EQ(machine.free, FakeMachine::all_memory);
}

TEST_F(SupervisorTest, StartsTheOthersBesideARefusedOne) {
    start(vm("a", "cpus = \"7\"\n") + vm("b") + vm("c", "bogus = 1\n"));
    EXPECT_EQ(phase(0), VmPhase::Refused);
    EXPECT_EQ(phase(1), VmPhase::Running);
    EXPECT_EQ(phase(2), VmPhase::Refused);
    end(0, EndReason::PowerOff); // of those that were created
    EXPECT_EQ(machine.end, "power-off 1") << "not all is well";
}

TEST_F(SupervisorTest, AVmStartsWhenTheMachinesDisksAreKnown) {
    machine.is_ready = false;
    start(vm("a"));
    EXPECT_EQ(phase(0), VmPhase::Waiting);
    pass(1);
    EXPECT_EQ(phase(0), VmPhase::Waiting);
    EXPECT_EQ(machine.end, "");
    machine.is_ready = true;
    pass(1);
    EXPECT_EQ(phase(0), VmPhase::Running);
}

TEST_F(SupervisorTest, AVmThatWaitsForDisksCanBeKilled) {
    machine.is_ready = false;
    start(vm("a") + vm("b"));
    EXPECT_TRUE(supervisor.kill(0));
    machine.is_ready = true;
    pass(1);
    EXPECT_EQ(phase(0), VmPhase::Off);
    EXPECT_EQ(phase(1), VmPhase::Running);
}

TEST_F(SupervisorTest, AVmThatWaitsForDisksKeepsItsPlaceAtTheConsole) {
    machine.unready = "a";
    start(vm("a") + vm("b"));
    EXPECT_EQ(phase(1), VmPhase::Running);
    EXPECT_FALSE(console.has_owner()) << "the first VM will come in a moment";
    machine.unready.clear();
    pass(1);
    EXPECT_TRUE(supervisor.vm_status(0).has_console);
}

TEST_F(SupervisorTest, AVmThatIsKilledWhileItWaitsForDisksLeavesTheConsoleToTheNext) {
    machine.unready = "a";
    start(vm("a") + vm("b"));
    EXPECT_TRUE(supervisor.kill(0));
    pass(1);
    EXPECT_TRUE(supervisor.vm_status(1).has_console);
}

TEST_F(SupervisorTest, AVmThatDoesNotFitKeepsNobodyElseFromStarting) {
    start(vm("a", "").replace(vm("a").find("64M"), 3, "2G ") + vm("b"));
    EXPECT_EQ(phase(0), VmPhase::Off);
    EXPECT_EQ(phase(1), VmPhase::Running);
    EXPECT_FALSE(supervisor.start(0));
}

TEST_F(SupervisorTest, WhenNothingRunsItDoesWhatTheOptionSays) {
    start(vm("a", "bogus = 1\n"));
    EXPECT_EQ(machine.end, "power-off 1");
}

TEST_F(SupervisorTest, WithoutADescriptionNothingRuns) {
    supervisor.start_all({}, {});
    settle();
    EXPECT_EQ(machine.end, "power-off 1");
}

TEST_F(SupervisorTest, NothingToStartIsNoFailure) {
    start(vm("a", "autostart = false\n"));
    pass(100);
    EXPECT_EQ(machine.end, "") << "the operator will start it";
    EXPECT_TRUE(supervisor.start(0));
    settle();
    end(0, EndReason::PowerOff);
    EXPECT_EQ(machine.end, "power-off 0");
}

TEST_F(SupervisorTest, TheDescriptionSaysWhetherCoresAreShared) {
    start(vm("a", ""));
    EXPECT_FALSE(machine.shares_cores);
    start("[mullion]\nshare_cores = true\n" + vm("a", ""));
    EXPECT_TRUE(machine.shares_cores);
}

TEST_F(SupervisorTest, RestartsByPolicy) {
    start(vm("never") + vm("fails", "restart = \"on-failure\"\n") + vm("always", restarts));
    pass(60); // long enough not to wait
    end(1, EndReason::Crash);
    EXPECT_EQ(phase(1), VmPhase::Running);
    end(1, EndReason::PowerOff);
    EXPECT_EQ(phase(1), VmPhase::Off);
    end(2, EndReason::PowerOff);
    EXPECT_EQ(phase(2), VmPhase::Running);
    end(2, EndReason::PowerOff);
    EXPECT_EQ(phase(2), VmPhase::Waiting) << "it ran for no time";
    pass(2);
    EXPECT_EQ(phase(2), VmPhase::Running);
    EXPECT_TRUE(supervisor.kill(2));
    finish();
    EXPECT_EQ(phase(2), VmPhase::Off) << "killed is killed";
    end(0, EndReason::Crash);
    EXPECT_EQ(machine.end, "power-off 1");
}

TEST_F(SupervisorTest, ARebootStartsTheVmAgainWithItsConsole) {
    start(vm("first") + vm("a") + vm("b") + vm("never", "restart = \"never\"\n"));
    EXPECT_TRUE(supervisor.attach_console(1));
    pass(60);
    end(1, EndReason::Reset);
    EXPECT_EQ(phase(1), VmPhase::Running);
    EXPECT_TRUE(supervisor.vm_status(1).has_console) << "not the first VM that wants one";
    end(1, EndReason::Reset);
    EXPECT_EQ(phase(1), VmPhase::Waiting) << "it ran for no time";
    EXPECT_FALSE(console.has_owner()) << "it comes back in a moment";
    pass(2);
    EXPECT_TRUE(supervisor.vm_status(1).has_console);
    end(2, EndReason::Crash);
    EXPECT_EQ(phase(2), VmPhase::Off);
    end(3, EndReason::Reset);
    EXPECT_EQ(phase(3), VmPhase::Off);
    end(1, EndReason::PowerOff);
    EXPECT_EQ(phase(1), VmPhase::Off);
}

TEST_F(SupervisorTest, AVmThatCrashesAtOnceWaitsLongerAndLonger) {
    start(vm("a", restarts));
    std::vector<u64> waits;
    for (int i = 0; i < 9; i++) {
        end(0, EndReason::Crash);
        EXPECT_EQ(phase(0), VmPhase::Waiting);
        EXPECT_EQ(machine.free, FakeMachine::all_memory);
        u64 const since = machine.time.value;
        while (phase(0) == VmPhase::Waiting && machine.time.value - since < 100 * lib::nanos_per_second)
            pass(1);
        waits.push_back((machine.time.value - since) / lib::nanos_per_second);
    }
    EXPECT_EQ(waits, (std::vector<u64>{1, 2, 4, 8, 16, 32, 60, 60, 60}));
    pass(20);
    end(0, EndReason::Crash);
    EXPECT_EQ(phase(0), VmPhase::Running) << "it had recovered";
    EXPECT_EQ(supervisor.vm_status(0).starts, 11U);
}

TEST_F(SupervisorTest, AnOperatorsResetDoesNotWait) {
    start(vm("a"));
    EXPECT_TRUE(supervisor.reset(0));
    EXPECT_EQ(phase(0), VmPhase::Ending);
    finish();
    EXPECT_EQ(phase(0), VmPhase::Running);
    EXPECT_EQ(machine.vms[0]->births, 2U);
}

TEST_F(SupervisorTest, PressesTheButtonThenKills) {
    start(vm("a") + vm("b"));
    EXPECT_TRUE(supervisor.stop(0));
    EXPECT_EQ(machine.vms[0]->buttons, 1U);
    pass(29);
    EXPECT_EQ(phase(0), VmPhase::SwitchingOff);
    pass(2);
    finish();
    EXPECT_EQ(phase(0), VmPhase::Off);
    EXPECT_EQ(supervisor.vm_status(0).last_end, "killed");
    EXPECT_EQ(phase(1), VmPhase::Running);
}

TEST_F(SupervisorTest, ACrashLeavesADump) {
    start(vm("a") + vm("b"));
    end(0, EndReason::Crash);
    EXPECT_EQ(supervisor.vm_status(0).last_end, "crash");
    EXPECT_EQ(supervisor.vm_status(0).crash_dump, "rip 0x1000");
    EXPECT_TRUE(supervisor.start(0));
    settle();
    end(0, EndReason::PowerOff);
    EXPECT_EQ(supervisor.vm_status(0).last_end, "poweroff");
    EXPECT_EQ(supervisor.vm_status(0).crash_dump, "rip 0x1000") << "the last crash is still of interest";
}

TEST_F(SupervisorTest, ADumpOfManyVcpusIsWhole) {
    start(vm("a", "vcpus = 32\n" + restarts) + vm("b"));
    std::string text;
    for (unsigned vcpu = 0; vcpu < 32; vcpu++)
        text += std::string(vm::Vcpu::most_state_text - 1, static_cast<char>('a' + vcpu % 26)) + "\n";
    machine.vms[0]->dump_text = text;
    end(0, EndReason::Crash);
    EXPECT_TRUE(supervisor.vm_status(0).crash_dump == text);
    pass(2);
    machine.vms[0]->dump_text = "shorter";
    end(0, EndReason::Crash);
    EXPECT_EQ(supervisor.vm_status(0).crash_dump, "shorter");
}

TEST_F(SupervisorTest, TheConsoleGoesOnToWhoeverIsThere) {
    start(vm("quiet", "console = \"none\"\n") + vm("a") + vm("b", restarts) + vm("c"));
    EXPECT_TRUE(supervisor.vm_status(1).has_console);
    end(1, EndReason::PowerOff);
    EXPECT_TRUE(supervisor.vm_status(2).has_console);
    end(2, EndReason::Crash);
    EXPECT_FALSE(console.has_owner()) << "it comes back in a moment";
    pass(2);
    EXPECT_TRUE(supervisor.vm_status(2).has_console);
    EXPECT_TRUE(supervisor.kill(2));
    finish();
    EXPECT_TRUE(supervisor.vm_status(3).has_console);
    end(3, EndReason::PowerOff);
    EXPECT_FALSE(console.has_owner()) << "the last one wants none";
    EXPECT_EQ(phase(0), VmPhase::Running);
}

TEST_F(SupervisorTest, TheMachineEndsWhenTheOperatorSaysSo) {
    start(vm("a") + vm("b", restarts) + vm("c", restarts));
    EXPECT_TRUE(supervisor.pause(0));
    end(2, EndReason::Crash);
    EXPECT_EQ(phase(2), VmPhase::Waiting);
    supervisor.end_machine(MachineEnd::Restart, false);
    EXPECT_EQ(phase(0), VmPhase::SwitchingOff);
    EXPECT_EQ(phase(2), VmPhase::Off);
    end(1, EndReason::PowerOff);
    EXPECT_EQ(phase(1), VmPhase::Off) << "no restart now";
    EXPECT_EQ(supervisor.start(1).error(), "is not started while the machine is switched off");
    pass(31);
    finish();
    EXPECT_EQ(machine.end, "restart");
}

TEST_F(SupervisorTest, AtOnceIsAtOnce) {
    start(vm("a"));
    supervisor.end_machine(MachineEnd::PowerOff, true);
    EXPECT_EQ(machine.end, "power-off 1") << "a VM was lost";
}

TEST_F(SupervisorTest, WaitsForTheOperatorToLeave) {
    start(vm("a"));
    machine.monitor_is_open = true;
    end(0, EndReason::PowerOff);
    EXPECT_EQ(machine.end, "");
    machine.monitor_is_open = false;
    machine.is_called = true;
    settle();
    EXPECT_EQ(machine.end, "power-off 0");
}

TEST_F(SupervisorTest, MovesVmsWhileTheyRun) {
    start(vm("a", "cpus = \"1-2\"\nvcpus = 2\nexclusive = true\n") + vm("b", "autostart = false\n"));
    auto wanted = supervisor.vm_status(0).placement;
    wanted.cpus = {};
    wanted.cpus.add(2);
    EXPECT_TRUE(supervisor.place(0, wanted).error().starts_with("cpus: expected at least 2 processors"));
    EXPECT_EQ(machine.vms[0]->placed.cpus.count(), 0U);
    wanted.cpus.add(3);
    EXPECT_TRUE(supervisor.place(0, wanted));
    EXPECT_TRUE(machine.vms[0]->placed.cpus.has(3));
    EXPECT_TRUE(supervisor.vm_status(0).placement.cpus.has(3));

    config::CpuPlacement other;
    other.cpus.add(1);
    EXPECT_TRUE(supervisor.place(1, other)) << "off: from its next start on";
    EXPECT_TRUE(supervisor.vm_status(1).placement.cpus.has(1));
    wanted.cpus.add(1);
    EXPECT_TRUE(supervisor.place(0, wanted).error().starts_with("cpus: expected to leave [vm.b]"));

    machine.vms[0]->may_be_placed = false;
    wanted = {};
    EXPECT_FALSE(supervisor.place(0, wanted));
    EXPECT_TRUE(supervisor.vm_status(0).placement.exclusive) << "as it was";
    wanted.exclusive = true;
    wanted.share.cap = 5;
    EXPECT_FALSE(supervisor.place(1, wanted));
}

TEST_F(SupervisorTest, MeasuresWhileAVmRuns) {
    start(vm("a") + vm("b"));
    EXPECT_EQ(supervisor.exit_times(0), nullptr);
    EXPECT_TRUE(supervisor.measure_exits(0, true));
    ASSERT_NE(supervisor.exit_times(0), nullptr);
    EXPECT_EQ(supervisor.exit_times(0)->reasons[static_cast<unsigned>(vm::ExitReason::Cpuid)].count, 1U);
    EXPECT_TRUE(supervisor.measure_exits(0, false));
    EXPECT_EQ(supervisor.exit_times(0), nullptr);
    EXPECT_TRUE(supervisor.measure_exits(0, true));
    end(0, EndReason::PowerOff);
    EXPECT_EQ(supervisor.exit_times(0), nullptr);
}

// --- Every command in every phase

enum Command { Start, Stop, Reset, Pause, Resume, Kill, Console, Place, Measure, Save, Restore, Discard };

class CommandTest : public SupervisorTest {
protected:
    // VM 0 in `wanted`; VM 1 runs, so that the machine does not end.
    void bring(VmPhase wanted) {
        std::string const more = wanted == VmPhase::Refused   ? "bogus = 1\n"
                                 : wanted == VmPhase::Waiting ? restarts
                                 : wanted == VmPhase::Off     ? "autostart = false\n"
                                                              : "";
        begin(vm("a", more) + vm("b"));
        if (wanted != VmPhase::Starting) settle();
        if (wanted == VmPhase::Saving) {
            EXPECT_TRUE(supervisor.pause(0));
            EXPECT_TRUE(supervisor.save(0));
        }
        if (wanted == VmPhase::Paused) EXPECT_TRUE(supervisor.pause(0));
        if (wanted == VmPhase::SwitchingOff) EXPECT_TRUE(supervisor.stop(0));
        if (wanted == VmPhase::Ending) EXPECT_TRUE(supervisor.kill(0));
        if (wanted == VmPhase::Waiting) end(0, EndReason::Crash);
        ASSERT_EQ(phase(0), wanted);
    }
    manage::ControlResult run(Command what) {
        switch (what) {
        case Start: return supervisor.start(0);
        case Stop: return supervisor.stop(0);
        case Reset: return supervisor.reset(0);
        case Pause: return supervisor.pause(0);
        case Resume: return supervisor.resume(0);
        case Kill: return supervisor.kill(0);
        case Console: return supervisor.attach_console(0);
        case Place: return supervisor.place(0, {});
        case Measure: return supervisor.measure_exits(0, true);
        case Save: return supervisor.save(0);
        case Restore: return supervisor.restore(0);
        case Discard: return supervisor.discard(0);
        }
        return {};
    }
};

struct Expected {
    VmPhase phase;
    std::string good; // commands that work, by their first letters in the order of Command; "-": refused
};
class EveryPhase : public CommandTest, public ::testing::WithParamInterface<Expected> {};

TEST_P(EveryPhase, OtherCommandsSayWhyAndChangeNothing) {
    for (int i = Start; i <= Discard; i++) {
        SCOPED_TRACE(i);
        FakeMachine fresh_machine;
        auto const command = static_cast<Command>(i);
        // Each command on machines of its own.
        class Fresh final : public CommandTest {
        public:
            void TestBody() override {}
            using CommandTest::bring;
            using CommandTest::machine;
            using CommandTest::phase;
            using CommandTest::run;
            using CommandTest::supervisor;
        };
        Fresh fresh;
        ASSERT_NO_FATAL_FAILURE(fresh.bring(GetParam().phase));
        u64 const free = fresh.machine.free;
        auto const result = fresh.run(command);
        bool const should_work = GetParam().good[static_cast<std::size_t>(i)] != '-';
        EXPECT_EQ(result.has_value(), should_work) << (result ? "" : result.error());
        if (!result) {
            EXPECT_GT(result.error().size(), 5U);
            EXPECT_EQ(fresh.phase(0), GetParam().phase);
            EXPECT_EQ(fresh.machine.free, free);
        }
        EXPECT_EQ(fresh.phase(1), GetParam().phase == VmPhase::Starting ? VmPhase::Starting : VmPhase::Running);
    }
}

// s: start, p: stop, r: reset, P: pause, R: resume, k: kill, c: console, l: place, m: measure, S: save; without a
// snapshot nothing is restored or discarded
INSTANTIATE_TEST_SUITE_P(
    Phases, EveryPhase,
    ::testing::Values(Expected{VmPhase::Off, "s------l----"}, Expected{VmPhase::Starting, "-----kcl----"},
                      Expected{VmPhase::Running, "-prP-kclm---"}, Expected{VmPhase::Paused, "--r-RkclmS--"},
                      Expected{VmPhase::Saving, "--r--kclm---"}, Expected{VmPhase::SwitchingOff, "--r--kclm---"},
                      Expected{VmPhase::Ending, "-----kc-----"}, Expected{VmPhase::Waiting, "sp---k-l----"},
                      Expected{VmPhase::Refused, "------------"}));

TEST_F(SupervisorTest, KilledWhileItRebootsItStaysDown) {
    start(vm("a", restarts) + vm("b"));
    machine.vms[0]->end(EndReason::Reset, "");
    ASSERT_EQ(phase(0), VmPhase::Ending);
    EXPECT_TRUE(supervisor.kill(0));
    finish();
    EXPECT_EQ(phase(0), VmPhase::Off);
    EXPECT_EQ(supervisor.vm_status(0).last_end, "reset") << "the first reason stays";
    EXPECT_TRUE(supervisor.start(0));
    settle();
    end(0, EndReason::Crash);
    EXPECT_NE(phase(0), VmPhase::Off) << "the kill was for that life only";
}

TEST_F(SupervisorTest, AGuestThatEndsItselfWhileItIsPausedEnds) {
    start(vm("a") + vm("b"));
    machine.vms[0]->ends_while_pausing = EndReason::PowerOff;
    EXPECT_EQ(supervisor.pause(0).error(), "has just ended by itself");
    EXPECT_EQ(phase(0), VmPhase::Ending);
    finish();
    EXPECT_EQ(phase(0), VmPhase::Off);
    EXPECT_EQ(supervisor.vm_status(0).last_end, "poweroff");
}

// --- All short lives: whatever happened, kill ends it and gives its memory back.

class EveryLife : public CommandTest {
public:
    using CommandTest::start;
    using CommandTest::vm;
    void TestBody() override {}
    static constexpr unsigned event_count = 17;

    void happen(unsigned event) {
        FakeVm& guest = *machine.vms[0];
        bool const runs = guest.exists() && guest.is_running() && !guest.is_paused();
        switch (event) {
        case 0: (void)supervisor.start(0); break;
        case 1: (void)supervisor.stop(0); break;
        case 2: (void)supervisor.reset(0); break;
        case 3: (void)supervisor.pause(0); break;
        case 4: (void)supervisor.resume(0); break;
        case 5: (void)supervisor.kill(0); break;
        case 6:
            if (runs) guest.end(EndReason::PowerOff, "");
            break;
        case 7:
            if (runs) guest.end(EndReason::Reset, "");
            break;
        case 8:
            if (runs) guest.end(EndReason::Crash, "");
            break;
        case 9:
            guest.ends_while_pausing = EndReason::PowerOff;
            (void)supervisor.pause(0);
            break;
        case 10:
            guest.ends_while_pausing = EndReason::Reset;
            (void)supervisor.pause(0);
            break;
        case 11: guest.finish(); break;
        case 13: (void)supervisor.save(0); break;
        case 14: (void)supervisor.restore(0); break;
        case 15: (void)supervisor.discard(0); break;
        case 12: pass(31); return; // the time-outs of stop and of restarts
        default: supervisor.manage(); return;
        }
        guest.ends_while_pausing = EndReason::None;
    }
    void end_it() {
        bool const is_off = phase(0) == VmPhase::Off;
        EXPECT_EQ(supervisor.kill(0).has_value(), !is_off) << name_of(phase(0));
        finish();
        EXPECT_EQ(phase(0), VmPhase::Off);
        (void)supervisor.discard(0);
        EXPECT_EQ(machine.free, FakeMachine::all_memory - machine_of_b);
        EXPECT_EQ(machine.end, "");
    }
    static constexpr u64 machine_of_b = 64 * lib::MiB;
};

TEST(EveryLifeOfAVm, HasAWayOut) {
    for (std::string const policy : {"", "restart = \"always\"\n"})
        for (unsigned life = 0; life < EveryLife::event_count * EveryLife::event_count * EveryLife::event_count;
             life++) {
            EveryLife one;
            one.start(one.vm("a", policy) + one.vm("b"));
            for (unsigned rest = life, step = 0; step < 3; step++, rest /= EveryLife::event_count)
                one.happen(rest % EveryLife::event_count);
            one.end_it();
            ASSERT_FALSE(::testing::Test::HasFailure()) << "life " << life << ", " << policy;
        }
}

// --- Anything, in any order

TEST_F(CommandTest, RandomLivesGiveAllMemoryBack) {
    std::mt19937 random(4);
    start(vm("a", restarts) + vm("b", "restart = \"on-failure\"\n") + vm("c") + vm("d", "autostart = false\n") +
          vm("e").replace(vm("e").find("64M"), 3, "900M"));
    machine.monitor_is_open = true;
    unsigned kills = 0;
    for (int step = 0; step < 200'000; step++) {
        u32 const vm = random() % 5;
        switch (random() % 16) {
        case 12: (void)supervisor.save(vm); break;
        case 13: (void)supervisor.restore(vm); break;
        case 14: (void)supervisor.discard(vm); break;
        case 0:
        case 1: (void)supervisor.start(vm); break;
        case 2: (void)supervisor.stop(vm); break;
        case 3: (void)supervisor.reset(vm); break;
        case 4: (void)supervisor.pause(vm); break;
        case 5: (void)supervisor.resume(vm); break;
        case 6: kills += supervisor.kill(vm).has_value(); break;
        case 7: (void)supervisor.attach_console(vm); break;
        case 8:
            if (phase(vm) == VmPhase::Running)
                machine.vms[vm]->end(random() % 2 == 0 ? EndReason::Crash : EndReason::PowerOff, "");
            break;
        case 9: machine.vms[vm]->can_be_loaded = random() % 4 != 0; break;
        case 10: (void)supervisor.measure_exits(vm, random() % 2 == 0); break;
        case 11: machine.time = machine.time + Nanos{random() % (20 * lib::nanos_per_second)}; break;
        default: machine.vms[vm]->finish(); break;
        }
        machine.is_called = true;
        machine.is_called = false;
        supervisor.manage(); // one round only: starts take several
        u64 taken = 0;
        unsigned consoles = 0;
        for (u32 i = 0; i < 5; i++) {
            auto const status = supervisor.vm_status(i);
            if (machine.vms[i]->exists()) taken += status.memory;
            taken += status.snapshot;
            consoles += status.has_console;
        }
        ASSERT_EQ(machine.free + taken, FakeMachine::all_memory) << step;
        ASSERT_LE(consoles, 1U);
    }
    EXPECT_GT(kills, 1'000U);
    for (int i = 0; i < 2; i++) { // the first may meet one that is on its way to a new start
        for (u32 vm = 0; vm < 5; vm++)
            (void)supervisor.kill(vm);
        finish();
    }
    for (u32 vm = 0; vm < 5; vm++)
        (void)supervisor.discard(vm);
    EXPECT_EQ(machine.free, FakeMachine::all_memory);
    ASSERT_EQ(machine.end, "");
}

} // namespace
