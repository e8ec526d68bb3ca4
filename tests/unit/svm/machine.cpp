// SPDX-License-Identifier: MIT
// The machine of the SVM tests.
#include "svm/machine.hpp"

#include <algorithm>

// What svm/src/entry.S does, with the guest played by the test.
extern "C" void svm_run(svm::Vcpu* vcpu, std::array<lib::u64, 16>* gprs, lib::u64 vmcb, lib::u64 host_area);
extern "C" bool svm_after_exit(svm::Vcpu* vcpu);
extern "C" void svm_run(svm::Vcpu* vcpu, std::array<lib::u64, 16>*, lib::u64, lib::u64) {
    do
        amd_machine::on_entry();
    while (svm_after_exit(vcpu));
}

namespace amd_machine {

namespace x86 = lib::x86;

Entry on_entry;

void populate(fakes::Cpu& cpu, u32 features, u32 asids) {
    constexpr u32 nx = 1U << 20, pages_1g = 1U << 26, rdtscp = 1U << 27, long_mode = 1U << 29;
    cpu.set_cpuid(0, {0xd, 0x6874'7541, 0x444d'4163, 0x6974'6e65});         // AuthenticAMD
    cpu.set_cpuid(1, {signature_zen2, 0x0001'0800, 1U << 21, 0x178b'fbff}); // x2APIC: no page to map
    for (u32 leaf : {6U, 7U, 0xbU, 0xdU, 0x8000'0007U})
        cpu.set_cpuid(leaf, {0, 0, 0, 0});
    cpu.set_cpuid(0x8000'0000, {0x8000'000a, 0, 0, 0});
    cpu.set_cpuid(0x8000'0001, {0, 0, 1U << 2, nx | pages_1g | rdtscp | long_mode});
    cpu.set_cpuid(0x8000'0008, {0x3030, 0, 0, 0});
    cpu.set_cpuid(0x8000'000a, {1, asids, 0, features});
    cpu.populate_msr(0xc001'0114, 0); // VM_CR
    cpu.populate_msr(0xc001'0117, 0); // VM_HSAVE_PA
    cpu.populate_msr(x86::IA32_EFER, 0xd01);
}

SvmMachine::SvmMachine(u32 features, u32 asids) {
    support::give_memory();
    if (kernel::cpu_count() == 0) kernel::register_cpu(kernel::this_cpu());
    populate(cpu, features, asids);
    kernel::detect_cpu_features();
    cpu.cr4 = 0x0000'0620;
    cpu.tsc = 1'000'000;
    cpu.populate_msr(x86::IA32_TSC_AUX, 0);
    cpu.populate_msr(x86::IA32_TSC_DEADLINE, 0);
    cpu.populate_msr(x86::IA32_APIC_BASE, 0xfee0'0900);
    for (u32 i = 0; i < 0x40; i++)
        cpu.populate_msr(x86::IA32_X2APIC_BASE + i, 0);
    EXPECT_TRUE(kernel::LocalApic::enable(kernel::cpu_features().x2apic));
    kernel::start_clock(2'000'000'000, 0);
    on_entry = [this] { enter(); };
}

SvmMachine::~SvmMachine() {
    for (u32 i = 0; vm && i < vm->vcpu_count(); i++)
        vm->vcpu(i).unload();
    vm = {};
    if (backend) backend->disable_on_this_cpu();
    kernel::this_cpu().work_pending = false;
    on_entry = {};
}

void SvmMachine::create(svm::Disabled const& disabled, u32 vcpus) {
    if (is_tcg) {
        cpu.set_cpuid(1, {signature_zen2, 0x0001'0800, 1U << 31 | 1U << 21, 0x178b'fbff});
        cpu.set_cpuid(0x4000'0000, {0x4000'0001, 0x5447'4354, 0x4354'4743, 0x4743'5447});
    }
    auto made = svm::Backend::create(disabled);
    ASSERT_TRUE(made) << made.error().what;
    backend = std::move(*made);
    ASSERT_TRUE(backend->enable_on_this_cpu());
    auto machine = vm::Vm::create({.name = "test", .memory = 4 * lib::MiB, .vcpu_count = vcpus}, *backend, platform);
    ASSERT_TRUE(machine);
    vm = std::move(*machine);
    EXPECT_TRUE(vm->ram().scrub(~lib::u64{0}));
    vm->start();
}

void SvmMachine::write_code(u64 at, std::initializer_list<u8> bytes) {
    std::memcpy(vm->ram().pointer(vm::GuestPhys{at}, bytes.size()), bytes.begin(), bytes.size());
}

void SvmMachine::settle() {
    run({});
    // PML4 at 1000h, PDPT at 2000h, PD at 3000h: the first 2 MiB by one page.
    auto const put = [&](u64 at, u64 value) { std::memcpy(vm->ram().pointer(vm::GuestPhys{at}, 8), &value, 8); };
    put(0x1000, 0x2003);
    put(0x2000, 0x3003);
    put(0x3000, 0x0083);
    put(0x2018, 0x4003); // and two for the APICs
    put(0x4000 + 8 * 0x1f6, 0xfec0'0083);
    put(0x4000 + 8 * 0x1f7, 0xfee0'0083);
    auto& v = vcpu();
    v.set_cr4(0x20);
    v.set_cr3(0x1000);
    v.set_efer(vm::efer::LME);
    v.set_cr0(0x8001'0011);
    v.set_segment(vm::SegmentName::Cs, {8, vm::segment::long_code, ~u32{0}, 0});
    v.set_segment(vm::SegmentName::Ss, {16, vm::segment::data_32, ~u32{0}, 0});
    v.set_rip(0x10'0000);
    v.set_rflags(0x202);
    v.apic().mmio_write(vm::apic_reg::SVR, 4, 0x1ff);
    run({});
    entries.clear();
}

kernel::RunResult SvmMachine::run(std::vector<Exit> exits) {
    script_ = std::move(exits);
    next_ = 0;
    kernel::this_cpu().work_pending = false; // as the run loop does
    auto const leave = vcpu().run();
    EXPECT_TRUE(next_ >= script_.size() || vm->state() != vm::VmState::Running || leave != kernel::RunResult::Work)
        << next_ << " of the exits were used";
    return leave;
}

// A virtual interrupt is taken at once when the guest can; an interrupt of the machine's comes first.
// [amd/vol2] 15.21.4
void SvmMachine::take_virtual_interrupt(svm::Vmcb& block, u32 code) {
    if (!is_on_offer(block) || code == exit_code::INTR || !takes_virtual_interrupts) return;
    block.control.interrupt_control.set<svm::InterruptControl::VirtualIrq>(false);
}

// [amd/vol2] 15.29.4; and that the machine's own x2APIC is out of reach.
void SvmMachine::check_avic(svm::Vmcb const& block) {
    using Control = svm::InterruptControl;
    bool const is_on = block.control.interrupt_control.get<Control::AvicEnable>();
    bool const is_x2apic = block.control.interrupt_control.get<Control::X2AvicEnable>();
    EXPECT_TRUE(is_on || !is_x2apic);
    // Read and write of the MSRs 800h to 8FFh: two bits each, four to a byte.
    u8 const* const x2apic = kernel::phys_to_virt<u8>(kernel::HostPhys{block.control.msrpm_base}) + 0x800 / 4;
    bool const is_all_intercepted = std::all_of(x2apic, x2apic + 0x100 / 4, [](u8 byte) { return byte == 0xff; });
    EXPECT_EQ(is_all_intercepted, !is_x2apic);
    if (!is_on) return;
    EXPECT_FALSE(block.control.interrupt_control.get<Control::VirtualIrq>()) << "ignored: it would be lost";
    EXPECT_EQ(block.control.avic_apic_bar, 0xfee0'0000U);
    EXPECT_EQ(block.control.avic_backing_page, kernel::virt_to_phys(&vcpu().apic().page()).value);
    EXPECT_EQ(block.control.avic_physical_table & 0xfff, vm->vcpu_count() - 1);
    EXPECT_EQ(block.control.avic_logical_table & 0xfff, 0U);
    EXPECT_NE(block.control.avic_logical_table, 0U);
}

void SvmMachine::enter() {
    svm::Vmcb& block = vmcb();
    entries.push_back(block);
    // VMRUN refuses what the manual says; here that is our bug. [amd/vol2] 15.5.1
    EXPECT_NE(block.control.asid, 0U);
    EXPECT_NE(block.save.efer & vm::efer::SVME, 0U);
    EXPECT_TRUE(block.control.intercepts.has(exit_code::VMRUN));
    check_avic(block);
    using svm::EventInfo;
    if (EventInfo const event = block.control.event_injection;
        event.get<EventInfo::Valid>() && event.get<EventInfo::Type>() == EventInfo::exception) {
        EXPECT_LT(event.get<EventInfo::Vector>(), lib::x86::exception_vectors);
        EXPECT_NE(event.get<EventInfo::Vector>(), lib::x86::exception_nmi);
    }
    block.control.event_injection = {}; // the CPU clears it
    block.control.exit_int_info = {};
    block.control.next_rip = 0;
    if (next_ >= script_.size()) {
        next_++;
        vcpu().post(vm::request::leave);
        block.control.exit_code = exit_code::INTR;
        return;
    }
    Exit const exit = script_[next_++]; // a copy: what it calls may run another vCPU
    take_virtual_interrupt(block, exit.code);
    block.control.exit_code = exit.code;
    block.control.exit_info_1 = exit.info_1;
    block.control.exit_info_2 = exit.info_2;
    if (exit.before) exit.before(block);
}

} // namespace amd_machine
