// SPDX-License-Identifier: MIT
// FPU and vector state over exits. Instructions in assembly: the compiler never uses these registers here.
#include "behave/behave.hpp"

#include <array>

namespace behave {
namespace {

alignas(64) std::array<u64, 128> before{}, after{};

void fill_pattern(u64 seed) {
    Random random{seed};
    for (auto& word : before)
        word = random.next();
}

void compare(std::string_view what, std::size_t words) {
    for (std::size_t i = 0; i < words; i++)
        if (before[i] != after[i]) {
            fail(what, before[i], after[i]);
            return;
        }
}

void load_ymm(void const* from) {
    asm volatile(
        "vmovdqu (%0), %%ymm0; vmovdqu 32(%0), %%ymm1; vmovdqu 64(%0), %%ymm2; vmovdqu 96(%0), %%ymm3\n"
        "vmovdqu 128(%0), %%ymm12; vmovdqu 160(%0), %%ymm13; vmovdqu 192(%0), %%ymm14; vmovdqu 224(%0), %%ymm15"
        :
        : "r"(from)
        : "memory");
}
void store_ymm(void* to) {
    asm volatile(
        "vmovdqu %%ymm0, (%0); vmovdqu %%ymm1, 32(%0); vmovdqu %%ymm2, 64(%0); vmovdqu %%ymm3, 96(%0)\n"
        "vmovdqu %%ymm12, 128(%0); vmovdqu %%ymm13, 160(%0); vmovdqu %%ymm14, 192(%0); vmovdqu %%ymm15, 224(%0)"
        :
        : "r"(to)
        : "memory");
}

} // namespace

void fpu() {
    x86::write_cr4(x86::read_cr4() | 0x600);
    fill_pattern(7);
    asm volatile("fninit; fldl (%0); fldl 8(%0); fldpi" : : "r"(before.data()) : "memory");
    u32 const control = 0x1fa0; // MXCSR with the precision flag set
    asm volatile("ldmxcsr %0" : : "m"(control));
    for (unsigned r = 0; r < 2; r++) {
        asm volatile("movdqu (%0), %%xmm0; movdqu 16(%0), %%xmm5; movdqu 32(%0), %%xmm15"
                     :
                     : "r"(before.data())
                     : "memory");
        make_exits(100);
        asm volatile("movdqu %%xmm0, (%0); movdqu %%xmm5, 16(%0); movdqu %%xmm15, 32(%0)"
                     :
                     : "r"(after.data())
                     : "memory");
        compare("XMM over exits", 6);
        fill_pattern(8 + r);
    }
    u32 mxcsr = 0;
    u16 status = 0;
    asm volatile("stmxcsr %0; fnstsw %1" : "=m"(mxcsr), "=m"(status));
    expect("MXCSR over exits", control, mxcsr);
    expect("x87 stack depth over exits", 5, status >> 11 & 7);
    std::array<u8, 10> top{};
    asm volatile("fstpt %0; fninit" : "=m"(top));
    expect("x87 top of stack (pi)", 0x40, top[9]);
    expect("x87 mantissa of pi", 0xc9, top[7]);
    x86::write_cr0(x86::read_cr0() | 8);
    expect_true("CR0.TS raises #NM", try_execute([] { asm volatile("fnop"); }).is(NM));
    make_exits(5);
    expect_true("and still does after exits", try_execute([] { asm volatile("movdqu %xmm0, %xmm1"); }).is(NM));
    asm volatile("clts");
    if (!cpuid_bit(1, 0, 'c', 28) || !cpuid_bit(1, 0, 'c', 26)) return;
    u64 const cr4 = x86::read_cr4();
    x86::write_cr4(cr4 | 0x40000);
    x86::xsetbv(0, 7);
    fill_pattern(9);
    load_ymm(before.data());
    make_exits(100);
    store_ymm(after.data());
    compare("YMM over exits", 32);
    expect("XCR0 over exits", 7, x86::xgetbv(0));
    expect_true("AVX without SSE in XCR0 raises #GP", try_execute([] { x86::xsetbv(0, 5); }).is(GP));
    x86::xsetbv(0, 1);
    x86::write_cr4(cr4);
}

} // namespace behave
