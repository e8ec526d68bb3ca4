// SPDX-License-Identifier: MIT
// The machine of the AVIC tests.
#include "svm/avic_machine.hpp"

namespace amd_machine {

AvicMachine::AvicMachine(u32 features, u32 signature) : SvmMachine(features), other_(std::make_unique<kernel::Cpu>()) {
    cpu.set_cpuid(1, {signature, 0x0001'0800, 1U << 21, 0x178b'fbff});
    cpu.populate_msr(svm::AVIC_DOORBELL, 0);
    kernel::this_cpu().apic_id = host_apic_id;
    other_->index = 1;
}

AvicMachine::~AvicMachine() { kernel::this_cpu().apic_id = 0; }

void AvicMachine::create_several(u32 vcpus, svm::Disabled const& disabled) {
    create(disabled, vcpus);
    settle();
}

void AvicMachine::start(u32 index) {
    current = index;
    if (vcpu().activity() == vm::Activity::WaitForSipi) vcpu().signal_startup(0x10);
    run({});
    vcpu().set_rflags(0x202);
    vcpu().apic().mmio_write(reg::SVR, 4, 0x1ff);
    run({});
    entries.clear();
}

svm::AvicMode AvicMachine::mode() {
    auto const control = vmcb().control.interrupt_control;
    if (!control.get<svm::InterruptControl::AvicEnable>()) return svm::AvicMode::Off;
    return control.get<svm::InterruptControl::X2AvicEnable>() ? svm::AvicMode::X2Apic : svm::AvicMode::XApic;
}

Exit AvicMachine::trapped(u32 offset, u32 value) {
    return {.code = exit_code::AVIC_NOACCEL, .info_1 = u64{1} << 32 | offset, .before = [offset, value](svm::Vmcb& b) {
                (*kernel::phys_to_virt<vm::ApicPage>(kernel::HostPhys{b.control.avic_backing_page}))[offset] = value;
            }};
}

Exit AvicMachine::before_access(u32 offset, bool is_write) {
    return {.code = exit_code::AVIC_NOACCEL, .info_1 = u64{is_write} << 32 | offset};
}

std::vector<u64> AvicMachine::doorbells() {
    std::vector<u64> rung;
    for (auto const& write : cpu.msr_writes)
        if (write.index == svm::AVIC_DOORBELL) rung.push_back(write.value);
    return rung;
}

std::optional<u64> AvicMachine::send(u64 icr) {
    using svm::IncompleteIpi;
    auto const incomplete = [](u32 cause, u32 index) { return u64{cause} << 32 | index; };
    auto const low = static_cast<u32>(icr), high = static_cast<u32>(icr >> 32);
    auto const vector = static_cast<u8>(low);
    u32 const shorthand = low >> 18 & 3, max_index = vm->vcpu_count() - 1;
    bool const is_x2apic = mode() == svm::AvicMode::X2Apic;
    u32 const destination = is_x2apic ? high : high >> 24;
    if ((low & 0x700) != 0 || (low & 0x8000) != 0) return incomplete(IncompleteIpi::invalid_type, 0);
    if (vector < 16) return incomplete(IncompleteIpi::invalid_vector, 0);
    if (shorthand == 1) {
        page().set(reg::IRR, vector);
        return {};
    }
    std::vector<u32> targets;
    bool const to_all = shorthand != 0 || destination == (is_x2apic ? ~0U : 0xffU);
    if (to_all) {
        for (u32 i = 0; i <= max_index; i++)
            if (is_valid(entry(i)) && (shorthand != 3 || i != current)) targets.push_back(i);
    } else if ((low & 0x800) == 0) {
        targets.push_back(destination);
    } else if (is_x2apic) {
        for (u32 i = 0; i < 16; i++)
            if ((destination >> i & 1) != 0) targets.push_back((destination >> 16 << 4) + i);
    } else {
        bool const is_flat = page()[reg::DFR] >> 28 == 0xf;
        u32 const first = is_flat ? 0 : (destination >> 4) * 4;
        for (u32 i = 0; i < (is_flat ? 8U : 4U); i++) {
            if ((destination >> i & 1) == 0) continue;
            if (first + i >= svm::AvicTables::logical_entries) return incomplete(IncompleteIpi::invalid_target, 0);
            auto const found = tables().logical(first + i);
            if (!found.get<svm::LogicalIdEntry::Valid>()) return incomplete(IncompleteIpi::invalid_target, first + i);
            targets.push_back(found.get<svm::LogicalIdEntry::PhysicalId>());
        }
    }
    for (u32 const target : targets)
        if (target > max_index || !is_valid(entry(target))) return incomplete(IncompleteIpi::invalid_target, target);
    std::optional<u64> result;
    for (u32 const target : targets) {
        auto& its_page =
            *kernel::phys_to_virt<vm::ApicPage>(kernel::HostPhys{entry(target).raw & svm::PhysicalIdEntry::page_mask});
        EXPECT_EQ(&its_page, &page(target));
        its_page.set(reg::IRR, vector);
        if (!is_running(entry(target))) result = incomplete(IncompleteIpi::target_not_running, target);
    }
    return result;
}

} // namespace amd_machine
