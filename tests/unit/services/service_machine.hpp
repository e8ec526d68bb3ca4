// SPDX-License-Identifier: MIT
#pragma once
// A service on the fake CPU: a file for it, a host, and the run loop; ring 3 is played by the test.
#include "kernel/kernel_cpu.hpp"
#include "support/machine_memory.hpp"

#include <cstring>
#include <functional>
#include <kernel/log.hpp>
#include <kernel/page_table.hpp>
#include <kernel/services.hpp>
#include <lib/memory.hpp>
#include <lib/service_board.hpp>
#include <string>
#include <vector>

namespace services {

namespace abi = lib::service;
using abi::Answer;
using kernel::RunResult;
using kernel::ServiceImage;
using kernel::UserContext;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

inline constexpr u64 hz = 1'000'000'000;
inline constexpr u64 headers = 64, header_size = 56;
inline constexpr u64 data_at = abi::image_begin + 0x2000;

struct File {
    std::vector<u8> bytes = std::vector<u8>(0x3000);

    template <typename T> void put(u64 offset, T value) { lib::store(bytes.data() + offset, value); }
    void segment(u32 index, u32 flags, u64 at, u64 offset, u64 file_size, u64 memory_size) {
        u64 const header = headers + index * header_size;
        put<u32>(header, 1);
        put<u32>(header + 4, flags);
        put<u64>(header + 8, offset);
        put<u64>(header + 16, at);
        put<u64>(header + 32, file_size);
        put<u64>(header + 40, memory_size);
    }
    // Read-only data, code, and data with zeros behind it.
    File() {
        put<u32>(0, 0x464c'457f);
        put<u8>(4, 2);
        put<u8>(5, 1);
        put<u16>(16, 2);
        put<u16>(18, 62);
        put<u64>(24, abi::image_begin + 0x1000);
        put<u64>(32, headers);
        put<u16>(54, header_size);
        put<u16>(56, 3);
        put<abi::ProgramHeader>(0x400, {abi::program_magic, abi::abi_version, 0});
        segment(0, 4, abi::image_begin, 0x400, 0x100, 0x100);
        segment(1, 5, abi::image_begin + 0x1000, 0x1000, 0x100, 0x100);
        segment(2, 6, data_at, 0x2000, 0x10, 0x1800);
        std::memcpy(&bytes[0x2000], "a line\x1b[2J.......", 16);
    }
    std::string_view problem() const {
        auto const image = ServiceImage::parse(bytes);
        return image ? std::string_view() : image.error();
    }
};

// Who the service works for: one page of memory in its address space while `shows_page`.
class Host final : public kernel::ServiceHost {
public:
    static constexpr u64 page_at = u64{1} << 41;
    lib::Result<void> furnish(kernel::Service& instance) override {
        furnished++;
        return shows_page ? map(instance) : lib::Result<void>();
    }
    void change(kernel::Service* instance) override {
        changes++;
        if (instance == nullptr) return;
        if (shows_page)
            EXPECT_TRUE(map(*instance));
        else
            EXPECT_TRUE(instance->unmap(page_at, lib::page_size));
    }
    void ended() override { ends++; }
    u64 call(abi::Call number, u64 first, u64 second) override {
        calls.push_back({static_cast<u64>(number), first, second});
        return first * 10;
    }
    lib::Result<void> map(kernel::Service& instance) const {
        return instance.map({lib::HostVirt{page_at}, page, lib::page_size, kernel::Rights::Read});
    }

    lib::HostPhys page{};
    bool shows_page = false;
    u32 furnished = 0, changes = 0, ends = 0;
    std::vector<std::array<u64, 3>> calls;
};

class StringSink final : public lib::TextSink {
public:
    void write(std::string_view part) override { text += part; }
    std::string text;
};

class ServiceTest : public KernelCpu {
protected:
    ServiceTest() {
        cpu.tsc_step = 0;
        use_x2apic();
        EXPECT_TRUE(kernel::LocalApic::enable(true));
        support::give_memory();
        static bool const is_started = kernel::start_scheduler({}).has_value();
        EXPECT_TRUE(is_started);
        kernel::start_clock(hz, 0);
        cpu.tsc = hz;
        static bool const has_table = [] {
            auto table = kernel::PageTable::create({.no_execute = true, .pages_1g = true});
            if (!table) return false;
            kernel::set_kernel_page_table(std::move(*table));
            return true;
        }();
        EXPECT_TRUE(has_table);
        host.page = *kernel::allocate_zeroed_frame();
        cpu.cr4 |= 1U << 18; // OSXSAVE
        kernel::set_log_sink(&log);
        kernel::set_log_level(kernel::LogLevel::Info);
        cpu.on_enter_user = [this](void* context) {
            entries++;
            EXPECT_NE(cpu.cr0 & 8, 0U) << "CR0.TS";
            EXPECT_EQ(cpu.cr4 >> 18 & 1, 0U) << "CR4.OSXSAVE";
            EXPECT_EQ(kernel::this_cpu().tsc_aux, 0U);
            EXPECT_EQ(cpu.gdt_limit, sizeof(kernel::this_cpu().tables.gdt) - 1);
            auto& user = *static_cast<UserContext*>(context);
            u64 const stack = kernel::this_cpu().tables.tss.rsp[0]; // the structure is packed
            EXPECT_EQ(stack, user.stack_for_traps());
            EXPECT_EQ(user.frame.cs & 3, 3U);
            user.frame.vector = abi::system_call_vector;
            if (!program.empty()) {
                auto const step = program.front();
                program.erase(program.begin());
                step(user.frame);
            } else {
                call(user.frame, 1, ~u64{0}, abi::no_deadline); // waits
            }
        };
    }
    ~ServiceTest() override {
        kernel::set_log_sink(nullptr);
        for (u32 i = 0; i < services.count(); i++) {
            services.kill(i);
            run_all();
            services.end(i);
        }
    }
    static void call(kernel::TrapFrame& frame, u64 number, u64 first, u64 second) {
        frame.rax = number;
        frame.rdi = first;
        frame.rsi = second;
    }
    void note() { wakes++; }
    // What the run loop does, until nobody wants the CPU.
    void run_all() {
        for (u32 i = 0; i < 1'000; i++) {
            kernel::this_cpu().work_pending.store(false);
            auto* const entity = kernel::scheduler().pick(0, kernel::now().value).entity;
            if (entity == nullptr) return;
            auto& runnable = static_cast<kernel::Runnable&>(*entity);
            last = &runnable;
            last_result = runnable.run();
            EXPECT_EQ(cpu.cr0 & 8, 0U);
            EXPECT_EQ(cpu.cr4 >> 18 & 1, 1U);
            EXPECT_EQ(cpu.cr3, kernel::kernel_page_table().root().value);
            if (last_result == RunResult::Sleep && !runnable.has_wake_event())
                kernel::scheduler().sleep(0, kernel::now().value);
            if (last_result == RunResult::Stopped) {
                runnable.unload();
                kernel::scheduler().stop(0, kernel::now().value);
                runnable.stopped();
            }
        }
        ADD_FAILURE() << "it never sleeps";
    }
    bool has_wake_event() {
        if (auto* const entity = kernel::scheduler().pick(0, kernel::now().value).entity)
            last = static_cast<kernel::Runnable*>(entity);
        return last->has_wake_event();
    }
    void start() {
        services.add("one", file.bytes);
        ASSERT_EQ(services.count(), 1U);
        run_all();
    }
    void pass_change_limit() { cpu.tsc += hz / 1'000 * (kernel::Services::change_milliseconds + 1); }
    bool has_logged(std::string_view text) const { return log.text.find(text) != std::string::npos; }
    void add_fault() {
        program.emplace_back([](kernel::TrapFrame& frame) { frame.vector = 13; });
    }

    StringSink log;
    File file;
    std::vector<std::function<void(kernel::TrapFrame&)>> program;
    u32 entries = 0, wakes = 0;
    kernel::Runnable* last = nullptr; // that ran
    RunResult last_result = RunResult::Work;
    Host host; // of the tests that have one
    kernel::Services services{lib::Delegate<void()>::to<&ServiceTest::note>(*this)};
};

} // namespace services
