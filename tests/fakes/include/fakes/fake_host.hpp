#pragma once
// The world around a virtual platform, under the test's control: a clock that moves when told, timers that fire in
// order, a record of everything else. Only what tests of vmm include sees vmm/abi.hpp, so this header is all there is
// to it.
#include <algorithm>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>
#include <vmm/abi.hpp>

namespace fakes {

class FakeHost final : public vmm::Host {
public:
    using DeliverEvent = std::function<void(vmm::Event const&)>;
    struct LineChange {
        vmm::u32 gsi;
        bool level;
        friend bool operator==(LineChange const&, LineChange const&) = default;
    };

    // Where events go: usually the device's or the platform's on().
    void deliver_to(DeliverEvent deliver) { deliver_ = std::move(deliver); }

    void advance(vmm::u64 nanoseconds) { advance_to(clock + nanoseconds); }
    // Fires what is due on the way, each at its own deadline, in order; also what is armed meanwhile.
    void advance_to(vmm::u64 target) {
        while (true) {
            auto const next = earliest();
            if (next == timers.end() || next->second.deadline > target) break;
            clock = std::max(clock, next->second.deadline);
            fire(next);
        }
        clock = std::max(clock, target);
    }
    // The clock jumps, and timers fire only then: a host that was late.
    void advance_late(vmm::u64 nanoseconds) {
        clock += nanoseconds;
        advance_to(clock);
    }
    std::size_t timers_fired = 0;

    void type(std::string_view text) {
        input.insert(input.end(), text.begin(), text.end());
        if (deliver_) deliver_(vmm::Event{0, 0, console_device, vmm::EventKind::ConsoleInput, 0});
    }
    // Room for `bytes` more, as when somebody has read the console.
    void make_room(vmm::u64 bytes) {
        console_room += bytes;
        if (deliver_) deliver_(vmm::Event{0, 0, console_device, vmm::EventKind::ConsoleSpace, 0});
    }
    bool line(vmm::u32 gsi) const {
        auto const found = lines.find(gsi);
        return found != lines.end() && found->second;
    }
    std::size_t rises(vmm::u32 gsi) const {
        return static_cast<std::size_t>(std::ranges::count(line_changes, LineChange{gsi, true}));
    }

    vmm::Nanos now() override { return {clock}; }
    void arm_timer(vmm::u16 device, vmm::u32 id, vmm::u64 generation, vmm::Nanos deadline) override {
        timers[{device, id}] = {deadline.value, generation};
        timers_armed++;
    }
    void cancel_timer(vmm::u16 device, vmm::u32 id) override { timers.erase({device, id}); }
    void set_irq_line(vmm::u32 gsi, bool level) override {
        lines[gsi] = level;
        line_changes.push_back({gsi, level});
    }
    void send_msi(vmm::Msi message) override { messages.push_back(message); }
    void set_intr_line(bool level) override {
        intr = level;
        intr_changes++;
    }
    vmm::u32 console_write(std::span<vmm::u8 const> bytes) override {
        std::size_t const taken = std::min<std::size_t>(bytes.size(), console_room);
        console.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
        console_room -= taken;
        return static_cast<vmm::u32>(taken);
    }
    vmm::u32 console_read(std::span<vmm::u8> bytes) override {
        std::size_t const count = std::min(bytes.size(), input.size());
        for (std::size_t i = 0; i < count; i++) {
            bytes[i] = static_cast<vmm::u8>(input.front());
            input.pop_front();
        }
        return static_cast<vmm::u32>(count);
    }
    void request(vmm::VmRequest what) override { requests.push_back(what); }

    struct ArmedTimer {
        vmm::u64 deadline;
        vmm::u64 generation;
    };
    using Timers = std::map<std::pair<vmm::u16, vmm::u32>, ArmedTimer>;

    vmm::u64 clock = 0;
    Timers timers;
    std::size_t timers_armed = 0;
    std::map<vmm::u32, bool> lines;
    std::vector<LineChange> line_changes;
    std::vector<vmm::Msi> messages;
    bool intr = false;
    std::size_t intr_changes = 0;
    std::string console;
    vmm::u64 console_room = ~vmm::u64{0} >> 1;
    std::deque<char> input;
    vmm::u16 console_device = 0;
    std::vector<vmm::VmRequest> requests;

private:
    Timers::iterator earliest() {
        return std::ranges::min_element(timers, {}, [](auto const& timer) { return timer.second.deadline; });
    }
    void fire(Timers::iterator timer) {
        auto const [key, armed] = *timer;
        timers.erase(timer);
        timers_fired++;
        if (deliver_) deliver_(vmm::Event{armed.generation, key.second, key.first, vmm::EventKind::Timer, 0});
    }
    DeliverEvent deliver_;
};

} // namespace fakes
