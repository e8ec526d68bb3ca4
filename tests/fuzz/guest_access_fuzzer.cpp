// SPDX-License-Identifier: MIT
// A guest's device access or string I/O, from random code, segments, page tables and registers: the emulator ends after
// bounded work, with RIP where it was or after the instruction, and touches devices only if it made the access that was
// reported.
#include "require.hpp"

#include "vm/fake_vm.hpp"

#include <algorithm>
#include <memory>
#include <vm/guest_access.hpp>

namespace {

using fuzz::require;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

class Input {
public:
    Input(u8 const* data, std::size_t size) : at_(data), end_(data + size) {}
    u8 byte() { return at_ < end_ ? *at_++ : u8{0}; }
    u64 number(unsigned bytes) {
        u64 value = 0;
        for (unsigned i = 0; i < bytes; i++)
            value |= u64{byte()} << (i * 8);
        return value;
    }
    bool is_empty() const { return at_ >= end_; }

private:
    u8 const* at_;
    u8 const* end_;
};

constexpr u64 code = 0x10'0000, ram_size = 4 * lib::MiB, device = 0xfec0'0000, apic_base = 0xfee0'0000;
// Where an address is interesting.
constexpr u64 places[] = {0, code, 0x20'0000, ram_size - 2, device, device + 0x10, apic_base + 0x80, 0xffff'fffe};

struct Machine {
    Machine() {
        support::give_memory();
        if (kernel::cpu_count() == 0) kernel::register_cpu(kernel::this_cpu());
        constexpr u32 nx = 1U << 20, pages_1g = 1U << 26, long_mode = 1U << 29;
        cpu.set_cpuid(0, {7, 0x756e'6547, 0x6c65'746e, 0x4965'6e69});
        cpu.set_cpuid(0x8000'0000, {0x8000'0008, 0, 0, 0});
        cpu.set_cpuid(0x8000'0001, {0, 0, 0, nx | pages_1g | long_mode});
        cpu.set_cpuid(0x8000'0008, {0x3027, 0, 0, 0});
        auto made = vm::Vm::create({.name = "fuzz", .memory = ram_size, .vcpu_count = 1}, backend, platform);
        require(made.has_value());
        vm = std::move(*made);
        require(vm->ram().scrub(~u64{0}));
        vm->start();
    }
    fake::Vcpu& vcpu() { return static_cast<fake::Vcpu&>(vm->vcpu(0)); }
    void put(u64 at, u64 value) { std::memcpy(vm->ram().pointer(vm::GuestPhys{at}, 8), &value, 8); }

    fakes::Cpu cpu;
    fake::Backend backend;
    fake::Platform platform;
    kernel::Own<vm::Vm> vm;
};

void set_up(Machine& machine, Input& input) {
    fake::Vcpu& vcpu = machine.vcpu();
    u8 const kind = input.byte();
    bool const is_long = (kind & 1) != 0;
    vcpu.set_cr3(0x1000);
    vcpu.set_cr0((is_long || (kind & 2) != 0 ? 0x8000'0011 : 0x10 | (kind >> 2 & 1)) | u64{kind & 8U} << 13);
    vcpu.set_cr4((is_long ? 0x20 : kind & 0x30U) | 0x200 | (input.number(1) & 3) << 20);
    vcpu.set_efer(is_long ? 0xd00 : 0);
    vcpu.level = input.byte() & 3;
    // Identity-mapped, except what the input changes.
    machine.put(0x1000, 0x2007);
    for (u64 i = 0; i < 4; i++) {
        machine.put(0x2000 + 8 * i, (0x3000 + i * 0x1000) | 7);
        for (u64 j = 0; j < 512; j++)
            machine.put(0x3000 + i * 0x1000 + 8 * j, (i << 30 | j << 21) | 0x87);
    }
    for (u8 i = input.byte() & 3; i > 0; i--)
        machine.put(0x1000 + (input.number(2) & 0x5ff8), input.number(8));
    u16 const code_attributes = is_long && (kind & 0x80) != 0 ? vm::segment::long_code
                                : (kind & 0x40) != 0          ? vm::segment::code_32
                                                              : vm::segment::code_16;
    for (unsigned i = 0; i < 6; i++) {
        bool const is_flat = (input.byte() & 3) != 0;
        vm::Segment segment{8, vm::segment::data_32, ~u32{0}, 0};
        if (!is_flat)
            segment = {8, static_cast<u16>(input.number(2)), static_cast<u32>(input.number(3)), input.number(4)};
        if (i == static_cast<unsigned>(vm::SegmentName::Cs)) segment = {8, code_attributes, ~u32{0}, 0};
        vcpu.set_segment(static_cast<vm::SegmentName>(i), segment);
    }
    for (u64& value : vcpu.gprs())
        value = places[input.byte() % std::size(places)] + input.byte();
    vcpu.gpr(vm::Gpr::Rcx) &= 0xffff;
    vcpu.set_rflags(2 | (input.number(3) & 0x4'0cd5));
    vcpu.set_rip(code + (input.byte() & 1) * 0xff4); // the end of a page too
}

void run(Machine& machine, Input& input) {
    fake::Vcpu& vcpu = machine.vcpu();
    machine.platform.accesses.clear();
    vm::Exit exit{};
    bool const is_string = (input.byte() & 1) != 0;
    u8 const what = input.byte();
    if (is_string) {
        exit.reason = vm::ExitReason::PortIo;
        exit.port = {0x80, static_cast<u8>(1U << what % 3), (what & 4) != 0, true, (what & 8) != 0};
    } else {
        exit.reason = vm::ExitReason::MemoryFault;
        exit.memory = {vm::GuestPhys{places[4 + what % 4] + (what >> 4)}, (what & 8) != 0, false, false};
    }
    u8* const at = machine.vm->ram().pointer(vm::GuestPhys{vcpu.rip()}, 16);
    for (unsigned i = 0; i < 15; i++)
        at[i] = input.byte();

    u64 const rip = vcpu.rip();
    u32 const unexplained = vcpu.unexplained_exits();
    auto const outcome = is_string ? vm::port_string(vcpu, exit) : vm::memory_access(vcpu, exit);
    require(outcome == vm::Outcome::Retry || outcome == vm::Outcome::Advance || outcome == vm::Outcome::Inject);
    require(vcpu.rip() - rip <= 15);
    require(machine.platform.accesses.size() <= (is_string ? 4096U : 32U));
    if (outcome == vm::Outcome::Inject) {
        u8 const vector = vcpu.exception().vector;
        require(vector == 6 || vector == 12 || vector == 13 || vector == 14);
    }
    // What differed from the report has touched nothing.
    if (vcpu.unexplained_exits() > unexplained) require(vcpu.rip() == rip && machine.platform.accesses.empty());
    auto const& accesses = machine.platform.accesses;
    // The local APIC's page is not the platform's: there are only the accesses of the other operand.
    bool const is_apic = exit.memory.address.value / lib::page_size == apic_base / lib::page_size;
    if (is_string || is_apic || accesses.empty()) return;
    require(std::ranges::any_of(accesses, [&](auto const& access) {
        return access.address / lib::page_size == exit.memory.address.value / lib::page_size;
    }));
    if (!exit.memory.is_write) return;
    require(std::ranges::any_of(accesses, [](auto const& access) { return access.is_write; }));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    static auto const machine = std::make_unique<Machine>();
    Input input(data, size);
    set_up(*machine, input);
    machine->vcpu().unexplained_exits() = 0;
    for (unsigned exits = 0; exits < 4 && !input.is_empty(); exits++)
        run(*machine, input);
    return 0;
}
