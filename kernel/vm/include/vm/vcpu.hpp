#pragma once
// One virtual CPU: the vendor-neutral half. A backend derives from it and adds its control block.
#include <array>
#include <atomic>
#include <kernel/time.hpp>
#include <lib/types.hpp>
#include <vm/cpuid_policy.hpp>
#include <vm/exit.hpp>
#include <vm/local_apic.hpp>
#include <vm/msr_policy.hpp>

namespace vm {

class Vm;

// General registers by their number in instructions.
enum class Gpr : u8 { Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15 };

enum class SegmentName : u8 { Es, Cs, Ss, Ds, Fs, Gs, Ldtr, Tr };
struct Segment {
    u16 selector;
    u16 attributes; // type, S, DPL, P in bits 7:0, AVL, L, D/B, G in bits 15:12, unusable in bit 11. [intel/vol3] 25.4.1
    u32 limit;
    u64 base;
};
namespace segment {
inline constexpr u16 long_code = 0xa09b, code_32 = 0xc09b, data_32 = 0xc093, code_16 = 0x009b, data_16 = 0x0093,
                     ldt = 0x0082, busy_tss = 0x008b, unusable = 0x0800;
inline constexpr u16 l_bit = 0x2000, db_bit = 0x4000;
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
constexpr Exception general_protection() { return {13, true, 0, 0}; }
constexpr Exception invalid_opcode() { return {6, false, 0, 0}; }

// Why run() gave the CPU back.
enum class Leave : u8 { Work, Sleep, Yield, Stopped };

// Reasons to look up before the next entry; set by any CPU.
namespace request {
inline constexpr u32 interrupt = 1U << 0; // something may be deliverable
inline constexpr u32 nmi = 1U << 1;
inline constexpr u32 leave = 1U << 2; // back to the main loop
inline constexpr u32 flush_tlb = 1U << 3;
inline constexpr u32 stop = 1U << 4;
inline constexpr u32 apic_mode = 1U << 5; // the APIC changed between disabled, xAPIC and x2APIC
} // namespace request

class Vcpu : public ApicBus, public MsrHooks {
public:
    Vcpu(Vm& vm, u32 id);
    virtual ~Vcpu();
    Vcpu(Vcpu const&) = delete;
    Vcpu& operator=(Vcpu const&) = delete;

    // Runs the guest on the calling CPU, interrupts off, until something wants the CPU back.
    virtual Leave run() = 0;

    // State of the guest. Valid on the owning CPU between exits; slow ones read the control block.
    u64& gpr(Gpr name) { return gpr_[static_cast<unsigned>(name)]; }
    std::array<u64, 16>& gprs() { return gpr_; }
    virtual u64 rip() = 0;
    virtual void set_rip(u64 value) = 0;
    virtual u64 rflags() = 0;
    virtual void set_rflags(u64 value) = 0;
    // RSP lives in the control block: brings it into gpr(Rsp), and back.
    virtual void fetch_rsp() = 0;
    virtual void store_rsp() = 0;
    virtual u64 cr0() = 0;
    virtual u64 cr3() = 0;
    virtual u64 cr4() = 0;
    virtual u64 efer() = 0;
    virtual void set_cr0(u64 value) = 0; // the guest's view, already found valid
    virtual void set_cr3(u64 value) = 0;
    virtual void set_cr4(u64 value) = 0;
    virtual void set_efer(u64 value) = 0;
    virtual Segment segment(SegmentName name) = 0;
    virtual void set_segment(SegmentName name, Segment const& value) = 0;
    virtual void set_gdt(TablePointer table) = 0;
    virtual void set_idt(TablePointer table) = 0;
    virtual u64 dr7() = 0;
    virtual void set_dr7(u64 value) = 0;

    // Go on behind an emulated instruction: also ends STI and MOV-SS shadows and delivers a single-step trap.
    virtual void advance(u8 length) = 0;
    void raise(Exception const& exception) { pending_exception_ = exception, has_exception_ = true; }
    // The registers after RESET or INIT. [intel/vol3] table 9-1
    void reset_architecture(bool is_init);

    Vm& vm() { return vm_; }
    u32 id() const { return id_; }
    LocalApic& apic() { return apic_; }
    MsrState& msrs() { return msrs_; }
    u64 xcr0() const { return xcr0_; }
    virtual void set_xcr0(u64 value) = 0;
    CpuidDynamic cpuid_dynamic();

    // Guest TSC = host TSC + offset.
    u64 tsc_offset() const { return tsc_offset_; }
    virtual void set_tsc_offset(u64 offset) = 0;
    u64 guest_tsc() override;

    // Wakes or interrupts the vCPU so that it looks at its requests soon; callable from any CPU.
    void post(u32 requests);
    // True when a sleeping vCPU has a reason to run.
    bool has_wake_event();

    // ApicBus
    void send_ipi(LocalApic& from, IpiRequest const& ipi) override;
    void end_of_interrupt(u8 vector) override;
    void arm_timer(u64 deadline_guest_tsc) override;
    void disarm_timer() override;
    void interrupt_pending(LocalApic& apic) override;

    std::array<u64, exit_reason_count> const& exit_counts() const { return exit_counts_; }
    void print_state(lib::TextSink& sink);

protected:
    friend Outcome route(Vcpu& vcpu, Exit const& exit);
    // One exit, from the count to what becomes of the instruction.
    Outcome handle(Exit const& exit);

    std::array<u64, 16> gpr_{}; // first: assembly knows the offset
    std::atomic<u32> requests_{0};
    bool has_exception_ = false;
    bool nmi_pending_ = false;
    Exception pending_exception_{};
    u64 tsc_offset_ = 0;
    u64 xcr0_ = 1;
    std::atomic<u32> running_on_{~0U}; // CPU index while in run()
    Vm& vm_;
    u32 id_;
    MsrState msrs_;
    kernel::Own<ApicPage> apic_page_;
    LocalApic apic_;
    kernel::Timer apic_timer_;
    std::array<u64, exit_reason_count> exit_counts_{};

private:
    void apic_timer_expired();
};

} // namespace vm
