// SPDX-License-Identifier: MIT
#pragma once
// Plays a hostile guest to a backend over the fake CPU: exits of every kind in any order, from any state, with events,
// memory and time changed in between. Whatever the guest does, Mullion does not panic, enters the guest at most once
// for each exit, is refused no VM entry, and gets all memory back.
#include "input.hpp"

#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>
#include <string_view>
#include <vm/guest_ram.hpp>
#include <vm/vm.hpp>

namespace fuzz {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

inline void require(bool condition, char const* what, std::string_view more = {}) {
    if (condition) return;
    std::fprintf(stderr, "broken promise: %s %.*s\n", what, static_cast<int>(more.size()), more.data());
    std::abort();
}

// `Machine` is VmxMachine or SvmMachine; `Guest` adds play_exit(Input&).
template <typename Machine> class ExitPlayer : public Machine {
public:
    void TestBody() final {}
    void play(Input& input) {
        this->create();
        this->run({});
        enter_mode(input.take<u8>() % 3);
        for (unsigned steps = 0; steps < 200 && !input.is_empty(); steps++) {
            if (this->vm->state() != vm::VmState::Running) break;
            step(input);
        }
        std::string_view const end = this->vm->end_text();
        require(end.find("failed") == std::string_view::npos, "a VM entry was refused:", end);
    }

protected:
    template <typename... Arguments> explicit ExitPlayer(Arguments... arguments) : Machine(arguments...) {}
    static constexpr u64 code = 0x10'0000, memory = 4 * lib::MiB;

    virtual void play_exit(Input& input) = 0;

    // What a guest can have in its registers: small numbers, its own addresses, devices' and wild ones.
    static u64 number(Input& input) {
        u8 const shape = input.take<u8>();
        switch (shape % 8) {
        case 0: return shape / 8;
        case 1: return input.take<u8>();
        case 2: return input.take<u16>();
        case 3: return code + input.take<u8>();
        case 4: return memory - input.take<u8>();
        case 5: return (shape & 8 ? 0xfee0'0000U : 0xfec0'0000U) + input.take<u16>() % 0x1010;
        case 6: return input.take<u32>();
        default: return input.take<u64>();
        }
    }
    void write(u64 at, u64 value) {
        if (u8* const to = this->vm->ram().pointer(vm::GuestPhys{at}, 8)) std::memcpy(to, &value, 8);
    }
    // One exit, then one for something that wants the CPU back.
    template <typename Exit> void run_once(Exit const& exit) {
        this->entries.clear();
        this->run({exit});
        require(this->entries.size() <= 2, "an exit that repeats itself");
    }

private:
    void step(Input& input) {
        vm::Vcpu& vcpu = this->vcpu();
        u8 const what = input.take<u8>();
        switch (what % 16) {
        case 0: vcpu.gpr(static_cast<vm::Gpr>(what / 16)) = number(input); return;
        case 1: {
            u64 const at = number(input);
            return write(at, number(input));
        }
        case 2: // page tables, the GDT and the task-state segments are among them
            return write(0x1000 + input.take<u16>() % 0x4000 / 8 * 8, number(input));
        case 3:
            for (u64 i = 0; i < 16; i += 8)
                write(code + i, input.take<u64>());
            return;
        case 4:
            return vcpu.post_interrupt(input.take<u8>(),
                                       (what & 0x10) ? vm::TriggerMode::Level : vm::TriggerMode::Edge);
        case 5: return vcpu.post(vm::request::nmi);
        case 6: this->cpu.tsc += input.take<u32>(); return;
        case 7:
            if ((what & 0xf0) == 0) vcpu.signal_init();
            if ((what & 0xf0) == 0x10) vcpu.signal_startup(input.take<u8>());
            return;
        default: return play_exit(input);
        }
    }
    void enter_mode(u8 mode) {
        vm::Vcpu& v = this->vcpu();
        bool const is_real = mode == 0, is_long = mode == 2;
        if (is_long) {
            // PML4 at 1000h, PDPT at 2000h, two page directories: RAM by large pages, and the two APICs.
            write(0x1000, 0x2003);
            write(0x2000, 0x3007);
            write(0x2018, 0x4007);
            for (u64 i = 0; i < 2; i++)
                write(0x3000 + i * 8, i << 21 | 0x87);
            write(0x4000 + 8 * 0x1f6, 0xfec0'0087);
            write(0x4000 + 8 * 0x1f7, 0xfee0'0087);
            v.set_cr4(vm::cr4::PAE);
            v.set_cr3(0x1000);
            v.set_efer(vm::efer::LME);
        }
        if (!is_real) {
            v.set_cr0(is_long ? 0x8001'0011 : 0x11);
            v.set_segment(vm::SegmentName::Cs,
                          {8, is_long ? vm::segment::long_code : vm::segment::code_32, ~u32{0}, 0});
            for (auto const name : {vm::SegmentName::Ds, vm::SegmentName::Es, vm::SegmentName::Ss})
                v.set_segment(name, {16, vm::segment::data_32, ~u32{0}, 0});
            v.set_gdt({0x1800, 0x7ff});
        } else {
            v.set_segment(vm::SegmentName::Cs, {0xf000, 0x9b, 0xffff, code});
        }
        v.set_rip(is_real ? 0 : code);
        v.set_rflags(0x202);
        v.apic().mmio_write(vm::apic_reg::SVR, 4, 0x1ff);
        this->run({});
    }
};

template <typename Guest> int play(u8 const* data, std::size_t size) {
    [[maybe_unused]] static bool const once = [] {
        ::testing::GTEST_FLAG(break_on_failure) = true;
        return true;
    }();
    Input input({data, size});
    Guest guest;
    static u64 const free_at_first = kernel::memory_use().free;
    constexpr u64 what_stays = 256 * lib::KiB; // with the CPU and in the heap
    require(kernel::memory_use().free + what_stays >= free_at_first, "memory is lost");
    guest.play(input);
    return 0;
}

} // namespace fuzz
