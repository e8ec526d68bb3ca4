// SPDX-License-Identifier: MIT
#include <boot/cpu_setup.hpp>
#include <drivers/microcode.hpp>
#include <kernel/cpu.hpp>
#include <kernel/direct_map.hpp>
#include <kernel/log.hpp>
#include <kernel/machine_check.hpp>

namespace boot {

void CpuSetup::find_microcode(Multiboot2 const& information) {
    for (u32 i = 0; i < information.module_count(); i++) {
        auto const module = information.module(i);
        if (!module || !module->string.starts_with("microcode")) continue;
        if (!files_.push_back({kernel::phys_to_virt<u8>(module->start), module->size()}))
            kernel::log_warning("microcode: more than {} files; the others are not looked at", most_files);
    }
}

void CpuSetup::prepare_boot_cpu() {
    kernel::lift_firmware_limits();
    kernel::enable_machine_checks();
    auto const result = drivers::update_microcode({files_.begin(), files_.size()}, kernel::cpu_features().is_amd);
    kernel::set_microcode_revision(result.after);
    kernel::detect_cpu_features();
    kernel::make_lfence_serialising();
    if (result.was_refused)
        kernel::log_warning("microcode: the CPU does not take the update; it stays at revision {:#x}", result.after);
    else if (result.after != result.before)
        kernel::log_info("microcode: revision {:#x}, updated from {:#x}", result.after, result.before);
    else if (files_.size() != 0)
        kernel::log_info("microcode: revision {:#x}; the files have nothing newer for this CPU", result.after);
}

std::expected<void, vm::Refusal> CpuSetup::prepare_other_cpu() {
    kernel::lift_firmware_limits();
    kernel::enable_machine_checks();
    auto const result = drivers::update_microcode({files_.begin(), files_.size()}, kernel::cpu_features().is_amd);
    kernel::make_lfence_serialising();
    // What CPUID says may depend on it, and so may what guests rely on.
    if (result.after != kernel::microcode_revision())
        kernel::log_warning("microcode: CPU {} has revision {:#x}, the boot CPU {:#x}", kernel::this_cpu().index,
                            result.after, kernel::microcode_revision());
    return backend_->enable_on_this_cpu();
}

} // namespace boot
