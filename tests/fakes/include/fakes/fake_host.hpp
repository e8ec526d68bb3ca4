// SPDX-License-Identifier: MIT
#pragma once
// The world around a virtual platform, under the test's control: a clock that moves when told, timers that fire in
// order, a record of everything else. Only what tests of the virtual platform include sees platform/abi.hpp, so this
// header is all there is to it.
#include <algorithm>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <platform/abi.hpp>
#include <string>
#include <utility>
#include <vector>

namespace fakes {

// Both the world outside of a platform and, for a device that is tested alone, the lines inside.
class FakeHost final : public platform::Host, public platform::Wires {
public:
    // For a device that is tested alone.
    platform::Plug plug() { return {*this, *this, memory, facts, 0}; }
    lib::GuestMemory memory{{}}; // set it to some before a device uses it
    platform::MachineFacts facts{1'700'000'000, 1, lib::GiB, 0, 40, true, {}, {}};

    using DeliverEvent = std::function<void(platform::Event const&)>;
    struct LineChange {
        lib::u32 gsi;
        bool level;
        friend bool operator==(LineChange const&, LineChange const&) = default;
    };

    // Where events go: usually the device's or the platform's on().
    void deliver_to(DeliverEvent deliver) { deliver_ = std::move(deliver); }

    void advance(lib::u64 nanoseconds) { advance_to(clock + nanoseconds); }
    // Fires what is due on the way, each at its own deadline, in order; also what is armed meanwhile.
    void advance_to(lib::u64 target) {
        while (true) {
            auto const next = earliest();
            if (next == timers.end() || next->second.deadline > target) break;
            clock = std::max(clock, next->second.deadline);
            fire(next);
        }
        clock = std::max(clock, target);
    }
    // The clock jumps, and timers fire only then: a host that was late.
    void advance_late(lib::u64 nanoseconds) {
        clock += nanoseconds;
        advance_to(clock);
    }
    std::size_t timers_fired = 0;

    void type(std::string_view text) {
        input.insert(input.end(), text.begin(), text.end());
        if (deliver_) deliver_(platform::Event{0, 0, console_device, platform::EventKind::ConsoleInput, 0});
    }
    // Room for `bytes` more, as when somebody has read the console.
    void make_room(lib::u64 bytes) {
        console_room += bytes;
        if (deliver_) deliver_(platform::Event{0, 0, console_device, platform::EventKind::ConsoleSpace, 0});
    }
    bool line(lib::u32 gsi) const {
        auto const found = lines.find(gsi);
        return found != lines.end() && found->second;
    }
    std::size_t rises(lib::u32 gsi) const {
        return static_cast<std::size_t>(std::ranges::count(line_changes, LineChange{gsi, true}));
    }

    lib::Nanos now() override { return {clock}; }
    void arm_timer(lib::u16 device, lib::u32 id, lib::u64 generation, lib::Nanos deadline) override {
        timers[{device, id}] = {deadline.value, generation};
        timers_armed++;
    }
    void cancel_timer(lib::u16 device, lib::u32 id) override { timers.erase({device, id}); }
    void set_irq_line(lib::u32 gsi, bool level) override {
        lines[gsi] = level;
        line_changes.push_back({gsi, level});
    }
    void send_msi(platform::Msi message) override { messages.push_back(message); }
    void set_intr_line(bool level) override { set_lint0(level); }
    void set_lint0(bool level) override {
        intr = level;
        intr_changes++;
    }
    lib::u32 console_write(std::span<lib::u8 const> bytes) override {
        std::size_t const taken = std::min<std::size_t>(bytes.size(), console_room);
        console.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
        console_room -= taken;
        return static_cast<lib::u32>(taken);
    }
    lib::u32 console_read(std::span<lib::u8> bytes) override {
        std::size_t const count = std::min(bytes.size(), input.size());
        for (std::size_t i = 0; i < count; i++) {
            bytes[i] = static_cast<lib::u8>(input.front());
            input.pop_front();
        }
        return static_cast<lib::u32>(count);
    }
    void request(platform::VmRequest what) override { requests.push_back(what); }
    lib::u32 random(std::span<lib::u8> bytes) override {
        random_calls++;
        auto const count = static_cast<lib::u32>(std::min<std::size_t>(bytes.size(), random_numbers));
        std::ranges::fill(bytes.first(count), next_random++);
        return count;
    }
    // What the one that serves disks and NICs is told, in order.
    struct ServedCall {
        enum class What { Start, Stop, Doorbell } what;
        lib::u32 device, queue;
        lib::QueueSetup setup;
    };
    std::vector<ServedCall> served_calls;
    void start_served_queue(lib::u32 device, lib::u32 queue, lib::QueueSetup const& setup) override {
        served_calls.push_back({ServedCall::What::Start, device, queue, setup});
    }
    void stop_served_queues(lib::u32 device) override {
        served_calls.push_back({ServedCall::What::Stop, device, 0, {}});
    }
    void served_doorbell(lib::u32 device, lib::u32 queue) override {
        served_calls.push_back({ServedCall::What::Doorbell, device, queue, {}});
    }
    std::size_t random_numbers = ~std::size_t{0}; // how many bytes there are at a time
    lib::u8 next_random = 1;
    std::size_t random_calls = 0;

    struct ArmedTimer {
        lib::u64 deadline;
        lib::u64 generation;
    };
    using Timers = std::map<std::pair<lib::u16, lib::u32>, ArmedTimer>;

    lib::u64 clock = 0;
    Timers timers;
    std::size_t timers_armed = 0;
    std::map<lib::u32, bool> lines;
    std::vector<LineChange> line_changes;
    std::vector<platform::Msi> messages;
    bool intr = false;
    std::size_t intr_changes = 0;
    std::string console;
    lib::u64 console_room = ~lib::u64{0} >> 1;
    std::deque<char> input;
    lib::u16 console_device = 0;
    std::vector<platform::VmRequest> requests;

private:
    Timers::iterator earliest() {
        return std::ranges::min_element(timers, {}, [](auto const& timer) { return timer.second.deadline; });
    }
    void fire(Timers::iterator timer) {
        auto const [key, armed] = *timer;
        timers.erase(timer);
        timers_fired++;
        if (deliver_) deliver_(platform::Event{armed.generation, key.second, key.first, platform::EventKind::Timer, 0});
    }
    DeliverEvent deliver_;
};

} // namespace fakes
