// SPDX-License-Identifier: MIT
#include "runtime/runtime.hpp"

#include "runtime/apic.hpp"
#include "runtime/boot_info.hpp"

#include <algorithm>
#include <array>

extern "C" {
extern guest::u64 guest_recovery;
extern char const vector_stubs[];
extern guest::u64 gdt[];
extern lib::x86::DescriptorTable const gdt_pointer;
extern guest::u64 page_directories[];
bool guest_try(void (*function)(void*), void* argument);
[[noreturn]] void guest_recover();
[[noreturn]] void guest_enter(guest::Frame const* frame);
void guest_dispatch(guest::Frame* frame);
[[noreturn]] void guest_start();
}

namespace guest {
namespace {

constexpr u16 com1 = 0x3f8;

class Uart final : public lib::TextSink {
public:
    void write(std::string_view text) override {
        for (char const c : text) {
            for (u32 i = 0; i < 1'000'000 && (x86::in8(com1 + 5) & 0x20) == 0; i++)
                x86::pause();
            x86::out8(com1, static_cast<u8>(c));
        }
    }
    // Bochs drops what is still in the transmitter when it is switched off.
    void drain() {
        for (u32 i = 0; i < 10'000'000 && (x86::in8(com1 + 5) & 0x40) == 0; i++)
            x86::pause();
    }
};
constinit Uart uart;

struct [[gnu::packed]] Tss { // [intel/vol3] 8.7
    u32 reserved0;
    u64 rsp0, rsp1, rsp2;
    u64 reserved1;
    std::array<u64, 7> ist;
    u64 reserved2;
    u16 reserved3;
    u16 io_map;
};
constinit Tss tss{};
struct Gate {
    u64 low, high;
};
constinit std::array<Gate, 256> idt{};
constinit std::array<Handler, 256> handlers{};
constinit std::array<u64, 256> counts{};
constinit Fault last_fault{};
constinit u64 failure_count;
alignas(16) constinit std::array<std::array<u8, 8192>, 4> stacks{};

void write_gate(u8 vector, u64 address, u8 ist) {
    u64 const privilege = vector == BP || vector == OF || vector == user_return_vector ? 3 : 0;
    idt[vector].low = (address & 0xffff) | 0x08ULL << 16 | u64{ist} << 32 | (0x8e00 | privilege << 13) << 32 |
                      (address >> 16 & 0xffff) << 48;
    idt[vector].high = address >> 32;
}

u64 stub(u8 vector) { return reinterpret_cast<u64>(vector_stubs) + vector * 16ULL; }
u8 default_ist(u8 vector) {
    return vector == NMI || vector == DF ? 2 : vector < 32 || vector == user_return_vector ? 1 : 0;
}
u64 stack_end(unsigned index) { return reinterpret_cast<u64>(&stacks[index]) + sizeof(stacks[index]); }

void setup_tables() {
    tss.rsp0 = stack_end(0);
    for (unsigned i = 0; i < 3; i++)
        tss.ist[i] = stack_end(i + 1);
    tss.io_map = sizeof(Tss);
    u64 const base = reinterpret_cast<u64>(&tss);
    gdt[8] = (sizeof(Tss) - 1) | (base & 0xffffff) << 16 | 0x89ULL << 40 | (base >> 24 & 0xff) << 56;
    gdt[9] = base >> 32;
    x86::lgdt(gdt_pointer);
    x86::ltr(0x40);
    for (unsigned v = 0; v < 256; v++)
        write_gate(static_cast<u8>(v), stub(static_cast<u8>(v)), default_ist(static_cast<u8>(v)));
    load_idt();
}

void setup_devices() {
    x86::out8(com1 + 1, 0);    // no interrupts
    x86::out8(com1 + 3, 0x03); // 8N1
    x86::out8(com1 + 2, 0x07); // FIFO on and empty
    x86::out8(com1 + 4, 0x03);
    pic_mask_at_start = x86::in8(0x21);
    for (u16 const chip : {u16{0x20}, u16{0xa0}}) { // [intel/8259a] ICW1..ICW4, vectors 0x20 and 0x28, all masked
        x86::out8(chip, 0x11);
        x86::out8(chip + 1, chip == 0x20 ? 0x20 : 0x28);
        x86::out8(chip + 1, chip == 0x20 ? 4 : 2);
        x86::out8(chip + 1, 1);
        x86::out8(chip + 1, 0xff);
    }
    x86::wrmsr(IA32_APIC_BASE, x86::rdmsr(IA32_APIC_BASE) | apic_base_enable);
    apic::lint0_at_start = apic::read(apic::LvtLint0);
    apic::enable();
    set_page_bits(user_page, page_bit_user, 0);
}

[[noreturn]] void die(Frame const& f) {
    print("guest: FAIL unexpected exception {} error {:#x} at {:#x} cr2 {:#x} rsp {:#x} cs {:#x} flags {:#x}\n",
          f.vector, f.error, f.rip, x86::read_cr2(), f.rsp, f.cs, f.rflags);
    finish(255);
}

void dispatch(Frame& frame) {
    auto const vector = static_cast<u8>(frame.vector);
    if (handlers[vector] != nullptr && handlers[vector](frame)) return;
    if (vector == user_return_vector) leave_try();
    if (vector < 32) {
        if (guest_recovery == 0) die(frame);
        last_fault = {true, vector, frame.error, x86::read_cr2(), frame.rip};
        guest_recover();
    }
    counts[vector]++;
    if (apic::bit(apic::Isr, vector)) apic::eoi();
}

} // namespace

lib::TextSink& console() { return uart; }

Fault try_call(void (*function)(void*), void* argument) {
    last_fault = {};
    guest_try(function, argument);
    Fault const result = last_fault;
    last_fault = {};
    return result;
}

void leave_try() {
    last_fault = {};
    guest_recover();
}

void set_handler(u8 vector, Handler handler) { handlers[vector] = handler; }
void set_raw_gate(u8 vector, void (*entry)()) {
    write_gate(vector, entry == nullptr ? stub(vector) : reinterpret_cast<u64>(entry),
               entry == nullptr ? default_ist(vector) : u8{0});
}
void set_ist(u8 vector, u8 ist) { write_gate(vector, stub(vector), ist); }
void load_idt() { x86::lidt({sizeof(idt) - 1, reinterpret_cast<u64>(idt.data())}); }
u64 interrupt_count(u8 vector) { return counts[vector]; }

Fault run_code(Code const& code) {
    u8* const to = reinterpret_cast<u8*>(user_page);
    std::copy(code.bytes.begin(), code.bytes.end(), to);
    for (std::size_t i = 0; i < 32; i += 2) { // several: a misaligned decode may swallow the first
        to[code.bytes.size() + i] = 0xcd;
        to[code.bytes.size() + i + 1] = user_return_vector;
    }
    return try_execute([&] {
        Frame frame = code.registers;
        frame.rip = user_page;
        frame.rsp = user_stack_end;
        frame.cs = !code.user ? 0x08 : code.is_32_bit ? 0x23 : 0x33;
        frame.ss = code.user ? 0x2b : 0x10;
        guest_enter(&frame);
    });
}

u64& page_entry(u64 address) { return page_directories[address >> 21]; }
void set_page_bits(u64 address, u64 set, u64 clear) {
    page_entry(address) = (page_entry(address) & ~clear) | set;
    x86::invlpg(address);
}

void fail(std::string_view what, u64 expected, u64 found) {
    failure_count++;
    print("guest: FAIL {} expected {:#x} found {:#x}\n", what, expected, found);
}
bool expect(std::string_view what, u64 expected, u64 found) {
    if (expected != found) fail(what, expected, found);
    return expected == found;
}
bool expect_true(std::string_view what, bool condition) { return expect(what, 1, condition ? 1 : 0); }
u8 pic_mask_at_start;
u64 failures() { return failure_count; }

void finish(u64 status) {
    print("guest: done {}\n", status);
    power_off();
}

void power_off() {
    x86::cli();
    uart.drain();
    x86::out16(0x604, 0x2000);  // PM1a_CNT.SLP_EN of Mullion's platform and of q35; \_S5 is SLP_TYP 0
    x86::out16(0xb004, 0x2000); // the same of Bochs
    for (char const c : std::string_view("Shutdown"))
        x86::out8(0x8900, static_cast<u8>(c));
    for (;;)
        x86::hlt();
}

} // namespace guest

void guest_dispatch(guest::Frame* frame) { guest::dispatch(*frame); }

void guest_start() {
    guest::parse_boot_info();
    guest::setup_tables();
    guest::setup_devices();
    guest::print("guest: first instruction tsc={}\n", guest::first_instruction_tsc());
    guest_main();
    guest::finish(guest::failures() == 0 ? 0 : 1);
}

void lib::assertion_failed(char const* what, char const* file, int line) {
    guest::print("guest: FAIL assertion {} {}:{}\n", what, file, line);
    guest::finish(254);
}
