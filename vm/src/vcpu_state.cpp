// SPDX-License-Identifier: MIT
// A vCPU's state goes out and comes back. What comes back may be hostile: whatever would make the host fault, or a
// device model divide by zero, is refused here. What only an entry refuses ends the guest then.
#include <algorithm>
#include <cstring>
#include <lib/checksum.hpp>
#include <vm/vcpu_state.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

namespace x86 = lib::x86;
using lib::Errc;

constexpr std::size_t header_size = offsetof(VcpuState, features);
constexpr u64 rflags_fixed = 2, rflags_reserved = 0xffff'ffff'ffc0'8028; // [intel/vol3] 27.3.1.4
constexpr u32 default_mxcsr_mask = 0xffff, misaligned_mask = 1U << 17;   // [intel/vol1] 11.6.6 [amd/vol2] 11.4.4

bool is_canonical_base(VcpuState const& state, SegmentName name) {
    return is_canonical(state.segments[static_cast<unsigned>(name)].base);
}

bool are_control_registers_valid(VcpuState const& s, ControlRegisterRules const& rules) {
    bool const paging = (s.cr0 & cr0::PG) != 0, is_long = paging && (s.efer & efer::LME) != 0;
    u16 const code = s.segments[static_cast<unsigned>(SegmentName::Cs)].attributes;
    if ((s.cr0 & ~cr0::defined) != 0 || (paging && (s.cr0 & cr0::PE) == 0)) return false;
    if ((s.cr0 & cr0::NW) != 0 && (s.cr0 & cr0::CD) == 0) return false;
    if ((s.efer & ~rules.efer) != 0 || ((s.efer & efer::LMA) != 0) != is_long) return false;
    if ((s.cr4 & ~rules.cr4) != 0 || ((s.cr4 & cr4::PCIDE) != 0 && !is_long)) return false;
    if (is_long && ((s.cr4 & cr4::PAE) == 0 || (s.rflags & x86::Rflags::VM::mask) != 0)) return false;
    constexpr u16 long_and_default = segment::l_bit | segment::db_bit;
    if (is_long && (code & long_and_default) == long_and_default) return false;
    if (!is_valid_cr3_write(s.cr3, s.cr4, s.efer, rules.physical_bits)) return false;
    bool const is_64 = is_long && (code & segment::l_bit) != 0;
    if (is_64 ? !is_canonical(s.rip) : s.rip >> 32 != 0) return false;
    return (s.rflags & rflags_fixed) != 0 && (s.rflags & rflags_reserved) == 0 &&
           is_valid_xcr0(s.xcr0, rules.xcr0 | xcr0::X87) && s.dr6 >> 32 == 0 && s.dr7 >> 32 == 0;
}

bool are_tables_valid(VcpuState const& s) {
    constexpr u32 longest_table = 0xffff;
    for (auto const name : {SegmentName::Fs, SegmentName::Gs, SegmentName::Tr})
        if (!is_canonical_base(s, name)) return false;
    for (SavedTable const& table : {s.gdt, s.idt})
        if (!is_canonical(table.base) || table.limit > longest_table || table.reserved != 0) return false;
    return true;
}

bool is_event_valid(SavedEvents const& e, VcpuState const& s) {
    if (e.is_on_its_way == 0) return true;
    switch (e.type) {
    case event_type::external: return e.has_error_code == 0 && (s.rflags & x86::Rflags::IF::mask) != 0;
    case event_type::nmi: return e.has_error_code == 0 && e.vector == x86::exception_nmi;
    case event_type::exception:
        return e.vector < x86::exception_vectors && e.vector != x86::exception_nmi &&
               (e.has_error_code == 0 || (s.cr0 & cr0::PE) != 0);
    default: return false;
    }
}

bool are_events_valid(VcpuState const& s) {
    constexpr u64 pending_bits = 0x500f; // breakpoints met, one of them enabled, single step
    SavedEvents const& e = s.events;
    for (u8 const flag : {e.is_on_its_way, e.has_error_code, e.has_put_off_debug_trap, e.is_nmi_blocked, e.has_nmi,
                          e.has_init, e.has_startup})
        if (flag > 1) return false;
    if (e.put_off_interrupt > 0xff && e.put_off_interrupt != SavedEvents::nothing_put_off) return false;
    if (e.shadow > SavedEvents::AfterMovSs || e.activity > static_cast<u8>(Activity::WaitForSipi)) return false;
    if (e.shadow == SavedEvents::AfterSti && (s.rflags & x86::Rflags::IF::mask) == 0) return false;
    return e.privilege_level <= 3 && (e.pending_debug & ~pending_bits) == 0 && is_event_valid(e, s);
}

} // namespace

u64 VcpuState::sum() const {
    lib::Checksum of_rest;
    of_rest.add(bytes().subspan(header_size));
    return of_rest.value();
}

lib::Result<void> VcpuState::read(std::span<u8 const> from, VcpuState& state) {
    if (from.size() != sizeof(state)) return lib::fail(Errc::BadFormat);
    std::memcpy(&state, from.data(), sizeof(state));
    bool const is_ours = state.magic == magic_number && state.version == current_version && state.size == sizeof(state);
    if (!is_ours || state.checksum != state.sum()) return lib::fail(Errc::BadFormat);
    return {};
}

void Vcpu::save_events(SavedEvents& events) {
    u32 const requests = requests_.load(std::memory_order_acquire);
    events.put_off_interrupt =
        put_off_interrupt_ < 0 ? SavedEvents::nothing_put_off : static_cast<u16>(put_off_interrupt_);
    events.has_put_off_debug_trap = put_off_debug_trap_;
    events.has_nmi = nmi_pending_ || (requests & request::nmi) != 0;
    events.has_init = (requests & request::init) != 0;
    events.has_startup = (requests & request::sipi) != 0;
    events.startup_vector = startup_vector_.load(std::memory_order_relaxed);
    events.activity = static_cast<u8>(activity_);
}

void Vcpu::restore_events(SavedEvents const& events) {
    has_exception_ = false;
    nmi_pending_ = events.has_nmi != 0;
    activity_ = static_cast<Activity>(events.activity);
    startup_vector_.store(events.startup_vector, std::memory_order_relaxed);
    // All that the backend derives from the state is derived again before the first entry.
    constexpr u32 everything = request::apic_mode | request::eoi_bitmap | request::flush_tlb | request::destination |
                               request::interrupt | request::look_again;
    requests_.store(everything | (events.has_init != 0 ? request::init : 0) |
                        (events.has_startup != 0 ? request::sipi : 0),
                    std::memory_order_relaxed);
}

// In an order in which each finds what it looks at.
void Vcpu::restore_registers(VcpuState const& state) {
    set_cr4(state.cr4);
    set_cr3(state.cr3);
    set_efer(state.efer & ~efer::LMA);
    set_cr0(state.cr0);
    xcr0_ = state.xcr0;
    for (unsigned i = 0; i < state.segments.size(); i++) {
        SavedSegment const& from = state.segments[i];
        set_segment(static_cast<SegmentName>(i), {from.selector, from.attributes, from.limit, from.base});
    }
    set_gdt({state.gdt.base, state.gdt.limit});
    set_idt({state.idt.base, state.idt.limit});
    set_dr7(state.dr7);
    gpr_ = state.registers;
    store_gprs();
    set_rip(state.rip);
    set_rflags(state.rflags);
    clock_version_ = state.clock_version & ~1U; // an odd one says that its structure is being written
}

lib::Result<void> Vcpu::save(VcpuState& state, u64 host_tsc) {
    unload();
    std::memset(static_cast<void*>(&state), 0, sizeof(state));
    state.magic = VcpuState::magic_number;
    state.version = VcpuState::current_version;
    state.size = sizeof(state);
    state.id = id_;
    state.features = vm_.cpuid().digest();
    state.tsc = tsc_ratio_.to_guest(host_tsc) + tsc_offset_;
    // What was posted arrives now, as it would before the next entry.
    if (apic_.merge_posted()) requests_.fetch_or(request::interrupt, std::memory_order_relaxed);
    save_backend(state); // first: it may end a step of ours
    save_events(state.events);
    fetch_gprs();
    state.registers = gpr_;
    state.rip = rip();
    state.rflags = rflags();
    state.cr0 = cr0();
    state.cr3 = cr3();
    state.cr4 = cr4();
    state.efer = efer();
    state.xcr0 = xcr0_;
    for (unsigned i = 0; i < state.segments.size(); i++) {
        Segment const from = segment(static_cast<SegmentName>(i));
        state.segments[i] = {from.selector, from.attributes, from.limit, from.base};
    }
    state.gdt = {gdt().base, gdt().limit, 0};
    state.dr6 = dr6();
    state.dr7 = dr7();
    state.apic = apic_.save();
    state.clock_version = clock_version_;
    state.msr_count = msrs_.save(state.msrs);
    auto const fpu = fpu_state().area();
    if (fpu.size() > state.xsave.size()) return lib::fail(Errc::Unsupported);
    state.xsave_size = static_cast<u32>(fpu.size());
    std::ranges::copy(fpu, state.xsave.begin());
    unload(); // reading may have made its control block current here
    state.checksum = state.sum();
    return {};
}

lib::Result<void> Vcpu::restore(VcpuState const& state, u64 host_tsc) {
    unload();
    bool const is_whole = state.magic == VcpuState::magic_number && state.version == VcpuState::current_version &&
                          state.size == sizeof(state) && state.checksum == state.sum();
    CpuidPolicy const& cpuid = vm_.cpuid();
    if (!is_whole || state.id != id_) return lib::fail(Errc::BadFormat);
    if (state.features != cpuid.digest()) return lib::fail(Errc::Unsupported);
    if (!are_control_registers_valid(state, cpuid.rules()) || !are_tables_valid(state) || !are_events_valid(state) ||
        state.msr_count > state.msrs.size() || state.xsave_size > state.xsave.size())
        return lib::fail(Errc::BadFormat);
    constexpr u32 misaligned_sse = 1U << 7; // CPUID 8000_0001h ECX
    bool const may_misalign = (cpuid.lookup(0x8000'0001, 0, {}).ecx & misaligned_sse) != 0;
    TRY(fpu_state().restore(std::span(state.xsave).first(state.xsave_size),
                            default_mxcsr_mask | (may_misalign ? misaligned_mask : 0)));
    set_tsc_offset(state.tsc - tsc_ratio_.to_guest(host_tsc));
    for (SavedMsr const& msr : std::span(state.msrs).first(state.msr_count))
        if (msrs_.restore(msr) != MsrResult::Done) return lib::fail(Errc::BadFormat);
    TRY(apic_.restore(state.apic));
    update_features();
    restore_registers(state);
    restore_events(state.events);
    put_off_interrupt_ = -1;
    put_off_debug_trap_ = false;
    restore_backend(state);
    if (state.events.put_off_interrupt != SavedEvents::nothing_put_off)
        put_off_interrupt_ = state.events.put_off_interrupt;
    if (state.events.has_put_off_debug_trap != 0) put_off_debug_trap_ = true;
    set_dr6(state.dr6);
    unload();
    return {};
}

} // namespace vm
