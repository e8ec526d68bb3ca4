// SPDX-License-Identifier: MIT
// Interrupts of devices through an I/O APIC and two CPUs that keep to the manual: edges at a masked input are gone,
// a level-triggered input waits for the end of its own vector, CPUs take interrupts by priority and late.
#include "kernel/kernel_cpu.hpp"
#include "support/machine_memory.hpp"

#include <drivers/ioapic.hpp>
#include <kernel/apic.hpp>
#include <kernel/interrupts.hpp>
#include <random>

namespace {

using drivers::IoApicInput;
using drivers::IoApics;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr u64 ioapic_base = 0xfec0'0000;
constexpr u32 x2apic_eoi = 0x80b, x2apic_icr = 0x830;

class InterruptTest : public KernelCpu {
protected:
    static constexpr unsigned inputs = 24;
    static constexpr u64 masked = lib::bit(16), level = lib::bit(15), remote_irr = lib::bit(14), pending = lib::bit(12);

    // The local APIC of one CPU.
    struct Apic {
        std::array<bool, 256> requested{}, in_service{}, is_level{};
        int highest(std::array<bool, 256> const& bits) const {
            for (int vector = 255; vector >= 0; vector--)
                if (bits[static_cast<unsigned>(vector)]) return vector;
            return -1;
        }
    };
    struct Message {
        unsigned input; // `inputs`: an IPI
        u32 apic_id;
        u8 vector;
        bool is_level;
    };
    // Asks once more only after its handler has served it: a request that gets lost is lost for ever.
    struct Device {
        unsigned input = 0;
        bool is_asking = false;
        u64 asked = 0, served = 0;
        int runs = 0; // its handler, at this moment
    };

    InterruptTest() {
        use_x2apic();
        cpu.hook_msr(x2apic_eoi, {}, [this](u64) { return end_of_interrupt(); });
        cpu.hook_msr(x2apic_icr, {}, [this](u64 value) {
            auto const vector = static_cast<u8>(value);
            EXPECT_EQ(value & 0xcff00, 0x4000U) << "a fixed interrupt to one CPU";
            in_flight_.push_back({inputs, static_cast<u32>(value >> 32), vector, false});
            return true;
        });
        cpu.add_mmio(ioapic_base, 0x20,
                     {.load = [this](u64 offset, unsigned) { return offset == 0 ? u64{index_} : u64{read()}; },
                      .store =
                          [this](u64 offset, unsigned, u64 value) {
                              if (offset == 0)
                                  index_ = static_cast<u8>(value);
                              else
                                  write(static_cast<u32>(value));
                          },
                      .widths = 4});
        entries_.fill(masked);
        kernel::local_apic() = {};
        EXPECT_TRUE(kernel::LocalApic::enable(true));
        cpu.tsc_step = 1000;
        kernel::start_clock(1'000'000'000, 0);
        kernel::start_interrupts();
        second_cpu();
        for (u32 i = 0; i < 2; i++)
            unexpected_[i] = kernel::cpu(i).device_vectors.unexpected;
        cpu.on_interrupt_window = [this] {
            disturb();
            run(0);
        };
        EXPECT_TRUE(ioapics.add(ioapic_base, 0));
    }
    ~InterruptTest() override {
        kernel::local_apic() = {};
        EXPECT_EQ(kernel::interrupt_count(), 0U);
        for (u32 i = 0; i < 2; i++)
            EXPECT_EQ(kernel::cpu(i).device_vectors.unexpected, unexpected_[i]) << "an interrupt found no handler";
    }

    // --- The machine ---------------------------------------------------------------------------------------------
    static u32 index_of(u32 apic_id) { return kernel::cpu(0).apic_id == apic_id ? 0 : 1; }

    u32 read() {
        u32 value = 0;
        if (index_ == 1) value = (inputs - 1) << 16 | 0x11;
        if (index_ >= 0x10) {
            u64 const entry = entries_[(index_ - 0x10U) / 2];
            value = static_cast<u32>(index_ % 2 != 0 ? entry >> 32 : entry);
        }
        disturb();
        return value;
    }
    void write(u32 value) {
        disturb();
        ASSERT_GE(index_, 0x10);
        unsigned const input = (index_ - 0x10U) / 2;
        u64& entry = entries_[input];
        bool const is_high = index_ % 2 != 0;
        u64 const status = remote_irr | pending;
        u64 const next = is_high ? (entry & 0xffff'ffff) | u64{value} << 32
                                 : (entry & ~u64{0xffff'ffff}) | (value & ~status) | (entry & status);
        if ((entry & masked) == 0) {
            EXPECT_EQ((entry ^ next) & ~masked, 0U) << "an entry that is in use changes in halves";
        }
        EXPECT_TRUE((next & masked) != 0 || (next >> 56) != 0xff) << "to all CPUs";
        entry = next;
        if ((entry & level) == 0) entry &= ~remote_irr;
        look_at(input);
        disturb();
    }
    // A level-triggered input sends while it is active and nothing of it is underway.
    void look_at(unsigned input) {
        u64 const entry = entries_[input];
        if ((entry & level) == 0 || (entry & (masked | remote_irr | pending)) != 0 || !lines_[input]) return;
        send(input);
    }
    void send(unsigned input) {
        u64& entry = entries_[input];
        if ((entry & pending) != 0) return;
        entry |= pending;
        in_flight_.push_back({input, static_cast<u32>(entry >> 56), static_cast<u8>(entry), (entry & level) != 0});
    }
    void set_line(unsigned input, bool active) {
        bool const was_active = std::exchange(lines_[input], active);
        if (!active || was_active) return;
        if ((entries_[input] & level) != 0)
            look_at(input);
        else if ((entries_[input] & masked) == 0)
            send(input); // else it is gone
    }
    void land(Message const& message) {
        Apic& apic = apics_[index_of(message.apic_id)];
        if (apic.requested[message.vector] || apic.in_service[message.vector]) {
            EXPECT_EQ(apic.is_level[message.vector], message.is_level) << "edge and level at one vector";
        }
        apic.requested[message.vector] = true;
        apic.is_level[message.vector] = message.is_level;
        if (message.input == inputs) return;
        u64& entry = entries_[message.input];
        entry &= ~pending;
        if (message.is_level) entry |= remote_irr;
    }
    bool end_of_interrupt() {
        Apic& apic = apics_[kernel::this_cpu().index];
        int const vector = apic.highest(apic.in_service);
        if (vector < 0) return true; // LocalApic::enable()
        apic.in_service[static_cast<unsigned>(vector)] = false;
        if (!apic.is_level[static_cast<unsigned>(vector)]) return true;
        for (unsigned input = 0; input < inputs; input++)
            if ((entries_[input] & remote_irr) != 0 && (entries_[input] & 0xff) == static_cast<unsigned>(vector)) {
                entries_[input] &= ~remote_irr;
                look_at(input);
            }
        return true;
    }
    // The CPU takes what it may.
    void run(u32 index) {
        Apic& apic = apics_[index];
        while (apic.highest(apic.requested) >> 4 > apic.highest(apic.in_service) >> 4) {
            auto const vector = static_cast<u8>(apic.highest(apic.requested));
            apic.requested[vector] = false;
            apic.in_service[vector] = true;
            as_cpu(kernel::cpu(index), [&] { kernel::dispatch_interrupt(vector); });
        }
    }
    // Messages arrive, devices ask, the second CPU comes round: sometimes, in any order.
    void disturb() {
        if (is_disturbing_) return;
        is_disturbing_ = true;
        for (auto& device : devices)
            if (chance(6)) ask(device);
        while (!in_flight_.empty() && chance(2)) {
            auto const which = in_flight_.begin() + static_cast<long>(random_() % in_flight_.size());
            Message const message = *which;
            in_flight_.erase(which);
            land(message);
        }
        is_disturbing_ = false;
        // Interrupts are off in a handler of the same CPU.
        if (chance(4) && kernel::this_cpu().index == 0 && !holds_back) run(1);
    }
    bool chance(unsigned one_in) { return is_calm ? one_in <= 4 : random_() % one_in == 0; }
    void ask(Device& device) {
        if (device.is_asking || is_calm) return;
        device.is_asking = true;
        device.asked++;
        set_line(device.input, true);
    }
    void settle() {
        is_calm = true;
        for (int i = 0; i < 10; i++) {
            disturb();
            run(0);
            run(1);
        }
        is_calm = false;
        EXPECT_TRUE(in_flight_.empty());
    }

    struct Handler {
        InterruptTest* test;
        Device* device;
        void run() const {
            EXPECT_EQ(device->runs++, 0) << "its handler runs on two CPUs";
            test->handled_on.push_back(kernel::this_cpu().index);
            if (kernel::this_cpu().index == 0) test->disturb();
            if (device->is_asking) device->served++;
            device->is_asking = false;
            test->set_line(device->input, false);
            device->runs--;
        }
    };
    kernel::InterruptHandler handler_of(Device& device) {
        handlers_.push_back(std::make_unique<Handler>(this, &device));
        return kernel::InterruptHandler::to<&Handler::run>(*handlers_.back());
    }
    bool is_masked(unsigned input) const { return (entries_[input] & masked) != 0; }
    void hang_remote_irr(unsigned input) { entries_[input] |= remote_irr; }
    void forget_remote_irr(unsigned input) {
        entries_[input] &= ~remote_irr;
        look_at(input);
    }

    IoApics ioapics;
    std::vector<Device> devices;
    std::vector<u32> handled_on;
    bool is_calm = true;
    bool holds_back = false; // the second CPU takes no interrupts
    void seed(u32 number) { random_.seed(number); }

private:
    u8 index_ = 0;
    std::array<u64, inputs> entries_{};
    std::array<bool, inputs> lines_{};
    std::array<Apic, 2> apics_{};
    std::array<u32, 2> unexpected_{};
    std::vector<Message> in_flight_;
    std::vector<std::unique_ptr<Handler>> handlers_;
    bool is_disturbing_ = false;
    std::mt19937 random_;
};

TEST_F(InterruptTest, ADeviceReachesItsHandlerOnTheCpuThatWasAskedFor) {
    devices = {{.input = 4}};
    IoApicInput input(ioapics, 4, {});
    ASSERT_TRUE(input.claim());
    kernel::Interrupt interrupt("serial", handler_of(devices[0]));
    ASSERT_TRUE(interrupt.connect(input, 1));
    EXPECT_EQ(interrupt.connect(input, 0).error(), lib::Errc::BadState);
    is_calm = false;
    ask(devices[0]);
    settle();
    EXPECT_EQ(devices[0].served, devices[0].asked);
    EXPECT_EQ(handled_on.front(), 1U);
    EXPECT_EQ(interrupt.count(), handled_on.size());
    kernel::InterruptStatus status{};
    ASSERT_TRUE(kernel::interrupt_status(0, status));
    EXPECT_EQ(status.name, "serial");
    EXPECT_EQ(status.cpu, 1U);
    EXPECT_TRUE(kernel::is_device_vector(status.vector));
    EXPECT_FALSE(kernel::interrupt_status(1, status));
}

// Edge and level, both ways, with everything that can happen in between.
TEST_F(InterruptTest, NothingIsLostByMoves) {
    for (bool const is_level : {false, true}) {
        u64 asked = 0, on_first = 0, on_second = 0;
        for (u32 number = 0; number < 300; number++) {
            seed(number);
            devices = {{.input = 4}, {.input = 9}};
            handled_on.clear();
            IoApicInput input(ioapics, 4, {.is_active_low = false, .is_level = is_level});
            IoApicInput other(ioapics, 9, {.is_active_low = true, .is_level = !is_level});
            ASSERT_TRUE(input.claim() && other.claim());
            kernel::Interrupt interrupt("moving", handler_of(devices[0]));
            kernel::Interrupt neighbour("staying", handler_of(devices[1]));
            ASSERT_TRUE(interrupt.connect(input, 0) && neighbour.connect(other, 1));
            is_calm = false;
            for (u32 i = 0; i < 6; i++) {
                ask(devices[0]);
                ASSERT_TRUE(interrupt.move_to(1 - interrupt.cpu()));
                cpu.take_interrupts();
            }
            settle();
            for (auto const& device : devices) {
                EXPECT_FALSE(device.is_asking) << "seed " << number << ", input " << device.input;
                EXPECT_EQ(device.served, device.asked);
            }
            asked += devices[0].asked;
            on_first += static_cast<u64>(std::ranges::count(handled_on, 0U));
            on_second += static_cast<u64>(std::ranges::count(handled_on, 1U));
            ASSERT_FALSE(HasFailure()) << "seed " << number;
            is_calm = true;
        }
        EXPECT_GT(asked, 1000U);
        EXPECT_GT(on_first, 500U);
        EXPECT_GT(on_second, 500U);
    }
}

TEST_F(InterruptTest, VectorsAreACpusOwnAndComeBack) {
    devices = {{.input = 1}};
    class NoSource final : public kernel::InterruptSource {
    public:
        lib::Result<void> set_target(kernel::InterruptTarget) override { return {}; }
        void set_masked(bool) override {}
        bool is_underway() override { return false; }
        bool keeps_while_masked() const override { return true; }
    } source;
    std::vector<std::unique_ptr<kernel::Interrupt>> all;
    std::array<bool, 256> seen{};
    for (unsigned i = 0; i < kernel::DeviceVectors::count; i++) {
        all.push_back(std::make_unique<kernel::Interrupt>("one", handler_of(devices[0])));
        ASSERT_TRUE(all.back()->connect(source, 1));
        EXPECT_FALSE(std::exchange(seen[all.back()->vector()], true)) << "one vector twice";
        EXPECT_TRUE(kernel::is_device_vector(all.back()->vector()));
    }
    kernel::Interrupt one_more("one more", handler_of(devices[0]));
    EXPECT_EQ(one_more.connect(source, 1).error(), lib::Errc::Busy);
    EXPECT_FALSE(one_more.is_connected());
    ASSERT_TRUE(one_more.connect(source, 0));
    EXPECT_EQ(one_more.move_to(1).error(), lib::Errc::Busy);
    EXPECT_EQ(one_more.cpu(), 0U);
    all.pop_back();
    EXPECT_TRUE(one_more.move_to(1));
}

TEST_F(InterruptTest, CpusBeyondTheReachOfDevicesAreRefused) {
    devices = {{.input = 4}};
    IoApicInput input(ioapics, 4, {});
    ASSERT_TRUE(input.claim());
    kernel::Interrupt interrupt("far", handler_of(devices[0]));
    u32 const apic_id = std::exchange(second_cpu().apic_id, 255);
    EXPECT_EQ(interrupt.connect(input, 1).error(), lib::Errc::Unsupported);
    ASSERT_TRUE(interrupt.connect(input, 0));
    EXPECT_EQ(interrupt.move_to(1).error(), lib::Errc::Unsupported);
    EXPECT_EQ(interrupt.cpu(), 0U);
    EXPECT_FALSE(is_masked(4));
    second_cpu().apic_id = apic_id;
}

TEST_F(InterruptTest, OneThatDoesNotComeToRestStaysWhereItWas) {
    devices = {{.input = 4}};
    IoApicInput input(ioapics, 4, {.is_active_low = false, .is_level = true});
    ASSERT_TRUE(input.claim());
    kernel::Interrupt interrupt("stuck", handler_of(devices[0]));
    ASSERT_TRUE(interrupt.connect(input, 0));
    hang_remote_irr(4);
    cpu.tsc_step = 10'000'000;
    EXPECT_EQ(interrupt.move_to(1).error(), lib::Errc::TimedOut);
    EXPECT_EQ(interrupt.cpu(), 0U);
    EXPECT_FALSE(is_masked(4));
    is_calm = false;
    ask(devices[0]);
    is_calm = true;
    forget_remote_irr(4);
    settle();
    EXPECT_EQ(devices[0].served, 1U);
}

TEST_F(InterruptTest, OneThatCannotBeConfinedIsTriedOnce) {
    devices = {{.input = 4}, {.input = 5}};
    IoApicInput input(ioapics, 4, {.is_active_low = false, .is_level = true}), other(ioapics, 5, {});
    ASSERT_TRUE(input.claim());
    ASSERT_TRUE(other.claim());
    kernel::Interrupt stuck("stuck", handler_of(devices[0])), free("free", handler_of(devices[1]));
    ASSERT_TRUE(stuck.connect(input, 1));
    ASSERT_TRUE(free.connect(other, 1));
    hang_remote_irr(4);
    cpu.tsc_step = 10'000'000;
    kernel::confine_interrupts(kernel::CpuSet::single(0), 0);
    EXPECT_EQ(stuck.cpu(), 1U);
    EXPECT_EQ(free.cpu(), 0U) << "the others are moved all the same";
    u64 const before = cpu.tsc;
    kernel::confine_interrupts(kernel::CpuSet::single(0), 0);
    EXPECT_EQ(cpu.tsc, before) << "nobody waits a second time";
    forget_remote_irr(4);
    EXPECT_TRUE(stuck.move_to(0));
}

TEST_F(InterruptTest, OneWhoseCpuTakesNoInterruptsStaysWhereItWas) {
    devices = {{.input = 4}};
    IoApicInput input(ioapics, 4, {});
    ASSERT_TRUE(input.claim());
    kernel::Interrupt interrupt("held back", handler_of(devices[0]));
    ASSERT_TRUE(interrupt.connect(input, 1));
    cpu.tsc_step = 10'000'000;
    holds_back = true;
    EXPECT_EQ(interrupt.move_to(0).error(), lib::Errc::TimedOut);
    EXPECT_EQ(interrupt.cpu(), 1U);
    EXPECT_FALSE(is_masked(4));
    EXPECT_TRUE(handled_on.empty());
    holds_back = false;
    settle();
    EXPECT_EQ(handled_on, std::vector<u32>{1}) << "once in any case, as an edge may have been lost";
    EXPECT_TRUE(interrupt.move_to(0));
    settle();
}

TEST_F(InterruptTest, AnInputHasOneUserAndIsMaskedAfterIt) {
    devices = {{.input = 4}};
    {
        IoApicInput input(ioapics, 4, {});
        IoApicInput second(ioapics, 4, {});
        IoApicInput nowhere(ioapics, 24, {});
        ASSERT_TRUE(input.claim());
        EXPECT_EQ(second.claim().error(), lib::Errc::Busy);
        EXPECT_EQ(nowhere.claim().error(), lib::Errc::NotFound);
        kernel::Interrupt interrupt("one", handler_of(devices[0]));
        ASSERT_TRUE(interrupt.connect(input, 0));
        EXPECT_FALSE(is_masked(4));
    }
    EXPECT_TRUE(is_masked(4));
    IoApicInput again(ioapics, 4, {});
    EXPECT_TRUE(again.claim());
    EXPECT_EQ(ioapics.add(ioapic_base, 23).error(), lib::Errc::Busy) << "GSI 23 has an owner";
    EXPECT_EQ(ioapics.count(), 1U);
}

TEST_F(InterruptTest, AreMovedByNameAndKeptOffCpusThatSomebodyHas) {
    devices = {{.input = 4}};
    IoApicInput input(ioapics, 4, {});
    ASSERT_TRUE(input.claim());
    kernel::Interrupt interrupt("serial", handler_of(devices[0]));
    ASSERT_TRUE(interrupt.connect(input, 0));
    EXPECT_EQ(kernel::move_interrupt("parallel", 1).error(), lib::Errc::NotFound);
    ASSERT_TRUE(kernel::move_interrupt("serial", 1));
    EXPECT_EQ(interrupt.cpu(), 1U);
    kernel::confine_interrupts(kernel::CpuSet::first(2), 0);
    EXPECT_EQ(interrupt.cpu(), 1U);
    kernel::confine_interrupts(kernel::CpuSet::single(0), 0);
    EXPECT_EQ(interrupt.cpu(), 0U);
    settle();
}

} // namespace
