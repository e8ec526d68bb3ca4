// SPDX-License-Identifier: MIT
#pragma once
// A vCPU on AMD-V.
#include <lib/x86/registers.hpp>
#include <svm/avic.hpp>
#include <svm/backend.hpp>
#include <svm/tlb.hpp>
#include <svm/vmcb.hpp>
#include <vm/fpu_state.hpp>
#include <vm/vm.hpp>

namespace svm {

struct CpuState;

class Vcpu final : public vm::Vcpu {
public:
    static lib::Result<kernel::Own<vm::Vcpu>> create(Backend& backend, vm::Vm& vm, u32 id);
    ~Vcpu() override;

    void unload() override;
    // The vCPU whose registers this CPU holds, if any, goes back to memory.
    static void unload_current();

    u64 rip() override { return save().rip; }
    void set_rip(u64 value) override { vmcb_->save.rip = value; }
    u64 rflags() override { return save().rflags; }
    void set_rflags(u64 value) override { vmcb_->save.rflags = value; }
    // RAX is brought along with every exit and entry.
    void fetch_gprs() override { gpr(vm::Gpr::Rsp) = save().rsp; }
    void store_gprs() override { vmcb_->save.rsp = gpr(vm::Gpr::Rsp); }
    u64 cr0() override { return save().cr0 | cr0_caching_; }
    u64 cr3() override { return save().cr3; }
    u64 cr4() override { return save().cr4 & ~hidden_cr4_; }
    u64 efer() override { return save().efer & ~vm::efer::SVME; }
    void set_cr0(u64 value) override;
    void set_cr3(u64 value) override;
    void set_cr4(u64 value) override;
    void set_efer(u64 value) override;
    vm::Segment segment(vm::SegmentName name) override;
    void set_segment(vm::SegmentName name, vm::Segment const& value) override;
    vm::TablePointer gdt() override { return {save().gdtr.base, save().gdtr.limit}; }
    void set_gdt(vm::TablePointer table) override;
    void set_idt(vm::TablePointer table) override;
    u64 dr7() override { return save().dr7; }
    void set_dr7(u64 value) override { changing(clean::debug_registers).save.dr7 = value; }
    u64 dr6() override { return save().dr6; }
    void set_dr6(u64 value) override { changing(clean::debug_registers).save.dr6 = value; }
    u32 privilege_level() override { return save().cpl; }
    bool is_64_bit() override {
        constexpr u16 l_bit = 1U << 9;
        return (save().efer & vm::efer::LMA) != 0 && (save().cs.attributes & l_bit) != 0;
    }
    vm::CodeState code_state() override;
    vm::Vector vector(unsigned number) override;
    void set_vector(unsigned number, vm::Vector const& value) override;
    bool advance(u8 length) override;
    void drop_events() override;
    void set_tsc_offset(u64 offset) override;
    u64 read_hardware(vm::HardwareMsr which) override;
    void write_hardware(vm::HardwareMsr which, u64 value) override;
    void print_state(lib::TextSink& sink) override;

    Vmcb& vmcb_for_tests() { return *vmcb_; }

protected:
    void post_to_hardware(u8 vector, vm::TriggerMode trigger) override;
    void save_backend(vm::VcpuState& state) override;
    void restore_backend(vm::VcpuState const& state) override;
    vm::FpuState& fpu_state() override { return fpu_; }

private:
    // What the guest keeps in registers that the VMCB does not hold.
    struct LoadedRegisters {
        u64 dr0, dr1, dr2, dr3;
    };
    // How far the guest's NMI handler has come. [amd/vol2] 15.21.8 leaves this to the hypervisor.
    enum class NmiState : u8 {
        Free,
        Blocked, // until the IRET, which is intercepted
        AtIret,  // the IRET at nmi_iret_rip_ is about to be carried out
    };
    // What V_IRQ is used for.
    enum class VirtualInterrupt : u8 {
        None,
        Window, // exit when the guest could take an interrupt
        Offer,  // the guest takes this vector when it can
    };
    Vcpu(Backend& backend, vm::Vm& vm, u32 id, vm::ApicPage& page, Vmcb& vmcb)
        : vm::Vcpu(vm, id, page), backend_(backend), capabilities_(backend.capabilities()), vmcb_(&vmcb),
          apic_page_(page) {}
    // Exceptions that never reach the guest directly. #DB and #AC: a guest can make the CPU deliver them to itself for
    // ever without recognising an interrupt (CVE-2015-5307, CVE-2015-8104). #MC is the machine's.
    static constexpr u32 intercepted_exceptions =
        1U << lib::x86::exception_db | 1U << lib::x86::exception_ac | 1U << lib::x86::exception_mc;
    // Every exception that an instruction can raise. Vector 2 is the NMI, and the other missing numbers are reserved.
    static constexpr u32 every_exception = 0x703f'7dfb;
    static constexpr u64 dr6_single_step = 1U << 14;
    lib::Result<void> build();
    ControlArea const& control() const { return vmcb_->control; }
    SaveArea const& save() const { return vmcb_->save; }
    // The VMCB, for a change to these groups of fields. What no group covers may be changed without.
    Vmcb& changing(u32 groups) {
        vmcb_->control.clean_bits &= ~groups;
        return *vmcb_;
    }
    VmcbSegment& segment_of(vm::SegmentName name);
    void load();
    void flush_translations() { must_flush_ = true; }

    using ExitLoop = vm::ExitLoop<Vcpu>;
    friend ExitLoop;
    void run_guest() override;
    // Exit
    After before_entry();
    After handle_exit();
    After slow_exit(u32 code);
    After memory_exit();
    After undecodable();
    After entry_failed();
    bool refuse_cr3();
    bool repair_code_segment();
    void repair_long_mode();
    void check_interrupt_window();
    void settle_offer();
    void end_shadow();
    bool step_behind(u8 length);
    bool end_instruction();
    void fetch_virtual_tpr(Vmcb const& vmcb);
    void fetch_xcr0();
    void requeue_interrupted_event();
    void put_off_event();
    void debug_exit();
    void iret_exit();
    bool describe_register_access(u32 code, vm::Exit& exit);
    u8 length_of(u32 opcode, u8 size);
    u8 length_from_next_rip() const;

    // Entry
    // Those of the requests that are about the control block.
    void take_backend_requests(u32 requests);
    void renew_asid();
    // Gives the guest the most urgent event it can take now, and arranges an exit for when it can take the next. True
    // when something arrived that ends a HLT.
    bool deliver_events();
    bool deliver_interrupt();
    bool deliver_nmi();
    void offer(u8 vector);
    void interrupt_taken(u8 vector);
    bool can_take_interrupt() const;
    void inject(EventInfo info);
    void inject_interrupt(u8 vector);
    void inject_exception(vm::Exception const& exception) override;
    void set_intercept(u32 code, bool on);
    void set_virtual_interrupt(VirtualInterrupt use, u8 vector = 0);
    void set_task_priority_intercept(bool on);
    void step_over();
    void end_step();
    void intercept_step(bool on);
    bool is_before_system_call();
    void fault_in_step(u32 code);
    void open_nmi_window();
    void intercept_cr0(bool reads, bool writes);

    // AVIC, in vcpu_avic.cpp
    void build_avic();
    AvicMode wanted_avic_mode();
    void set_avic_mode(AvicMode mode);
    bool has_doorbell(u32 apic_id) const;
    void publish_avic();
    void leave_avic();
    bool has_deliverable();
    bool deliver_by_avic(bool& woken);
    void notify_posted();
    void notify_targets(u64 icr);
    void send_by_software(u64 icr);
    After avic_exit(u32 code);
    void incomplete_ipi_exit();
    bool unaccelerated_exit(vm::Exit& exit);

    Backend& backend_;
    Capabilities const& capabilities_;
    Vmcb* vmcb_;
    vm::ApicPage& apic_page_;
    CpuState* here_ = nullptr; // of the CPU that this vCPU is loaded on
    AsidLease lease_{};
    bool must_flush_ = true;
    u64 entered_rip_ = 0; // of the last VMRUN: one that is refused can lose it (Quirks)
    bool has_next_rip_ = capabilities_.has_next_rip;
    u32 clean_after_exit_ = capabilities_.has_clean_bits ? clean::all : 0;
    VirtualInterrupt virtual_interrupt_ = VirtualInterrupt::None;
    // What of it changes with AVIC's mode only.
    InterruptControl interrupt_control_of_mode_ = InterruptControl{}.with<InterruptControl::InterruptMasking>(true);
    bool is_takeable_ = false; // the guest could take an interrupt at the last look
    bool has_tpr_intercept_ = false;
    u8 virtual_tpr_ = 0; // what V_TPR was at the last entry
    NmiState nmi_state_ = NmiState::Free;
    bool is_stepping_ = false;   // RFLAGS.TF is ours
    bool had_trap_flag_ = false; // and this is the guest's
    u64 dr6_before_step_ = 0;
    u64 step_rip_ = 0;
    u64 nmi_iret_rip_ = 0;
    u64 hidden_cr4_ = 0;  // MCE, if the CPU has it on and the guest has not
    u64 cr0_caching_ = 0; // CD and NW as the guest sees them; the CPU's are clear
    // Exits whose instruction could not be found, at this RIP and after so many handled exits.
    u32 undecodable_in_a_row_ = 0;
    u64 undecodable_rip_ = 0;
    u64 handled_at_undecodable_ = 0;
    AvicTables* avic_ = nullptr; // of the VM; nullptr: the CPU has no AVIC
    AvicMode avic_mode_ = AvicMode::Off;
    PhysicalIdEntry published_entry_{}; // what the tables say
    u64 published_address_ = 0;
    vm::FpuState fpu_;
    LoadedRegisters saved_{}; // while it is not loaded
    u64 tsc_aux_ = 0;         // always right: writes exit
};

// What each CPU that runs guests needs.
struct CpuState {
    AsidPool asids;
    GuestPresence presence;
    Vcpu* loaded = nullptr;
    u64 xcr0 = 0;              // while nobody is loaded; 0: not known
    HostPhys host_area{};      // what VMLOAD brings back: FS, GS, TR, LDTR and the MSRs beside them
    HostPhys host_save_area{}; // VM_HSAVE_PA
};
CpuState& cpu_state(u32 cpu);

} // namespace svm
