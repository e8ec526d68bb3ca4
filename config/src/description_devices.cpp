// SPDX-License-Identifier: MIT
#include "description_parser.hpp"
#include "description_values.hpp"
#include <algorithm>

namespace config {
namespace {

constexpr std::array<std::string_view, max_disks> default_serials = {"mullion-0", "mullion-1", "mullion-2",
                                                                     "mullion-3"};
constexpr u64 least_disk = lib::MiB;
constexpr u64 most_disk = 1024 * lib::GiB;
constexpr u64 disk_step = 4 * lib::KiB;
constexpr u32 most_iops = 10'000'000;
constexpr u64 least_bandwidth = 64 * lib::KiB; // bytes a second
constexpr u64 most_bandwidth = 1024 * lib::GiB;

} // namespace

void DescriptionParser::device_header(std::string_view name, std::string_view kind, u32 line, u32 column) {
    auto const vms = std::span(out_.vms).first(out_.count);
    auto const found = std::ranges::find(vms, name, &VmDescription::name);
    if (found == vms.end()) {
        diagnostics_.add(line, column, "[[vm.{}.{}]]: expected after [vm.{}], found none above it: move or add that",
                         short_of(name), kind, short_of(name));
        if (!without_devices_.push_back(name)) has_dropped_names_ = true;
        return;
    }
    return kind == vm_table_names[0] ? disk_header(*found, line, column) : nic_header(*found, line, column);
}

void DescriptionParser::disk_header(VmDescription& vm, u32 line, u32 column) {
    if (vm.disk_count == max_disks) {
        diagnostics_.add(line, column, "[[vm.{}.disk]]: expected at most {} disks, found more: remove some", vm.name,
                         max_disks);
        vm.is_refused = true;
        return;
    }
    vm_ = &vm;
    disk_ = &vm.disks[vm.disk_count];
    disk_->serial = default_serials[vm.disk_count++];
    disk_->line = line;
    disk_lines_ = {};
    section_ = Section::Disk;
}

void DescriptionParser::set_of_disk(std::string_view word, Value const& value, u32 line, u32 column) {
    auto const* const found = std::ranges::find(disk_key_names, word);
    if (found == disk_key_names.end()) return unknown("key of a disk", word, disk_key_names, line, column);
    auto const which = static_cast<std::size_t>(found - disk_key_names.begin());
    if (disk_lines_[which] != 0) {
        diagnostics_.add(line, column, "{}: expected once, found also in line {}: remove one", word,
                         disk_lines_[which]);
        return;
    }
    disk_lines_[which] = line;
    switch (static_cast<DiskKey>(which)) {
    case DiskKey::Source: return set_source(value);
    case DiskKey::Readonly: return set_boolean(word, value, disk_->is_read_only);
    case DiskKey::Serial: return set_serial(value);
    case DiskKey::Iops: return set_number(word, value, 1, most_iops, disk_->iops);
    case DiskKey::Bandwidth: return set_bandwidth(value);
    }
}

void DescriptionParser::set_source(Value const& value) {
    disk_->source_line = value.line;
    std::string_view text;
    if (value.type == ValueType::String && !take_text("source", value, text)) return;
    struct Named {
        std::string_view prefix;
        DiskKind kind;
    };
    constexpr std::string_view ram = "ram:";
    for (auto const& [prefix, kind] :
         {Named{"module:", DiskKind::Module}, Named{"gpt:", DiskKind::Partition}, Named{"disk:", DiskKind::Disk}}) {
        if (!text.starts_with(prefix) || text.size() == prefix.size()) continue;
        disk_->kind = kind;
        disk_->name = text.substr(prefix.size());
        return;
    }
    if (!text.starts_with(ram))
        return at(
            value,
            "source: expected \"gpt:LABEL\", \"disk:SERIAL\", \"module:NAME\" or \"ram:SIZE\", found {}: choose one",
            short_of(value.source));
    auto const size = parse_size(text.substr(ram.size()));
    if (!size)
        return at(value,
                  "source: expected a size such as \"ram:256M\" or \"ram:1 GiB\", found {}: write number and unit",
                  short_of(value.source));
    if (*size < least_disk || *size > most_disk)
        return at(value, "source: expected 1 MiB to 1 TiB, found {}: choose a size between", short_of(value.source));
    if (*size % disk_step != 0)
        return at(value, "source: expected a multiple of 4 KiB, found {}: write \"ram:{}K\"", short_of(value.source),
                  lib::align_up(*size, disk_step) / lib::KiB);
    disk_->size = *size;
}

void DescriptionParser::set_serial(Value const& value) {
    std::string_view text;
    if (value.type == ValueType::String && !take_text("serial", value, text)) return;
    bool const is_printable = std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
    if (text.empty() || text.size() > max_disk_serial || !is_printable)
        return at(value, "serial: expected a text of 1 to {} printable characters, found {}: write \"...\"",
                  max_disk_serial, short_of(value.source));
    disk_->serial = text;
}

void DescriptionParser::set_bandwidth(Value const& value) {
    auto const size = value.type == ValueType::String ? parse_size(value.string) : std::nullopt;
    if (!size)
        return at(value,
                  "bandwidth: expected bytes a second such as \"10M\" or \"1 GiB\", found {}: write number and unit in "
                  "quotes",
                  short_of(value.source));
    if (*size < least_bandwidth || *size > most_bandwidth)
        return at(value, "bandwidth: expected 64 KiB to 1 TiB a second, found {}: choose a number between",
                  short_of(value.source));
    disk_->bandwidth = *size;
}

} // namespace config
