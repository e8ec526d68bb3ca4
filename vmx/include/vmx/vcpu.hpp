// SPDX-License-Identifier: MIT
#pragma once
// A vCPU on Intel VT-x.
#include <vm/fpu_state.hpp>
#include <vm/vm.hpp>
#include <vmx/backend.hpp>
#include <vmx/vmcs.hpp>

namespace vmx {

using lib::HostPhys;

class Vcpu;
void entry_instruction_failed(Vcpu& vcpu);

// MSRs that guests write once and no instruction changes: a CPU's need not be read, and are written only where two
// vCPUs differ.
struct InterceptedMsrs {
    u64 star, lstar, cstar, fmask;
};

class Vcpu final : public vm::Vcpu {
public:
    static lib::Result<kernel::Own<vm::Vcpu>> create(Backend& backend, vm::Vm& vm, u32 id);
    ~Vcpu() override;

    // The vCPU whose registers these are.
    static Vcpu& around(std::array<u64, 16>* gprs) {
        return *reinterpret_cast<Vcpu*>(reinterpret_cast<u64>(gprs) - gpr_offset());
    }
    void unload() override;
    // The vCPU whose registers this CPU holds, if any, goes back to memory.
    static void unload_current();
    static void clear_registers_of_cpu(Capabilities const& capabilities);

    u64 rip() override { return vmcs().read(field::GUEST_RIP); }
    void set_rip(u64 value) override { vmcs().write(field::GUEST_RIP, value); }
    u64 rflags() override { return vmcs().read(field::GUEST_RFLAGS); }
    void set_rflags(u64 value) override { vmcs().write(field::GUEST_RFLAGS, value); }
    void fetch_gprs() override { gpr(vm::Gpr::Rsp) = vmcs().read(field::GUEST_RSP); }
    void store_gprs() override { vmcs().write(field::GUEST_RSP, gpr(vm::Gpr::Rsp)); }
    u64 cr0() override;
    u64 cr3() override { return vmcs().read(field::GUEST_CR3); }
    // The bits that guests may not have are never set in the guest's view, VMXE among them.
    u64 cr4() override;
    u64 efer() override { return vmcs().read(field::GUEST_EFER); }
    void set_cr0(u64 value) override;
    void set_cr3(u64 value) override;
    void set_cr4(u64 value) override;
    void set_efer(u64 value) override;
    vm::Segment segment(vm::SegmentName name) override;
    void set_segment(vm::SegmentName name, vm::Segment const& value) override;
    vm::TablePointer gdt() override {
        return {vmcs().read(field::GUEST_GDTR_BASE), vmcs().read(field::GUEST_GDTR_LIMIT)};
    }
    void set_gdt(vm::TablePointer table) override;
    void set_idt(vm::TablePointer table) override;
    u64 dr7() override { return vmcs().read(field::GUEST_DR7); }
    void set_dr7(u64 value) override { vmcs().write(field::GUEST_DR7, value); }
    u64 dr6() override;
    void set_dr6(u64 value) override;
    u64 cr4_osxsave() override { return vmcs().read(field::GUEST_CR4) & vm::cr4::OSXSAVE; } // the guest's own bit
    u32 privilege_level() override { return vmcs().read(field::GUEST_SS_RIGHTS) >> 5 & 3; }
    vm::CodeState code_state() override;
    vm::Vector vector(unsigned number) override;
    void set_vector(unsigned number, vm::Vector const& value) override;
    bool is_64_bit() override {
        // CS.L means nothing outside of long mode.
        return entry_controls_.get<EntryControls::Ia32eModeGuest>() &&
               (vmcs().read(field::GUEST_CS_RIGHTS) & vm::segment::l_bit) != 0;
    }
    bool advance(u8 length) override;
    void drop_events() override;
    void set_tsc_offset(u64 offset) override;
    void arm_timer(u64 deadline_guest_tsc) override;
    void disarm_timer() override;
    u64 read_hardware(vm::HardwareMsr which) override;
    void write_hardware(vm::HardwareMsr which, u64 value) override;
    void print_state(lib::TextSink& sink) override;

protected:
    void post_to_hardware(u8 vector, vm::TriggerMode trigger) override;
    void save_backend(vm::VcpuState& state) override;
    void restore_backend(vm::VcpuState const& state) override;
    vm::FpuState& fpu_state() override { return fpu_; }

private:
    static u64 gpr_offset() {
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Winvalid-offsetof" // single inheritance of a class with virtual functions: fixed
        return __builtin_offsetof(Vcpu, gpr_);
#pragma clang diagnostic pop
    }
    // What the guest keeps in registers that VM entry and exit leave alone.
    struct LoadedRegisters {
        u64 kernel_gs_base, cr2, dr0, dr1, dr2, dr3, dr6;
    };
    Vcpu(Backend& backend, vm::Vm& vm, u32 id, vm::ApicPage& page)
        : vm::Vcpu(vm, id, page), backend_(backend), capabilities_(backend.capabilities()), apic_page_(page) {}
    lib::Result<void> build();
    void write_controls();
    void write_host_state();
    void write_host_state_of_cpu();
    // Makes this VMCS current on this CPU, whatever was before; access to its fields from here on.
    Loaded vmcs() {
        if (!is_current_) [[unlikely]]
            make_current();
        return Loaded::still_loaded();
    }
    // Rare, so it shall not cost its callers registers.
    [[clang::preserve_most]] void make_current();
    void make_current_on(u32 cpu, Vcpu*& current);
    vm::CodeState code_state_with_base();
    void load();
    void pass_msr(u32 index, bool read, bool write);
    void intercept_x2apic();
    void load_page_directory_pointers();

    using ExitLoop = vm::ExitLoop<Vcpu>;
    friend ExitLoop;
    void run_guest() override;
    // Exit
    friend void entry_instruction_failed(Vcpu& vcpu);
    After before_entry();
    After handle_exit();
    After memory_exit();
    After slow_exit(u16 reason);
    void move_past(u8 length);
    bool step_over(u8 length);
    bool end_instruction(u64 flags);
    void requeue_interrupted_event();
    void put_off_event();
    void take_interrupts();
    bool exception_exit(vm::Exit& exit);
    bool may_execute_now(vm::Exit const& exit);
    void describe_memory(vm::Exit& exit);
    void describe_port(vm::Exit& exit);
    void describe_register_access(vm::Exit& exit);
    void describe_task_switch(vm::Exit& exit);
    After task_switch_exit();
    After entry_failed(ExitReasonField reason);
    void instruction_failed();

    // Entry
    static constexpr u64 no_deadline = ~u64{0};
    void load_preemption_timer();
    void set_preemption_timer(u64 deadline);
    void hand_timer_to_kernel();
    // Those of the requests that are about the control block.
    void take_backend_requests(u32 requests);
    void flush_guest_physical() const;
    void apply_apic_mode();
    void apply_eoi_bitmap();
    void flush_translations();
    // Gives the guest the most urgent event it can take now, and arranges an exit for when it can take the next. True
    // when something arrived that ends a HLT.
    bool deliver_events();
    bool deliver_virtualized();
    bool inject_beside_apic();
    bool can_take_interrupt();
    void inject(InterruptionInfo info, u32 error_code, u32 instruction_length);
    void inject_exception(vm::Exception const& exception) override;
    void set_interrupt_window(bool on);
    void set_nmi_window(bool on);
    void set_tpr_threshold(u32 priority_class);

    Backend& backend_;
    Capabilities const& capabilities_;
    vm::ApicPage& apic_page_;
    HostPhys region_{};
    u8* msr_bitmap_ = nullptr;
    u16 vpid_ = 0;
    CpuControls cpu_controls_{};
    CpuControls2 cpu2_controls_{};
    EntryControls entry_controls_{};
    PinControls pin_controls_{};
    vm::Exit exit_; // the one being handled; a member because most of it is not worth initialising
    bool has_applied_apic_mode_ = false;
    bool has_changed_apic_accesses_ = false; // later than by the first application
    u64 preemption_deadline_ =
        no_deadline;          // of the APIC timer in host TSC, while the preemption timer stands in for it
    bool is_current_ = false; // this VMCS is the current one of its CPU
    bool is_launched_ = false;
    bool is_delivery_virtualized_ = false;
    u32 tpr_threshold_ = 0;         // as in the VMCS
    u32 last_cpu_ = ~0U;            // where the VMCS is active
    u32 host_state_of_ = ~0U;       // the CPU that it goes back to at an exit, where it ran last
    LoadedRegisters saved_{};       // while it is not loaded
    vm::FpuState fpu_;              // likewise
    InterceptedMsrs intercepted_{}; // always right: writes exit
    u64 tsc_aux_ = 0;               // the same
    u64 xss_ = 0;
};

} // namespace vmx
