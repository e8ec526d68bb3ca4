// SPDX-License-Identifier: MIT
#include <atomic>
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/direct_map.hpp>
#include <kernel/page_table.hpp>
#include <kernel/panic.hpp>
#include <lib/assert.hpp>
#include <lib/x86/instructions.hpp>
#include <utility>

namespace kernel {
namespace {

namespace x86 = lib::x86;

constinit lib::TextSink* panic_sink = nullptr;
constinit void (*panic_end)() = nullptr;
constexpr lib::u32 nobody = ~lib::u32{0};
constinit std::atomic<lib::u32> panicking_cpu{nobody};

class NullSink final : public lib::TextSink {
public:
    void write(std::string_view) override {}
};
constinit NullSink null_sink;
lib::TextSink& sink() { return panic_sink != nullptr ? *panic_sink : null_sink; }

// scripts/make-symbols writes it: a count, then (offset from kernel_base, offset of the name from the table), sorted.
struct SymbolTable {
    u64 count;
    struct Entry {
        lib::u32 address;
        lib::u32 name;
    } entries[];
};
extern "C" SymbolTable const symbol_table;
extern "C" char const text_start[];
extern "C" char const text_end[];

[[noreturn]] void halt() {
    for (;;) {
        x86::cli();
        x86::hlt();
    }
}

[[noreturn]] void stop() {
    // Taken away first: if it fails itself, the machine stops here.
    if (auto* const end = std::exchange(panic_end, nullptr)) end();
    halt();
}

void begin_panic(std::string_view what) {
    x86::cli();
    lib::u32 before = nobody;
    if (!panicking_cpu.compare_exchange_strong(before, this_cpu().index)) {
        if (before == this_cpu().index) stop(); // a panic within a panic
        halt();
    }
    if (cpu_count() > 1) local_apic().send_nmi_to_others();
    lib::format(sink(), "\n\nmullion: PANIC on CPU {}: {}\n", this_cpu().index, what);
}

void print_registers(TrapFrame const& f) {
    lib::format(sink(), "rip {:016x}  rflags {:016x}  error {:x}  cr2 {:016x}\n", f.rip, f.rflags, f.error_code,
                x86::read_cr2());
    lib::format(sink(), "rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n", f.rax, f.rbx, f.rcx, f.rdx);
    lib::format(sink(), "rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}\n", f.rsi, f.rdi, f.rbp, f.rsp);
    lib::format(sink(), "r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}\n", f.r8, f.r9, f.r10, f.r11);
    lib::format(sink(), "r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}\n", f.r12, f.r13, f.r14, f.r15);
    lib::format(sink(), "cr0 {:016x} cr3 {:016x} cr4 {:016x}\n", x86::read_cr0(), x86::read_cr3(), x86::read_cr4());
}

} // namespace

void set_panic_sink(lib::TextSink* to) { panic_sink = to; }
void set_panic_end(void (*end)()) { panic_end = end; }

Symbol symbol_at(u64 address) {
    if (address < reinterpret_cast<u64>(text_start) || address >= reinterpret_cast<u64>(text_end)) return {{}, 0};
    auto const offset = static_cast<lib::u32>(address - kernel_base);
    u64 low = 0;
    u64 high = symbol_table.count;
    while (low < high) { // the last entry at or below the address
        u64 const middle = (low + high) / 2;
        if (symbol_table.entries[middle].address <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0) return {{}, 0};
    auto const& entry = symbol_table.entries[low - 1];
    return {reinterpret_cast<char const*>(&symbol_table) + entry.name, offset - entry.address};
}

void print_backtrace(lib::TextSink& to, u64 rip, u64 rbp) {
    constexpr unsigned max_depth = 24;
    for (unsigned depth = 0; depth < max_depth; depth++) {
        auto const symbol = symbol_at(rip);
        if (symbol.name.empty()) {
            lib::format(to, "  {:#x}\n", rip);
            if (depth > 0) return;
        } else {
            lib::format(to, "  {:#x} {}+{:#x}\n", rip, symbol.name, symbol.offset);
        }
        // A broken chain must not fault again: every frame is looked up first.
        if (rbp % 8 != 0 || !kernel_page_table().translate(HostVirt{rbp}) ||
            !kernel_page_table().translate(HostVirt{rbp + 8}))
            return;
        auto const* const frame = reinterpret_cast<u64 const*>(rbp);
        if (frame[1] == 0 || frame[0] == rbp) return;
        rbp = frame[0];
        rip = frame[1];
    }
}

void stop_if_panic_elsewhere() {
    lib::u32 const who = panicking_cpu.load(std::memory_order_acquire);
    if (who != nobody && who != this_cpu().index) halt();
}

void panic(std::string_view what) {
    begin_panic(what);
    print_backtrace(sink(), reinterpret_cast<u64>(__builtin_return_address(0)),
                    *static_cast<u64 const*>(__builtin_frame_address(0)));
    lib::format(sink(), "mullion: stopped. Reset the machine.\n");
    stop();
}

void panic_trap(TrapFrame const& frame, std::string_view what) {
    begin_panic(what);
    print_registers(frame);
    print_backtrace(sink(), frame.rip, frame.rbp);
    lib::format(sink(), "mullion: stopped. Reset the machine.\n");
    stop();
}

void refuse_to_start(std::string_view what, std::string_view remedy) {
    x86::cli();
    lib::format(sink(), "\nmullion: cannot start: {}\nmullion: what to do: {}\n", what, remedy);
    stop();
}

} // namespace kernel

namespace lib {
void assertion_failed(char const* what, char const* file, int line) {
    std::array<char, 256> buffer{};
    kernel::panic(format_to(buffer, "assertion failed: {} at {}:{}", what, file, line));
}
} // namespace lib

// A pure virtual function was called: our bug. The linker wants it by this name.
extern "C" [[noreturn]] void __cxa_pure_virtual();
extern "C" void __cxa_pure_virtual() { kernel::panic("pure virtual call"); }
