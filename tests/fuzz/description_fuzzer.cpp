// SPDX-License-Identifier: MIT
// Random descriptions: every message names a line of the file, and a description without messages keeps its promises.
#include "require.hpp"

#include <algorithm>
#include <config/description.hpp>
#include <memory>
#include <string>

namespace {

using fuzz::require;

} // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    std::string const text(data, data + size);
    auto const description = std::make_unique<config::Description>();
    auto const diagnostics = std::make_unique<config::Diagnostics>();
    bool const good = config::parse_description(text, *description, *diagnostics);
    auto const lines = static_cast<lib::u32>(std::ranges::count(text, '\n')) + 1;
    for (lib::u32 i = 0; i < diagnostics->count; ++i) {
        config::Diagnostic const& diagnostic = diagnostics->entries[i];
        require(diagnostic.line >= 1 && diagnostic.line <= lines && diagnostic.column >= 1);
        require(!diagnostic.message().empty());
        require(std::ranges::all_of(diagnostic.message(), [](char c) { return c >= ' ' && c <= '~'; }));
    }
    require(good == (diagnostics->count == 0));
    if (!good) return 0;
    require(description->count >= 1 && description->count <= config::max_vms);
    for (lib::u32 i = 0; i < description->count; ++i) {
        config::VmDescription const& vm = description->vms[i];
        require(!vm.name.empty() && !vm.kernel.empty() && vm.memory >= 16 * lib::MiB &&
                vm.memory % (2 * lib::MiB) == 0);
        require(vm.disk_count <= config::max_disks);
        for (config::DiskDescription const& disk : vm.all_disks()) {
            bool const is_named = disk.kind != config::DiskKind::Ram;
            require(is_named ? !disk.name.empty() : disk.size >= lib::MiB && disk.size % 4096 == 0);
            require(!disk.serial.empty() && disk.serial.size() <= config::max_disk_serial);
            require(disk.line >= 1 && disk.source_line > disk.line && disk.source_line <= lines);
        }
        require(vm.nic_count <= config::max_nics);
        for (config::NicDescription const& nic : vm.all_nics()) {
            require(nic.network < description->network_count && (nic.mac[0] & 1) == 0);
            require(description->networks[nic.network].name == nic.network_name);
            require(nic.line >= 1 && nic.network_line > nic.line && nic.network_line <= lines);
        }
        require(vm.vcpus >= 1 && vm.vcpus <= config::max_vcpus && vm.line >= 1);
    }
    return 0;
}
