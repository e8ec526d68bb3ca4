// SPDX-License-Identifier: MIT
#pragma once
// An 82540EM or 82574L that does what [intel/8254x] and [intel/82574] say, notes as a violation what they forbid the
// driver, and misbehaves where a test wants it to. It works in step() only, so that a test decides when.
#include <deque>
#include <map>
#include <memory>
#include <net/e1000.hpp>
#include <set>
#include <string>
#include <vector>

namespace net_test {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using Bytes = std::vector<u8>;

inline constexpr u64 ticks_per_millisecond = 1000;
inline constexpr u64 shared_begin = 0x1234'5000, ram_begin = 0x7'8000'0000, ram_size = lib::MiB;

enum class Chip : u8 { I82540, I82574 };
struct E1000Setup {
    Chip chip = Chip::I82574;
    bool has_msix = true;            // of 82574L: reading ICR takes nothing back
    bool ignores_reset = false;      // as Bochs does
    bool has_receive_address = true; // else the driver must read the EEPROM
    bool never_quiet = false, never_comes_back = false, never_reads_nvm = false, never_reads_word = false;
    bool is_running = false; // another driver has left it so
    u32 id = 0;              // 0: that of the chip
    u64 bar_size = 128 * lib::KiB, shared_size = 512 * lib::KiB;
    net::Address address{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    u64 quiet_us = 300, reset_us = 1500, nvm_us = 2000, word_us = 400;
};

class E1000Fake final : public lib::DeviceFunction {
public:
    explicit E1000Fake(E1000Setup const& from);

    u32 read(u32 bar, u32 offset, u32 width) override;
    void write(u32 bar, u32 offset, u32 width, u32 value) override;
    u64 bar_size(u32 bar) const override { return bar == 0 ? setup.bar_size : 0; }
    u32 configuration(u32 offset) override;
    void set_bus_master(bool on) override { bus_master_ = on; }
    void log(std::string_view line) override { lines.emplace_back(line); }
    Shared shared() override { return {{shared_bytes(), setup.shared_size}, shared_begin}; }
    u64 ticks_per_millisecond() const override { return net_test::ticks_per_millisecond; }

    // Sends what it may send, and receives what is in `incoming`.
    void step();
    bool take_interrupt() { return std::exchange(has_interrupt_, false); }
    bool is_bus_master() const { return bus_master_; }
    void set_link(bool is_up);
    u32 reg(u32 offset) const { return registers_.at(offset); }
    u8* shared_bytes() { return reinterpret_cast<u8*>(shared_.get()); }

    struct Incoming {
        Bytes bytes;
        u8 errors = 0;
        bool is_split = false; // over two buffers
        u32 forged_length = 0; // 0: the right one
    };

    E1000Setup setup;
    u64 now = 0;
    Bytes ram = Bytes(ram_size);
    std::deque<Incoming> incoming;
    std::vector<Bytes> sent;
    std::vector<std::string> lines, violations;
    bool hangs = false, gone = false, is_paused = false;
    u32 resets = 0, missed = 0, interrupts = 0;
    std::set<u64> device_pieces; // addresses that belong to the device: from a descriptor to its end

private:
    struct Page {
        alignas(lib::page_size) u8 bytes[lib::page_size];
    };
    struct Descriptor {
        u64 address;
        u16 length;
        u8 offset, command, status, start;
        u16 special;
    };
    static_assert(sizeof(Descriptor) == 16);

    void wrong(std::string const& what) { violations.push_back(what); }
    bool require(bool condition, char const* what) {
        if (!condition) wrong(what);
        return condition;
    }
    bool is_82574() const { return setup.chip == Chip::I82574; }
    bool is_known(u32 offset) const { return registers_.contains(offset); }
    bool check_access(u32 bar, u32 offset, u32 width);
    void set_defaults();
    void write_control(u32 value);
    void reset();
    void write_receive_control(u32 value);
    void write_transmit_control(u32 value);
    void write_ring(u32 offset, u32 value);
    void give_receive(u32 tail);
    void give_transmit(u32 tail);
    void check_transmit(Descriptor const& descriptor, bool& is_first, u64& size);
    void write_word_request(u32 value);
    u32 read_word_answer();
    u32 read_causes();
    void raise(u32 causes);
    void step_send();
    void step_receive();
    u8* memory(u64 address, u64 size, bool may_be_ram);
    u8* ring(u32 base) {
        return memory(registers_[base] | u64{registers_[base + 4]} << 32, registers_[base + 8], false);
    }
    Descriptor load(u32 base, u32 index);
    void store(u32 base, u32 index, Descriptor const& descriptor);

    std::unique_ptr<Page[]> shared_;
    std::map<u32, u32> registers_;
    bool bus_master_ = false, has_interrupt_ = false;
    u64 untouchable_until_ = 0, reset_until_ = 0, nvm_at_ = 0, quiet_at_ = 0, word_at_ = 0;
    bool reads_word_ = false;
};

} // namespace net_test
