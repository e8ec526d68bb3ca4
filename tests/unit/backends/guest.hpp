// SPDX-License-Identifier: MIT
#pragma once
// One guest on either vendor's fake machine, by the same words: what its CPU does, and what Mullion gives it.
#include "svm/machine.hpp"
#include "vmx/machine.hpp"

#include <vector>

namespace backends {

using kernel::RunResult;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// What arrives in the guest with an entry. Types as event_type says.
struct Event {
    bool is_valid = false;
    u8 type = 0, vector = 0;
    bool has_code = false;
    u32 code = 0;
    friend bool operator==(Event const&, Event const&) = default;
};
constexpr Event interrupt(u8 vector) { return {true, vm::event_type::external, vector}; }
constexpr Event exception(u8 vector) { return {true, vm::event_type::exception, vector}; }
constexpr Event fault(u8 vector, u32 code) { return {true, vm::event_type::exception, vector, true, code}; }
constexpr Event non_maskable() { return {true, vm::event_type::nmi, 2}; }

// Why the guest comes out.
enum class Cause : u8 {
    Cpuid,
    Hlt,
    Pause,
    ReadMsr,
    WriteMsr,
    Hypercall,
    PortOut,
    Interrupt,
    TripleFault,
    AlignmentCheck,
    MachineCheck,
    Window,
    Unheard
};
struct Happening {
    Cause cause;
    Event cut_off = {}; // was being delivered when the exit came
    u8 arrives = 0;     // an interrupt that comes in before
};

// VT-x without what its APIC virtualization does by itself.
class Intel : public intel_machine::VmxMachine {
public:
    static constexpr u8 vmcall_length = 3;
    Intel() : VmxMachine(intel_machine::haswell()) {}
    void TestBody() override {}
    void start() {
        create();
        settle();
    }
    vm::Vcpu& guest() { return vcpu(); }
    RunResult play(std::vector<Happening> const& happenings) {
        entries.clear();
        std::vector<intel_machine::Exit> exits;
        for (auto const& each : happenings)
            exits.push_back(exit_of(each));
        return run(std::move(exits));
    }
    std::size_t entry_count() const { return entries.size(); }
    Event arrived(std::size_t entry) const {
        auto const& record = entries.at(entry);
        if (record.interruption == 0) return {};
        bool const has_code = (record.interruption >> 11 & 1) != 0;
        return {true, static_cast<u8>(record.interruption >> 8 & 7), static_cast<u8>(record.interruption), has_code,
                has_code ? record.error_code : 0};
    }
    bool has_interrupt_window() { return (field(vmx::field::CPU_CONTROLS) >> 2 & 1) != 0; }
    void set_shadow() { poke(vmx::field::GUEST_INTERRUPTIBILITY, 1); }
    vm::Vm& machine() { return *vm; }

private:
    static u64 bits_of(Event const& event) {
        return event.is_valid ? u64{1} << 31 | u64{event.has_code} << 11 | u64{event.type} << 8 | event.vector : 0;
    }
    intel_machine::Exit exit_of(Happening const& what) {
        namespace reason = vmx::reason;
        auto const plain = [&](u32 why, u32 length) {
            return intel_machine::Exit{why, 0, length, [this, what] {
                                           cut_off(what.cut_off);
                                           if (what.arrives != 0)
                                               vcpu().post_interrupt(what.arrives, vm::TriggerMode::Edge);
                                       }};
        };
        switch (what.cause) {
        case Cause::Cpuid: return plain(reason::cpuid, 2);
        case Cause::Hlt: return plain(reason::hlt, 1);
        case Cause::Pause: return plain(reason::pause, 2);
        case Cause::ReadMsr: return plain(reason::rdmsr, 2);
        case Cause::WriteMsr: return plain(reason::wrmsr, 2);
        case Cause::Hypercall: return plain(reason::vmcall, 3);
        case Cause::PortOut: return {reason::io_instruction, u64{0x80} << 16, 2}; // OUT DX, AL
        case Cause::TripleFault: return plain(reason::triple_fault, 0);
        case Cause::Unheard: return plain(reason::monitor_trap, 0);
        case Cause::Window: return plain(reason::interrupt_window, 0);
        case Cause::Interrupt:
            return {reason::external_interrupt, 0, 0, [this, event = what.cut_off] {
                        cut_off(event);
                        poke(vmx::field::EXIT_INTERRUPTION_INFO, intel_machine::event(kernel::vectors::kick, 0));
                    }};
        case Cause::AlignmentCheck:
            return {reason::exception_or_nmi, 0, 0, [this, event = what.cut_off] {
                        cut_off(event);
                        poke(vmx::field::EXIT_INTERRUPTION_INFO, bits_of(fault(lib::x86::exception_ac, 0)));
                        poke(vmx::field::EXIT_INTERRUPTION_ERROR_CODE, 0);
                    }};
        case Cause::MachineCheck:
            return {reason::exception_or_nmi, 0, 0, [this, event = what.cut_off] {
                        cut_off(event);
                        poke(vmx::field::EXIT_INTERRUPTION_INFO, bits_of(exception(lib::x86::exception_mc)));
                    }};
        }
        return {};
    }
    void cut_off(Event const& event) {
        poke(vmx::field::IDT_VECTORING_INFO, bits_of(event));
        poke(vmx::field::IDT_VECTORING_ERROR_CODE, event.code);
    }
};

class Amd : public amd_machine::SvmMachine {
public:
    static constexpr u8 vmcall_length = 3;
    Amd() : SvmMachine(amd_machine::features_zen2 & ~(1U << 13)) {} // without AVIC
    void TestBody() override {}
    void start() {
        create();
        settle();
    }
    vm::Vcpu& guest() { return vcpu(); }
    RunResult play(std::vector<Happening> const& happenings) {
        entries.clear();
        std::vector<amd_machine::Exit> exits;
        for (auto const& each : happenings)
            exits.push_back(exit_of(each));
        return run(std::move(exits));
    }
    std::size_t entry_count() const { return entries.size(); }
    Event arrived(std::size_t entry) const {
        svm::EventInfo const info = entries.at(entry).control.event_injection;
        using I = svm::EventInfo;
        if (!info.get<I::Valid>()) return {};
        bool const has_code = info.get<I::HasErrorCode>();
        return {true, info.get<I::Type>(), info.get<I::Vector>(), has_code, has_code ? info.get<I::ErrorCode>() : 0};
    }
    // A virtual interrupt that stands for "tell me when".
    bool has_interrupt_window() { return vmcb().control.interrupt_control.get<svm::InterruptControl::VirtualIrq>(); }
    void set_shadow() { vmcb().control.interrupt_state.set<svm::InterruptState::Shadow>(true); }
    vm::Vm& machine() { return *vm; }

private:
    amd_machine::Exit exit_of(Happening const& what) {
        namespace exit_code = svm::exit_code;
        auto const plain = [&](u32 code, u8 length, u64 info_1 = 0) {
            return amd_machine::Exit{code, info_1, 0, [this, what, length](svm::Vmcb& block) {
                                         block.control.next_rip = block.save.rip + length;
                                         if (what.cause == Cause::PortOut)
                                             block.control.exit_info_2 = block.control.next_rip;
                                         if (what.arrives != 0)
                                             vcpu().post_interrupt(what.arrives, vm::TriggerMode::Edge);
                                         Event const& event = what.cut_off;
                                         if (!event.is_valid) return;
                                         svm::EventInfo info{};
                                         info.set<svm::EventInfo::Valid>(true);
                                         info.set<svm::EventInfo::Type>(event.type);
                                         info.set<svm::EventInfo::Vector>(event.vector);
                                         info.set<svm::EventInfo::HasErrorCode>(event.has_code);
                                         info.set<svm::EventInfo::ErrorCode>(event.code);
                                         block.control.exit_int_info = info;
                                     }};
        };
        switch (what.cause) {
        case Cause::Cpuid: return plain(exit_code::CPUID, 2);
        case Cause::Hlt: return plain(exit_code::HLT, 1);
        case Cause::Pause: return plain(exit_code::PAUSE, 2);
        case Cause::ReadMsr: return plain(exit_code::MSR, 2, 0);
        case Cause::WriteMsr: return plain(exit_code::MSR, 2, 1);
        case Cause::Hypercall: return plain(exit_code::VMMCALL, 3);
        case Cause::PortOut: {
            constexpr u64 size_8 = 1U << 4;
            return plain(exit_code::IOIO, 2, u64{0x80} << 16 | size_8);
        }
        case Cause::Interrupt: return plain(exit_code::INTR, 0);
        case Cause::TripleFault: return plain(exit_code::SHUTDOWN, 0);
        case Cause::AlignmentCheck: return plain(exit_code::EXCEPTION_AC, 0);
        case Cause::MachineCheck: return plain(exit_code::EXCEPTION_MC, 0);
        case Cause::Unheard: return plain(0x7777, 0);
        case Cause::Window: return plain(exit_code::VINTR, 0);
        }
        return {};
    }
};

} // namespace backends
