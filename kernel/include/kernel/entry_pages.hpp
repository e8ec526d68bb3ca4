// SPDX-License-Identifier: MIT
#pragma once
// What is mapped of Mullion while ring 3 runs. A CPU that is open to Meltdown lets ring 3 find out, by the caches, what
// any mapped page holds, although the page is closed to it. On such a CPU the tables of a service have only the pages
// below, none of which holds a secret, and the way into ring 0 loads Mullion's own tables (kernel/src/user_entry.S).
// No page is global then, because the TLB keeps such a page when other tables are loaded. [intel/meltdown]
#include <kernel/page_entry.hpp>
#include <kernel/translation_table.hpp>
#include <lib/result.hpp>
#include <optional>

namespace kernel {

struct UserContext;

// Decides it for the machine and logs it; nothing: as the CPU needs it. After detect_cpu_features(), before
// enable_cpu_protections().
void choose_service_page_tables(std::optional<bool> wanted);
bool has_service_page_tables();

// Maps, where Mullion itself has them: the code of all ways into ring 0 and out of it, the IDT, each CPU's
// DescriptorTables, and the registers of the one service that runs on this table.
lib::Result<void> map_entry_pages(TranslationTable<PageEntry>& table, UserContext const& context);

} // namespace kernel
