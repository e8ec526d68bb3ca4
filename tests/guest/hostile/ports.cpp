// SPDX-License-Identifier: MIT
// Every I/O port in every size. IN never faults in ring 0, whatever is or is not behind the port.
#include "hostile/hostile.hpp"

namespace hostile {
namespace {

// Switches the machine off or resets it, or (COM1, CMOS index with the NMI mask aside) would garble this very output.
bool skip_out(u32 port, u32 size) {
    for (u32 p = port; p < port + size; p++) {
        if (p == 0x604 || p == 0x605 || p == 0xcf9 || p == 0x64 || p == 0x92 || p == 0xb004 || p == 0xb005 ||
            p == 0x8900 || p == 0xb2)
            return true;
        if (p >= 0x3f8 && p <= 0x3ff) return true;
        if (p >= 0xcf8 && p <= 0xcff) return true; // PCI configuration could move the devices onto those ports
        if (p >= 0x600 && p < 0x680 && p != 0x608) return true; // PM block and TCO of a real chipset
        if (p == 0xf4 || p == 0x501) return true;               // debug exits of emulators
    }
    return false;
}

u32 in_any(u32 port, u32 size) {
    auto const p = static_cast<u16>(port);
    return size == 1 ? x86::in8(p) : size == 2 ? x86::in16(p) : x86::in32(p);
}
void out_any(u32 port, u32 size, u32 value) {
    auto const p = static_cast<u16>(port);
    if (size == 1)
        x86::out8(p, static_cast<u8>(value));
    else if (size == 2)
        x86::out16(p, static_cast<u16>(value));
    else
        x86::out32(p, value);
}

// String forms with counts that run over the end of what a sane driver asks for.
u64 string_forms(Random& random) {
    u64 faults = 0;
    for (unsigned i = 0; i < 200; i++) {
        auto const port = static_cast<u16>(random.next());
        if (skip_out(port, 4)) continue;
        u64 count = random.below(100);
        void* to = reinterpret_cast<void*>(user_data);
        void const* from = to;
        faults += try_execute([&] {
                      asm volatile("rep insb" : "+D"(to), "+c"(count) : "d"(port) : "memory");
                  }).happened;
        to = reinterpret_cast<void*>(user_data + 0xffd);
        count = random.below(64);
        faults += try_execute([&] {
                      asm volatile("rep insl" : "+D"(to), "+c"(count) : "d"(port) : "memory");
                  }).happened;
        count = random.below(64);
        faults += try_execute([&] {
                      asm volatile("rep outsw" : "+S"(from), "+c"(count) : "d"(port) : "memory");
                  }).happened;
        count = 3;
        from = reinterpret_cast<void const*>(user_data + 64);
        faults += try_execute([&] {
                      asm volatile("std; rep outsb; cld" : "+S"(from), "+c"(count) : "d"(port) : "memory");
                  }).happened;
    }
    return faults;
}

} // namespace

void ports() {
    Random random{option_number("seed", 1) * 0x9e3779b97f4a7c15};
    // native=1: QEMU's serial port aborts the emulator at accesses wider than a byte.
    bool const spare_serial = option_number("native", 0) == 1;
    u64 ins = 0, outs = 0, faults = 0, answered = 0;
    for (u32 size = 1; size <= 4; size *= 2)
        for (u32 port = 0; port < 0x10000; port++) {
            u32 value = 0;
            if (spare_serial && size > 1 && port + size > 0x3f8 && port <= 0x3ff) continue;
            faults += try_execute([&] { value = in_any(port, size); }).happened;
            u32 const floating = size == 4 ? ~0U : (1U << size * 8) - 1;
            answered += value != floating;
            ins++;
            if (skip_out(port, size)) continue;
            auto const noise = static_cast<u32>(random.next());
            faults += try_execute([=] { out_any(port, size, noise); }).happened;
            outs++;
        }
    faults += string_forms(random);
    x86::out8(0x21, 0xff);
    x86::out8(0xa1, 0xff);
    expect("faults by port access in ring 0", 0, faults);
    print("guest: ok ports in {} (answered {}) out {}\n", ins, answered, outs);
}

} // namespace hostile
