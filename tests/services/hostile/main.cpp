// SPDX-License-Identifier: MIT
// A service that has been taken over. Each instance attacks in another way, which follows from its number, and must die
// of it as tests/system/test_services.py says; before, it makes the mistakes that a service survives. When nothing is
// left it waits.
#include <array>
#include <lib/x86/instructions.hpp>
#include <runtime/service.hpp>

namespace {

namespace x86 = lib::x86;
namespace abi = lib::service;
using lib::u16;
using namespace runtime;

constexpr u64 kernel_image = 0xffff'ffff'8020'0000, direct_map = 0xffff'8000'0000'0000;

constinit std::array<u8, lib::page_size> data{0xc3}; // RET

u64 address_of(auto* thing) { return reinterpret_cast<u64>(thing); }

void jump(u64 to) { asm volatile("call *%0" : : "r"(to) : "memory"); }

// --- What ends an instance

void read_kernel() { (void)x86::load64(kernel_image); }
void write_direct_map() { x86::store64(direct_map + 0x1000, 0); }
void jump_to_kernel() { jump(kernel_image); }
void write_code() { x86::store8(address_of(&service_main), 0xc3); }
void execute_data() { jump(address_of(data.data())); }
void write_manifest() { x86::store32(abi::manifest_at, 0); }
void read_nothing() { (void)x86::load64(0); }
void read_no_address() { (void)x86::load64(u64{1} << 62); }
void overflow_stack() {
    asm volatile("1: pushq %%rax\n"
                 "jmp 1b"
                 :
                 :
                 : "memory");
}
void halt() { x86::hlt(); }
void disable_interrupts() { x86::cli(); }
void use_port() { x86::out8(0x80, 0); }
void load_page_table() { x86::write_cr3(0); }
void write_msr() { x86::wrmsr(0xc000'0101, 0); }
void read_gs_base() {
    u64 base;
    asm volatile("rdgsbase %0" : "=r"(base));
}
void interrupt_by_software() { asm volatile("int $0xe1"); }
void pretend_an_exception() { asm volatile("int $14"); }
void break_point() { asm volatile("int3"); }
void use_sse() { asm volatile("movaps %xmm0, %xmm1"); }
void use_x87() { asm volatile("fldz"); }
void use_mmx() { asm volatile("movq %mm0, %mm1"); }
void use_avx() { asm volatile("vmovaps %ymm0, %ymm1"); }
void read_mxcsr() {
    u32 value;
    asm volatile("stmxcsr %0" : "=m"(value));
}
constinit std::array<u8, lib::page_size> state{}; // as FXSAVE and XSAVE want it, aligned below
u8* aligned_state() { return &state[64 - address_of(state.data()) % 64]; }
void save_vectors() { asm volatile("fxsave (%0)" : : "r"(aligned_state()) : "memory"); }
void save_all_state() { asm volatile("xsave (%0)" : : "r"(aligned_state()), "a"(-1), "d"(-1) : "memory"); }
void use_xgetbv() { (void)x86::xgetbv(0); }
void call_by_syscall() { asm volatile("syscall" : : : "rcx", "r11", "memory"); }
void call_by_sysenter() { asm volatile("sysenter" : : : "memory"); }
void call_hypervisor() { asm volatile("vmcall"); }
void divide() {
    asm volatile("xorl %%ecx, %%ecx\n"
                 "divl %%ecx"
                 :
                 :
                 : "eax", "ecx", "edx");
}
void step() {
    asm volatile("pushfq\n"
                 "orq $0x100, (%%rsp)\n"
                 "popfq\n"
                 "nop"
                 :
                 :
                 : "memory", "cc");
}
void load_selector(u16 selector) { asm volatile("movw %0, %%ds" : : "r"(selector)); }
void load_kernel_segment() { load_selector(0x10); }
void load_task_segment() { load_selector(0x18 | 3); }
// Behind the end of the descriptor table: after a VM exit of VT-x, the CPU takes what is there for descriptors.
void load_segment_behind_table() { load_selector(0x38 | 3); }
void load_local_segment() { load_selector(0x0c | 3); }
void return_to_kernel() {
    asm volatile("movq %%rsp, %%rcx\n"
                 "pushq $0x10\n"
                 "pushq %%rcx\n"
                 "pushq $2\n"
                 "pushq $0x08\n"
                 "pushq %0\n"
                 "iretq"
                 :
                 : "r"(kernel_image)
                 : "rcx", "memory");
}
void never_wait() {
    for (;;)
        asm volatile("");
}
void never_wait_but_call() {
    for (;;)
        (void)system_call(99);
}
void stop_for_no_reason() { (void)system_call(0, direct_map, 100); }
void end() {}

struct Attack {
    std::string_view name;
    void (*go)();
};
constexpr Attack attacks[] = {
    {"read kernel", read_kernel},
    {"write direct map", write_direct_map},
    {"jump to kernel", jump_to_kernel},
    {"write code", write_code},
    {"execute data", execute_data},
    {"write manifest", write_manifest},
    {"read nothing", read_nothing},
    {"read no address", read_no_address},
    {"overflow stack", overflow_stack},
    {"halt", halt},
    {"disable interrupts", disable_interrupts},
    {"use port", use_port},
    {"load page table", load_page_table},
    {"write msr", write_msr},
    {"read gs base", read_gs_base},
    {"interrupt by software", interrupt_by_software},
    {"pretend an exception", pretend_an_exception},
    {"break point", break_point},
    {"use sse", use_sse},
    {"use x87", use_x87},
    {"use mmx", use_mmx},
    {"use avx", use_avx},
    {"read mxcsr", read_mxcsr},
    {"save vectors", save_vectors},
    {"save all state", save_all_state},
    {"use xgetbv", use_xgetbv},
    {"call by syscall", call_by_syscall},
    {"call by sysenter", call_by_sysenter},
    {"call hypervisor", call_hypervisor},
    {"divide", divide},
    {"step", step},
    {"load kernel segment", load_kernel_segment},
    {"load task segment", load_task_segment},
    {"load segment behind table", load_segment_behind_table},
    {"load local segment", load_local_segment},
    {"return to kernel", return_to_kernel},
    {"never wait", never_wait},
    {"never wait but call", never_wait_but_call},
    {"stop for no reason", stop_for_no_reason},
    {"end", end},
};

// --- What an instance survives

void expect(std::string_view what, u64 found, u64 wanted) {
    if (found == wanted) return;
    char text[100];
    stop(lib::format_to(text, "{}: {:#x} instead of {:#x}", what, found, wanted));
}
void expect(std::string_view what, u64 found, abi::Answer wanted) { expect(what, found, static_cast<u64>(wanted)); }

void log_what_it_has_not() {
    constexpr u64 log_call = 2;
    u64 const top = abi::stack_end, heap_end = manifest().heap_begin + manifest().heap_size;
    for (u64 const at : {u64{0}, u64{8}, top, top - 4, heap_end - 1, kernel_image, direct_map, u64{1} << 47,
                         (u64{1} << 47) - 4, ~u64{0} - 3, ~u64{0}, u64{1} << 63})
        expect("log of foreign memory", system_call(log_call, at, 8), abi::Answer::BadAddress);
    for (u64 const size : {u64{257}, u64{1} << 32, ~u64{0}, u64{1} << 63})
        expect("too long a line", system_call(log_call, address_of(data.data()), size), abi::Answer::TooLong);
}

void call_what_there_is_not() {
    for (u64 const number : {u64{11}, u64{100}, u64{1} << 32, u64{1} << 63, ~u64{0}})
        expect("no such call", system_call(number, 1, 2), abi::Answer::NoSuchCall);
    for (u64 number = 3; number <= 10; number++) // it serves nobody's devices, and drives none
        for (u64 const device : {u64{0}, u64{15}, u64{16}, u64{1} << 32, ~u64{0}})
            expect("no such device", system_call(number, device, device), abi::Answer::NoSuchDevice);
}

void wait_for_nothing() {
    expect("wait for the past", wait(0, 0), 0);
    expect("wait for events in the past", wait(~u64{0}, 1), 0);
    u64 const until = ticks() + ticks_of_milliseconds(2);
    expect("wait for 2 ms", wait(1, until), 0);
    expect("it came back too soon", ticks() < until ? 1 : 0, 0);
}

// AC opens user pages to a kernel that does not clear it, DF makes its copies run backwards, NT makes its IRET fail;
// and the stack pointer and the segments are not where it may look for its own.
void call_with_bad_registers() {
    u64 result = 100;
    asm volatile("pushfq\n"
                 "pushfq\n"
                 "orq $0x44c00, (%%rsp)\n" // AC, NT, DF, OF
                 "popfq\n"
                 "movq %%rsp, %%r15\n"
                 "xorl %%ecx, %%ecx\n"
                 "movl %%ecx, %%fs\n"
                 "movl %%ecx, %%gs\n"
                 "movl %%ecx, %%ds\n"
                 "movl $0x2b, %%ecx\n"
                 "movl %%ecx, %%es\n"
                 "movl %%ecx, %%gs\n"
                 "movq $-8, %%rsp\n"
                 "int $0xf0\n"
                 "movq %%r15, %%rsp\n"
                 "popfq\n"
                 : "+a"(result)
                 :
                 : "rcx", "r15", "memory", "cc");
    expect("a call with bad registers", result, abi::Answer::NoSuchCall);
}

void look_at_kept_registers() {
    u64 changed = 0;
    asm volatile("pushq %%rbp\n"
                 "movq $0x5a5a, %%rbx\n"
                 "movq %%rbx, %%rcx\n"
                 "movq %%rbx, %%rdx\n"
                 "movq %%rbx, %%rbp\n"
                 "movq %%rbx, %%r8\n"
                 "movq %%rbx, %%r9\n"
                 "movq %%rbx, %%r10\n"
                 "movq %%rbx, %%r11\n"
                 "movq %%rbx, %%r12\n"
                 "movq %%rbx, %%r13\n"
                 "movq %%rbx, %%r14\n"
                 "movq %%rbx, %%r15\n"
                 "movq %%rbx, %%rsi\n"
                 "movq %%rbx, %%rdi\n"
                 "movl $100, %%eax\n"
                 "int $0xf0\n"
                 "xorq $0x5a5a, %%rbx\n"
                 "xorq $0x5a5a, %%rcx\n"
                 "orq %%rcx, %%rbx\n"
                 "movq $0x5a5a, %%rcx\n"
                 "xorq %%rcx, %%rdx\n"
                 "orq %%rdx, %%rbx\n"
                 "xorq %%rcx, %%rbp\n"
                 "orq %%rbp, %%rbx\n"
                 "xorq %%rcx, %%r8\n"
                 "orq %%r8, %%rbx\n"
                 "xorq %%rcx, %%r9\n"
                 "orq %%r9, %%rbx\n"
                 "xorq %%rcx, %%r10\n"
                 "orq %%r10, %%rbx\n"
                 "xorq %%rcx, %%r11\n"
                 "orq %%r11, %%rbx\n"
                 "xorq %%rcx, %%r12\n"
                 "orq %%r12, %%rbx\n"
                 "xorq %%rcx, %%r13\n"
                 "orq %%r13, %%rbx\n"
                 "xorq %%rcx, %%r14\n"
                 "orq %%r14, %%rbx\n"
                 "xorq %%rcx, %%r15\n"
                 "orq %%r15, %%rbx\n"
                 "xorq %%rcx, %%rsi\n"
                 "orq %%rsi, %%rbx\n"
                 "xorq %%rcx, %%rdi\n"
                 "orq %%rdi, %%rbx\n"
                 "popq %%rbp\n"
                 "movq %%rbx, %%rax\n"
                 : "=a"(changed)
                 :
                 : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory",
                   "cc");
    expect("registers changed by a call", changed, 0);
}

void flood_log() {
    for (u32 i = 0; i < 10'000; i++)
        if (system_call(2, address_of(data.data()), 1) == static_cast<u64>(abi::Answer::TooMany)) return;
    stop("nobody stopped a flood of log lines");
}

// What the guest that ran last put into TSC_AUX is not for services.
void look_at_tsc_aux() {
    if (x86::cpuid(0x8000'0000).eax < 0x8000'0001 || (x86::cpuid(0x8000'0001).edx & 1U << 27) == 0) return;
    u32 aux = 1;
    asm volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
    expect("TSC_AUX", aux, 0);
}

void make_mistakes() {
    look_at_tsc_aux();
    log_what_it_has_not();
    call_what_there_is_not();
    wait_for_nothing();
    call_with_bad_registers();
    look_at_kept_registers();
}

} // namespace

void runtime::service_main() {
    u32 const number = manifest().instance - 1;
    make_mistakes();
    if (number < std::size(attacks)) {
        Attack const& attack = attacks[number];
        log("\x1b[2J\nattack {} of {}: {}", number + 1, std::size(attacks), attack.name);
        attack.go();
        return;
    }
    log("no attack is left");
    flood_log();
    for (;;)
        (void)wait(0);
}
