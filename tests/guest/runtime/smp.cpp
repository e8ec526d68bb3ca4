// SPDX-License-Identifier: MIT
#include "runtime/smp.hpp"

#include <array>
#include <atomic>
#include <cstring>

extern "C" {
extern char const smp_trampoline[], smp_trampoline_end[];
extern guest::u64 smp_stack;
[[noreturn]] void guest_ap_start();
}

namespace guest::smp {
namespace {

constexpr u32 IA32_GS_BASE = 0xc0000101;
constinit std::array<u64, max_cpus> numbers{};
constinit std::array<std::atomic<u32>, max_cpus> start_counts{};
alignas(16) constinit std::array<std::array<u8, 8192>, max_cpus> stacks{};
constinit u32 starting = 0;
constinit void (*starting_body)() = nullptr;

void set_number(u32 cpu) {
    numbers[cpu] = cpu;
    x86::wrmsr(IA32_GS_BASE, reinterpret_cast<u64>(&numbers[cpu]));
}

} // namespace

u32 this_cpu() {
    u64 number;
    asm volatile("movq %%gs:0, %0" : "=r"(number));
    return static_cast<u32>(number);
}

void send(u32 destination, u32 low) {
    if (apic::is_x2apic()) {
        x86::wrmsr(0x800U + apic::Icr, u64{destination} << 32 | low);
        return;
    }
    apic::write(apic::IcrHigh, destination << 24);
    apic::write(apic::Icr, low);
    wait_until([] { return (apic::read(apic::Icr) & icr_pending) == 0; });
}

void prepare() {
    for (u8 vector = 0; vector < 32; vector++)
        set_ist(vector, 0);
    set_number(0);
}

void arm(u32 cpu, void (*body)()) {
    std::memcpy(reinterpret_cast<void*>(trampoline), smp_trampoline,
                static_cast<std::size_t>(smp_trampoline_end - smp_trampoline));
    smp_stack = reinterpret_cast<u64>(&stacks[cpu]) + sizeof(stacks[cpu]);
    starting = cpu;
    starting_body = body;
}

u32 starts(u32 cpu) { return start_counts[cpu].load(); }

bool start(u32 apic_id, u32 cpu, void (*body)()) {
    u32 const before = starts(cpu);
    arm(cpu, body);
    send(apic_id, init | icr_assert);
    for (u32 i = 0; i < 10'000; i++) // some time, as on a real CPU
        x86::pause();
    send(apic_id, startup | icr_assert | static_cast<u32>(trampoline >> 12));
    return wait_until([&] { return starts(cpu) != before; });
}

} // namespace guest::smp

void guest_ap_start() {
    using namespace guest;
    u32 const cpu = smp::starting;
    smp::set_number(cpu);
    load_idt();
    apic::enable();
    auto* const body = smp::starting_body;
    smp::start_counts[cpu].fetch_add(1); // from here on the next one may start
    body();
    for (;;)
        x86::hlt();
}
