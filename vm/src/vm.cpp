// SPDX-License-Identifier: MIT
#include <algorithm>
#include <kernel/cpu.hpp>
#include <kernel/time.hpp>
#include <lib/x86/instructions.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

CpuidRegs host_cpuid(u32 leaf, u32 subleaf) {
    auto const r = lib::x86::cpuid(leaf, subleaf);
    return {r.eax, r.ebx, r.ecx, r.edx};
}

} // namespace

std::string_view name_of(ExitReason reason) {
    constexpr std::array<std::string_view, exit_reason_count> names{"external-interrupt",
                                                                    "interrupt-window",
                                                                    "nmi-window",
                                                                    "exception",
                                                                    "triple-fault",
                                                                    "cpuid",
                                                                    "hlt",
                                                                    "pause",
                                                                    "hypercall",
                                                                    "rdmsr",
                                                                    "wrmsr",
                                                                    "port-io",
                                                                    "memory",
                                                                    "xsetbv",
                                                                    "control-register",
                                                                    "debug-register",
                                                                    "cache-control",
                                                                    "forbidden",
                                                                    "privileged",
                                                                    "apic-access",
                                                                    "apic-write",
                                                                    "eoi",
                                                                    "tpr-threshold",
                                                                    "preemption-timer",
                                                                    "nmi",
                                                                    "machine-check",
                                                                    "task-switch",
                                                                    "invalid-state",
                                                                    "unknown"};
    return names[static_cast<unsigned>(reason)];
}

std::string_view name_of(EndReason reason) {
    switch (reason) {
    case EndReason::None: return "running";
    case EndReason::PowerOff: return "poweroff";
    case EndReason::Reset: return "reset";
    case EndReason::Killed: return "killed";
    case EndReason::Crash: return "crash";
    }
    return "?";
}

lib::Result<kernel::Own<Vm>> Vm::create(VmConfig const& config, Backend& backend, VirtualPlatform& platform) {
    if (config.vcpu_count == 0 || config.vcpu_count > max_vcpus) return lib::fail(lib::Errc::OutOfRange);
    kernel::Own<Vm> vm(new (std::nothrow) Vm(config, backend, platform));
    if (!vm) return lib::fail(lib::Errc::NoMemory);
    TRY(vm->build());
    return vm;
}

lib::Result<void> Vm::build() {
    u64 const host_hz = kernel::tsc_scale().hz();
    u64 const tsc_hz = config_.tsc_hz != 0 ? config_.tsc_hz : host_hz;
    auto const ratio = TscRatio::of(tsc_hz, host_hz);
    if (!ratio) return lib::fail(lib::Errc::OutOfRange);
    if (!ratio->is_one() && !backend_.has_tsc_scaling()) return lib::fail(lib::Errc::Unsupported);
    tsc_ratio_ = *ratio;
    PlatformFacts facts{.tsc_hz = tsc_hz, .vcpu_count = config_.vcpu_count};
    // A TSC that does not stop and is calibrated is a clock; emulators without the bit have one too.
    facts.invariant_tsc = true;
    facts.pku = true; // PKRU is switched with the rest of the XSAVE state
    backend_.constrain(facts);
    cpuid_ = CpuidPolicy::create(CpuidReader::to_function<host_cpuid>(), facts);
    TRY(ram_.allocate(config_.memory, config_.node));
    space_ = TRY(backend_.create_address_space());
    for (RamBlock const& block : ram_.blocks())
        TRY(space_->map({block.base, block.host, block.size, kernel::Rights::All}));
    for (u32 i = 0; i < config_.vcpu_count; i++)
        vcpus_[i] = TRY(backend_.create_vcpu(*this, i));
    u64 const offset = u64{0} - tsc_ratio_.to_guest(lib::x86::rdtsc()); // one origin: the TSCs of all vCPUs are in step
    for (u32 i = 0; i < config_.vcpu_count; i++) {
        vcpus_[i]->set_tsc_offset(offset);
        vcpus_[i]->reset();
    }
    return {};
}

Vm::~Vm() = default;

void Vm::start() {
    ASSERT(ram_.scrub(0)); // nobody sees what others left
    state_.store(VmState::Running, std::memory_order_release);
}

void Vm::stop(EndReason reason, std::string_view text) { stop(reason, text, 0); }

void Vm::crash(Vcpu const& by, std::string_view text) { stop(EndReason::Crash, text, by.id()); }

void Vm::stop(EndReason reason, std::string_view text, u32 crashed_vcpu) {
    if (is_stopping_.exchange(true)) return;
    end_reason_ = reason;
    crashed_vcpu_ = crashed_vcpu;
    end_text_size_ = std::min(text.size(), end_text_.size());
    std::copy_n(text.begin(), end_text_size_, end_text_.begin());
    state_.store(VmState::Stopping, std::memory_order_release);
    for (u32 i = 0; i < config_.vcpu_count; i++) {
        vcpus_[i]->post(request::leave);
        wake(*vcpus_[i]); // a paused one sleeps with this request posted, and post() wakes nobody twice
    }
}

void Vm::report_states(StatePart part) {
    static constinit std::array<char, Vcpu::most_state_text> text{};
    for (u32 i = 0; i < config_.vcpu_count; i++) {
        u32 const vcpu = i == 0 ? crashed_vcpu_ : i <= crashed_vcpu_ ? i - 1 : i;
        lib::BufferSink sink(text);
        vcpus_[vcpu]->print_state(sink);
        part(vcpu, sink.view());
    }
}

void Vm::wake(Vcpu& vcpu) {
    if (is_scheduled_.load(std::memory_order_acquire)) kernel::wake(vcpu);
}

void Vm::signal(Vcpu& target, IpiRequest const& request, TriggerMode trigger) {
    switch (request.mode) {
    case DeliveryMode::Fixed:
    case DeliveryMode::LowestPriority: target.post_interrupt(request.vector, trigger); break;
    case DeliveryMode::Nmi: target.post(request::nmi); break;
    case DeliveryMode::Init: target.signal_init(); break;
    case DeliveryMode::StartUp: target.signal_startup(request.vector); break;
    case DeliveryMode::Smi:
    case DeliveryMode::Reserved:
    case DeliveryMode::ExtInt: break;
    }
}

void Vm::deliver(IpiRequest const& request, Vcpu* sender, TriggerMode trigger) {
    if (request.shorthand == Shorthand::Self) {
        if (sender != nullptr) signal(*sender, request, trigger);
        return;
    }
    Vcpu* lowest = nullptr;
    u32 i = 0, end = config_.vcpu_count;
    bool const is_for_one = request.shorthand == Shorthand::None && !request.logical;
    if (is_for_one && request.destination != apic_broadcast) { // a physical id is the number of its vCPU
        if (request.destination >= end) return;
        i = request.destination;
        end = i + 1;
    }
    for (; i < end; i++) {
        Vcpu& target = *vcpus_[i];
        if (request.shorthand == Shorthand::AllExcludingSelf && &target == sender) continue;
        if (request.shorthand == Shorthand::None && !target.apic().matches(request.destination, request.logical))
            continue;
        if (request.mode == DeliveryMode::LowestPriority && request.shorthand == Shorthand::None) {
            // The first that matches: TPRs of running vCPUs are not ours to read.
            if (lowest == nullptr) lowest = &target;
            continue;
        }
        signal(target, request, trigger);
    }
    if (lowest != nullptr) signal(*lowest, request, trigger);
}

void Vm::deliver_message(u64 address, u32 data) {
    constexpr u64 message_window = 0xfee;
    if (address >> 20 != message_window) return;
    bool const logical = (address >> 2 & 1) != 0;
    IpiRequest const request{static_cast<u8>(data), static_cast<DeliveryMode>(data >> 8 & 7), Shorthand::None, logical,
                             bus_destination(static_cast<u8>(address >> 12), logical)};
    if (request.mode <= DeliveryMode::LowestPriority && request.vector < 16) return;
    deliver(request, nullptr, (data >> 15 & 1) != 0 ? TriggerMode::Level : TriggerMode::Edge);
}

} // namespace vm
