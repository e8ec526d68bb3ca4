// SPDX-License-Identifier: MIT
#include <kernel/console.hpp>
#include <utility>

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

class Console::OutputLock {
public:
    explicit OutputLock(Console& console) : guard_(console.output_lock_) {}

private:
    InterruptGuard no_interrupts_;
    LockGuard<decltype(output_lock_)> guard_;
};

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

void Console::put_text(std::string_view text) {
    for (char const c : text) {
        if (c == '\n') put('\r');
        put(static_cast<u8>(c));
    }
    send_locked();
}

void Console::write_log(std::string_view text) {
    OutputLock const locked(*this);
    // A line of ours begins on a line of its own, even in the middle of a guest's.
    if (!at_line_start_ && !text.empty() && text[0] == '[') {
        put('\r');
        put('\n');
    }
    put_text(text);
    log_writes_.fetch_add(1, std::memory_order_release);
}

void Console::print(std::string_view text) {
    OutputLock const locked(*this);
    put_text(text);
}

bool Console::has_room(u32 bytes) {
    OutputLock const locked(*this);
    bool const result = output_.space() > log_reserve + bytes;
    if (!result) user_waits_for_space_.store(true, std::memory_order_relaxed);
    return result;
}

u32 Console::write(ConsoleUser& user, std::span<u8 const> bytes) {
    OutputLock const locked(*this);
    u32 count = static_cast<u32>(bytes.size());
    if (current() != &user) {
        for (u8 const byte : bytes) {
            if (user.held_.is_full()) user.held_.pop();
            user.held_.push(byte);
        }
    } else {
        release_held_locked(user);
        u32 const room = output_.space() > log_reserve && user.held_.is_empty() ? output_.space() - log_reserve : 0;
        count = std::min(room, count);
        output_.push_some(bytes.first(count));
        if (count > 0) at_line_start_ = bytes[count - 1] == '\n';
        if (count < bytes.size()) user_waits_for_space_.store(true, std::memory_order_relaxed);
        send_locked();
    }
    return count;
}

// What was written without the line, as far as there is room.
void Console::release_held_locked(ConsoleUser& user) {
    while (!user.held_.is_empty() && output_.space() > log_reserve) {
        u8 const byte = *user.held_.pop();
        output_.push(byte);
        at_line_start_ = byte == '\n';
    }
    if (!user.held_.is_empty()) user_waits_for_space_.store(true, std::memory_order_relaxed);
}

void Console::release_held() {
    ConsoleUser* const user = current();
    if (user == nullptr) return;
    OutputLock const locked(*this);
    release_held_locked(*user);
    send_locked();
}

void Console::send_queued() {
    OutputLock const locked(*this);
    send_locked();
}

void Console::send_locked() {
    if (port_ == nullptr) return;
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

// Users are told without the lock: who has been told reads, or prints, at once.
class Console::InputLock {
public:
    // Later: by CPU 0's run loop. For callers whom the platform calls under its lock, which users take when they are
    // told.
    enum class Tell : u8 { Now, Later };
    explicit InputLock(Console& console, Tell when = Tell::Now) : console_(console), when_(when) {
        console_.input_lock_.lock();
    }
    ~InputLock() {
        Told const told = when_ == Tell::Now ? std::exchange(console_.told_, {}) : console_.told_;
        console_.input_lock_.unlock();
        if (told == Told{}) return;
        if (when_ == Tell::Later) {
            defer(0, console_.tell_later_);
            return;
        }
        if (told.of_input != nullptr) told.of_input->on_console_input();
        if (told.monitor_of_space != nullptr) told.monitor_of_space->on_console_space();
        if (told.owner_of_space != nullptr) told.owner_of_space->on_console_space();
    }
    InputLock(InputLock const&) = delete;
    InputLock& operator=(InputLock const&) = delete;

private:
    Console& console_;
    Tell const when_;
    InterruptGuard no_interrupts_;
};

void Console::tell() { InputLock const locked(*this); }

void Console::pump() {
    send_queued();
    InputLock const locked(*this);
    release_held();
    if (receive()) told_.of_input = current();
    if (!user_waits_for_space_.load(std::memory_order_relaxed) || output_.space() <= 2 * log_reserve) return;
    user_waits_for_space_.store(false, std::memory_order_relaxed);
    told_.owner_of_space = owner_;
    if (in_monitor_) told_.monitor_of_space = monitor_;
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
    case 'c': switch_to_monitor(!in_monitor_); break;
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

void Console::switch_to_monitor(bool on) {
    if (monitor_ == nullptr || in_monitor_ == on) return;
    if (!on) say_whose_line_it_is(); // before what that one wrote meanwhile
    in_monitor_ = on;
    discard_input(); // what was typed for the guest is not a command, and the other way round
    told_.monitor_of_space = monitor_;
    if (on) return;
    told_.owner_of_space = owner_;
    release_held();
}

void Console::say_whose_line_it_is() {
    ConsoleUser const* const owner = owner_;
    if (owner == nullptr) return print("\nno VM has the console; Ctrl-A c opens the monitor\n");
    print("\nconsole of ");
    print(owner->console_name());
    print(owner->is_console_dead() ? ", which is paused: Ctrl-A c, then vm resume\n" : "\n");
}

void Console::enter_monitor() {
    InputLock const locked(*this);
    switch_to_monitor(true);
}

void Console::leave_monitor() {
    InputLock const locked(*this);
    switch_to_monitor(false);
}

u32 Console::read(ConsoleUser& user, std::span<u8> bytes) {
    if (current() != &user) return 0;
    InputLock const locked(*this, InputLock::Tell::Later);
    if (current() != &user) return 0; // it has just lost the line
    u32 count = take_input(bytes);
    if (!is_throttled_ || input_.space() < input_size / 2) return count;
    is_throttled_ = false;
    if (port_ != nullptr) port_->set_input_wanted(true);
    bool const is_more = receive();
    // The reader gets what there is by its own calls: calling it back would give it later bytes first. Unless it has
    // just lost the line by Ctrl-A.
    if (current() == &user)
        count += take_input(bytes.subspan(count));
    else if (is_more)
        told_.of_input = current();
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

void Console::attach(ConsoleUser& user) {
    InputLock const locked(*this);
    if (owner_ == &user) return;
    owner_ = &user;
    if (in_monitor_) return;
    discard_input(); // it was typed for somebody else
    release_held();
}

void Console::detach(ConsoleUser& user) {
    InputLock const locked(*this);
    if (told_.of_input == &user) told_.of_input = nullptr;
    if (told_.owner_of_space == &user) told_.owner_of_space = nullptr;
    if (owner_ != &user) return;
    {
        OutputLock const output_locked(*this);
        while (auto const byte = user.held_.pop())
            put(*byte);
        send_locked();
    }
    owner_ = nullptr;
    if (!in_monitor_) discard_input();
}

} // namespace kernel
