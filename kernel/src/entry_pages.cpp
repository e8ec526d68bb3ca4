// SPDX-License-Identifier: MIT
#include <kernel/cpus.hpp>
#include <kernel/entry_pages.hpp>
#include <kernel/log.hpp>
#include <kernel/page_table.hpp>
#include <kernel/user_context.hpp>

namespace kernel {
namespace {

constinit bool has_tables = false;

// linker/mullion.ld: whole pages of the section .entry
extern "C" char const entry_start[];
extern "C" char const entry_end[];

// Every pointer of Mullion's is in the upper half. In hosted tests, what is in the lower half stands for the same
// address in the upper.
HostVirt address_of(void const* pointer) { return HostVirt{reinterpret_cast<u64>(pointer) | 0xffff'8000'0000'0000}; }

} // namespace

void choose_service_page_tables(std::optional<bool> wanted) {
    bool const is_open = cpu_features().open_to_meltdown;
    has_tables = wanted.value_or(is_open);
    log_info("services: Mullion's memory is {} while they run{}: the CPU is {}open to Meltdown",
             has_tables ? "not mapped" : "mapped, closed to them,", wanted ? " (as the option says)" : "",
             is_open ? "" : "not ");
}

bool has_service_page_tables() { return has_tables; }

lib::Result<void> map_entry_pages(TranslationTable<PageEntry>& table, UserContext const& context) {
    auto const map = [&](void const* begin, u64 size, Rights rights) -> lib::Result<void> {
        for (u64 offset = 0; offset < size; offset += lib::page_size) {
            HostVirt const at = address_of(begin) + offset;
            HostPhys const to = TRY(kernel_page_table().translate(at));
            TRY(table.map({at, to, lib::page_size, rights}, [] {})); // no CPU has seen it: nothing is to be flushed
        }
        return {};
    };
    TRY(map(entry_start, static_cast<u64>(entry_end - entry_start), Rights::ReadExecute));
    TRY(map(interrupt_table().data(), interrupt_table().size_bytes(), Rights::Read));
    for (u32 i = 0; i < cpu_count(); i++)
        TRY(map(&cpu(i).tables, sizeof(DescriptorTables), Rights::ReadWrite));
    return map(&context, sizeof(context), Rights::ReadWrite);
}

} // namespace kernel
