// SPDX-License-Identifier: MIT
#pragma once
// One virtual CPU: the vendor-neutral half. A backend derives from it and adds its control block.
#include <array>
#include <atomic>
#include <kernel/heap.hpp>
#include <kernel/run_loop.hpp>
#include <kernel/time.hpp>
#include <lib/format.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
#include <vm/code_window.hpp>
#include <vm/control_registers.hpp>
#include <vm/cpuid_policy.hpp>
#include <vm/decoder.hpp>
#include <vm/exit.hpp>
#include <vm/exit_times.hpp>
#include <vm/fpu_state.hpp>
#include <vm/local_apic.hpp>
#include <vm/msr_policy.hpp>
#include <vm/tsc_ratio.hpp>
#include <vm/vcpu_state.hpp>

namespace vm {

class Vm;
template <typename Backend> struct ExitLoop;

// General registers by their number in instructions.
enum class Gpr : u8 { Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15 };

enum class SegmentName : u8 { Es, Cs, Ss, Ds, Fs, Gs, Ldtr, Tr };
struct Segment {
    u16 selector;
    u16 attributes; // type, S, DPL, P in bits 7:0, AVL, L, D/B, G in bits 15:12, unusable in bit 16 is kept in bit 11
    u32 limit;
    u64 base;
};
namespace segment {
inline constexpr u16 long_code = 0xa09b, code_32 = 0xc09b, data_32 = 0xc093, code_16 = 0x009b, data_16 = 0x0093,
                     ldt = 0x0082, busy_tss = 0x008b, unusable = 0x0800, l_bit = 0x2000, db_bit = 0x4000;
} // namespace segment
struct TablePointer {
    u64 base;
    u32 limit;
};

struct Exception {
    u8 vector;
    bool has_error_code;
    u32 error_code;
    u64 cr2; // for #PF
};
// Faults push RFLAGS.RF set, so that the instruction, executed again, does not hit its breakpoint again; traps and
// aborts do not. #DB is here a trap. [intel/vol3] 19.3.1.1 [amd/vol2] 13.1.1.2
constexpr bool is_fault(u8 vector) {
    using namespace lib::x86;
    return vector != exception_db && vector != exception_nmi && vector != exception_bp && vector != exception_of &&
           vector != exception_df && vector != exception_mc;
}
// Whether a #DB with these registers came after its instruction: by a single step, a data or I/O breakpoint, or INT1.
// One by an instruction breakpoint or by general detect comes again when the instruction is executed again.
constexpr bool is_debug_trap(u64 dr6, u64 dr7) {
    constexpr u64 general_detect = 1U << 13, single_step = 1U << 14;
    if ((dr6 & single_step) != 0) return true;
    bool is_fault = (dr6 & general_detect) != 0;
    for (unsigned i = 0; i < 4; i++) {
        if ((dr6 >> i & 1) == 0) continue;
        if ((dr7 >> (16 + 4 * i) & 3) != 0) return true;
        is_fault = true;
    }
    return !is_fault;
}
constexpr Exception general_protection() { return {13, true, 0, 0}; }
constexpr Exception stack_fault() { return {12, true, 0, 0}; }
constexpr Exception invalid_opcode() { return {6, false, 0, 0}; }

enum class Paging : u8 { Off, Bits32, Bits32Large, Pae, Long };
// Where and how a vCPU executes: all that it takes to fetch and decode its next instruction.
struct CodeState {
    u64 linear; // address of the instruction
    u64 cr3;
    CpuMode mode;
    Paging paging;
};

// Reasons to look up before the next entry; set by any CPU.
namespace request {
inline constexpr u32 interrupt = 1U << 0; // something may be deliverable
inline constexpr u32 nmi = 1U << 1;
inline constexpr u32 leave = 1U << 2; // back to the main loop
inline constexpr u32 flush_tlb = 1U << 3;
inline constexpr u32 apic_mode = 1U << 4; // the APIC changed between disabled, xAPIC and x2APIC
inline constexpr u32 eoi_bitmap = 1U << 5;
inline constexpr u32 timer = 1U << 6; // the APIC timer's deadline has come
inline constexpr u32 init = 1U << 7;
inline constexpr u32 sipi = 1U << 8;
inline constexpr u32 look_again = 1U << 9;   // not running, or an NMI waits: prepare the next entry with care
inline constexpr u32 destination = 1U << 10; // LDR, DFR or SVR of the APIC changed
inline constexpr u32 handled = nmi | timer | init | sipi; // by Vcpu::take_requests()
inline constexpr u32 wakes = interrupt | nmi | timer | init | sipi | leave;
} // namespace request

// Waiting for SIPI is what an AP does after INIT.
enum class Activity : u8 { Running, Halted, WaitForSipi };

// Types of events, as both vendors number them. [intel/vol3] table 25-17 [amd/vol2] 15.20
namespace event_type {
inline constexpr u8 external = 0, nmi = 2, exception = 3;
}

class Vcpu : public kernel::Runnable, public ApicBus, public MsrHooks {
public:
    Vcpu(Vm& vm, u32 id, ApicPage& apic_page);
    virtual ~Vcpu();
    Vcpu(Vcpu const&) = delete;
    Vcpu& operator=(Vcpu const&) = delete;

    // Who pays for the interrupts of its APIC timer.
    void set_timer_payer(kernel::SchedulerEntity* payer) { apic_timer_.set_payer(payer); }

    // kernel::Runnable, with interrupts off. While its VM is held it does not run, unless the VM is to end.
    kernel::RunResult run() final;
    bool has_wake_event() final;
    kernel::RunnableIdentity identity() const override;
    void stopped() final;

    // State of the guest. Valid on the owning CPU between exits; slow ones read the control block.
    u64& gpr(Gpr name) { return gpr_[static_cast<unsigned>(name)]; }
    std::array<u64, 16>& gprs() { return gpr_; }
    virtual u64 rip() = 0;
    virtual void set_rip(u64 value) = 0;
    virtual u64 rflags() = 0;
    virtual void set_rflags(u64 value) = 0;
    // RSP (and with AMD RAX) live in the control block: brings them into gprs(), and back.
    virtual void fetch_gprs() = 0;
    virtual void store_gprs() = 0;
    // The XMM registers. Slow: they lie in the CPU.
    virtual Vector vector(unsigned number) = 0;
    virtual void set_vector(unsigned number, Vector const& value) = 0;
    virtual u64 cr3() = 0;
    virtual u64 cr4() = 0;
    virtual u64 cr4_osxsave() { return cr4() & cr4::OSXSAVE; } // a backend may find it sooner
    virtual u64 efer() = 0;
    virtual void set_cr0(u64 value) = 0; // the guest's view, already found valid
    virtual void set_cr3(u64 value) = 0;
    virtual void set_cr4(u64 value) = 0;
    virtual void set_efer(u64 value) = 0;
    virtual Segment segment(SegmentName name) = 0;
    virtual void set_segment(SegmentName name, Segment const& value) = 0;
    virtual TablePointer gdt() = 0;
    virtual void set_gdt(TablePointer table) = 0;
    virtual void set_idt(TablePointer table) = 0;
    virtual u64 dr7() = 0;
    virtual void set_dr7(u64 value) = 0;
    virtual u64 dr6() = 0;
    virtual void set_dr6(u64 value) = 0;
    virtual u32 privilege_level() = 0;
    virtual bool is_64_bit() = 0; // runs 64-bit code, not only in long mode
    // A backend that reads its control block directly may do better.
    virtual CodeState code_state();

    // Go on behind an emulated instruction: ends STI and MOV-SS shadows and delivers a single-step trap.
    // True when that trap is what comes next.
    virtual bool advance(u8 length) = 0;
    // RESET and INIT: forgets an event that was to be injected, shadows, NMI blocking and pending debug traps.
    virtual void drop_events() {}
    void raise(Exception const& exception) {
        pending_exception_ = exception;
        has_exception_ = true;
    }
    // The registers after RESET or INIT. [intel/vol3] table 10-1
    void reset_registers();
    void reset();

    Vm& vm() { return vm_; }
    // CPUID leaf 1 without OSXSAVE, kept up to date.
    CpuidRegs const& features() const { return features_; }
    u32 id() const { return id_; }
    LocalApic& apic() { return apic_; }
    MsrPolicy& msrs() { return msrs_; }
    CodeWindow& code_window(u64 linear) { return code_windows_.of(linear); }
    // Exits in a row whose instruction did not make the access that the CPU reported.
    u32& unexplained_exits() { return unexplained_exits_; }
    u64 xcr0() const { return xcr0_; }
    void set_xcr0(u64 value);
    Activity activity() const { return activity_; }
    void set_activity(Activity activity) { activity_ = activity; }

    // Guest TSC = host TSC times the VM's ratio + offset.
    u64 tsc_offset() const { return tsc_offset_; }
    virtual void set_tsc_offset(u64 offset) = 0;

    // Writes down all that it is. It does not run, no other CPU holds its state (kernel::unload_runnable), and the
    // caller's interrupts are off. Fails with Unsupported if its XSAVE area is larger than the layout knows.
    // `host_tsc` is the moment at which the guest's TSC is noted: the same for all vCPUs of a VM.
    lib::Result<void> save(VcpuState& state, u64 host_tsc);
    // Makes this vCPU, which has never run, what was saved; the RAM is the guest's already. `host_tsc`: the machine's
    // TSC at the moment of save(); the guest's goes on from there. Unsupported: it was saved with another CPUID.
    // BadFormat: it is no state of this vCPU. After a failure the vCPU must not run.
    lib::Result<void> restore(VcpuState const& state, u64 host_tsc);

    // Sets requests and sees to it that they are looked up soon; from any CPU.
    void post(u32 requests);
    void post_interrupt(u8 vector, TriggerMode trigger);

    // TimerHost, ApicBus
    u64 guest_tsc() override;
    void arm_timer(u64 deadline_guest_tsc) override;
    void disarm_timer() override;
    void send_ipi(LocalApic& from, IpiRequest const& request) override;
    void end_of_interrupt(u8 vector) override;
    void interrupt_pending(LocalApic& at) override;
    void destination_changed(LocalApic& at) override;
    // MsrHooks; the hardware ones are the backend's
    void shift_tsc(u64 delta) override;
    void publish_time(u64 at, u64 tsc_moved) override;
    void publish_wall_clock(u64 at) override;
    u64 read_tsc_deadline() override { return apic_.tsc_deadline(); }
    void write_tsc_deadline(u64 value) override { apic_.write_tsc_deadline(value); }
    u64 read_apic_base() override { return apic_.read_base(); }
    MsrResult write_apic_base(u64 value) override;
    MsrResult read_x2apic(u32 index, u64& value) override { return apic_.read_x2apic(index, value); }
    MsrResult write_x2apic(u32 index, u64 value) override { return apic_.write_x2apic(index, value); }

    // Handles what is posted of INIT, SIPI, NMI and timer, for the owner before entry. Returns the other requests, and
    // those that it caused.
    u32 take_requests();
    void signal_init() {
        requests_.fetch_and(~request::sipi, std::memory_order_relaxed); // one from before is void
        post(request::init);
    }
    void signal_startup(u8 vector) {
        startup_vector_.store(vector, std::memory_order_relaxed);
        post(request::sipi);
    }

    std::array<u64, exit_reason_count> const& exit_counts() const { return exit_counts_; }
    u64 total_exits() const;
    // From now on, how long exits take is added to *times; nullptr: no longer. What was given before may be in use
    // until every other CPU has answered (kernel::wait_for_other_cpus).
    void measure_exits(ExitTimes* times) { exit_times_.store(times, std::memory_order_release); }
    ExitTimes* exit_times() const { return exit_times_.load(std::memory_order_relaxed); }
    // Around the handling of one exit. What is handled tells its reason by counting it.
    template <typename Body> bool measured(Body handle) {
        ExitTimes* const times = exit_times_.load(std::memory_order_acquire);
        u64 const start = lib::x86::rdtsc();
        auto const before = exit_counts_;
        bool const result = handle();
        for (unsigned i = 0; times != nullptr && i < exit_reason_count; i++)
            if (exit_counts_[i] != before[i]) {
                times->add(static_cast<ExitReason>(i), lib::x86::rdtsc() - start);
                break;
            }
        return result;
    }
    static constexpr std::size_t most_state_text = 2560; // bytes that print_state() writes
    virtual void print_state(lib::TextSink& sink) = 0;
    void print_registers(lib::TextSink& sink);

protected:
    void handle_requests(u32 requests);

    // Enters the guest on the calling CPU, until leave().
    virtual void run_guest() = 0;
    enum class After : bool { Leave, Enter };
    After leave(kernel::RunResult why) {
        leave_ = why;
        return After::Leave;
    }
    // The VM ends, because this vCPU cannot go on.
    After crash(std::string_view text);
    virtual void inject_exception(Exception const& exception) = 0;
    // What only the backend knows: IDTR, CR2, DR0 to DR3, the privilege level, the event on its way, shadows, blocking
    // of NMIs, pending debug traps. The state to restore has been checked, and all else of it is there already.
    virtual void save_backend(VcpuState& state) = 0;
    virtual void restore_backend(VcpuState const& state) = 0;
    virtual FpuState& fpu_state() = 0;
    // The event on its way has to let an #AC go first: it waits here, unless it comes again by itself.
    void put_off_event(u8 type, u8 vector);
    // A #DB that had to let an #AC go first. True when it is on its way.
    bool deliver_debug_trap();
    // Look again right after the delivery of the event on its way: an interrupt of ours ends the guest's run there.
    static void look_after_delivery();

    kernel::RunResult leave_ = kernel::RunResult::Work;
    bool has_event_ = false;     // one is on its way with the next entry
    int put_off_interrupt_ = -1; // acknowledged, and not delivered yet
    bool put_off_debug_trap_ = false;
    // The host's TSC at a time of the guest's; never ~0.
    u64 host_deadline(u64 deadline_guest_tsc);

    std::array<u64, 16> gpr_{};
    std::atomic<u32> requests_{0};
    bool has_exception_ = false;
    bool nmi_pending_ = false;
    Activity activity_ = Activity::Running;
    Exception pending_exception_{};
    TscRatio tsc_ratio_;
    u64 tsc_offset_ = 0;
    u64 xcr0_ = 1;
    CpuidRegs features_{};
    // Interrupts are for post_to_hardware(): the CPU takes those that are edge-triggered by itself while the guest
    // runs.
    std::atomic<bool> takes_posted_{false};
    virtual void post_to_hardware(u8 vector, TriggerMode trigger); // from any CPU
    // The CPU that runs the vCPU does the rest, before the next entry.
    void post_to_owner(u8 vector, TriggerMode trigger) {
        if (apic_.post(vector, trigger)) post(request::interrupt);
    }
    std::atomic<u32> running_on_{~0U}; // index of the CPU while in run()
    Vm& vm_;
    u32 id_;
    std::array<u64, exit_reason_count> exit_counts_{};
    std::atomic<ExitTimes*> exit_times_{nullptr};
    MsrPolicy msrs_;
    LocalApic apic_;
    kernel::Timer apic_timer_;
    std::atomic<u8> startup_vector_{0};
    u32 clock_version_ = 0; // of what publish_time() and publish_wall_clock() wrote last
    CodeWindows code_windows_;
    u32 unexplained_exits_ = 0;

private:
    template <typename Backend> friend struct ExitLoop;
    friend Outcome route(Vcpu& vcpu, Exit const& exit);
    void apic_timer_expired();
    void update_features();
    void save_events(SavedEvents& events);
    void restore_events(SavedEvents const& events);
    void restore_registers(VcpuState const& state);
};

// What becomes of an exit: the one router, shared by both vendors.
Outcome route(Vcpu& vcpu, Exit const& exit);

} // namespace vm
