// SPDX-License-Identifier: MIT
#pragma once
// All services of the machine: starts them, and after each death the next instance. One that dies three times within a
// minute stays down until somebody restarts it. All of it in the run loop of CPU 0.
#include <kernel/service.hpp>

namespace kernel {

struct ServiceStatus {
    std::string_view name;
    bool is_running;
    u32 instance;              // which one runs or ran last: 1 is the first
    u32 deaths;                // kills by the operator are not among them
    u64 cpu_time;              // ns, of this instance
    u64 memory;                // bytes
    std::string_view last_end; // empty: none has ended yet
};

class Services {
public:
    static constexpr u32 most = 8;
    static constexpr u32 longest_name = 31;
    static constexpr u32 most_deaths = 3; // within
    static constexpr u64 death_seconds = 60;
    // Two changes of what a service sees are at least so far apart: guests cause them, and CPU 0 works for each.
    static constexpr u64 change_milliseconds = 10;

    // `wake`, called from anywhere, sees to it that manage() is called soon.
    explicit Services(lib::Delegate<void()> wake) : wake_(wake), change_timer_(wake) {}
    ~Services() { cancel_timer(change_timer_); }
    Services(Services const&) = delete;
    Services& operator=(Services const&) = delete;

    // Starts a program for good, and returns its number. Its name, its bytes and its host must live on. `most`: it is
    // not among the services; what is wrong with it went to the log.
    u32 add(std::string_view name, std::span<u8 const> program, ServiceHost* host = nullptr);
    // Does what there is to do: buries the dead, starts the next instances, and has hosts make their changes.
    void manage();
    // From any CPU and context. ServiceHost::change() is called soon, after that the service gets event_board.
    void ask_for_change(u32 index);
    // The same for events of wait(). What is posted while none runs is lost: a new instance looks for itself.
    void post(u32 index, u64 events);

    u32 count() const { return count_; }
    ServiceStatus status(u32 index);
    // most: there is none of that name.
    u32 find(std::string_view name) const;
    // Ends the instance that runs; the next one starts at once. False: none runs.
    bool kill(u32 index);
    // The same, and starts one that is down, whatever became of those before. False: it cannot be started; the log says
    // why.
    bool restart(u32 index);
    // Buries one that has ended without starting another.
    void end(u32 index);

private:
    struct Slot {
        std::string_view name;
        ServiceImage image;
        ServiceHost* host = nullptr;
        Own<Service> running;
        std::atomic<Service*> target{nullptr}; // `running`, for post()
        std::atomic<bool> wants_change{false};
        u64 next_change = 0; // ns
        u32 instances = 0;
        u32 deaths = 0;
        u64 used = 0;                               // by the instance before, while none runs
        std::array<u64, most_deaths> death_times{}; // of the last ones, by deaths % most_deaths
        u32 deaths_that_count = 0;                  // since it was started by hand
        std::array<char, 200> last_end{};
        std::size_t last_end_size = 0;
    };

    bool start(Slot& slot);
    void change(Slot& slot);
    void bury(Slot& slot);
    bool dies_too_often(Slot const& slot) const;

    lib::Delegate<void()> wake_;
    Timer change_timer_;
    std::array<Slot, most> slots_{};
    u32 count_ = 0;
};

// Those of this machine; nullptr until boot has made them.
Services* machine_services();
void set_machine_services(Services& services);

} // namespace kernel
