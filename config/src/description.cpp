// SPDX-License-Identifier: MIT
#include "description_parser.hpp"
#include "description_values.hpp"
#include <algorithm>
#include <utility>

namespace config {
namespace {

constexpr u64 least_memory = 16 * lib::MiB;
constexpr u64 most_memory = 16 * 1024 * lib::GiB;
constexpr u64 memory_step = 2 * lib::MiB; // what one large page maps

constexpr std::array<std::string_view, key_count> key_names = {
    "memory",  "vcpus", "cpus",    "exclusive", "share",     "kernel",  "initrd",
    "cmdline", "boot",  "console", "restart",   "autostart", "tsc_mhz", "modules"};
constexpr std::array<std::string_view, 6> boot_names = {"auto", "linux", "pvh", "elf", "multiboot1", "multiboot2"};
constexpr std::array<std::string_view, 2> console_names = {"com1", "none"};
constexpr std::array<std::string_view, 4> restart_names = {"never", "on-reboot", "on-failure", "always"};
constexpr std::array<std::string_view, 2> share_names = {"weight", "cap"};
constexpr std::array<std::string_view, 1> mullion_key_names = {"share_cores"};
constexpr std::array<std::string_view, 3> table_names = {"vm", "network", "mullion"};

// The nearest of `names` if it is near enough for a slip of the hand; else empty.
std::string_view nearest(std::string_view word, std::span<std::string_view const> names) {
    std::string_view best;
    u32 best_distance = 3;
    for (std::string_view const name : names)
        if (u32 const d = distance(word, name); d < best_distance && d < name.size()) {
            best = name;
            best_distance = d;
        }
    return best;
}

} // namespace

void DescriptionParser::run() {
    if (reader_.peek() == '\xef' && reader_.peek(1) == '\xbb' && reader_.peek(2) == '\xbf') reader_.skip(3);
    while (!reader_.at_end()) {
        reader_.skip_spaces();
        reader_.skip_comment();
        if (reader_.at_line_end())
            reader_.skip_line();
        else if (reader_.peek() == '[')
            counting([&] { header(); });
        else
            counting([&] { key_and_value(); });
    }
    find_networks_of_nics();
    for (u32 i = 0; i < out_.network_count; ++i) {
        network_ = &out_.networks[i];
        section_ = Section::Network;
        counting([&] { check_network(); });
    }
    for (u32 i = 0; i < out_.count; ++i) {
        vm_ = &out_.vms[i];
        section_ = Section::Vm;
        if (has_dropped_names_ || std::ranges::contains(without_devices_.span(), vm_->name)) vm_->is_refused = true;
        counting([&] { check(*vm_); });
    }
    if (out_.count == 0 && diagnostics_.is_empty())
        here("no virtual machine: expected at least one [vm.NAME], found none: add one");
}

// What may stand behind a header or a value.
void DescriptionParser::end_of_line() {
    reader_.skip_spaces();
    reader_.skip_comment();
    if (!reader_.at_line_end())
        here("expected the end of the line, found {}: start a new line", reader_.rest_of_line());
    reader_.skip_line();
}

void DescriptionParser::header() {
    u32 const line = reader_.line();
    u32 const column = reader_.column();
    section_ = Section::Skipped;
    reader_.skip();
    if (reader_.accept('[')) return array_header(line, column);
    reader_.skip_spaces();
    std::string_view const table = reader_.read_bare_word();
    reader_.skip_spaces();
    std::string_view name;
    bool const dotted = reader_.accept('.');
    if (dotted) {
        reader_.skip_spaces();
        name = reader_.read_bare_word();
        reader_.skip_spaces();
    }
    if (dotted && reader_.peek() == '.') {
        here("expected ] or [[vm.NAME.disk]], found \"{}\": write two brackets for a disk or a NIC",
             reader_.rest_of_line());
        return reader_.skip_line();
    }
    if (!reader_.accept(']')) {
        here("expected ] behind a name of letters, digits, - and _, found \"{}\": write [vm.NAME]",
             reader_.rest_of_line());
        return reader_.skip_line();
    }
    if (table == "vm") {
        vm_header(name, line, column);
    } else if (table == "network") {
        network_header(name, line, column);
    } else if (table == "mullion" && !dotted) {
        if (has_mullion_) diagnostics_.add(line, column, "[mullion]: expected once, found again: put both together");
        has_mullion_ = true;
        section_ = Section::Mullion;
    } else {
        unknown("table", table, table_names, line, column);
    }
    end_of_line();
}

void DescriptionParser::vm_header(std::string_view name, u32 line, u32 column) {
    if (name.empty() || name.size() > max_vm_name) {
        diagnostics_.add(line, column, "[vm.{}]: expected a name of 1 to {} characters, found {}: write [vm.NAME]",
                         short_of(name), max_vm_name, name.size());
        return;
    }
    for (u32 i = 0; i < out_.count; ++i)
        if (out_.vms[i].name == name) {
            diagnostics_.add(line, column,
                             "[vm.{}]: expected a new name, found the one of line {}: choose another name", name,
                             out_.vms[i].line);
            return;
        }
    if (out_.count == max_vms) {
        diagnostics_.add(line, column, "[vm.{}]: expected at most {} virtual machines, found more: remove some", name,
                         max_vms);
        return;
    }
    vm_ = &out_.vms[out_.count++];
    *vm_ = VmDescription{};
    vm_->name = name;
    vm_->line = line;
    section_ = Section::Vm;
}

// [[vm.NAME.disk]] and [[vm.NAME.nic]], after the brackets.
void DescriptionParser::array_header(u32 line, u32 column) {
    std::array<std::string_view, 3> words{};
    bool is_good = true;
    for (std::size_t i = 0; i < words.size() && is_good; ++i) {
        if (i != 0) is_good = reader_.accept('.');
        reader_.skip_spaces();
        words[i] = reader_.read_bare_word();
        reader_.skip_spaces();
        is_good = is_good && !words[i].empty();
    }
    auto const& [table, name, kind] = words;
    if (!is_good || table != "vm" || reader_.peek() != ']' || reader_.peek(1) != ']') {
        diagnostics_.add(
            line, column,
            "expected [[vm.NAME.disk]] or [[vm.NAME.nic]], found another table in two brackets: correct it, or "
            "write one bracket for [vm.NAME]");
        return reader_.skip_line();
    }
    reader_.skip(2);
    if (std::ranges::contains(vm_table_names, kind))
        device_header(name, kind, line, column);
    else
        unknown("table of a VM", kind, vm_table_names, line, column);
    end_of_line();
}

void DescriptionParser::unknown(std::string_view what, std::string_view word, std::span<std::string_view const> names,
                                u32 line, u32 column) {
    std::string_view const best = nearest(word, names);
    if (best.empty())
        diagnostics_.add(line, column, "{}: expected a known {}, found an unknown one: remove it", short_of(word),
                         what);
    else
        diagnostics_.add(line, column, "{}: expected a known {}, found an unknown one: did you mean {}?",
                         short_of(word), what, best);
}

void DescriptionParser::key_and_value() {
    u32 const line = reader_.line();
    u32 const column = reader_.column();
    std::string_view const word = reader_.read_bare_word();
    if (word.empty()) {
        here("expected a key or [vm.NAME], found \"{}\": write KEY = VALUE", reader_.rest_of_line());
        return reader_.skip_line();
    }
    reader_.skip_spaces();
    if (!reader_.accept('=')) {
        here("{}: expected = behind the key, found \"{}\": write KEY = VALUE", short_of(word), reader_.rest_of_line());
        return reader_.skip_line();
    }
    reader_.skip_spaces();
    auto const* const found = std::ranges::find(key_names, word);
    Value value;
    if (char const* const problem = reader_.read_value(value); problem != nullptr) {
        here("{}: {} \"{}\": correct the value", short_of(word), problem, reader_.rest_of_line());
        // Given, if badly: not a missing key as well.
        if (section_ == Section::Vm && found != key_names.end())
            vm_->lines[static_cast<std::size_t>(found - key_names.begin())] = line;
        if (section_ == Section::Disk && word == disk_key_names[0]) disk_->source_line = line;
        if (section_ == Section::Nic && word == nic_key_names[0]) nic_->network_line = line;
        return reader_.skip_line();
    }
    if (section_ == Section::None) {
        diagnostics_.add(line, column, "{}: expected [vm.NAME] before the first key, found none: add it above",
                         short_of(word));
    } else if (section_ == Section::Mullion) {
        set_of_mullion(word, value, line, column);
    } else if (section_ == Section::Disk) {
        set_of_disk(word, value, line, column);
    } else if (section_ == Section::Nic) {
        set_of_nic(word, value, line, column);
    } else if (section_ == Section::Network) {
        set_of_network(word, value, line, column);
    } else if (section_ == Section::Vm && word == "name") {
        diagnostics_.add(line, column, "name: expected in [vm.{}], found as a key: the name stands in the brackets",
                         vm_->name);
    } else if (section_ == Section::Vm && found == key_names.end()) {
        unknown("key", word, key_names, line, column);
    } else if (section_ == Section::Vm) {
        auto const key = static_cast<Key>(found - key_names.begin());
        u32& first = vm_->lines[static_cast<std::size_t>(key)];
        if (first != 0) {
            diagnostics_.add(line, column, "{}: expected once, found also in line {}: remove one", word, first);
        } else {
            first = line;
            set(key, value);
        }
    }
    end_of_line();
}

void DescriptionParser::set_of_mullion(std::string_view word, Value const& value, u32 line, u32 column) {
    if (word != mullion_key_names[0]) return unknown("key of [mullion]", word, mullion_key_names, line, column);
    if (share_cores_line_ != 0)
        diagnostics_.add(line, column, "{}: expected once, found also in line {}: remove one", word, share_cores_line_);
    share_cores_line_ = line;
    set_boolean(word, value, out_.share_cores);
}

void DescriptionParser::set(Key key, Value const& value) {
    switch (key) {
    case Key::Memory: return set_memory(value);
    case Key::Vcpus: return set_number("vcpus", value, 1, max_vcpus, vm_->vcpus);
    case Key::Cpus: return set_cpus(value);
    case Key::Exclusive: return set_boolean(name_of(key), value, vm_->exclusive);
    case Key::Share: return set_share(value);
    case Key::Kernel: return set_string(key, value, vm_->kernel);
    case Key::Initrd: return set_string(key, value, vm_->initrd);
    case Key::Cmdline: return set_string(key, value, vm_->cmdline);
    case Key::Boot: return set_choice(key, value, boot_names, vm_->boot);
    case Key::Console: return set_choice(key, value, console_names, vm_->console);
    case Key::Restart: return set_choice(key, value, restart_names, vm_->restart);
    case Key::Autostart: return set_boolean(name_of(key), value, vm_->autostart);
    case Key::TscMhz: return set_number("tsc_mhz", value, 1, 64'000, vm_->tsc_mhz);
    case Key::Modules: return set_modules(value);
    }
}

void DescriptionParser::set_memory(Value const& value) {
    auto const size = value.type == ValueType::String ? parse_size(value.string) : std::nullopt;
    if (!size)
        return at(value,
                  "memory: expected a size such as \"256M\" or \"1 GiB\", found {}: write number and unit in quotes",
                  short_of(value.source));
    if (*size < least_memory || *size > most_memory)
        return at(value, "memory: expected 16 MiB to 16 TiB, found {}: choose a size between", short_of(value.source));
    if (*size % memory_step != 0)
        return at(value, "memory: expected a multiple of 2 MiB, found {}: write \"{}M\"", short_of(value.source),
                  lib::align_up(*size, memory_step) / lib::MiB);
    vm_->memory = *size;
}

void DescriptionParser::set_cpus(Value const& value) {
    constexpr std::string_view expected =
        "cpus: expected processors such as \"1-2,4\" or [1, 2, 4], each below {}, found {}: correct the list";
    CpuSet cpus;
    bool good = value.type == ValueType::String ? parse_cpu_list(value.string, cpus) : value.type == ValueType::Array;
    if (value.type == ValueType::Array) {
        // read_value went through it once: it is well formed and ends.
        TomlReader inside = value.inside;
        for (;;) {
            inside.skip_spaces_and_lines();
            if (inside.accept(']')) break;
            Value item;
            if (inside.read_value(item) != nullptr) break;
            if (item.type != ValueType::Integer || item.integer < 0 || item.integer >= i64{max_cpus})
                good = false;
            else
                cpus.add(static_cast<u32>(item.integer));
            inside.skip_spaces_and_lines();
            inside.accept(',');
        }
    }
    if (!good || cpus.is_empty()) return at(value, expected, max_cpus, short_of(value.source));
    vm_->cpus = cpus;
}

void DescriptionParser::set_modules(Value const& value) {
    if (value.type != ValueType::Array)
        return at(value, "modules: expected a list such as [\"dom0.gz console=hvc0\"], found {}: write it in brackets",
                  short_of(value.source));
    for_each_item(value, &DescriptionParser::add_module);
}

void DescriptionParser::for_each_item(Value const& list, void (DescriptionParser::*add)(Value const&)) {
    TomlReader inside = list.inside;
    for (;;) {
        inside.skip_spaces_and_lines();
        if (inside.accept(']')) return;
        Value item;
        if (inside.read_value(item) != nullptr) return; // read_value went through it once: it is well formed
        (this->*add)(item);
        inside.skip_spaces_and_lines();
        inside.accept(',');
    }
}

void DescriptionParser::add_module(Value const& item) {
    if (item.type != ValueType::String || item.string.empty() || item.string.front() == ' ')
        return at(item, "modules: expected \"NAME\" or \"NAME COMMAND LINE\", found {}: write the module's name first",
                  short_of(item.source));
    if (vm_->module_count == max_modules)
        return at(item, "modules: expected at most {}, found more: remove some", max_modules);
    std::string_view text;
    if (!take_text(name_of(Key::Modules), item, text)) return;
    vm_->modules[vm_->module_count++] = {text.substr(0, text.find(' ')), text, item.line};
}

void DescriptionParser::set_share(Value const& value) {
    if (value.type != ValueType::Table)
        return at(value, "share: expected {{ weight = 1..10000, cap = 1..100 }, found {}: write it in braces",
                  short_of(value.source));
    TomlReader inside = value.inside;
    std::array<bool, 2> seen{};
    while (!inside.accept('}')) {
        inside.skip_spaces();
        u32 const column = inside.column();
        std::string_view const word = inside.read_bare_word();
        inside.skip_spaces();
        inside.accept('=');
        inside.skip_spaces();
        Value item;
        if (word.empty() || inside.read_value(item) != nullptr) return; // an empty table
        auto const which = static_cast<std::size_t>(std::ranges::find(share_names, word) - share_names.begin());
        if (which == share_names.size())
            unknown("key of share", word, share_names, value.line, column);
        else if (std::exchange(seen[which], true))
            diagnostics_.add(value.line, column, "share: expected {} once, found it again: remove one", word);
        else if (which == 0)
            set_number("share weight", item, 1, 10000, vm_->share.weight);
        else
            set_number("share cap", item, 1, 100, vm_->share.cap);
        inside.skip_spaces();
        inside.accept(',');
    }
}

void DescriptionParser::set_string(Key key, Value const& value, std::string_view& target) {
    if (value.type != ValueType::String)
        return at(value, "{}: expected a text in quotes, found {}: write \"...\"", name_of(key),
                  short_of(value.source));
    if (value.string.empty() && key != Key::Cmdline)
        return at(value, "{}: expected the name of a boot module, found nothing: write it or remove the line",
                  name_of(key));
    (void)take_text(name_of(key), value, target);
}

// False: there is no room, and a message says so.
bool DescriptionParser::take_text(std::string_view key, Value const& value, std::string_view& target) {
    target = value.string;
    if (!value.has_escapes) return true;
    std::span<char> const room = out_.take_pool(value.string.size());
    if (room.empty()) {
        at(value, "{}: expected at most 4096 characters with escapes, found more: use '...'", key);
        return false;
    }
    target = {room.data(), resolve_escapes(value.string, room.data())};
    return true;
}

void DescriptionParser::set_boolean(std::string_view key, Value const& value, bool& target) {
    if (value.type != ValueType::Boolean)
        return at(value, "{}: expected true or false, found {}: write it without quotes", key, short_of(value.source));
    target = value.boolean;
}

void DescriptionParser::set_number(std::string_view key, Value const& value, u32 least, u32 most, u32& target) {
    if (value.type != ValueType::Integer || value.integer < i64{least} || value.integer > i64{most})
        return at(value, "{}: expected a number from {} to {}, found {}: correct it", key, least, most,
                  short_of(value.source));
    target = static_cast<u32>(value.integer);
}

template <typename Enum>
void DescriptionParser::set_choice(Key key, Value const& value, std::span<std::string_view const> names, Enum& target) {
    if (value.type == ValueType::String)
        for (std::size_t i = 0; i < names.size(); ++i)
            if (names[i] == value.string) {
                target = static_cast<Enum>(i);
                return;
            }
    std::array<char, 80> buffer{};
    lib::BufferSink list(buffer);
    for (std::string_view const name : names)
        lib::format(list, list.view().empty() ? "\"{}\"" : ", \"{}\"", name);
    at(value, "{}: expected one of {}, found {}: choose one", name_of(key), list.view(), short_of(value.source));
}

// What only the whole table shows.
void DescriptionParser::check(VmDescription& vm) {
    for (Key const key : {Key::Memory, Key::Kernel})
        if (!vm.has(key))
            diagnostics_.add(vm.line, 1, "[vm.{}]: expected {} = ..., found none: add it", vm.name, name_of(key));
    for (DiskDescription const& disk : vm.all_disks())
        if (disk.source_line == 0)
            diagnostics_.add(disk.line, 1, "[[vm.{}.disk]]: expected source = ..., found none: add it", vm.name);
    check_nics(vm);
    if (vm.exclusive && vm.has(Key::Share))
        diagnostics_.add(vm.line_of(Key::Share), 1,
                         "share: expected only without exclusive = true, found both: remove one of them");
    if (vm.exclusive && !vm.cpus.is_empty() && vm.cpus.count() < vm.vcpus)
        diagnostics_.add(vm.line_of(Key::Cpus), 1,
                         "cpus: expected at least {} processors for exclusive vcpus, found {}: add processors",
                         vm.vcpus, vm.cpus.count());
}

std::string_view name_of(Key key) { return key_names[static_cast<std::size_t>(key)]; }

bool parse_description(std::string_view text, Description& out, Diagnostics& diagnostics) {
    out.clear();
    DescriptionParser(text, out, diagnostics).run();
    return diagnostics.is_empty();
}

void format_diagnostic(lib::TextSink& sink, std::string_view file, Diagnostic const& diagnostic) {
    lib::format(sink, "{}:{}: {}", file, diagnostic.line, diagnostic.message());
}

} // namespace config
