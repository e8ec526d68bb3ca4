// SPDX-License-Identifier: MIT
#pragma once
// One serial line shared by the log, the monitor and the guests' consoles. Everything written goes through one queue
// that the driver drains; what is typed goes to whoever has the line: a guest, or the monitor (Ctrl-A c).
#include <array>
#include <atomic>
#include <kernel/calls.hpp>
#include <kernel/spinlock.hpp>
#include <lib/delegate.hpp>
#include <lib/format.hpp>
#include <lib/ring.hpp>
#include <span>

namespace kernel {

using lib::u32;
using lib::u8;

// The hardware side, fulfilled by a driver.
class ConsolePort {
public:
    virtual u32 write_some(std::span<u8 const> bytes) = 0; // without waiting
    virtual u32 read_some(std::span<u8> bytes) = 0;
    virtual void write_all(std::span<u8 const> bytes) = 0; // waits, bounded
    virtual void set_input_wanted(bool wanted) = 0;        // flow control towards the sender

protected:
    ~ConsolePort() = default;
};

// Who may have the line.
class ConsoleUser {
public:
    virtual void on_console_input() = 0;                   // bytes wait for Console::read()
    virtual void on_console_space() = 0;                   // a write that was cut may go on
    virtual std::string_view console_name() const = 0;     // for people
    virtual bool is_console_dead() const { return false; } // paused: it neither reads nor writes

protected:
    ~ConsoleUser() = default;

private:
    friend class Console;
    lib::Ring<u8, 8 * 1024> held_; // the last that it wrote without having the line
};

class Console {
public:
    void set_port(ConsolePort* port) { port_ = port; }
    // From now on the port's interrupt calls pump(): writes need not wait any more.
    void set_interrupt_driven() { is_interrupt_driven_ = true; }

    // Log lines: never refused. Waits for the hardware only when the queue is full.
    void write_log(std::string_view text);
    // Text for people from whoever has the line, "\n" ending a line: never refused, waits like write_log().
    void print(std::string_view text);
    // True: so much goes out without waiting. False: on_console_space() follows when it does.
    bool has_room(u32 bytes);
    // Guest bytes: as many as there is room for. Fewer: on_console_space() follows. Who does not have the line is never
    // made to wait: the last of what it writes comes out when it gets the line.
    u32 write(ConsoleUser& user, std::span<u8 const> bytes);
    // Calls nobody back: it is called by the user's platform, under the platform's lock.
    u32 read(ConsoleUser& user, std::span<u8> bytes);

    // Moves bytes between queues and port, and tells users. Called by the port's interrupt and by whoever made room.
    void pump();
    // Everything queued goes out before it returns: for panics and power-off.
    void flush();

    void attach(ConsoleUser& user);
    void detach(ConsoleUser& user); // what it wrote behind the monitor's back comes out first
    void set_monitor(ConsoleUser& monitor) { monitor_ = &monitor; }
    bool has_owner() const { return owner_ != nullptr; }
    bool is_attached(ConsoleUser const& user) const { return owner_ == &user; }
    // Both tell the monitor by on_console_space().
    void enter_monitor();
    void leave_monitor();
    bool is_in_monitor() const { return in_monitor_; }
    // Whether the last byte written, by whomever, ended a line.
    bool is_at_line_start() const { return at_line_start_; }
    // How often the log has written: who draws a line draws it again when this has changed.
    u32 log_writes() const { return log_writes_.load(std::memory_order_acquire); }

private:
    static constexpr u32 output_size = 32 * 1024;
    static constexpr u32 log_reserve = 8 * 1024; // room that guests cannot fill
    static constexpr u32 input_size = 16 * 1024;
    enum class Escape : u8 { None, Prefix };

    ConsoleUser* current() const { return in_monitor_ ? monitor_ : owner_.load(); }
    void release_held();
    void send_queued();
    // The following with output_lock_ held.
    void put(u8 byte);
    void put_text(std::string_view text);
    void release_held_locked(ConsoleUser& user);
    void send_locked();
    void send_unsent();
    // The following with input_lock_ held.
    bool receive(); // true: there is something to read
    u32 take_input(std::span<u8> bytes);
    void discard_input();
    void accept(u8 byte);
    void escape(u8 byte);
    void switch_to_monitor(bool on);
    void say_whose_line_it_is();

    // Whom to call when the input lock is free again.
    struct Told {
        ConsoleUser* of_input = nullptr;
        ConsoleUser* monitor_of_space = nullptr;
        ConsoleUser* owner_of_space = nullptr;
        bool operator==(Told const&) const = default;
    };
    class InputLock;
    class OutputLock;
    void tell();

    ConsolePort* port_ = nullptr;
    // Changed with input_lock_ held, looked at without.
    std::atomic<ConsoleUser*> owner_{nullptr};
    ConsoleUser* monitor_ = nullptr;
    lib::Ring<u8, output_size> output_;
    lib::Ring<u8, input_size> input_;
    std::array<u8, 16> unsent_{};
    u32 unsent_begin_ = 0, unsent_end_ = 0;
    Spinlock<LockRank::ConsoleOutput> output_lock_;
    bool is_interrupt_driven_ = false;
    bool at_line_start_ = true;
    std::atomic<u32> log_writes_{0};
    std::atomic<bool> user_waits_for_space_{false};
    std::atomic<bool> in_monitor_{false};
    // Input, from the port to its reader. Taken before output_lock_.
    Spinlock<LockRank::ConsoleInput> input_lock_;
    bool is_throttled_ = false;
    Escape escape_ = Escape::None;
    Told told_;
    DeferredWork tell_later_{DeferredWork::Body::to<&Console::tell>(*this)};
};

Console& console();

} // namespace kernel
