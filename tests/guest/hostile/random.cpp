// SPDX-License-Identifier: MIT
// Random bytes as code, in ring 3 and in ring 0, ended by exceptions or by the timer.
// A quarter runs in ring 0 and may reach the kernel itself: a long run can end in a triple fault of its own making.
#include "hostile/hostile.hpp"

#include <array>

namespace hostile {
namespace {

constexpr std::size_t length = 96;
std::array<u8, length> code_bytes{};

constexpr u64 image_start = 0x100000, image_limit = user_page - lib::MiB; // the kernel's own text, see guest.ld
constexpr unsigned patience = 20;
unsigned ticks_in_kernel = 0;

// A timer interrupt that finds foreign code running ends it; foreign code that fell into the kernel's text has a few
// ticks.
bool stop_foreign_code(Frame& frame) {
    apic::eoi();
    bool const ours = frame.cs == 0x08 && frame.rip >= image_start && frame.rip < image_limit;
    if (ours && ++ticks_in_kernel < patience) return true;
    leave_try();
}

// Ring 0 could switch this machine off, stop interrupts for ever or load tables that no handler survives: those
// instructions have their place in the other tests. Their bytes go wherever they stand, as decoding may start anywhere.
void defuse(std::array<u8, length>& bytes) {
    for (std::size_t i = 0; i < length; i++) {
        switch (bytes[i]) {
        case 0xf4:
        case 0xfa:
        case 0x9d:
        case 0xcf:
        case 0xca:
        case 0xcb: // HLT, CLI, POPF, IRET, far RET
        case 0xe6:
        case 0xe7:
        case 0xee:
        case 0xef:
        case 0x6e:
        case 0x6f: // OUT, OUTS
        case 0x8e:
        case 0x17: bytes[i] = 0x90; break; // MOV to a segment register
        default: break;
        }
        if (i + 1 < length && bytes[i] == 0x0f) {
            switch (bytes[i + 1]) {
            case 0x00:
            case 0x01:
            case 0x05:
            case 0x07:
            case 0x22:
            case 0x23:
            case 0x30:
            case 0x34:
            case 0x35:
            case 0xb2:
            case 0xaa:
                bytes[i + 1] = 0xa2; // CPUID instead
                break;
            default: break;
            }
        }
    }
}

void fill(Random& random, Frame& registers, bool user) {
    for (auto& byte : code_bytes)
        byte = static_cast<u8>(random.next() >> 32);
    if (!user) defuse(code_bytes);
    u64* const all = &registers.r15;
    for (unsigned i = 0; i < 15; i++) {
        u64 const value = random.next();
        // Mostly addresses that may be written, sometimes small numbers; noise only where no kernel memory can suffer.
        all[i] = (value & 7) != 0 ? user_data + (value >> 8 & 0x7fff) : (value & 8) != 0 || !user ? value >> 58 : value;
    }
    registers.rflags = 0x202;
}

} // namespace

void random() {
    u64 const seed = option_number("seed", 1);
    u64 const rounds = option_number("rounds", 4000);
    Random source{seed * 0x9e3779b97f4a7c15};
    bool const verbose = !option("verbose").empty();
    u64 ended[2] = {};
    for (unsigned v = 32; v < 256; v++)
        set_ist(static_cast<u8>(v), 3); // RSP may point anywhere
    set_ist(user_return_vector, 1);
    set_handler(timer_vector, stop_foreign_code);
    for (u64 i = 0; i < rounds; i++) {
        bool const user = (i & 3) != 0;
        Code code{code_bytes, {}, user};
        fill(source, code.registers, user);
        if (verbose) print("guest: random {} ring {} {:x} {:x}\n", i, user ? 3 : 0, code_bytes[0], code_bytes[1]);
        apic::enable();
        ticks_in_kernel = 0;
        apic::write(apic::LvtTimer, apic::lvt_periodic | timer_vector);
        apic::write(apic::Tmict, 100'000);
        auto const fault = run_code(code);
        apic::write(apic::Tmict, 0);
        ended[fault.happened ? 1 : 0]++;
        repair_state();
        if (apic::bit(apic::Isr, timer_vector)) apic::eoi();
    }
    set_handler(timer_vector, nullptr);
    for (unsigned v = 32; v < 256; v++)
        if (v != user_return_vector) set_ist(static_cast<u8>(v), 0);
    print("guest: ok random seed {} rounds {}: {} ended by exception, {} by their end or the timer\n", seed, rounds,
          ended[1], ended[0]);
}

} // namespace hostile
