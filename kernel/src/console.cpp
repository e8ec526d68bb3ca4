#include <kernel/console.hpp>

namespace kernel {
namespace {

constexpr u8 ctrl_a = 0x01;
constexpr std::string_view help_text = "\nCtrl-A h  this help\n"
                                       "Ctrl-A c  Mullion's monitor, and back to the guest\n"
                                       "Ctrl-A x  quit (scripts/run only; on a machine: Ctrl-A c, poweroff)\n"
                                       "Ctrl-A Ctrl-A  sends Ctrl-A\n";

constinit Console the_console;

} // namespace

Console& console() { return the_console; }

void Console::put(u8 byte) {
    while (!output_.push(byte)) {
        // Full although guests leave a reserve: the line is slower than the log. Make room by waiting for it; what was
        // taken from the queue before goes out before.
        auto const oldest = output_.pop();
        if (!oldest || port_ == nullptr) continue;
        send_unsent();
        port_->write_all({&*oldest, 1});
    }
    at_line_start_ = byte == '\n';
}

void Console::write_log(std::string_view text) {
    InterruptGuard const no_interrupts;
    output_lock_.lock();
    // A line of ours begins on a line of its own, even in the middle of a guest's.
    if (!at_line_start_ && !text.empty() && text[0] == '[') {
        put('\r');
        put('\n');
    }
    for (char const c : text) {
        if (c == '\n') put('\r');
        put(static_cast<u8>(c));
    }
    output_lock_.unlock();
    send_queued();
}

u32 Console::write(ConsoleUser& user, std::span<u8 const> bytes) {
    if (current() != &user && owner_ != &user) return static_cast<u32>(bytes.size()); // nobody looks: let it run on
    InterruptGuard const no_interrupts;
    output_lock_.lock();
    u32 const room = output_.space() > log_reserve ? output_.space() - log_reserve : 0;
    u32 const count = static_cast<u32>(std::min<std::size_t>(room, bytes.size()));
    output_.push_some(bytes.first(count));
    if (count > 0) at_line_start_ = bytes[count - 1] == '\n';
    if (count < bytes.size()) guest_waits_for_space_ = true;
    if (port_ != nullptr) send_locked();
    output_lock_.unlock();
    return count;
}

void Console::send_queued() {
    if (port_ == nullptr) return;
    InterruptGuard const no_interrupts;
    output_lock_.lock();
    send_locked();
    output_lock_.unlock();
}

void Console::send_locked() {
    for (;;) {
        if (unsent_begin_ == unsent_end_) {
            unsent_begin_ = 0;
            unsent_end_ = output_.pop_some(unsent_);
            if (unsent_end_ == 0) break;
        }
        u32 const sent = port_->write_some({unsent_.data() + unsent_begin_, unsent_end_ - unsent_begin_});
        if (sent == 0) break;
        unsent_begin_ += sent;
    }
}

void Console::send_unsent() {
    if (unsent_begin_ != unsent_end_) port_->write_all({unsent_.data() + unsent_begin_, unsent_end_ - unsent_begin_});
    unsent_begin_ = unsent_end_ = 0;
}

void Console::flush() {
    if (port_ == nullptr) return;
    send_unsent();
    while (auto const byte = output_.pop())
        port_->write_all({&*byte, 1});
}

void Console::pump() {
    if (is_pumping_) return; // a user called back into us
    is_pumping_ = true;
    send_queued();
    if (receive() && current() != nullptr) current()->on_console_input();
    if (guest_waits_for_space_ && output_.space() > 2 * log_reserve) {
        guest_waits_for_space_ = false;
        if (owner_ != nullptr) owner_->on_console_space();
        if (in_monitor_ && monitor_ != nullptr) monitor_->on_console_space();
    }
    is_pumping_ = false;
}

bool Console::receive() {
    if (port_ == nullptr) return false;
    bool got_any = false;
    for (;;) {
        std::array<u8, 16> bytes{};
        // An escape can add a line of help, never an input byte: room for what is read is room enough.
        u32 const room = std::min<u32>(input_.space(), bytes.size());
        if (room == 0 && current() == nullptr) { // nobody will ever read it, and Ctrl-A must get through
            discard_input();
            continue;
        }
        if (room == 0) {
            is_throttled_ = true;
            port_->set_input_wanted(false);
            break;
        }
        u32 const count = port_->read_some({bytes.data(), room});
        if (count == 0) break;
        for (u32 i = 0; i < count; i++)
            accept(bytes[i]);
        got_any = true;
    }
    return got_any;
}

void Console::accept(u8 byte) {
    if (escape_ == Escape::Prefix) {
        escape_ = Escape::None;
        escape(byte);
    } else if (byte == ctrl_a) {
        escape_ = Escape::Prefix;
    } else {
        input_.push(byte);
    }
}

void Console::escape(u8 byte) {
    switch (byte) {
    case 'c':
        if (in_monitor_)
            leave_monitor();
        else
            enter_monitor();
        break;
    case ctrl_a: input_.push(ctrl_a); break;
    default: write_log(help_text); break;
    }
}

void Console::discard_input() {
    while (input_.pop()) {
    }
    if (!is_throttled_) return;
    is_throttled_ = false;
    if (port_ != nullptr) port_->set_input_wanted(true);
}

void Console::enter_monitor() {
    if (monitor_ == nullptr || in_monitor_) return;
    in_monitor_ = true;
    discard_input(); // what was typed for the guest is not a command
    monitor_->on_console_space();
}

void Console::leave_monitor() {
    in_monitor_ = false;
    discard_input();
    if (owner_ != nullptr) owner_->on_console_space();
}

u32 Console::read(ConsoleUser& user, std::span<u8> bytes) {
    if (current() != &user) return 0;
    u32 count = take_input(bytes);
    if (!is_throttled_ || input_.space() < input_size / 2) return count;
    is_throttled_ = false;
    if (port_ != nullptr) port_->set_input_wanted(true);
    if (is_pumping_) return count;
    is_pumping_ = true;
    bool const is_more = receive();
    // The reader gets what there is by its own calls: calling it back would give it later bytes first. Unless it has
    // just lost the line by Ctrl-A.
    if (current() == &user)
        count += take_input(bytes.subspan(count));
    else if (is_more && current() != nullptr)
        current()->on_console_input();
    is_pumping_ = false;
    return count;
}

u32 Console::take_input(std::span<u8> bytes) {
    u32 count = 0;
    while (count < bytes.size()) {
        auto const byte = input_.pop();
        if (!byte) break;
        bytes[count++] = *byte;
    }
    return count;
}

void Console::detach(ConsoleUser& user) {
    if (owner_ != &user) return;
    owner_ = nullptr;
    if (!in_monitor_) discard_input();
}

} // namespace kernel
