// SPDX-License-Identifier: MIT
#pragma once
// The hosted stand-in for lib/x86_64's file of the same name: the same functions, played by fakes::Cpu.
#include <fakes/cpu.hpp>
#include <lib/types.hpp>

namespace lib::x86 {

using CpuidResult = fakes::CpuidValues;
inline fakes::Cpu& cpu() { return fakes::Cpu::current(); }

inline CpuidResult cpuid(u32 leaf, u32 subleaf = 0) { return cpu().cpuid(leaf, subleaf); }
inline u64 rdmsr(u32 index) { return cpu().rdmsr(index); }
inline void wrmsr(u32 index, u64 value) { cpu().wrmsr(index, value); }
inline bool rdmsr_safe(u32 index, u64& value) { return cpu().rdmsr_safe(index, value); }
inline bool wrmsr_safe(u32 index, u64 value) { return cpu().wrmsr_safe(index, value); }
inline u64 rdtsc() { return cpu().rdtsc(); }
inline bool rdrand(u64& value) { return cpu().on_rdrand && cpu().on_rdrand(value); }

inline u8 in8(u16 port) { return static_cast<u8>(cpu().in(port, 1)); }
inline u16 in16(u16 port) { return static_cast<u16>(cpu().in(port, 2)); }
inline u32 in32(u16 port) { return cpu().in(port, 4); }
inline void out8(u16 port, u8 value) { cpu().out(port, 1, value); }
inline void out16(u16 port, u16 value) { cpu().out(port, 2, value); }
inline void out32(u16 port, u32 value) { cpu().out(port, 4, value); }

inline u64 read_cr0() { return cpu().cr0; }
inline u64 read_cr2() { return cpu().cr2; }
inline u64 read_cr3() { return cpu().cr3; }
inline u64 read_cr4() { return cpu().cr4; }
inline void write_cr0(u64 value) { cpu().cr0 = value; }
inline void write_cr2(u64 value) { cpu().cr2 = value; }
inline void write_cr3(u64 value) { cpu().cr3 = value; }
inline void write_cr4(u64 value) { cpu().write_cr4(value); }
inline u64 read_dr(unsigned number) { return cpu().dr[number & 7]; }
inline void write_dr(unsigned number, u64 value) { cpu().dr[number & 7] = value; }

struct [[gnu::packed]] DescriptorTable { // the operand of LGDT and LIDT
    u16 limit;
    u64 base;
};
inline void lgdt(DescriptorTable const& table) {
    cpu().gdt_limit = table.limit;
    cpu().gdt_base = table.base;
}
inline void lidt(DescriptorTable const& table) {
    cpu().idt_limit = table.limit;
    cpu().idt_base = table.base;
}
inline void lldt(u16 selector) { cpu().local_descriptor_table = selector; }
inline void ltr(u16 selector) { cpu().task_register = selector; }
inline DescriptorTable sgdt() { return {cpu().gdt_limit, cpu().gdt_base}; }
inline DescriptorTable sidt() { return {cpu().idt_limit, cpu().idt_base}; }

inline void cli() { cpu().interrupts_enabled = false; }
inline void sti() { cpu().interrupts_enabled = true; }
inline void hlt() { cpu().hlt(); }
inline void sti_hlt() {
    cpu().interrupts_enabled = true;
    cpu().hlt();
}
inline void take_interrupts() { cpu().take_interrupts(); }
inline void pause() { cpu().pause(); }
inline void fence_before_apic() { cpu().are_stores_visible = true; }
inline void invlpg(u64 address) { cpu().invlpg_addresses.push_back(address); }
inline void wbinvd() { cpu().wbinvd_count++; }
inline u64 read_flags() { return 2 | (cpu().interrupts_enabled ? u64{1} << 9 : 0); }
inline void xsetbv(u32 index, u64 value) { cpu().xsetbv(index, value); }
inline u64 xgetbv(u32 index) { return cpu().xgetbv(index); }
inline u32 rdpkru() { return cpu().rdpkru(); }

inline void record_state(fakes::StateInstruction::Kind kind, void const* area, u64 mask) {
    cpu().state_instructions.push_back({kind, area, mask});
}
inline void xsave(void* area, u64 mask) { record_state(fakes::StateInstruction::Kind::Xsave, area, mask); }
inline void xrstor(void const* area, u64 mask) { record_state(fakes::StateInstruction::Kind::Xrstor, area, mask); }
inline void xsaves(void* area, u64 mask) { record_state(fakes::StateInstruction::Kind::Xsaves, area, mask); }
inline void xrstors(void const* area, u64 mask) { record_state(fakes::StateInstruction::Kind::Xrstors, area, mask); }
inline void replace_x87_pointers() { record_state(fakes::StateInstruction::Kind::ReplaceX87Pointers, nullptr, 0); }
inline void fxsave(void* area) { record_state(fakes::StateInstruction::Kind::Fxsave, area, 0); }
inline void fxrstor(void const* area) { record_state(fakes::StateInstruction::Kind::Fxrstor, area, 0); }

inline void enter_user(void* context) { cpu().enter_user(context); }

inline u8 load8(u64 address) { return static_cast<u8>(cpu().load(address, 1)); }
inline u16 load16(u64 address) { return static_cast<u16>(cpu().load(address, 2)); }
inline u32 load32(u64 address) { return static_cast<u32>(cpu().load(address, 4)); }
inline u64 load64(u64 address) { return cpu().load(address, 8); }
inline void store8(u64 address, u8 value) { cpu().store(address, 1, value); }
inline void store16(u64 address, u16 value) { cpu().store(address, 2, value); }
inline void store32(u64 address, u32 value) { cpu().store(address, 4, value); }
inline void store64(u64 address, u64 value) { cpu().store(address, 8, value); }

struct [[gnu::packed]] InveptDescriptor {
    u64 eptp;
    u64 reserved;
};
struct [[gnu::packed]] InvvpidDescriptor {
    u16 vpid;
    u16 reserved[3];
    u64 linear_address;
};
inline fakes::VmxModel& vmx_operation() {
    cpu().require_vmx_operation();
    return cpu().vmx;
}
inline bool vmxon(u64 region) { return cpu().vmxon(region); }
inline void vmxoff() { vmx_operation().vmxoff(); }
inline bool vmclear(u64 region) { return vmx_operation().vmclear(region); }
inline bool vmptrld(u64 region) { return vmx_operation().vmptrld(region); }
inline bool vmread(u64 field, u64& value) { return vmx_operation().vmread(field, value); }
inline bool vmwrite(u64 field, u64 value) { return vmx_operation().vmwrite(field, value); }
inline bool invept(u64 type, InveptDescriptor const& descriptor) {
    return vmx_operation().invept(type, descriptor.eptp, descriptor.reserved);
}
inline bool invvpid(u64 type, InvvpidDescriptor const& descriptor) {
    u64 const reserved = u64{descriptor.reserved[0]} | descriptor.reserved[1] | descriptor.reserved[2];
    return vmx_operation().invvpid(type, descriptor.vpid, reserved, descriptor.linear_address);
}

inline void vmload(u64 vmcb) { cpu().svm(fakes::SvmInstruction::Kind::Vmload, vmcb); }
inline void vmsave(u64 vmcb) { cpu().svm(fakes::SvmInstruction::Kind::Vmsave, vmcb); }
inline void stgi() { cpu().set_global_interrupt_flag(true); }
inline void clgi() { cpu().set_global_interrupt_flag(false); }

} // namespace lib::x86
