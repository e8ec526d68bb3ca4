// SPDX-License-Identifier: MIT
// A vCPU's registers: in the VMCB, or in the CPU's own while it is loaded.
#include <kernel/cpus.hpp>
#include <kernel/machine_check.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
#include <svm/vcpu.hpp>
#include <vm/guest_walk.hpp>

namespace svm {
namespace {

namespace x86 = lib::x86;

constexpr u64 dr6_at_reset = 0xffff'0ff0;
constexpr u16 attribute_present = 0x80, attribute_dpl = 0x60;

// The VMCB packs the same bits into twelve; a segment that cannot be used is one that is not present.
constexpr u16 pack_attributes(u16 attributes) {
    auto const packed = static_cast<u16>((attributes & 0xffU) | (attributes >> 4 & 0xf00U));
    return (attributes & vm::segment::unusable) != 0 ? static_cast<u16>(packed & ~attribute_present) : packed;
}
constexpr u16 unpack_attributes(u16 packed) {
    auto const attributes = static_cast<u16>((packed & 0xffU) | (packed & 0xf00U) << 4);
    return (packed & attribute_present) == 0 ? static_cast<u16>(attributes | vm::segment::unusable) : attributes;
}
static_assert(pack_attributes(vm::segment::long_code) == 0xa9b && unpack_attributes(0xa9b) == vm::segment::long_code);

} // namespace

void Vcpu::load() {
    CpuState& here = cpu_state(kernel::this_cpu().index);
    if (here.loaded == this) return;
    if (here.loaded != nullptr) here.loaded->unload();
    here.loaded = this;
    here_ = &here;
    if (avic_mode_ == AvicMode::XApic) flush_translations(); // see renew_asid()
    vmcb_->control.clean_bits = 0;                           // this CPU may remember an older state of this VMCB
    kernel::set_tsc_aux(tsc_aux_);                           // without RDTSCP always 0
    x86::write_dr(0, saved_.dr0);
    x86::write_dr(1, saved_.dr1);
    x86::write_dr(2, saved_.dr2);
    x86::write_dr(3, saved_.dr3);
    fpu_.load(xcr0_, here.xcr0);
}

void Vcpu::unload() {
    CpuState& here = cpu_state(kernel::this_cpu().index);
    if (here.loaded != this) return;
    here.loaded = nullptr;
    saved_ = {.dr0 = x86::read_dr(0), .dr1 = x86::read_dr(1), .dr2 = x86::read_dr(2), .dr3 = x86::read_dr(3)};
    fetch_xcr0();
    here.xcr0 = fpu_.save(xcr0_);
}

// XSETBV is intercepted, but not every emulator knows: the register is the guest's while it is loaded.
void Vcpu::fetch_xcr0() {
    if (vm().cpuid().rules().xcr0 != 0) xcr0_ = x86::xgetbv(0);
}

void Vcpu::unload_current() {
    if (Vcpu* const vcpu = cpu_state(kernel::this_cpu().index).loaded) vcpu->unload();
}

void Vcpu::set_cr0(u64 value) {
    // Caching is not the guest's to turn off: its memory lies in the same caches as the machine's. While it thinks it
    // has, its reads are answered here, and so are all its writes. [amd/vol2] 15.25.8
    cr0_caching_ = value & (x86::Cr0::CD::mask | x86::Cr0::NW::mask);
    intercept_cr0(cr0_caching_ != 0, cr0_caching_ != 0);
    SaveArea& area = changing(clean::control_registers).save;
    area.cr0 = value & ~cr0_caching_;
    bool const is_long = (value & x86::Cr0::PG::mask) != 0 && (area.efer & x86::Efer::LME::mask) != 0;
    area.efer = x86::Efer::LMA::set(area.efer, is_long);
    // Turning paging on or off flushes the TLB, but not when it is us who do it. [amd/vol2] 15.16
    flush_translations();
}

void Vcpu::intercept_cr0(bool reads, bool writes) {
    Intercepts const& now = control().intercepts;
    if (((now.cr_reads & 1) != 0) == reads && ((now.cr_writes & 1) != 0) == writes) return;
    Intercepts& intercepts = changing(clean::intercepts).control.intercepts;
    intercepts.cr_reads = static_cast<u16>((intercepts.cr_reads & ~1U) | (reads ? 1U : 0U));
    intercepts.cr_writes = static_cast<u16>((intercepts.cr_writes & ~1U) | (writes ? 1U : 0U));
}

void Vcpu::set_cr3(u64 value) {
    changing(clean::control_registers).save.cr3 = value;
    flush_translations();
}

void Vcpu::set_cr4(u64 value) {
    // MCE stays on: without it a machine check resets the machine, intercepted or not. While the guest's own is off,
    // its reads are answered here. [amd/vol2] 9.3, 15.12
    hidden_cr4_ = kernel::machine_check_cr4() & ~value;
    bool const reads = hidden_cr4_ != 0;
    constexpr u16 cr4_bit = 1U << 4;
    if (((control().intercepts.cr_reads & cr4_bit) != 0) != reads) {
        u16& intercepted = changing(clean::intercepts).control.intercepts.cr_reads;
        intercepted = static_cast<u16>(reads ? intercepted | cr4_bit : intercepted & ~cr4_bit);
    }
    changing(clean::control_registers).save.cr4 = value | hidden_cr4_;
    flush_translations();
}

void Vcpu::set_efer(u64 value) {
    u64& efer = changing(clean::control_registers).save.efer;
    value |= vm::efer::SVME; // VMRUN insists
    if (((efer ^ value) & (vm::efer::NXE | vm::efer::LMA)) != 0) flush_translations();
    efer = value;
}

VmcbSegment& Vcpu::segment_of(vm::SegmentName name) {
    SaveArea& area = vmcb_->save;
    switch (name) {
    case vm::SegmentName::Es: return area.es;
    case vm::SegmentName::Cs: return area.cs;
    case vm::SegmentName::Ss: return area.ss;
    case vm::SegmentName::Ds: return area.ds;
    case vm::SegmentName::Fs: return area.fs;
    case vm::SegmentName::Gs: return area.gs;
    case vm::SegmentName::Ldtr: return area.ldtr;
    case vm::SegmentName::Tr: break;
    }
    return area.tr;
}

vm::Segment Vcpu::segment(vm::SegmentName name) {
    VmcbSegment const& segment = segment_of(name);
    return {segment.selector, unpack_attributes(segment.attributes), segment.limit, segment.base};
}

vm::Vector Vcpu::vector(unsigned number) {
    fetch_xcr0();
    return fpu_.vector_in_cpu(xcr0_, number);
}

void Vcpu::set_vector(unsigned number, vm::Vector const& value) {
    fetch_xcr0();
    fpu_.set_vector_in_cpu(xcr0_, number, value);
}

vm::CodeState Vcpu::code_state() {
    SaveArea const& area = save();
    constexpr u16 d_bit = 1U << 10;
    if (is_64_bit()) [[likely]]
        return {area.rip, area.cr3, vm::CpuMode::Bits64, vm::Paging::Long};
    bool const is_long = (area.efer & vm::efer::LMA) != 0;
    return {(area.rip + area.cs.base) & 0xffff'ffff, area.cr3,
            (area.cs.attributes & d_bit) != 0 ? vm::CpuMode::Bits32 : vm::CpuMode::Bits16,
            is_long ? vm::Paging::Long : vm::paging_of(area.cr0, area.cr4)};
}

void Vcpu::set_segment(vm::SegmentName name, vm::Segment const& value) {
    changing(clean::segments);
    segment_of(name) = {value.selector, pack_attributes(value.attributes), value.limit, value.base};
    if (name == vm::SegmentName::Ss) vmcb_->save.cpl = static_cast<u8>((value.attributes & attribute_dpl) >> 5);
}

void Vcpu::set_gdt(vm::TablePointer table) {
    changing(clean::descriptor_tables).save.gdtr = {0, 0, table.limit, table.base};
}

void Vcpu::set_idt(vm::TablePointer table) {
    changing(clean::descriptor_tables).save.idtr = {0, 0, table.limit, table.base};
}

void Vcpu::drop_events() {
    has_event_ = false;
    put_off_interrupt_ = -1;
    put_off_debug_trap_ = false;
    set_virtual_interrupt(VirtualInterrupt::None);
    if (is_stepping_) end_step();
    nmi_state_ = NmiState::Free;
    set_intercept(exit_code::IRET, false);
    vmcb_->control.event_injection = {};
    vmcb_->control.interrupt_state = {};
    changing(clean::debug_registers).save.dr6 = dr6_at_reset;
    changing(clean::cr2).save.cr2 = 0;
}

void Vcpu::set_tsc_offset(u64 offset) {
    tsc_offset_ = offset;
    changing(clean::intercepts).control.tsc_offset = offset;
}

u64 Vcpu::read_hardware(vm::HardwareMsr which) {
    using vm::HardwareMsr;
    switch (which) {
    case HardwareMsr::Efer: return efer();
    case HardwareMsr::Pat: return save().pat;
    case HardwareMsr::Star: return save().star;
    case HardwareMsr::Lstar: return save().lstar;
    case HardwareMsr::Cstar: return save().cstar;
    case HardwareMsr::Fmask: return save().fmask;
    case HardwareMsr::FsBase: return save().fs.base;
    case HardwareMsr::GsBase: return save().gs.base;
    case HardwareMsr::KernelGsBase: return save().kernel_gs_base;
    case HardwareMsr::SysenterCs: return save().sysenter_cs;
    case HardwareMsr::SysenterEsp: return save().sysenter_esp;
    case HardwareMsr::SysenterEip: return save().sysenter_eip;
    case HardwareMsr::TscAux: return tsc_aux_;
    case HardwareMsr::Xss: return 0; // only 0 is allowed: vm/cpuid_policy offers no supervisor state
    }
    return 0;
}

void Vcpu::write_hardware(vm::HardwareMsr which, u64 value) {
    using vm::HardwareMsr;
    SaveArea& area = vmcb_->save;
    switch (which) {
    case HardwareMsr::Efer: set_efer(value); break;
    case HardwareMsr::Pat:
        changing(clean::nested_paging).save.pat = value;
        flush_translations();
        break;
    case HardwareMsr::Star: area.star = value; break;
    case HardwareMsr::Lstar: area.lstar = value; break;
    case HardwareMsr::Cstar: area.cstar = value; break;
    case HardwareMsr::Fmask: area.fmask = value; break;
    case HardwareMsr::FsBase: area.fs.base = value; break;
    case HardwareMsr::GsBase: area.gs.base = value; break;
    case HardwareMsr::KernelGsBase: area.kernel_gs_base = value; break;
    case HardwareMsr::SysenterCs: area.sysenter_cs = value; break;
    case HardwareMsr::SysenterEsp: area.sysenter_esp = value; break;
    case HardwareMsr::SysenterEip: area.sysenter_eip = value; break;
    case HardwareMsr::TscAux:
        tsc_aux_ = value;
        if (cpu_state(kernel::this_cpu().index).loaded == this) kernel::set_tsc_aux(value);
        break;
    case HardwareMsr::Xss: break;
    }
}

} // namespace svm
