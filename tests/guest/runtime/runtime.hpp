// SPDX-License-Identifier: MIT
#pragma once
// What every guest kernel stands on: console, exceptions that can be survived, interrupt handlers, command line, end of
// run. Not here: SMP, heap, floating point in C++, 4 KiB pages.
#include <lib/format.hpp>
#include <lib/types.hpp>
#include <lib/x86/instructions.hpp>
#include <span>
#include <string_view>
#include <type_traits>

namespace guest {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
namespace x86 = lib::x86;

// Everything that the interrupt stubs push, lowest address first.
struct Frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error;
    u64 rip, cs, rflags, rsp, ss;
};

enum Vector : u8 {
    DE = 0,
    DB = 1,
    NMI = 2,
    BP = 3,
    OF = 4,
    UD = 6,
    NM = 7,
    DF = 8,
    TS = 10,
    NP = 11,
    SS = 12,
    GP = 13,
    PF = 14,
    MF = 16,
    AC = 17,
    XM = 19
};
inline constexpr u8 user_return_vector = 0x81; // INT 0x81 in ring 3 leaves the innermost try_execute without a fault

struct Fault {
    bool happened = false;
    u8 vector = 0;
    u64 error = 0;
    u64 cr2 = 0;
    u64 rip = 0;
    bool is(u8 wanted) const { return happened && vector == wanted; }
};

// Console ------------------------------------------------------------------------------------------------------------
lib::TextSink& console();
template <typename... Args> void print(std::string_view text, Args const&... args) {
    lib::format(console(), text, args...);
}

// Exceptions and interrupts ------------------------------------------------------------------------------------------
Fault try_call(void (*function)(void*), void* argument);

// Runs `function`; an exception inside ends it and is reported. What the function changed stays changed.
template <typename F> Fault try_execute(F&& function) {
    return try_call([](void* f) { (*static_cast<std::remove_reference_t<F>*>(f))(); },
                    const_cast<void*>(static_cast<void const*>(&function)));
}

// True: handled, go on by IRET. False: as if there were no handler.
using Handler = bool (*)(Frame&);
void set_handler(u8 vector, Handler handler);
// The address that the CPU jumps to, past all of the above; nullptr puts the common stub back.
void set_raw_gate(u8 vector, void (*entry)());
void set_ist(u8 vector, u8 ist);
void load_idt();
u64 interrupt_count(u8 vector); // of interrupts without a handler; they are counted and get an EOI
[[noreturn]] void leave_try();  // from a handler: ends the innermost try_execute without a fault

inline constexpr u64 user_page = 8 * lib::MiB; // 2 MiB that ring 3 may touch
inline constexpr u64 page_bit_user = 4, page_bit_write_through = 8, page_bit_cache_disable = 0x10;
void set_page_bits(u64 address, u64 set, u64 clear); // of the 2 MiB page at `address`; flushes it
u64& page_entry(u64 address);

// Foreign machine code, in ring 0 or 3, copied to user_page. It ends by an exception or by running past its end (no
// fault).
inline constexpr u64 user_data = user_page + 0x10000, user_stack_end = user_page + 0x20000;
struct Code {
    std::span<u8 const> bytes;
    Frame registers; // all but rip, rsp, cs, ss
    bool user;
    bool is_32_bit = false; // in ring 3
};
Fault run_code(Code const& code);

// Boot information ---------------------------------------------------------------------------------------------------
u64 first_instruction_tsc();
std::string_view command_line();
std::string_view option(std::string_view name); // value of "name=value", or empty
u64 option_number(std::string_view name, u64 otherwise);
bool option_lists(std::string_view name, std::string_view word); // is it in "name=word,word"?
u64 memory_top();                                                // end of the RAM region that holds 16 MiB

// Verdict ------------------------------------------------------------------------------------------------------------
void fail(std::string_view what, u64 expected, u64 found); // prints guest: FAIL and counts
bool expect(std::string_view what, u64 expected, u64 found);
bool expect_true(std::string_view what, bool condition);
u64 failures();
extern u8 pic_mask_at_start; // of the first 8259, as the loader handed it over
[[noreturn]] void finish(u64 status);
[[noreturn]] void power_off();

// A test of hostile and behave, chosen by test=NAME.
struct Test {
    std::string_view name;
    void (*run)();
    bool is_in_all = true;
};

struct Random { // xorshift64*: every run of a seed is the same run
    u64 state;
    u64 next() {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return state * 0x2545f4914f6cdd1d;
    }
    u64 below(u64 bound) { return next() % bound; }
};

inline bool cpuid_bit(u32 leaf, u32 subleaf, char reg, unsigned bit) {
    bool const extended = leaf >= 0x80000000;
    if (x86::cpuid(extended ? 0x80000000 : 0).eax < leaf) return false;
    auto const r = x86::cpuid(leaf, subleaf);
    u32 const value = reg == 'a' ? r.eax : reg == 'b' ? r.ebx : reg == 'c' ? r.ecx : r.edx;
    return (value >> bit & 1) != 0;
}
inline bool is_amd() { return x86::cpuid(0).ecx == 0x444d4163; } // "cAMD"

} // namespace guest

void guest_main();
