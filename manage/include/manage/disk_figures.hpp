// SPDX-License-Identifier: MIT
#pragma once
// What an operator is shown of a guest's disk. The numbers come from the storage service: no line gets longer than a
// terminal by them, whatever they are.
#include <config/description.hpp>
#include <lib/format.hpp>
#include <lib/service_board.hpp>

namespace manage {

using lib::u32;
using lib::u64;

struct DiskFigures {
    bool is_attached = false; // else the rest means nothing
    u64 size = 0;             // bytes
    lib::service::DiskStatistics said{};
};

// "memory, 1024 KiB", "partition root".
void print_disk_source(lib::TextSink& sink, config::DiskDescription const& disk);

// Prints one of disk_figure_lines lines about disk `number` of a VM; many are empty.
inline constexpr u32 disk_figure_lines = 10 + lib::service::latency_steps;
void print_disk_figures(lib::TextSink& sink, std::string_view vm, u32 number, config::DiskDescription const& disk,
                        DiskFigures const& figures, u32 line);

} // namespace manage
