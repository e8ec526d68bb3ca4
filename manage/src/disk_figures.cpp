// SPDX-License-Identifier: MIT
#include <algorithm>
#include <manage/disk_figures.hpp>

#include "count.hpp"

namespace manage {
namespace {

namespace service = lib::service;
using service::DiskStatistics;

constexpr u32 limits_line = 1, kinds_line = 2, errors_line = 8, latency_line = 9;
constexpr std::string_view kind_names[] = {"reads", "writes", "flushes", "clears", "others"};
static_assert(std::size(kind_names) == service::disk_request_kinds);
static_assert(kinds_line + 1 + service::disk_request_kinds == errors_line);

u64 sum_of_step(DiskStatistics const& said, u32 step) {
    u64 sum = 0;
    for (auto const& latencies : said.latencies)
        sum += std::min(latencies[step], ~u64{0} - sum);
    return sum;
}

void print_limits(lib::TextSink& sink, config::DiskDescription const& disk) {
    if (disk.iops == 0 && disk.bandwidth == 0) return sink.write("  no limit of rate\n");
    sink.write("  at most ");
    if (disk.iops != 0) lib::format(sink, "{} requests", disk.iops);
    if (disk.iops != 0 && disk.bandwidth != 0) sink.write(" and ");
    if (disk.bandwidth != 0) lib::format(sink, "{} KiB", disk.bandwidth / lib::KiB);
    sink.write(" a second\n");
}

// Steps before the first and after the last that has a request are left out.
void print_step(lib::TextSink& sink, DiskStatistics const& said, u32 step) {
    constexpr u64 longest_bar = 28;
    u64 most = 0, before = 0, after = 0;
    for (u32 i = 0; i < service::latency_steps; i++) {
        u64 const sum = sum_of_step(said, i);
        most = std::max(most, sum);
        if (i <= step) before |= sum;
        if (i >= step) after |= sum;
    }
    if (before == 0 || after == 0) return;
    bool const is_last = step + 1 == service::latency_steps;
    std::array<char, 24> label{};
    auto const text =
        lib::format_to(label, "{} {} us", is_last ? "from" : "below", u64{1} << (is_last ? step - 1 : step));
    lib::format(sink, "  {:<16}", text);
    for (auto const& latencies : said.latencies)
        lib::format(sink, " {:>10}", Count(latencies[step]).view());
    u64 const sum = sum_of_step(said, step), length = sum / (most / longest_bar + 1);
    for (u64 i = 0; i < std::max<u64>(length, sum == 0 ? 0 : 1); i++)
        sink.write(i == 0 ? " #" : "#");
    sink.write("\n");
}

} // namespace

void print_disk_source(lib::TextSink& sink, config::DiskDescription const& disk) {
    switch (disk.kind) {
    case config::DiskKind::Ram: return lib::format(sink, "memory, {} KiB", disk.size / lib::KiB);
    case config::DiskKind::Module: return lib::format(sink, "copy of module {}", disk.name);
    case config::DiskKind::Partition: return lib::format(sink, "partition {}", disk.name);
    case config::DiskKind::Disk: return lib::format(sink, "the machine's disk {}", disk.name);
    }
}

void print_disk_figures(lib::TextSink& sink, std::string_view vm, u32 number, config::DiskDescription const& disk,
                        DiskFigures const& figures, u32 line) {
    DiskStatistics const& said = figures.said;
    if (line == 0) {
        lib::format(sink, "{} disk {}: ", vm, number);
        print_disk_source(sink, disk);
        bool const has_size = figures.is_attached && disk.kind != config::DiskKind::Ram;
        if (has_size) lib::format(sink, ", {} KiB", figures.size / lib::KiB);
        return sink.write(disk.is_read_only ? ", read-only\n" : "\n");
    }
    if (line == limits_line) {
        print_limits(sink, disk);
        return sink.write(figures.is_attached ? "" : "  not in use: its VM does not run\n");
    }
    if (!figures.is_attached) return;
    if (line == kinds_line) return lib::format(sink, "  {:<16} {:>10} {:>10}\n", "requests", "number", "KiB");
    if (line < errors_line) {
        u32 const kind = line - kinds_line - 1;
        lib::format(sink, "  {:<16} {:>10} {:>10}\n", kind_names[kind], Count(said.requests[kind]).view(),
                    Count(said.bytes[kind] / lib::KiB).view());
    } else if (line == errors_line) {
        lib::format(sink, "  errors {}, under way {}, at most {}\n", Count(said.errors).view(), said.under_way,
                    said.most_under_way);
    } else if (line == latency_line) {
        bool has_any = false;
        for (u32 step = 0; step < service::latency_steps; step++)
            has_any = has_any || sum_of_step(said, step) != 0;
        if (has_any) lib::format(sink, "  {:<16} {:>10} {:>10} {:>10}\n", "latency", "reads", "writes", "flushes");
    } else if (line < disk_figure_lines) {
        print_step(sink, said, line - latency_line - 1);
    }
}

} // namespace manage
