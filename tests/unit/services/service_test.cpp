// SPDX-License-Identifier: MIT
// Services: their file, their system calls, their life; ring 3 is played by the test.
#include "services/service_machine.hpp"

#include <random>

namespace services {
namespace {

TEST(ServiceImageTest, SegmentsHaveTheirRights) {
    File const file;
    auto const image = ServiceImage::parse(file.bytes);
    ASSERT_TRUE(image);
    EXPECT_EQ(image->entry(), abi::image_begin + 0x1000);
    ASSERT_EQ(image->segments().size(), 3U);
    EXPECT_EQ(image->segments()[0].rights, kernel::Rights::Read);
    EXPECT_EQ(image->segments()[1].rights, kernel::Rights::ReadExecute);
    EXPECT_EQ(image->segments()[2].rights, kernel::Rights::ReadWrite);
    EXPECT_EQ(image->segments()[2].size, 0x1800U);
    EXPECT_EQ(image->segments()[2].bytes.size(), 0x10U);
}

TEST(ServiceImageTest, ABadFileIsRefusedWithTheReason) {
    auto const with = [](auto change) {
        File file;
        change(file);
        return std::string(file.problem());
    };
    EXPECT_EQ(with([](File& f) { f.bytes.clear(); }), "is no ELF file");
    EXPECT_EQ(with([](File& f) { f.bytes.resize(63); }), "is no ELF file");
    EXPECT_EQ(with([](File& f) { f.put<u8>(4, 1); }), "is no ELF64 file for x86-64");
    EXPECT_EQ(with([](File& f) { f.put<u16>(16, 3); }), "is no program with fixed addresses");
    EXPECT_EQ(with([](File& f) { f.put<u64>(32, ~u64{0} - 8); }), "has bad program headers");
    EXPECT_EQ(with([](File& f) { f.put<u16>(56, 0xffff); }), "has bad program headers");
    EXPECT_EQ(with([](File& f) { f.put<u64>(0x400, 0); }), "was not made for Mullion");
    EXPECT_EQ(with([](File& f) { f.put<u32>(0x408, abi::abi_version + 1); }),
              "was made for another version of Mullion");
    EXPECT_EQ(with([](File& f) { f.segment(2, 6, data_at, 0x2000, 0x1001, 0x1800); }),
              "has a segment that is not in the file");
    EXPECT_EQ(with([](File& f) { f.segment(2, 6, data_at, ~u64{0} - 7, 0x10, 0x10); }),
              "has a segment that is not in the file");
    EXPECT_EQ(with([](File& f) { f.segment(2, 6, data_at, 0x2000, 0x10, 0x8); }),
              "has a segment that is not in the file");
    for (u64 const at :
         {data_at + 8, abi::image_begin - 0x1000, abi::image_end, u64{0}, 0xffff'ffff'8000'0000, ~u64{0xfff}})
        EXPECT_EQ(with([&](File& f) { f.segment(2, 6, at, 0x2000, 0x10, 0x10); }),
                  "has a segment outside of a service's addresses");
    EXPECT_EQ(with([](File& f) { f.segment(2, 6, data_at, 0x2000, 0x10, ~u64{0}); }),
              "has a segment outside of a service's addresses");
    EXPECT_EQ(with([](File& f) { f.segment(2, 7, data_at, 0x2000, 0x10, 0x10); }),
              "has a segment with rights that it cannot have");
    EXPECT_EQ(with([](File& f) { f.segment(2, 6, abi::image_begin + 0x1000, 0x2000, 0x10, 0x10); }),
              "has segments that are not in the order of their addresses");
    EXPECT_EQ(with([](File& f) { f.put<u64>(24, data_at); }), "does not begin in its code");
    EXPECT_EQ(with([](File& f) { f.put<u64>(24, abi::image_begin + 0x1100); }), "does not begin in its code");
}

TEST(ServiceImageTest, NoBytesReachOutsideOfTheFile) {
    std::mt19937_64 random(1);
    File const good;
    u32 parsed = 0;
    for (u32 i = 0; i < 20'000; i++) {
        File file = good;
        for (u64 changes = random() % 4; changes-- > 0;)
            file.bytes[random() % (headers + 3 * header_size)] = static_cast<u8>(random());
        file.bytes.resize(file.bytes.size() - random() % 0x200);
        auto const image = ServiceImage::parse(file.bytes);
        if (!image) continue;
        parsed++;
        for (auto const& segment : image->segments()) {
            EXPECT_LE(segment.bytes.size(), segment.size);
            EXPECT_LE(segment.at + segment.size, abi::image_end);
            if (segment.bytes.empty()) continue;
            EXPECT_GE(segment.bytes.data(), file.bytes.data());
            EXPECT_LE(segment.bytes.data() + segment.bytes.size(), file.bytes.data() + file.bytes.size());
        }
    }
    EXPECT_GT(parsed, 1'000U);
}

TEST_F(ServiceTest, WaitsAndComesBackAtItsDeadline) {
    u64 answer = 1;
    program = {[](auto& frame) { call(frame, 1, 0, 2 * hz); },
               [&](auto& frame) {
                   answer = frame.rax;
                   call(frame, 1, 0, abi::no_deadline);
               }};
    start();
    EXPECT_EQ(entries, 1U);
    EXPECT_EQ(last_result, RunResult::Sleep);
    cpu.tsc = 2 * hz;
    kernel::run_timers();
    run_all();
    EXPECT_EQ(entries, 2U);
    EXPECT_EQ(answer, 0U);
}

TEST_F(ServiceTest, AnEventThatIsPostedAgainBeforeItIsTakenIsTakenOnceAndNotLost) {
    std::vector<u64> taken;
    auto const waits_for = [&](u64 mask) {
        return [&taken, mask](auto& frame) {
            taken.push_back(frame.rax);
            call(frame, 1, mask, abi::no_deadline);
        };
    };
    program = {[](auto& frame) { call(frame, 1, 4, abi::no_deadline); }};
    start();
    services.post(0, 4);
    services.post(0, 4);
    program = {waits_for(4)};
    run_all();
    EXPECT_EQ(taken, std::vector<u64>{4});
    // The next one wakes it again. While it runs, an event comes twice that it does not wait for.
    program = {[&](auto& frame) {
                   services.post(0, 2);
                   services.post(0, 2);
                   waits_for(4)(frame);
               },
               waits_for(6), waits_for(6)};
    services.post(0, 4);
    run_all();
    EXPECT_EQ(taken, (std::vector<u64>{4, 4}));
    EXPECT_EQ(last_result, RunResult::Sleep) << "it does not wait for 2";
    services.post(0, 2);
    run_all();
    EXPECT_EQ(taken.size(), 2U);
    services.post(0, 4 | 2); // one of them is there already
    run_all();
    EXPECT_EQ(taken, (std::vector<u64>{4, 4, 4, 2}));
    EXPECT_EQ(last_result, RunResult::Sleep);
}

TEST_F(ServiceTest, LogTakesItsOwnMemoryOnlyAndPrintsNoControls) {
    std::vector<u64> answers;
    auto const log_of = [&](u64 at, u64 size) {
        program.emplace_back([&answers, at, size](auto& frame) {
            answers.push_back(frame.rax);
            call(frame, 2, at, size);
        });
    };
    log_of(data_at, 16);
    log_of(abi::stack_end - 4, 8);
    log_of(~u64{0} - 3, 8);
    log_of(u64{1} << 47, 8);
    log_of(data_at, abi::longest_line + 1);
    program.emplace_back([&](auto& frame) {
        answers.push_back(frame.rax);
        call(frame, 77, 0, 0);
    });
    program.emplace_back([&](auto& frame) {
        answers.push_back(frame.rax);
        call(frame, 1, 0, abi::no_deadline);
    });
    start();
    std::vector<u64> const expected{0,
                                    0,
                                    static_cast<u64>(Answer::BadAddress),
                                    static_cast<u64>(Answer::BadAddress),
                                    static_cast<u64>(Answer::BadAddress),
                                    static_cast<u64>(Answer::TooLong),
                                    static_cast<u64>(Answer::NoSuchCall)};
    EXPECT_EQ(answers, expected);
    EXPECT_TRUE(has_logged("service one: a line?[2J......\n")) << log.text;
}

TEST_F(ServiceTest, ThreeDeathsInAMinuteKeepItDownUntilItIsRestarted) {
    add_fault();
    start();
    EXPECT_EQ(wakes, 1U);
    for (u32 death = 2; death <= 3; death++) {
        add_fault();
        services.manage();
        EXPECT_TRUE(services.status(0).is_running);
        run_all();
    }
    services.manage();
    EXPECT_FALSE(services.status(0).is_running);
    EXPECT_EQ(services.status(0).deaths, 3U);
    EXPECT_TRUE(has_logged("service one: died 3 times in 60 s and stays down")) << log.text;
    EXPECT_FALSE(services.kill(0));
    EXPECT_TRUE(services.restart(0));
    run_all();
    EXPECT_TRUE(services.status(0).is_running);
    EXPECT_EQ(services.status(0).instance, 4U);
}

TEST_F(ServiceTest, OneThatNeverWaitsIsEnded) {
    for (u32 i = 0; i < 3; i++)
        program.emplace_back([&](auto& frame) {
            cpu.tsc += hz / 10;
            frame.vector = kernel::vectors::timer;
        });
    start();
    EXPECT_TRUE(has_logged("did not come back to wait() in 250 ms of CPU time")) << log.text;
    EXPECT_EQ(entries, 3U);
}

TEST_F(ServiceTest, KillsByTheOperatorDoNotCount) {
    start();
    for (u32 i = 0; i < 5; i++) {
        EXPECT_TRUE(services.kill(0));
        run_all();
        services.manage();
        run_all();
    }
    EXPECT_TRUE(services.status(0).is_running);
    EXPECT_EQ(services.status(0).instance, 6U);
    EXPECT_EQ(services.status(0).deaths, 0U);
}

TEST_F(ServiceTest, ItsMemoryChangesOnlyWhileItWaits) {
    std::vector<u64> events;
    bool can_read_before = true, can_read_after = false;
    auto const reads = [&](bool& can_read) {
        program.emplace_back([&](auto& frame) { call(frame, 2, Host::page_at, 8); });
        program.emplace_back([&](auto& frame) {
            can_read = frame.rax == 0;
            call(frame, 1, ~u64{0}, abi::no_deadline);
        });
    };
    reads(can_read_before);
    // Asked for while it runs: nothing happens before it waits.
    program.insert(program.begin(), [&](auto& frame) {
        host.shows_page = true;
        services.ask_for_change(0);
        services.manage();
        EXPECT_EQ(host.changes, 0U);
        call(frame, 2, data_at, 0);
    });
    services.add("one", file.bytes, &host);
    run_all();
    EXPECT_FALSE(can_read_before);
    EXPECT_EQ(host.furnished, 1U);
    EXPECT_EQ(entries, 3U);
    // It is parked: events leave it where it is.
    services.post(0, 4);
    run_all();
    EXPECT_EQ(entries, 3U);
    program.emplace_back([&](auto& frame) {
        events.push_back(frame.rax);
        call(frame, 2, data_at, 0);
    });
    reads(can_read_after);
    EXPECT_FALSE(has_wake_event());
    services.manage();
    EXPECT_EQ(host.changes, 1U);
    EXPECT_TRUE(has_wake_event()) << "a CPU that halts in its favour would not run it";
    run_all();
    EXPECT_TRUE(can_read_after);
    EXPECT_EQ(events, std::vector<u64>{4 | abi::event_board});
    // One that sleeps is parked at once, and goes on when nothing has come but the change.
    host.shows_page = false;
    pass_change_limit();
    services.ask_for_change(0);
    services.manage();
    run_all();
    EXPECT_EQ(host.changes, 1U);
    bool can_read_at_last = true;
    reads(can_read_at_last);
    services.manage();
    run_all();
    EXPECT_EQ(host.changes, 2U);
    EXPECT_FALSE(can_read_at_last);
    // A dead one does not hold a change up, and the next one is furnished.
    add_fault();
    services.post(0, 1);
    run_all();
    host.shows_page = true;
    pass_change_limit();
    services.ask_for_change(0);
    services.manage();
    EXPECT_EQ(host.changes, 3U);
    EXPECT_EQ(host.furnished, 2U);
    bool can_read_anew = false;
    reads(can_read_anew);
    run_all();
    EXPECT_TRUE(can_read_anew);
}

TEST_F(ServiceTest, ChangesAreSoFarApartHoweverOftenTheyAreAskedFor) {
    services.add("one", file.bytes, &host);
    run_all();
    auto const ask = [&] {
        for (unsigned i = 0; i < 100; i++)
            services.ask_for_change(0);
    };
    wakes = 0;
    ask();
    EXPECT_EQ(wakes, 1U);
    services.manage(); // parks it
    run_all();
    services.manage();
    EXPECT_EQ(host.changes, 1U);
    run_all();
    wakes = 0;
    ask();
    EXPECT_EQ(wakes, 1U);
    services.manage();
    run_all();
    services.manage();
    EXPECT_EQ(host.changes, 1U) << "it is too early";
    ask();
    EXPECT_EQ(wakes, 1U) << "it will be called anyway";
    pass_change_limit();
    kernel::run_timers();
    EXPECT_EQ(wakes, 2U);
    services.manage();
    run_all();
    services.manage();
    EXPECT_EQ(host.changes, 2U);
}

TEST_F(ServiceTest, ParkedOneCanBeKilled) {
    services.add("one", file.bytes, &host);
    run_all();
    services.ask_for_change(0);
    services.manage();
    run_all();
    EXPECT_TRUE(services.kill(0));
    run_all();
    EXPECT_EQ(last_result, RunResult::Stopped);
    services.manage();
    run_all();
    EXPECT_EQ(services.status(0).instance, 2U);
    EXPECT_EQ(host.changes, 1U);
    EXPECT_EQ(host.ends, 1U);
}

TEST_F(ServiceTest, CallsAboutDevicesReachItsHost) {
    std::vector<u64> answers;
    auto const calls = [&](u64 number, u64 first, u64 second) {
        program.emplace_back([&answers, number, first, second](auto& frame) {
            answers.push_back(frame.rax);
            call(frame, number, first, second);
        });
    };
    calls(3, 1, 2);
    calls(10, ~u64{0}, ~u64{0});
    calls(11, 5, 0);
    program.emplace_back([&](auto& frame) {
        answers.push_back(frame.rax);
        call(frame, 1, 0, abi::no_deadline);
    });
    services.add("one", file.bytes, &host);
    run_all();
    EXPECT_EQ(answers, (std::vector<u64>{0, 10, ~u64{0} * 10, static_cast<u64>(Answer::NoSuchCall)}));
    EXPECT_EQ(host.calls, (std::vector<std::array<u64, 3>>{{3, 1, 2}, {10, ~u64{0}, ~u64{0}}}));
}

TEST_F(ServiceTest, ANewInstanceBeginsWithEmptyRegisters) {
    auto const expect_empty = [&](auto& frame) {
        for (u64 const value : {frame.rax, frame.rbx, frame.rcx, frame.rdx, frame.rsi, frame.rdi, frame.rbp, frame.r8,
                                frame.r9, frame.r10, frame.r11, frame.r12, frame.r13, frame.r14, frame.r15})
            EXPECT_EQ(value, 0U);
        EXPECT_EQ(frame.rflags, 0x202U);
    };
    program = {[&](auto& frame) {
                   expect_empty(frame);
                   frame.rbx = frame.r15 = 0x5a5a;
                   frame.vector = 13;
               },
               expect_empty};
    start();
    services.manage();
    run_all();
    EXPECT_EQ(entries, 2U);
}

// The log has the banks; the numbers are those of machine_check_test.cpp.
TEST_F(ServiceTest, AMachineCheckThatLosesNothingElseEndsItAlone) {
    constexpr u64 VAL = u64{1} << 63, UC = u64{1} << 61, EN = u64{1} << 60;
    cpu.populate_read_only_msr(0x179, 1);
    cpu.populate_msr(0x17a, 1); // RIPV
    cpu.populate_msr(0x401, VAL | UC | EN);
    program.emplace_back([](auto& frame) { frame.vector = 18; });
    start();
    EXPECT_EQ(last_result, RunResult::Stopped);
    EXPECT_TRUE(has_logged("while a service ran: MCG_STATUS 0x1; bank 0 status 0xb000000000000000")) << log.text;
    EXPECT_TRUE(has_logged("service one: the machine reports damaged data (machine check")) << log.text;
    EXPECT_EQ(cpu.peek_msr(0x401), 0U);
    // The next instance runs on when it was another CPU's.
    program.emplace_back([&](auto& frame) {
        cpu.populate_msr(0x17a, 1);
        frame.vector = 18;
    });
    services.manage();
    run_all();
    EXPECT_TRUE(services.status(0).is_running);
    EXPECT_EQ(last_result, RunResult::Sleep);
    EXPECT_EQ(entries, 3U);
}

TEST_F(ServiceTest, AMachineCheckThatLosesStateStopsTheMachine) {
    cpu.populate_read_only_msr(0x179, 1);
    cpu.populate_msr(0x17a, 0);
    cpu.populate_msr(0x401, 0);
    kernel::set_panic_sink(&log);
    kernel::set_panic_end([] { std::_Exit(3); });
    program.emplace_back([](auto& frame) { frame.vector = 18; });
    EXPECT_EXIT(start(), testing::ExitedWithCode(3), "");
    kernel::set_panic_sink(nullptr);
    program.clear();
}

TEST_F(ServiceTest, TheGuestsTscAuxIsClearedOnceForIt) {
    u32 writes = 0;
    cpu.hook_msr(
        lib::x86::IA32_TSC_AUX, [] { return u64{0}; }, [&](u64 value) { return value <= 5 && (writes++, true); });
    kernel::set_tsc_aux(5); // as the guest's vCPU is loaded
    start();
    EXPECT_EQ(kernel::this_cpu().tsc_aux, 0U);
    EXPECT_EQ(writes, 2U);
    services.post(0, 1);
    run_all();
    EXPECT_EQ(entries, 2U);
    EXPECT_EQ(writes, 2U) << "it is clear already";
}

TEST_F(ServiceTest, OneThatServesNobodyHasNoDevices) {
    u64 answer = 0;
    program.emplace_back([&](auto& frame) { call(frame, 3, 0, 0); });
    program.emplace_back([&](auto& frame) {
        answer = frame.rax;
        call(frame, 1, 0, abi::no_deadline);
    });
    start();
    EXPECT_EQ(answer, static_cast<u64>(Answer::NoSuchDevice));
}

} // namespace
} // namespace services
