// SPDX-License-Identifier: MIT
// The machine of the VMX tests, and that its entry refuses what it should.
#include "vmx/machine.hpp"
#include "vm/cpuid_hosts.hpp"

// What vmx/src/entry.S does, with the guest played by the test.
extern "C" void vmx_run(vmx::Vcpu* vcpu, std::array<lib::u64, 16>* gprs, bool is_launched);
extern "C" bool vmx_after_exit(std::array<lib::u64, 16>* gprs);
extern "C" void vmx_entry_failed(vmx::Vcpu* vcpu);
extern "C" void vmx_run(vmx::Vcpu* vcpu, std::array<lib::u64, 16>* gprs, bool is_launched) {
    constexpr lib::u64 HOST_RSP = 0x6c14;
    (void)lib::x86::vmwrite(HOST_RSP, reinterpret_cast<lib::u64>(__builtin_frame_address(0)));
    do {
        if (intel_machine::on_entry(*gprs, is_launched) != 0) return vmx_entry_failed(vcpu);
        is_launched = true;
    } while (vmx_after_exit(gprs));
}
extern "C" {
extern char vmx_exit[16];
char vmx_exit[16];
}

namespace intel_machine {

namespace x86 = lib::x86;
namespace field = vmx::field;

Entry on_entry;

VmxMachine::VmxMachine(VmxMsrs const& msrs) {
    support::give_memory();
    if (kernel::cpu_count() == 0) kernel::register_cpu(kernel::this_cpu());
    for (u32 leaf :
         {0U, 1U, 4U, 5U, 6U, 7U, 0xbU, 0xdU, 0x15U, 0x16U, 0x8000'0000U, 0x8000'0001U, 0x8000'0007U, 0x8000'0008U})
        for (u32 subleaf = 0; subleaf < 10; subleaf++) {
            auto const regs = hosts::skylake_x(leaf, subleaf);
            cpu.set_cpuid(leaf, subleaf, {regs.eax, regs.ebx, regs.ecx, regs.edx});
        }
    kernel::detect_cpu_features();
    cpu.cr4 = 0x0004'0620; // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
    cpu.gdt_base = 0xffff'8000'0000'1000;
    cpu.idt_base = 0xffff'8000'0000'2000;
    cpu.tsc = 1'000'000;
    for (u32 const index : {x86::IA32_STAR, x86::IA32_LSTAR, x86::IA32_CSTAR, x86::IA32_FMASK, x86::IA32_KERNEL_GS_BASE,
                            x86::IA32_TSC_AUX, x86::IA32_TSC_DEADLINE, x86::IA32_GS_BASE})
        cpu.populate_msr(index, 0);
    cpu.populate_msr(x86::IA32_EFER, 0xd01);
    cpu.populate_msr(x86::IA32_PAT, x86::pat_at_reset);
    cpu.populate_msr(x86::IA32_APIC_BASE, 0xfee0'0900);
    for (u32 i = 0; i < 0x40; i++)
        cpu.populate_msr(x86::IA32_X2APIC_BASE + i, 0);
    EXPECT_TRUE(kernel::LocalApic::enable(kernel::cpu_features().x2apic));
    kernel::start_clock(2'000'000'000, 0);
    cpu.vmx.read_physical = [](u64 at) { return *kernel::phys_to_virt<u32>(lib::HostPhys{at}); };
    populate(cpu, msrs);
    on_entry = [this](std::array<u64, 16>& gprs, bool is_launched) { return enter(gprs, is_launched); };
}

VmxMachine::~VmxMachine() {
    if (vm) vm->vcpu(0).unload();
    vm = {};
    if (backend) backend->disable_on_this_cpu();
    kernel::this_cpu().work_pending = false;
    on_entry = {};
}

void VmxMachine::create(vmx::Disabled const& disabled) {
    auto made = vmx::Backend::create(disabled);
    ASSERT_TRUE(made) << made.error().what;
    backend = std::move(*made);
    ASSERT_TRUE(backend->enable_on_this_cpu());
    auto machine = vm::Vm::create({.name = "test", .memory = 4 * lib::MiB, .vcpu_count = 1}, *backend, platform);
    ASSERT_TRUE(machine);
    vm = std::move(*machine);
    EXPECT_TRUE(vm->ram().scrub(~lib::u64{0}));
    vm->start();
}

void VmxMachine::settle() {
    run({}); // takes the requests of reset
    auto& v = vcpu();
    v.set_cr0(0x11);
    v.set_segment(vm::SegmentName::Cs, {8, vm::segment::code_32, ~u32{0}, 0});
    v.set_segment(vm::SegmentName::Ss, {16, vm::segment::data_32, ~u32{0}, 0});
    for (auto const name : {vm::SegmentName::Ds, vm::SegmentName::Es})
        v.set_segment(name, {16, vm::segment::data_32, ~u32{0}, 0});
    v.set_rip(0x10'0000);
    v.set_rflags(0x202);
    v.apic().mmio_write(vm::apic_reg::SVR, 4, 0x1ff);
    run({});
    entries.clear();
}

void VmxMachine::write_code(u64 at, std::initializer_list<u8> bytes) {
    std::memcpy(vm->ram().pointer(vm::GuestPhys{at}, bytes.size()), bytes.begin(), bytes.size());
}

kernel::RunResult VmxMachine::run(std::vector<Exit> exits) {
    script_ = std::move(exits);
    next_ = 0;
    auto const leave = vcpu().run();
    EXPECT_TRUE(next_ >= script_.size() || vm->state() != vm::VmState::Running || leave != kernel::RunResult::Work)
        << next_ << " of the exits were used";
    return leave;
}

// Rules that control fields and the event to inject must keep. [intel/vol3] 27.2.1, 27.3.1.5
bool VmxMachine::is_entry_refused() const {
    using C2 = vmx::CpuControls2;
    auto const cpu2 = static_cast<u32>(field(field::CPU_CONTROLS2));
    bool const has_shadow = vmx::CpuControls::UseTprShadow::get(static_cast<u32>(field(field::CPU_CONTROLS)));
    auto const virtual_tpr =
        has_shadow ? *kernel::phys_to_virt<u32>(lib::HostPhys{field(field::VIRTUAL_APIC_ADDRESS) + 0x80}) : 0;
    if (has_shadow && !C2::VirtualizeApicAccesses::get(cpu2) && !C2::VirtualInterruptDelivery::get(cpu2) &&
        (field(field::TPR_THRESHOLD) & 0xf) > (virtual_tpr >> 4 & 0xf))
        return true;
    return !has_shadow && (C2::VirtualizeX2apicMode::get(cpu2) || C2::VirtualInterruptDelivery::get(cpu2));
}

u64 VmxMachine::enter(std::array<u64, 16>& gprs, bool is_launched) {
    auto const unwritten = cpu.vmx.unwritten_field();
    if (unwritten) ADD_FAILURE() << "VM entry uses field " << fakes::field_name(*unwritten) << ", never written";
    if (unwritten || is_entry_refused()) {
        poke(field::VM_INSTRUCTION_ERROR, 7);
        return 1;
    }
    auto const info = static_cast<u32>(field(field::ENTRY_INTERRUPTION_INFO));
    bool const is_valid = (info >> 31) != 0;
    entries.push_back({is_valid ? info : 0, static_cast<u32>(field(field::ENTRY_EXCEPTION_ERROR_CODE)),
                       static_cast<u32>(field(field::ENTRY_INSTRUCTION_LENGTH)), field(field::GUEST_RIP), is_launched});
    u64 const shadow = field(field::GUEST_INTERRUPTIBILITY) & 3;
    bool const single_steps = (field(field::GUEST_RFLAGS) & 0x100) != 0 && (field(field::GUEST_DEBUGCTL) & 2) == 0;
    bool const is_state_bad =
        (shadow != 0 && single_steps && (field(field::GUEST_PENDING_DEBUG) & 1U << 14) == 0) ||
        ((shadow & 1) != 0 && (field(field::GUEST_RFLAGS) & 0x200) == 0) ||
        (is_valid && (info >> 8 & 7) == 0 && (shadow != 0 || (field(field::GUEST_RFLAGS) & 0x200) == 0));
    cpu.vmx.scramble_exit_information();
    poke(field::IDT_VECTORING_INFO, 0);
    poke(field::EXIT_INTERRUPTION_INFO, 0);
    if (is_state_bad) {
        poke(field::EXIT_REASON, 1U << 31 | vmx::reason::invalid_guest_state);
        return 0;
    }
    poke(field::ENTRY_INTERRUPTION_INFO, info & 0x7fff'ffff); // the CPU clears the valid bit
    if (is_valid && (info >> 8 & 7) == 2) poke(field::GUEST_INTERRUPTIBILITY, field(field::GUEST_INTERRUPTIBILITY) | 8);
    if (next_ >= script_.size()) {
        next_++;
        vcpu().post(vm::request::leave);
        poke(field::EXIT_REASON, vmx::reason::external_interrupt);
        poke(field::EXIT_INTERRUPTION_INFO, event(kernel::vectors::kick, 0));
        return 0;
    }
    Exit const& exit = script_[next_++];
    poke(field::EXIT_REASON, exit.reason);
    poke(field::EXIT_QUALIFICATION, exit.qualification);
    poke(field::EXIT_INSTRUCTION_LENGTH, exit.length);
    if (exit.before) exit.before();
    (void)gprs;
    return 0;
}

} // namespace intel_machine
