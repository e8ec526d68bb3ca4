// SPDX-License-Identifier: MIT
#pragma once
// One function per instruction: the seam for tests. tests/fakes has a file of this name with the same functions, played
// by a recording CPU. Nothing here decides anything.
#include <lib/types.hpp>

namespace lib::x86 {

struct CpuidResult {
    u32 eax, ebx, ecx, edx;
};
inline CpuidResult cpuid(u32 leaf, u32 subleaf = 0) {
    CpuidResult r;
    asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}
inline u64 rdmsr(u32 index) {
    u32 low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
    return u64{high} << 32 | low;
}
inline void wrmsr(u32 index, u64 value) {
    asm volatile("wrmsr" : : "c"(index), "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32)) : "memory");
}
// False when the MSR faults. Only for probing features; needs the exception table of kernel/traps.
bool rdmsr_safe(u32 index, u64& value);
bool wrmsr_safe(u32 index, u64 value);

inline u64 rdtsc() {
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return u64{high} << 32 | low;
}
// False when the source has no number at the moment. [intel/vol1] 7.3.17.1
inline bool rdrand(u64& value) {
    bool is_there;
    asm volatile("rdrand %0" : "=r"(value), "=@ccc"(is_there) : :);
    return is_there;
}
inline u8 in8(u16 port) {
    u8 value;
    asm volatile("inb %w1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
inline u16 in16(u16 port) {
    u16 value;
    asm volatile("inw %w1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
inline u32 in32(u16 port) {
    u32 value;
    asm volatile("inl %w1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
inline void out8(u16 port, u8 value) { asm volatile("outb %0, %w1" : : "a"(value), "Nd"(port) : "memory"); }
inline void out16(u16 port, u16 value) { asm volatile("outw %0, %w1" : : "a"(value), "Nd"(port) : "memory"); }
inline void out32(u16 port, u32 value) { asm volatile("outl %0, %w1" : : "a"(value), "Nd"(port) : "memory"); }

inline u64 read_cr0() {
    u64 value;
    asm volatile("mov %%cr0, %0" : "=r"(value) : : "memory");
    return value;
}
inline u64 read_cr2() {
    u64 value;
    asm volatile("mov %%cr2, %0" : "=r"(value) : : "memory");
    return value;
}
inline u64 read_cr3() {
    u64 value;
    asm volatile("mov %%cr3, %0" : "=r"(value) : : "memory");
    return value;
}
inline u64 read_cr4() {
    u64 value;
    asm volatile("mov %%cr4, %0" : "=r"(value) : : "memory");
    return value;
}
inline void write_cr0(u64 value) { asm volatile("mov %0, %%cr0" : : "r"(value) : "memory"); }
inline void write_cr2(u64 value) { asm volatile("mov %0, %%cr2" : : "r"(value) : "memory"); }
inline void write_cr3(u64 value) { asm volatile("mov %0, %%cr3" : : "r"(value) : "memory"); }
inline void write_cr4(u64 value) { asm volatile("mov %0, %%cr4" : : "r"(value) : "memory"); }

inline u64 read_dr(unsigned number) {
    u64 value = 0;
    switch (number) {
    case 0: asm volatile("mov %%dr0, %0" : "=r"(value)); break;
    case 1: asm volatile("mov %%dr1, %0" : "=r"(value)); break;
    case 2: asm volatile("mov %%dr2, %0" : "=r"(value)); break;
    case 3: asm volatile("mov %%dr3, %0" : "=r"(value)); break;
    case 6: asm volatile("mov %%dr6, %0" : "=r"(value)); break;
    default: asm volatile("mov %%dr7, %0" : "=r"(value)); break;
    }
    return value;
}
inline void write_dr(unsigned number, u64 value) {
    switch (number) {
    case 0: asm volatile("mov %0, %%dr0" : : "r"(value)); break;
    case 1: asm volatile("mov %0, %%dr1" : : "r"(value)); break;
    case 2: asm volatile("mov %0, %%dr2" : : "r"(value)); break;
    case 3: asm volatile("mov %0, %%dr3" : : "r"(value)); break;
    case 6: asm volatile("mov %0, %%dr6" : : "r"(value)); break;
    default: asm volatile("mov %0, %%dr7" : : "r"(value)); break;
    }
}

struct [[gnu::packed]] DescriptorTable { // the operand of LGDT and LIDT
    u16 limit;
    u64 base;
};
inline void lgdt(DescriptorTable const& table) { asm volatile("lgdt %0" : : "m"(table)); }
inline void lidt(DescriptorTable const& table) { asm volatile("lidt %0" : : "m"(table)); }
inline void lldt(u16 selector) { asm volatile("lldt %0" : : "r"(selector)); }
inline void ltr(u16 selector) { asm volatile("ltr %0" : : "r"(selector)); }
inline DescriptorTable sgdt() {
    DescriptorTable table;
    asm volatile("sgdt %0" : "=m"(table));
    return table;
}
inline DescriptorTable sidt() {
    DescriptorTable table;
    asm volatile("sidt %0" : "=m"(table));
    return table;
}

inline void cli() { asm volatile("cli" : : : "memory"); }
inline void sti() { asm volatile("sti" : : : "memory"); }
inline void hlt() { asm volatile("hlt" : : : "memory"); }
// STI delays interrupts by one instruction, so no interrupt can slip in before HLT.
inline void sti_hlt() { asm volatile("sti; hlt" : : : "memory"); }
// Interrupts that wait are taken here: STI delays them by one instruction.
inline void take_interrupts() { asm volatile("sti; nop; cli" : : : "memory"); }
inline void pause() { asm volatile("pause" : : : "memory"); }
// Earlier stores are seen by everyone before any later instruction: x2APIC MSR writes do not wait for them by
// themselves. [intel/vol3] 12.12.3
inline void fence_before_apic() { asm volatile("mfence; lfence" : : : "memory"); }
inline void invlpg(u64 address) { asm volatile("invlpg (%0)" : : "r"(address) : "memory"); }
inline void wbinvd() { asm volatile("wbinvd" : : : "memory"); }
inline u64 read_flags() {
    u64 flags;
    asm volatile("pushfq; popq %0" : "=r"(flags));
    return flags;
}
inline void xsetbv(u32 index, u64 value) {
    asm volatile("xsetbv" : : "c"(index), "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32)) : "memory");
}
inline u64 xgetbv(u32 index) {
    u32 low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(index));
    return u64{high} << 32 | low;
}
// Needs CR4.PKE.
inline u32 rdpkru() {
    u32 value;
    asm volatile("rdpkru" : "=a"(value) : "c"(0) : "edx");
    return value;
}
inline void xsave(void* area, u64 mask) {
    asm volatile("xsave64 (%0)"
                 :
                 : "r"(area), "a"(static_cast<u32>(mask)), "d"(static_cast<u32>(mask >> 32))
                 : "memory");
}
inline void xrstor(void const* area, u64 mask) {
    asm volatile("xrstor64 (%0)"
                 :
                 : "r"(area), "a"(static_cast<u32>(mask)), "d"(static_cast<u32>(mask >> 32))
                 : "memory");
}
inline void xsaves(void* area, u64 mask) {
    asm volatile("xsaves64 (%0)"
                 :
                 : "r"(area), "a"(static_cast<u32>(mask)), "d"(static_cast<u32>(mask >> 32))
                 : "memory");
}
inline void xrstors(void const* area, u64 mask) {
    asm volatile("xrstors64 (%0)"
                 :
                 : "r"(area), "a"(static_cast<u32>(mask)), "d"(static_cast<u32>(mask >> 32))
                 : "memory");
}
inline void fxsave(void* area) { asm volatile("fxsave64 (%0)" : : "r"(area) : "memory"); }
// The addresses of the last x87 instruction and its operand become those of one here; needs CR0.EM and TS clear.
inline void replace_x87_pointers() {
    static constexpr u32 zero = 0;
    asm volatile("fnclex; emms; fildl %0" : : "m"(zero));
}
inline void fxrstor(void const* area) { asm volatile("fxrstor64 (%0)" : : "r"(area) : "memory"); }

// Runs ring 3 with the registers of a kernel::UserContext until an interrupt, an exception or a system call comes,
// which is in it then (kernel/src/user_entry.S).
extern "C" void x86_enter_user(void* context);
inline void enter_user(void* context) { x86_enter_user(context); }

// MMIO: exactly one access of the stated width, never split, merged or reordered by the compiler.
inline u8 load8(u64 address) {
    u8 value;
    asm volatile("movb (%1), %0" : "=q"(value) : "r"(address) : "memory");
    return value;
}
inline u16 load16(u64 address) {
    u16 value;
    asm volatile("movw (%1), %0" : "=r"(value) : "r"(address) : "memory");
    return value;
}
inline u32 load32(u64 address) {
    u32 value;
    asm volatile("movl (%1), %0" : "=r"(value) : "r"(address) : "memory");
    return value;
}
inline u64 load64(u64 address) {
    u64 value;
    asm volatile("movq (%1), %0" : "=r"(value) : "r"(address) : "memory");
    return value;
}
inline void store8(u64 address, u8 value) { asm volatile("movb %0, (%1)" : : "q"(value), "r"(address) : "memory"); }
inline void store16(u64 address, u16 value) { asm volatile("movw %0, (%1)" : : "r"(value), "r"(address) : "memory"); }
inline void store32(u64 address, u32 value) { asm volatile("movl %0, (%1)" : : "r"(value), "r"(address) : "memory"); }
inline void store64(u64 address, u64 value) { asm volatile("movq %0, (%1)" : : "r"(value), "r"(address) : "memory"); }

// Intel VT-x. Each returns true for VMsucceed. [intel/vol3] 31.2
struct [[gnu::packed]] InveptDescriptor {
    u64 eptp;
    u64 reserved;
};
struct [[gnu::packed]] InvvpidDescriptor {
    u16 vpid;
    u16 reserved[3];
    u64 linear_address;
};
inline bool vmxon(u64 region) {
    bool ok;
    asm volatile("vmxon %1" : "=@cca"(ok) : "m"(region) : "memory");
    return ok;
}
inline void vmxoff() { asm volatile("vmxoff" : : : "cc", "memory"); }
inline bool vmclear(u64 region) {
    bool ok;
    asm volatile("vmclear %1" : "=@cca"(ok) : "m"(region) : "memory");
    return ok;
}
inline bool vmptrld(u64 region) {
    bool ok;
    asm volatile("vmptrld %1" : "=@cca"(ok) : "m"(region) : "memory");
    return ok;
}
inline bool vmread(u64 field, u64& value) {
    bool ok;
    asm volatile("vmread %2, %1" : "=@cca"(ok), "=r"(value) : "r"(field));
    return ok;
}
inline bool vmwrite(u64 field, u64 value) {
    bool ok;
    asm volatile("vmwrite %1, %2" : "=@cca"(ok) : "r"(value), "r"(field) : "memory");
    return ok;
}
inline bool invept(u64 type, InveptDescriptor const& descriptor) {
    bool ok;
    asm volatile("invept %1, %2" : "=@cca"(ok) : "m"(descriptor), "r"(type) : "memory");
    return ok;
}
inline bool invvpid(u64 type, InvvpidDescriptor const& descriptor) {
    bool ok;
    asm volatile("invvpid %1, %2" : "=@cca"(ok) : "m"(descriptor), "r"(type) : "memory");
    return ok;
}

// AMD-V. [amd/vol2] 15.5
inline void vmload(u64 vmcb) { asm volatile("vmload %0" : : "a"(vmcb) : "memory"); }
inline void vmsave(u64 vmcb) { asm volatile("vmsave %0" : : "a"(vmcb) : "memory"); }
inline void stgi() { asm volatile("stgi" : : : "memory"); }
inline void clgi() { asm volatile("clgi" : : : "memory"); }

} // namespace lib::x86
