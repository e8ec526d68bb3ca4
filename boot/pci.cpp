// SPDX-License-Identifier: MIT
#include <boot/machine.hpp>
#include <boot/pci.hpp>
#include <kernel/cpu.hpp>
#include <kernel/log.hpp>
#include <kernel/page_table.hpp>
#include <kernel/panic.hpp>
#include <kernel/pci.hpp>
#include <lib/x86/instructions.hpp>

namespace boot {
namespace {

// These CPUs read and write it by way of EAX only, and never by two instructions of other CPUs at a time.
// [amd/bkdg-10h] 2.11.1
bool has_fragile_ecam() {
    constexpr u32 family_10h = 0x10;
    u32 const signature = lib::x86::cpuid(1).eax;
    return kernel::cpu_features().is_amd && (signature >> 8 & 0xf) + (signature >> 20 & 0xff) == family_10h;
}

lib::Result<lib::HostVirt> map_bus(HostPhys base, u64 size) { return kernel::map_device(base, size); }
constinit kernel::PciConfig config_space{kernel::PciConfig::Map::to_function<map_bus>()};

bool is_in_ram(Multiboot2 const& information, drivers::AcpiEcam const& ecam) {
    u64 const begin = ecam.base.value + u64{ecam.first_bus} * kernel::PciConfig::bus_size;
    u64 const end = ecam.base.value + (u64{ecam.last_bus} + 1) * kernel::PciConfig::bus_size;
    for (u32 i = 0; i < information.memory_range_count(); i++) {
        auto const range = information.memory_range(i);
        if (!range || !range->is_available()) continue;
        u64 const base = range->base.value;
        if (base >= begin ? base < end : begin - base < range->size) return true;
    }
    return false;
}

void find_config_space(Multiboot2 const& information) {
    config_space.find_ports();
    if (has_fragile_ecam()) return;
    for (auto const& ecam : acpi_info().ecams) {
        lib::Result<void> added = lib::fail(lib::Errc::BadFormat);
        if (!is_in_ram(information, ecam))
            added = config_space.add_ecam({ecam.base, ecam.segment, ecam.first_bus, ecam.last_bus});
        if (!added)
            kernel::log_warning(
                "pci: the firmware's MCFG table has buses {} to {} of segment {} at {:#x}, which is not "
                "believed: {}",
                ecam.first_bus, ecam.last_bus, ecam.segment, ecam.base, name_of(added.error()));
    }
}

void name_stopped(kernel::Pci& pci) {
    for (u32 i = 0; auto const* const function = pci.function(i); i++) {
        if (!function->was_stopped) continue;
        std::array<char, 16> text{};
        lib::BufferSink address(text);
        print(address, function->address);
        kernel::log_info("pci: {} ({:04x}:{:04x}, {}): bus mastering turned off, because nobody uses it",
                         address.view(), function->vendor, function->device, name_of(function->kind));
    }
}

} // namespace

void start_pci(Multiboot2 const& information, config::Options const& options) {
    if (!options.pci) return;
    find_config_space(information);
    auto* const pci = new (std::nothrow) kernel::Pci(config_space);
    if (pci == nullptr) kernel::refuse_to_start("there is too little memory", "add memory");
    kernel::set_machine_pci(pci);
    if (auto const found = pci->find_functions(); !found)
        kernel::log_warning("pci: some functions are left out: {}", name_of(found.error()));
    if (pci->count() == 0) return kernel::log_info("pci: this machine has none");
    kernel::log_info("pci: {} function{} on {} bus{}, reached by {}", pci->count(), pci->count() == 1 ? "" : "s",
                     pci->bus_count(), pci->bus_count() == 1 ? "" : "es",
                     config_space.ecam_count() != 0 ? "ECAM" : "ports");
    if (pci->stop_unowned() != 0) name_stopped(*pci);
}

} // namespace boot
