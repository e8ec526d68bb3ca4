// SPDX-License-Identifier: MIT
#include <algorithm>
#include <kernel/cpus.hpp>
#include <manage/monitor.hpp>

namespace manage {
namespace {

constexpr std::size_t longest_compared = 24;

// How many letters to insert, drop or replace to make one of the other.
unsigned distance(std::string_view a, std::string_view b) {
    if (a.size() > longest_compared || b.size() > longest_compared) return ~0U;
    std::array<unsigned, longest_compared + 1> row{};
    for (unsigned i = 0; i <= b.size(); i++)
        row[i] = i;
    for (std::size_t i = 0; i < a.size(); i++) {
        unsigned diagonal = row[0]++;
        for (std::size_t j = 0; j < b.size(); j++) {
            unsigned const replaced = diagonal + (a[i] == b[j] ? 0 : 1);
            diagonal = row[j + 1];
            row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
        }
    }
    return row[b.size()];
}

constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

} // namespace

bool Monitor::is_word(std::string_view typed, std::string_view word) {
    return std::ranges::equal(typed, word, {}, lower, lower);
}

Monitor::Monitor(VmControl& vms, kernel::Console& console, lib::Delegate<void()> wake)
    : vms_(vms), console_(console), wake_(wake), refresh_timer_(kernel::Timer::Callback::to<&Monitor::refresh>(*this)) {
    editor_.set_completer(kernel::LineEditor::Completer::to<&Monitor::complete>(*this));
}

void Monitor::wake() {
    has_work_.store(true, std::memory_order_release);
    wake_();
}

void Monitor::run_pending() {
    bool const has_work = has_work_.exchange(false, std::memory_order_acquire);
    if (console_.is_in_monitor() != is_open_) {
        if (is_open_)
            close();
        else
            open();
    }
    if (!is_open_) return;
    if (has_work) work();
    terminal_.flush();
    redraw_if_cut();
}

void Monitor::work() {
    if (mode_ == Mode::Top && is_refresh_due_.exchange(false, std::memory_order_relaxed)) draw_top();
    if (is_printing()) {
        continue_printing();
        prompt();
    }
    u8 byte = 0;
    while (!is_printing() && console_.is_in_monitor() && console_.read(*this, {&byte, 1}) == 1) {
        terminal_.flush();
        redraw_if_cut();
        take(byte);
    }
}

// A line of the log, or of a guest, has come in between.
void Monitor::redraw_if_cut() {
    if (mode_ != Mode::Line || !console_.is_in_monitor()) return;
    u32 const writes = console_.log_writes();
    if (writes == seen_log_writes_ && !console_.is_at_line_start()) return;
    seen_log_writes_ = writes;
    editor_.redraw();
    terminal_.flush();
}

void Monitor::open() {
    is_open_ = true;
    mode_ = Mode::Line;
    terminal_.write("\nMullion's monitor: help lists the commands, Ctrl-A c goes back\n");
    editor_.begin();
}

void Monitor::close() {
    if (mode_ == Mode::Top) kernel::cancel_timer(refresh_timer_);
    is_open_ = false;
    mode_ = Mode::Line;
}

void Monitor::prompt() {
    if (mode_ == Mode::Line) editor_.begin();
}

void Monitor::take(u8 byte) {
    if (mode_ == Mode::Top) { // any key ends it
        kernel::cancel_timer(refresh_timer_);
        mode_ = Mode::Line;
        return prompt();
    }
    if (!editor_.put(byte)) return;
    execute(editor_.line());
    if (console_.is_in_monitor()) prompt();
}

void Monitor::execute(std::string_view line) {
    Words words;
    while (!line.empty()) {
        auto const word = line.substr(0, line.find(' '));
        line.remove_prefix(std::min(word.size() + 1, line.size()));
        if (!word.empty() && !words.push_back(word))
            return lib::format(terminal_, "too many words: no command has more than {}\n", max_words);
    }
    if (words.is_empty()) return;
    for (Command const& command : commands()) {
        bool const has_object = !command.object().empty();
        if (!is_word(words[0], command.verb())) continue;
        if (has_object && (words.size() < 2 || !is_word(words[1], command.object()))) continue;
        Words arguments;
        for (u32 i = has_object ? 2 : 1; i < words.size(); i++)
            (void)arguments.push_back(words[i]); // fewer than fitted before
        if (arguments.size() < command.least || arguments.size() > command.most) return print_usage(command);
        return (this->*command.run)(arguments);
    }
    unknown(words);
}

void Monitor::unknown(Words const& words) {
    // Two words belong together when the first is known.
    bool is_verb = false;
    for (Command const& command : commands())
        is_verb = is_verb || is_word(words[0], command.verb());
    if (is_verb && words.size() == 1) {
        lib::format(terminal_, "{}: expected one of", words[0]);
        for (Command const& command : commands())
            if (is_word(words[0], command.verb())) lib::format(terminal_, " {}", command.object());
        return lib::format(terminal_, "; try help {}\n", words[0]);
    }
    std::string_view const wrong = words[is_verb ? 1 : 0];
    std::string_view nearest;
    unsigned best = 3; // further away is no typing error
    for (Command const& command : commands()) {
        if (is_verb && !is_word(words[0], command.verb())) continue;
        if (!is_verb && is_word(wrong, command.object())) { // "list" alone
            nearest = command.name;
            break;
        }
        auto const word = is_verb ? command.object() : command.verb();
        unsigned const here = distance(wrong, word);
        if (here >= best || here >= word.size()) continue;
        best = here;
        nearest = is_verb ? command.name : word;
    }
    lib::format(terminal_, "unknown command {}{}{}; try help", is_verb ? words[0] : "", is_verb ? " " : "", wrong);
    if (!nearest.empty()) lib::format(terminal_, " (did you mean {}?)", nearest);
    terminal_.write("\n");
}

void Monitor::complete(std::string_view before, kernel::Completions& completions) {
    while (!before.empty() && before.back() == ' ')
        before.remove_suffix(1);
    bool const is_help = before == "help" || before.starts_with("help ");
    if (is_help) before.remove_prefix(std::min<std::size_t>(before.size(), 5));
    std::string_view last;
    for (Command const& command : commands()) {
        if (before.empty() && command.verb() != last) completions.offer(last = command.verb());
        if (!command.object().empty() && command.verb() == before) completions.offer(command.object());
        bool const takes_name = command.arguments.starts_with("NAME") || command.arguments.starts_with("[NAME");
        if (!is_help && command.name == before && takes_name)
            command.verb() == "service" ? offer_services(completions) : offer_vms(completions);
        if (!is_help && command.name == "vm set" && before.starts_with("vm set ")) offer_settings(completions);
    }
}

void Monitor::offer_vms(kernel::Completions& completions) {
    for (u32 i = 0; i < vms_.vm_count(); i++)
        completions.offer(vms_.vm_status(i).name);
}

void Monitor::offer_settings(kernel::Completions& completions) {
    for (auto const* const word : {"cpus=", "exclusive=true", "exclusive=false", "weight=", "cap="})
        completions.offer(word);
}

// As much as the line takes now; the rest when it has room again.
void Monitor::continue_printing() {
    constexpr std::size_t piece = 256;
    while (position_ < end_) {
        if (!console_.has_room(2 * piece)) return;
        if (print_some(std::min(piece, end_ - position_)) == 0) break;
    }
    mode_ = Mode::Line;
}

// Returns how much that was; 0: there is no more.
std::size_t Monitor::print_some(std::size_t most) {
    if (mode_ == Mode::Log) {
        std::array<char, 256> buffer{};
        auto const text = kernel::read_log(position_, std::span(buffer).first(std::min(most, buffer.size())));
        terminal_.write(text);
        return text.size();
    }
    if (mode_ == Mode::Pci) {
        kernel::PciFunction const* const function = kernel::machine_pci()->function(static_cast<u32>(position_));
        if (function == nullptr) return 0;
        print_pci(*function);
        position_++;
        return 1;
    }
    if (mode_ == Mode::DiskFigures) {
        print_figures(static_cast<u32>(position_++));
        return 1;
    }
    if (mode_ == Mode::Ports) {
        print_port_line(static_cast<u32>(position_++));
        return 1;
    }
    if (mode_ == Mode::Disks) return print_disk(static_cast<u32>(position_++)) ? 1 : 0;
    // It may be another one by now, if the VM has crashed again.
    auto const dump = vms_.vm_status(dump_vm_).crash_dump;
    auto const text = dump.substr(std::min(position_, dump.size()), most);
    terminal_.write(text);
    position_ += text.size();
    return text.size();
}

void Monitor::start_top() {
    mode_ = Mode::Top;
    draw_top();
}

void Monitor::draw_top() {
    terminal_.write("\x1b[2J\x1b[H");
    print_vms();
    terminal_.write("\n");
    print_cpus();
    terminal_.write("\nany key ends this\n");
    kernel::arm_timer(refresh_timer_, kernel::tsc_of(kernel::now() + Nanos{refresh_seconds * lib::nanos_per_second}));
}

} // namespace manage
