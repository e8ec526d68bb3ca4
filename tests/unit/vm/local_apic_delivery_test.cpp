// SPDX-License-Identifier: MIT
// Who gets an interrupt, and when: destinations, priorities against a model, posting between threads, and the page that
// the hardware shares.
#include "vm/test_apic.hpp"

#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace {

using namespace vm::apic_reg;
using vm::TriggerMode;
using vm::u32;
using vm::u64;
using vm::u8;

struct LocalApicDelivery : ::testing::Test, TestApic {};

TEST(LocalApicDestination, Physical) {
    TestApic five(5);
    EXPECT_TRUE(five.apic.matches(5, false));
    EXPECT_FALSE(five.apic.matches(4, false));
    EXPECT_FALSE(five.apic.matches(0x105, false));
    EXPECT_TRUE(five.apic.matches(vm::bus_destination(0xff, false), false));
    five.to_x2apic();
    EXPECT_TRUE(five.apic.matches(5, false));
    EXPECT_FALSE(five.apic.matches(0xff, false));
    EXPECT_TRUE(five.apic.matches(vm::apic_broadcast, false));
    five.apic.write_base(TestApic::base_address);
    EXPECT_FALSE(five.apic.matches(5, false));
    EXPECT_FALSE(five.apic.matches(vm::apic_broadcast, false));
}

TEST(LocalApicDestination, LogicalFlatAndCluster) {
    TestApic two(2);
    EXPECT_FALSE(two.apic.matches(0xff, true)) << "no logical id yet";
    two.write(LDR, 0x04123456);
    EXPECT_EQ(two.read(LDR), 0x04000000U);
    EXPECT_TRUE(two.apic.matches(0x04, true));
    EXPECT_TRUE(two.apic.matches(0xff, true));
    EXPECT_FALSE(two.apic.matches(0xfb, true));
    two.write(DFR, 0);
    EXPECT_EQ(two.read(DFR), 0x0fffffffU);
    two.write(LDR, 0x32000000);
    EXPECT_TRUE(two.apic.matches(0x32, true));
    EXPECT_TRUE(two.apic.matches(0x3f, true));
    EXPECT_FALSE(two.apic.matches(0x31, true));
    EXPECT_FALSE(two.apic.matches(0x22, true));
    EXPECT_TRUE(two.apic.matches(0xff, true));
    EXPECT_FALSE(two.apic.matches(0x132, true));
}

TEST(LocalApicDestination, LogicalX2Apic) {
    TestApic seventeen(17);
    seventeen.to_x2apic();
    EXPECT_EQ(seventeen.rdmsr(LDR), 0x10002U);
    EXPECT_TRUE(seventeen.apic.matches(0x10002, true));
    EXPECT_TRUE(seventeen.apic.matches(0x1ffff, true));
    EXPECT_FALSE(seventeen.apic.matches(0x1fffd, true));
    EXPECT_FALSE(seventeen.apic.matches(0x00002, true));
    EXPECT_TRUE(seventeen.apic.matches(vm::apic_broadcast, true));
}

TEST_F(LocalApicDelivery, VirtualizedLeavesThePageToTheHardware) {
    enable();
    apic.accept(0x66, TriggerMode::Level);
    apic.set_virtualized(true);
    EXPECT_EQ(apic.highest_irr(), 0x66);
    page->clear(IRR, 0x66); // the hardware delivers
    page->set(ISR, 0x66);
    EXPECT_EQ(apic.highest_isr(), 0x66);
    (*page)[PPR] = 0x60;
    EXPECT_EQ(read(PPR), 0x60U);
    page->clear(ISR, 0x66);
    apic.eoi_exit(0x66);
    apic.eoi_exit(0x67);
    EXPECT_EQ(bus.ended, std::vector<u8>{0x66});
    apic.accept(0x20, TriggerMode::Edge);
    page->set(ISR, 0x35);
    apic.set_virtualized(false);
    EXPECT_EQ(apic.highest_pending(), -1) << "35h is in service";
    apic.end_of_interrupt();
    EXPECT_EQ(apic.highest_pending(), 0x20);
}

TEST_F(LocalApicDelivery, FindsWhatOthersHaveSetInThePage) {
    enable();
    apic.accept(0x30, TriggerMode::Edge);
    page->set(IRR, 0x66); // AVIC of another CPU
    EXPECT_EQ(apic.highest_pending(), 0x30);
    apic.find_requests();
    EXPECT_EQ(apic.highest_pending(), 0x66);
    apic.acknowledge(0x66);
    EXPECT_EQ(apic.highest_irr(), 0x30);
    write(EOI, 0);
    EXPECT_EQ(apic.highest_pending(), 0x30);
}

TEST_F(LocalApicDelivery, TellsWhenItAcceptsOtherInterrupts) {
    enable();
    bus.destination_changes = 0;
    write(LDR, 0x0200'0000);
    write(DFR, 0x0fff'ffff);
    write(SVR, 0xff);
    EXPECT_EQ(bus.destination_changes, 3U);
    EXPECT_EQ(apic.logical_id(), 2U);
    EXPECT_FALSE(apic.is_flat());
    write(TPR, 0x10);
    EXPECT_EQ(bus.destination_changes, 3U);
}

TEST_F(LocalApicDelivery, TrapLikeWritesActOnThePage) {
    enable();
    (*page)[LVT_TIMER] = 0xffff'ffff & ~0x10000U & ~0x60000U;
    apic.apic_write(LVT_TIMER);
    EXPECT_EQ(read(LVT_TIMER), 0xffU);
    (*page)[INITIAL_COUNT] = 50;
    apic.apic_write(INITIAL_COUNT);
    EXPECT_EQ(bus.armed, bus.now + 100);
    (*page)[LVT_TIMER] = 0x400ec;
    apic.apic_write(LVT_TIMER);
    EXPECT_FALSE(bus.armed) << "the change of mode is seen although the old value is gone";
    (*page)[ICR_HIGH] = 0x02000000;
    (*page)[ICR_LOW] = 0x31;
    apic.apic_write(ICR_LOW);
    ASSERT_EQ(bus.sent.size(), 1U);
    EXPECT_EQ(bus.sent[0].destination, 2U);
    (*page)[ID] = 0xffffffff;
    apic.apic_write(ID);
    EXPECT_EQ(read(ID), 0U);
    (*page)[SVR] = 0xff;
    apic.apic_write(SVR);
    EXPECT_FALSE(apic.is_software_enabled());
    apic.apic_write(0xffc);
}

// The delivery core against the plainest model there is.
struct Model {
    std::array<bool, 256> irr{}, isr{}, tmr{};
    u32 tpr = 0;
    std::vector<u8> ended;
    static int highest(std::array<bool, 256> const& set) {
        for (int i = 255; i >= 0; --i)
            if (set[static_cast<unsigned>(i)]) return i;
        return -1;
    }
    u32 ppr() const {
        int const in_service = highest(isr);
        u32 const isr_class = in_service < 0 ? 0 : static_cast<u32>(in_service) & 0xf0;
        return (tpr & 0xf0) >= isr_class ? tpr : isr_class;
    }
    int deliverable() const {
        int const vector = highest(irr);
        return vector >= 0 && (static_cast<u32>(vector) & 0xf0) > (ppr() & 0xf0) ? vector : -1;
    }
    void accept(u8 vector, bool level) {
        irr[vector] = true;
        tmr[vector] = level;
    }
    void eoi() {
        int const vector = highest(isr);
        if (vector < 0) return;
        isr[static_cast<unsigned>(vector)] = false;
        if (tmr[static_cast<unsigned>(vector)]) ended.push_back(static_cast<u8>(vector));
    }
};

TEST(LocalApicModel, ThreeMillionRandomSteps) {
    TestApic real;
    Model model;
    real.enable();
    std::mt19937_64 random(42);
    for (unsigned step = 0; step < 3'000'000; ++step) {
        u64 const dice = random();
        u8 const vector = static_cast<u8>(16 + (dice >> 8) % 240);
        bool const level = (dice >> 16 & 3) == 0;
        TriggerMode const trigger = level ? TriggerMode::Level : TriggerMode::Edge;
        switch (dice % 8) {
        case 0:
            real.apic.accept(vector, trigger);
            model.accept(vector, level);
            break;
        case 1:
            real.apic.post(vector, trigger);
            real.apic.merge_posted();
            model.accept(vector, level);
            break;
        case 2:
        case 3:
        case 4: {
            int const next = model.deliverable();
            ASSERT_EQ(real.apic.highest_pending(), next) << step;
            if (next < 0) break;
            real.apic.acknowledge(static_cast<u8>(next));
            model.irr[static_cast<unsigned>(next)] = false;
            model.isr[static_cast<unsigned>(next)] = true;
            break;
        }
        case 5:
        case 6:
            real.write(EOI, 0);
            model.eoi();
            break;
        default:
            model.tpr = static_cast<u32>(dice >> 20 & ((dice >> 32 & 1) != 0 ? 0xff : 0x3f));
            real.write(TPR, model.tpr);
        }
        ASSERT_EQ(real.read(PPR), model.ppr()) << step;
        ASSERT_EQ(real.apic.highest_irr(), Model::highest(model.irr)) << step;
        ASSERT_EQ(real.bus.ended, model.ended) << step;
        real.bus.ended.clear();
        model.ended.clear();
    }
    for (unsigned i = 0; i < 256; ++i) {
        EXPECT_EQ(real.page->test(IRR, static_cast<u8>(i)), model.irr[i]);
        EXPECT_EQ(real.page->test(ISR, static_cast<u8>(i)), model.isr[i]);
    }
}

// A vector posted by any CPU arrives, and whoever posts into an idle descriptor is told to notify.
TEST(LocalApicPosting, NothingIsLostBetweenThreads) {
    vm::PendingInterrupts pending;
    constexpr u32 rounds = 20'000;
    std::atomic<u32> notifications{0};
    std::atomic<bool> finished{false};
    std::array<std::atomic<u32>, 2> consumed{};
    auto producer = [&](u8 vector, u32 slot) {
        for (u32 i = 0; i < rounds; ++i) {
            if (pending.post(vector, TriggerMode::Edge)) ++notifications;
            while (consumed[slot].load() != i + 1)
                std::this_thread::yield();
        }
    };
    std::thread consumer([&] {
        while (!finished.load()) {
            if (notifications.load() == 0) {
                std::this_thread::yield();
                continue;
            }
            --notifications;
            pending.begin_take();
            u64 const low = pending.take(0), high = pending.take(3);
            if ((low & vm::bit(0x31)) != 0) ++consumed[0];
            if ((high & vm::bit(0xf1 % 64)) != 0) ++consumed[1];
        }
    });
    std::thread first(producer, 0x31, 0), second(producer, 0xf1, 1);
    first.join();
    second.join();
    finished = true;
    consumer.join();
    EXPECT_EQ(consumed[0].load(), rounds);
    EXPECT_EQ(consumed[1].load(), rounds);
}

} // namespace
