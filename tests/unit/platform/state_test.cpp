// SPDX-License-Identifier: MIT
// One round trip for every device: save, modify, restore, compare; and modifying must have made a difference.
#include <platform/platform.hpp>

#include <cstring>
#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>
#include <memory>
#include <vector>

namespace {

using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;

template <typename State> bool same(State const& left, State const& right) {
    return std::memcmp(&left, &right, sizeof(State)) == 0;
}

template <platform::Saveable D> void write(D& device, lib::u16 region, u64 offset, u64 data, u8 size = 1) {
    device.io({offset, data, region, size, Op::Write, 0});
}

// How each device is brought to life and changed.
template <typename D> struct Subject;

template <> struct Subject<platform::PicPair> {
    platform::PicPair device;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()) {}
    void prepare() {
        write(device, platform::PicPair::Master, 1, 0x00);
        device.set_line(3, true);
    }
    void modify() {
        device.acknowledge();
        write(device, platform::PicPair::Slave, 0, 0x11);
    }
};
template <> struct Subject<platform::Ioapic> {
    platform::Ioapic device;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()) {}
    void set(u32 index, u32 value) {
        write(device, 0, 0, index, 4);
        write(device, 0, 0x10, value, 4);
    }
    void prepare() {
        set(0x10 + 18, 0x8051);
        device.set_line(9, true);
    }
    void modify() {
        device.set_line(9, false);
        device.end_of_interrupt(0x51);
        set(0, 0x0100'0000);
    }
};
template <> struct Subject<platform::PciHost> {
    platform::PciHost device;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()) {}
    void prepare() { write(device, platform::PciHost::ConfigAddress, 0, 0x8000'003c, 4); }
    void modify() {
        write(device, platform::PciHost::ConfigData, 0, 0x0b); // the host bridge's interrupt line
        write(device, platform::PciHost::ConfigAddress, 0, 0x8000'0000, 4);
    }
};
template <> struct Subject<platform::Pit> {
    platform::Pit device;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()) {}
    void program(u8 control, u8 low, u8 high) {
        write(device, 0, 3, control);
        write(device, 0, control >> 6, low);
        write(device, 0, control >> 6, high);
    }
    void prepare() {
        program(0x34, 0xa9, 0x04);
        program(0xb0, 0xff, 0xff);
    }
    void modify() {
        program(0x30, 1, 2);
        write(device, platform::Pit::SystemControl, 0, 3);
    }
};
template <> struct Subject<platform::Rtc> {
    platform::Rtc device;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()) {}
    void set(u8 index, u8 value) {
        write(device, 0, 0, index);
        write(device, 0, 1, value);
    }
    void prepare() { set(0x0b, 0x52); }
    void modify() {
        set(0x0b, 0x86);
        set(0, 7);
        set(0x77, 1);
    }
};
template <> struct Subject<platform::Hpet> {
    platform::Hpet device;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()) {}
    void prepare() {
        write(device, 0, 0x120, 0x2804, 8);
        write(device, 0, 0x128, 1000, 8);
        write(device, 0, 0x10, 3, 8);
    }
    void modify() {
        write(device, 0, 0x10, 0, 8);
        write(device, 0, 0xf0, 77, 8);
    }
};
template <> struct Subject<platform::AcpiPm> {
    platform::AcpiPm device;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()) {}
    void prepare() {
        write(device, platform::AcpiPm::Pm1Event, 2, 0x101, 2);
        device.power_button();
    }
    void modify() { write(device, platform::AcpiPm::Pm1Event, 0, 0xffff, 2); }
};
template <> struct Subject<platform::SerialPort> {
    platform::SerialPort device;
    fakes::FakeHost& host_;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()), host_(host) {}
    void prepare() {
        host_.console_room = 0;
        write(device, 0, 1, 3);
        write(device, 0, 3, 8);
        write(device, 0, 0, 'x');
    }
    void modify() {
        write(device, 0, 2, 7);
        write(device, 0, 7, 0x5a);
    }
};
template <> struct Subject<platform::I8042> {
    platform::I8042 device;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()) {}
    void prepare() { write(device, platform::I8042::Command, 0, 0xaa); }
    void modify() { write(device, platform::I8042::Command, 0, 0x60); }
};
template <> struct Subject<platform::SystemPorts> {
    platform::SystemPorts device;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()) {}
    void prepare() { write(device, platform::SystemPorts::PostCode, 0, 1); }
    void modify() { write(device, platform::SystemPorts::PostCode, 0, 2); }
};

template <> struct Subject<platform::VirtioRng> {
    platform::VirtioRng device;
    explicit Subject(fakes::FakeHost& host) : device(host.plug()) {}
    void prepare() {
        write(device, 0, 20, 3);             // status: a driver is there
        device.function().write(1, 6, ~0U);  // memory, bus master
        write(device, 2, 0, 0xfee0'0000, 4); // vector 0
    }
    void modify() {
        write(device, 0, 20, 0);
        write(device, 0, 24, 4, 2); // queue size
        write(device, 2, 12, 0, 4); // vector 0 is open
    }
};

// A virtio device whose queues are served outside of the platform.
template <typename D> struct ServedSubject {
    D device;
    static platform::Plug plug(fakes::FakeHost& host) {
        for (auto& disk : host.facts.disks)
            disk = {4096, 2, true, false};
        for (auto& nic : host.facts.nics)
            nic = {{2, 0, 0, 0, 0, 1}, true};
        return host.plug();
    }
    explicit ServedSubject(fakes::FakeHost& host) : device(plug(host)) {}
    void prepare() {
        write(device, 0, 20, 3);             // status: a driver is there
        device.function().write(1, 6, ~0U);  // memory, bus master
        write(device, 2, 0, 0xfee0'0000, 4); // vector 0
    }
    void modify() {
        write(device, 0, 20, 0);
        write(device, 0, 24, 4, 2); // queue size
        write(device, 2, 12, 0, 4); // vector 0 is open
    }
};
template <u32 Number> struct Subject<platform::Disk<Number>> : ServedSubject<platform::Disk<Number>> {
    using ServedSubject<platform::Disk<Number>>::ServedSubject;
};
template <u32 Number> struct Subject<platform::Nic<Number>> : ServedSubject<platform::Nic<Number>> {
    using ServedSubject<platform::Nic<Number>>::ServedSubject;
};

template <typename D> struct RoundTrip : testing::Test {};
using Devices = testing::Types<platform::PciHost, platform::PicPair, platform::Ioapic, platform::Pit, platform::Rtc,
                               platform::Hpet, platform::AcpiPm, platform::SerialPort, platform::I8042,
                               platform::SystemPorts, platform::VirtioRng, platform::Disk<0>, platform::Disk<1>,
                               platform::Disk<2>, platform::Disk<3>, platform::Nic<0>, platform::Nic<1>>;
TYPED_TEST_SUITE(RoundTrip, Devices);

TYPED_TEST(RoundTrip, RestoresWhatWasSaved) {
    static_assert(platform::Saveable<TypeParam>);
    fakes::FakeHost host;
    host.clock = 12'345'678'901;
    Subject<TypeParam> subject(host);
    host.deliver_to([&](platform::Event const& event) { subject.device.on(event); });
    subject.prepare();
    auto const saved = subject.device.save();
    auto const timers = host.timers.size();
    std::size_t const lines = host.line_changes.size();

    subject.modify();
    ASSERT_FALSE(same(saved, subject.device.save())) << "modify() changes nothing: the test proves nothing";
    std::size_t const lines_modified = host.line_changes.size();
    ASSERT_TRUE(subject.device.restore(saved));
    EXPECT_TRUE(same(saved, subject.device.save()));
    EXPECT_EQ(host.timers.size(), timers); // what ran runs again
    EXPECT_EQ(host.line_changes.size(), lines_modified);
    EXPECT_GE(lines_modified, lines);

    // And in a device of the same kind elsewhere, at the same moment.
    fakes::FakeHost elsewhere;
    elsewhere.clock = host.clock;
    Subject<TypeParam> other(elsewhere);
    ASSERT_TRUE(other.device.restore(saved));
    EXPECT_TRUE(same(saved, other.device.save()));
    EXPECT_EQ(elsewhere.timers.size(), timers);
}

struct PlatformStateTest : testing::Test {
    fakes::FakeHost host;
    std::unique_ptr<platform::Platform> platform = make(host);
    static std::unique_ptr<platform::Platform> make(fakes::FakeHost& host) {
        return std::make_unique<platform::Platform>(host, host.memory,
                                                    platform::MachineFacts{1'700'000'000, 2, lib::GiB, 0, 40, true});
    }
    static std::vector<u8> save(platform::Platform const& platform) {
        std::vector<u8> bytes(platform.saved_size(), 0xcc);
        EXPECT_TRUE(platform.save(bytes));
        return bytes;
    }
    void out(lib::u16 port, u32 value) { platform->io(platform::Space::Pio, port, 1, Op::Write, value); }
};

TEST_F(PlatformStateTest, AMachineMovesAndItsTimerTicksOn) {
    host.deliver_to([this](platform::Event const& event) { platform->on(event); });
    out(0x21, 0xfe);
    out(0x43, 0x34);
    out(0x40, 0xa9);
    out(0x40, 0x04);
    host.advance(10'500'000);
    ASSERT_TRUE(host.intr);
    auto const saved = save(*platform);

    fakes::FakeHost elsewhere;
    elsewhere.clock = host.clock;
    auto const moved = make(elsewhere);
    elsewhere.deliver_to([&](platform::Event const& event) { moved->on(event); });
    ASSERT_TRUE(moved->restore(saved));
    EXPECT_EQ(save(*moved), saved);
    EXPECT_TRUE(elsewhere.intr);
    EXPECT_EQ(moved->acknowledge_interrupt(), 0x08);
    moved->io(platform::Space::Pio, 0x20, 1, Op::Write, 0x20);
    EXPECT_FALSE(elsewhere.intr);
    elsewhere.advance(1'000'000);
    EXPECT_TRUE(elsewhere.intr);
}

TEST_F(PlatformStateTest, SavesEveryByte) {
    std::vector<u8> other(platform->saved_size(), 0x33);
    ASSERT_TRUE(platform->save(other));
    EXPECT_EQ(save(*platform), other);
}

TEST_F(PlatformStateTest, RefusesOtherSizesAndVersions) {
    auto bytes = save(*platform);
    EXPECT_EQ(platform->restore(std::span(bytes).first(bytes.size() - 1)).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(platform->save(std::span(bytes).first(bytes.size() - 1)).error(), lib::Errc::OutOfRange);
    bytes[2]++;
    EXPECT_EQ(platform->restore(bytes).error(), lib::Errc::BadFormat);
}

// Whatever the bytes say, the platform must stay within bounds afterwards.
TEST_F(PlatformStateTest, DamagedBytesAreRefusedOrHarmless) {
    auto const good = save(*platform);
    for (std::size_t at = 0; at < good.size(); at++) {
        auto bad = good;
        bad[at] ^= 0xff;
        static_cast<void>(platform->restore(bad));
        for (unsigned port = 0; port < 0x610; port++)
            platform->io(platform::Space::Pio, port, 1, Op::Read, 0);
        for (unsigned i = 0; i < 4 && !host.timers.empty(); i++)
            host.advance_to(host.timers.begin()->second.deadline);
        host.timers.clear();
        host.clock = 0;
        ASSERT_TRUE(platform->restore(good));
    }
}

} // namespace
