// SPDX-License-Identifier: MIT
#include <kernel/cpus.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
#include <vm/guest_walk.hpp>
#include <vm/kvm_clock.hpp>
#include <vm/vcpu.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

// A periodic timer may make us work at most this often; the guest's phase is kept.
constexpr u64 minimum_timer_period_ns = 20'000;

LocalApicConfig apic_config(Vm const& vm, CpuidPolicy const& cpuid, u32 id) {
    return {.id = id,
            .is_bootstrap = id == 0,
            .has_x2apic = cpuid.has_x2apic(),
            .has_tsc_deadline = cpuid.has_tsc_deadline(),
            .physical_bits = cpuid.rules().physical_bits,
            .crystal = cpuid.crystal(),
            .minimum_timer_period = vm.tsc_ratio().to_guest(kernel::tsc_scale().to_ticks(minimum_timer_period_ns))};
}

MsrFacts msr_facts(CpuidPolicy const& cpuid) {
    MsrFacts facts = msr_facts_of(cpuid);
    facts.microcode_revision = kernel::microcode_revision();
    facts.lfence_serialising = kernel::cpu_features().serialising_lfence;
    return facts;
}

} // namespace

Vcpu::Vcpu(Vm& vm, u32 id, ApicPage& apic_page)
    : tsc_ratio_(vm.tsc_ratio()), vm_(vm), id_(id), msrs_(msr_facts(vm.cpuid()), *this),
      apic_(apic_config(vm, vm.cpuid(), id), apic_page, *this),
      apic_timer_(kernel::Timer::Callback::to<&Vcpu::apic_timer_expired>(*this)) {}

Vcpu::~Vcpu() { kernel::cancel_timer(apic_timer_); }

void Vcpu::reset() {
    kernel::cancel_timer(apic_timer_);
    requests_.store(request::apic_mode | request::eoi_bitmap, std::memory_order_relaxed);
    has_exception_ = false;
    nmi_pending_ = false;
    activity_ = id_ == 0 ? Activity::Running : Activity::WaitForSipi;
    msrs_.reset();
    msrs_.set_firmware_mtrrs(GuestRam::hole_begin);
    apic_.reset();
    update_features();
    set_xcr0(xcr0::X87);
    reset_registers();
}

void Vcpu::reset_registers() {
    drop_events();
    gpr_ = {};
    gpr(Gpr::Rdx) = vm_.cpuid().lookup(1, 0, {}).eax; // family, model, stepping
    store_gprs();
    set_rip(0xfff0);
    set_rflags(2);
    set_cr0(cr0::reset);
    set_cr4(0);
    set_cr3(0); // looks at both
    set_efer(0);
    set_segment(SegmentName::Cs, {0xf000, segment::code_16, 0xffff, 0xffff'0000});
    for (auto const name : {SegmentName::Es, SegmentName::Ss, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs})
        set_segment(name, {0, segment::data_16, 0xffff, 0});
    set_segment(SegmentName::Ldtr, {0, segment::ldt, 0xffff, 0});
    set_segment(SegmentName::Tr, {0, segment::busy_tss, 0xffff, 0});
    set_gdt({0, 0xffff});
    set_idt({0, 0xffff});
    set_dr7(0x400);
}

CodeState Vcpu::code_state() {
    bool const is_long = (efer() & efer::LMA) != 0;
    Segment const cs = segment(SegmentName::Cs);
    bool const is_64 = is_long && (cs.attributes & segment::l_bit) != 0;
    CpuMode const mode = is_64                                    ? CpuMode::Bits64
                         : (cs.attributes & segment::db_bit) != 0 ? CpuMode::Bits32
                                                                  : CpuMode::Bits16;
    // In 64-bit mode CS has no base.
    u64 const linear = is_64 ? rip() : (rip() + cs.base) & 0xffff'ffff;
    return {linear, cr3(), mode, is_long ? Paging::Long : paging_of(cr0(), cr4())};
}

void Vcpu::update_features() { features_ = vm_.cpuid().features(id_, apic_.mode() != LocalApic::Mode::Disabled); }

void Vcpu::set_xcr0(u64 value) {
    xcr0_ = value;
    if (running_on_.load(std::memory_order_relaxed) == kernel::this_cpu().index) lib::x86::xsetbv(0, value);
}

u64 Vcpu::guest_tsc() { return tsc_ratio_.to_guest(lib::x86::rdtsc()) + tsc_offset_; }

void Vcpu::shift_tsc(u64 delta) {
    set_tsc_offset(tsc_offset_ + delta);
    apic_.tsc_shifted(delta);
}

void Vcpu::publish_time(u64 at, u64 tsc_moved) {
    u8* const to = vm_.ram().pointer(GuestPhys{at}, kvm_clock::time_size);
    if (to == nullptr) return;
    CrystalClock const crystal = vm_.cpuid().crystal();
    kvm_clock::write_time(to, clock_version_ += 2, KvmClockScale::of(u64{crystal.hz} * crystal.multiplier), tsc_moved,
                          tsc_moved == 0);
}

void Vcpu::publish_wall_clock(u64 at) {
    u8* const to = vm_.ram().pointer(GuestPhys{at}, kvm_clock::wall_size);
    if (to != nullptr) kvm_clock::write_wall(to, clock_version_ += 2, vm_.wall_clock_at_creation());
}

u64 Vcpu::host_deadline(u64 deadline_guest_tsc) {
    // A deadline before the guest's time 0 wraps around; it has passed, so it fires now.
    u64 const host_now = lib::x86::rdtsc();
    u64 const now = tsc_ratio_.to_guest(host_now) + tsc_offset_;
    u64 const ahead = deadline_guest_tsc > now ? tsc_ratio_.to_host_ticks(deadline_guest_tsc - now) : 0;
    return ahead > ~host_now - 1 ? ~u64{0} - 1 : host_now + ahead;
}

void Vcpu::arm_timer(u64 deadline_guest_tsc) { kernel::arm_timer(apic_timer_, host_deadline(deadline_guest_tsc)); }

void Vcpu::disarm_timer() { kernel::cancel_timer(apic_timer_); }
void Vcpu::apic_timer_expired() { post(request::timer); }

void Vcpu::post(u32 requests) {
    u32 const before = requests_.fetch_or(requests, std::memory_order_acq_rel);
    if ((before & requests) == requests) return; // somebody has seen to it already
    u32 const where = running_on_.load(std::memory_order_acquire);
    if (where != ~0U)
        kernel::kick(where);
    else
        vm_.wake(*this);
}

void Vcpu::post_interrupt(u8 vector, TriggerMode trigger) {
    if (takes_posted_.load(std::memory_order_relaxed)) [[unlikely]]
        return post_to_hardware(vector, trigger);
    post_to_owner(vector, trigger);
}

void Vcpu::post_to_hardware(u8 vector, TriggerMode trigger) { post_to_owner(vector, trigger); }

void Vcpu::interrupt_pending(LocalApic&) { requests_.fetch_or(request::interrupt, std::memory_order_relaxed); }

void Vcpu::destination_changed(LocalApic&) { requests_.fetch_or(request::destination, std::memory_order_relaxed); }

void Vcpu::send_ipi(LocalApic&, IpiRequest const& request) { vm_.deliver(request, this, TriggerMode::Edge); }

void Vcpu::end_of_interrupt(u8 vector) { vm_.platform().end_of_interrupt(vector); }

MsrResult Vcpu::write_apic_base(u64 value) {
    auto const before = apic_.mode();
    auto const result = apic_.write_base(value);
    update_features();
    if (apic_.mode() != before) requests_.fetch_or(request::apic_mode | request::interrupt, std::memory_order_relaxed);
    return result;
}

u32 Vcpu::take_requests() {
    u32 const now = requests_.exchange(0, std::memory_order_acq_rel);
    if ((now & request::handled) == 0) return now;
    handle_requests(now);
    // What was posted meanwhile and must be handled stays, with the kick that its sender has sent: a SIPI comes right
    // behind its INIT.
    return (now | requests_.fetch_and(request::handled, std::memory_order_acq_rel)) & ~request::handled;
}

void Vcpu::handle_requests(u32 requests) {
    if ((requests & request::timer) != 0) apic_.timer_expired();
    if ((requests & request::init) != 0) {
        apic_.init_signal();
        reset_registers();
        has_exception_ = nmi_pending_ = false;
        // Hardware that delivers interrupts has a copy of its own of what was in service.
        requests_.fetch_or(request::apic_mode, std::memory_order_relaxed);
        activity_ = id_ == 0 ? Activity::Running : Activity::WaitForSipi;
    }
    if ((requests & request::sipi) != 0 && activity_ == Activity::WaitForSipi) {
        u8 const vector = startup_vector_.load(std::memory_order_relaxed);
        set_segment(SegmentName::Cs, {static_cast<u16>(vector << 8), segment::code_16, 0xffff, u64{vector} << 12});
        set_rip(0);
        activity_ = Activity::Running;
    }
    if ((requests & request::nmi) != 0) nmi_pending_ = true;
}

u64 Vcpu::total_exits() const {
    u64 sum = 0;
    for (u64 const count : exit_counts_)
        sum += count;
    return sum;
}

void Vcpu::print_registers(lib::TextSink& sink) {
    fetch_gprs();
    lib::format(sink, "vcpu {}: rip {:016x} rflags {:08x} cr0 {:08x} cr3 {:016x} cr4 {:08x} efer {:x}\n", id_, rip(),
                rflags(), cr0(), cr3(), cr4(), efer());
    constexpr std::string_view names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
    for (unsigned i = 0; i < gpr_.size(); i++)
        lib::format(sink, "{} {:016x}{}", names[i], gpr_[i], i % 4 == 3 ? "\n" : " ");
    constexpr std::string_view segments[] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};
    for (unsigned i = 0; i < 8; i++) {
        auto const s = segment(static_cast<SegmentName>(i));
        lib::format(sink, "{:<4} {:04x} base {:016x} limit {:08x} rights {:04x}\n", segments[i], s.selector, s.base,
                    s.limit, s.attributes);
    }
    std::array<u8, 16> code{};
    u32 const count = fetch_code(*this, code);
    lib::format(sink, "code at rip:");
    for (u32 i = 0; i < count; i++)
        lib::format(sink, " {:02x}", code[i]);
    lib::format(sink, "\n");
}

} // namespace vm
