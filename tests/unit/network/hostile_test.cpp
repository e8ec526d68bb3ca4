// SPDX-License-Identifier: MIT
// Drivers that break rules: their own device is left alone until they start again, and nobody else notices.
#include "nics.hpp"

namespace {

using namespace network_test;

struct HostileTest : NetworkTest {
    HostileTest() {
        add(), add(), add();
        start();
        learn_all();
    }
    Driver& bad() { return *drivers[0]; }
    // NIC 0 was misused; the others hear each other, and NIC 0 works when its driver starts again.
    void expect_misuse_of_it_alone() {
        world.ring(0);
        world.run();
        EXPECT_GE(world.misuses[0], 1U);
        EXPECT_EQ(world.misuses[1] + world.misuses[2], 0U);
        u16 const sent = bad().tx.device_index(), got = bad().rx.device_index();
        bad().send(make_frame(mac_of(1), mac_of(0)));
        drivers[1]->send(make_frame(mac_of(2), mac_of(1), 77));
        drivers[1]->send(make_frame(mac_of(0), mac_of(1)));
        world.run();
        expect_received(*drivers[2], make_frame(mac_of(2), mac_of(1), 77));
        EXPECT_EQ(bad().tx.device_index(), sent);
        EXPECT_EQ(bad().rx.device_index(), got);
        while (drivers[1]->next()) {
        }
        bad().start();
        bad().add_buffers(4);
        bad().send(make_frame(mac_of(1), mac_of(0), 99));
        drivers[1]->send(make_frame(mac_of(0), mac_of(1), 98));
        world.run();
        expect_received(*drivers[1], make_frame(mac_of(1), mac_of(0), 99));
        expect_received(bad(), make_frame(mac_of(0), mac_of(1), 98));
    }
    void send_to_it() {
        drivers[1]->send(make_frame(mac_of(0), mac_of(1), 1000));
        world.run();
    }
};

TEST_F(HostileTest, HeadThatIsNoDescriptor) {
    bad().tx.make_available(64);
    expect_misuse_of_it_alone();
}

TEST_F(HostileTest, MoreThanTheRingHasRoomFor) {
    bad().guest.put<u16>(bad().tx.available() + 2, 100);
    expect_misuse_of_it_alone();
}

TEST_F(HostileTest, ChainThatIsALoop) {
    bad().tx.describe(bad().tx.descriptors(20), {Driver::transmit_at, 100, false}, NEXT, 20);
    bad().tx.make_available(20);
    expect_misuse_of_it_alone();
}

TEST_F(HostileTest, BufferThatIsNoMemory) {
    for (auto const& [at, size] : {std::pair<u64, u32>{Guest::area_size - 10, 100},
                                   {Guest::high_area - 1, 2},
                                   {~u64{0} - 5, 100},
                                   {0x1'0000, 0xffff'ffff}}) {
        bad().tx.add({{at, size, false}});
        expect_misuse_of_it_alone();
        learn_all();
    }
}

TEST_F(HostileTest, FrameWithoutAWholeHeader) {
    bad().tx.add({{Driver::transmit_at, 11, false}});
    expect_misuse_of_it_alone();
}

TEST_F(HostileTest, FrameInMemoryForTheDevice) {
    bad().tx.add({{Driver::transmit_at, 100, true}});
    expect_misuse_of_it_alone();
}

TEST_F(HostileTest, WritableDescriptorsOfAFrameAreIgnored) {
    Bytes const frame = make_frame(mac_of(1), mac_of(0));
    u32 const size = bad().put_frame(Driver::transmit_at, frame, {});
    bad().guest.fill(0x5'0000, 0xaa, 100);
    bad().tx.add({{Driver::transmit_at, size, false}, {0x5'0000, 100, true}});
    world.ring(0);
    world.run();
    expect_received(*drivers[1], frame);
    EXPECT_EQ(bad().guest.get_bytes(0x5'0000, 100), Bytes(100, 0xaa));
    EXPECT_EQ(world.misuses[0], 0U);
}

TEST_F(HostileTest, BuffersBrokenWhileAFrameComes) {
    bad().start();
    bad().rx.make_available(64);
    world.run();
    EXPECT_EQ(world.misuses[0], 0U); // nobody has looked
    send_to_it();
    expect_misuse_of_it_alone();
}

TEST_F(HostileTest, BufferWithoutRoomForAHeader) {
    bad().start();
    bad().rx.add({{Driver::receive_at, 11, true}});
    world.run();
    send_to_it();
    expect_misuse_of_it_alone();
}

TEST_F(HostileTest, BufferThatIsReadOnly) {
    bad().start();
    bad().rx.add({{Driver::receive_at, 2000, false}});
    world.run();
    send_to_it();
    expect_misuse_of_it_alone();
}

TEST_F(HostileTest, SecondOfTheMergeableBuffersIsBroken) {
    bad().start();
    bad().rx.add({{Driver::receive_at, 500, true}});
    bad().rx.add({{Guest::area_size - 1, 500, true}});
    world.run();
    send_to_it();
    EXPECT_EQ(bad().rx.device_index(), 0);
    expect_misuse_of_it_alone();
}

TEST_F(HostileTest, ReadableDescriptorsOfABufferAreIgnored) {
    bad().start();
    bad().guest.fill(0x5'0000, 0xaa, 100);
    bad().rx.add({{0x5'0000, 100, false}, {Driver::receive_at, 1600, true}});
    world.run();
    send_to_it();
    expect_received(bad(), make_frame(mac_of(0), mac_of(1), 1000));
    EXPECT_EQ(bad().guest.get_bytes(0x5'0000, 100), Bytes(100, 0xaa));
}

TEST_F(HostileTest, FramesBeforeTheBrokenOneArrive) {
    bad().send(make_frame(mac_of(1), mac_of(0), 66));
    bad().tx.make_available(99);
    world.ring(0);
    world.run();
    expect_received(*drivers[1], make_frame(mac_of(1), mac_of(0), 66));
    EXPECT_EQ(world.interrupts[1][receive], 1U);
    expect_misuse_of_it_alone();
}

TEST_F(HostileTest, RingsThatAreNoMemory) {
    for (u32 i = 0; i < 3; i++) {
        bad().start();
        service::QueueEntry& entry = bad().rx.entry();
        (i == 0 ? entry.descriptors : i == 1 ? entry.available : entry.used) = Guest::area_size - 16;
        expect_misuse_of_it_alone();
        learn_all();
    }
}

TEST_F(HostileTest, RingsThatMakeNoSense) {
    for (u32 i = 0; i < 5; i++) {
        bad().start();
        service::QueueEntry& entry = bad().tx.entry();
        if (i < 3) entry.size = i == 0 ? 3 : i == 1 ? 128 : 0xffff;
        if (i == 3) entry.descriptors += 8;
        if (i == 4) entry.used += 2;
        expect_misuse_of_it_alone();
        learn_all();
    }
}

TEST_F(HostileTest, DeviceThatMakesNoSenseIsLeftOut) {
    service::DeviceEntry const good = world.board->devices[0];
    for (u32 i = 0; i < 8; i++) {
        service::DeviceEntry& entry = world.board->devices[0] = good;
        switch (i) {
        case 0: entry.queue_count = 1; break;
        case 1: entry.queue_count = 4; break;
        case 2: entry.mac[0] |= 1; break;
        case 3: entry.ram_area_count = 0; break;
        case 4: entry.ram_area_count = 9; break;
        case 5: entry.ram[1].base = 0x1000; break;
        case 6: entry.ram[1].size = service::max_guest_phys; break;
        default: entry.kind = service::DeviceKind::Block; break;
        }
        world.change_board();
        world.run();
        EXPECT_FALSE(world.instance->nic(0).is_present()) << i;
        drivers[1]->send(make_frame(broadcast, mac_of(1)));
        world.run();
        EXPECT_EQ(bad().rx.device_index(), 0);
        EXPECT_TRUE(drivers[2]->next());
        world.board->devices[0] = good;
        world.change_board();
        world.run();
        EXPECT_TRUE(world.instance->nic(0).is_present());
    }
    EXPECT_EQ(world.misuses[0], 0U);
}

} // namespace
