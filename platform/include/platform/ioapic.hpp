// SPDX-License-Identifier: MIT
#pragma once
// I/O APIC with 24 inputs and, as version 0x20, an EOI register. [intel/82093aa] [intel/ich] 13.5
//
// Not supported: input polarity (lines are asserted or not), the delivery-status bit (messages leave at once: 0), more
// than 8 bits of destination, ExtINT elsewhere than where the 8259 pair is wired (input 0).
#include <array>
#include <lib/delegate.hpp>
#include <lib/platform_layout.hpp>
#include <platform/abi.hpp>
#include <platform/state.hpp>
#include <platform/timer.hpp>

namespace platform {

// A set of interrupt vectors.
class VectorSet {
public:
    constexpr bool contains(u8 vector) const { return (words_[vector / 64] >> (vector % 64) & 1) != 0; }
    constexpr void insert(u8 vector) { words_[vector / 64] |= u64{1} << (vector % 64); }
    constexpr std::array<u64, 4> const& words() const { return words_; }
    friend constexpr bool operator==(VectorSet const&, VectorSet const&) = default;

private:
    std::array<u64, 4> words_{};
};

class Ioapic final : public Device {
public:
    static constexpr u32 pin_count = 24;
    static constexpr u64 default_base = lib::layout::ioapic_base;
    static constexpr u64 window_size = 0x1000;
    static constexpr Region regions[] = {{0, Space::Mmio, 4, default_base, window_size}};
    static constexpr u16 state_version = 1;
    struct State {
        std::array<u64, pin_count> redirection;
        u32 lines;
        u8 select, id, reserved[2];
    };

    explicit Ioapic(Plug const& plug) : host_(plug.host), held_back_(plug.host, plug.device, 0) { reset(); }
    // `changed`: a redirection entry was rewritten.
    void listen(lib::Delegate<void()> changed) { changed_ = changed; }

    IoReply io(IoRequest const& request) override;
    void on(Event const& event) override;
    void reset() override;
    State save() const { return state_; }
    lib::Result<void> restore(State const& state);

    void set_line(u32 pin, bool level);
    void end_of_interrupt(u8 vector);
    bool is_masked(u32 pin) const;
    // Vectors whose EOI must reach end_of_interrupt().
    VectorSet const& eoi_vectors() const { return eoi_vectors_; }
    // True once after eoi_vectors() changed.
    bool take_eoi_vectors_changed() {
        if (!eoi_vectors_changed_) [[likely]]
            return false;
        eoi_vectors_changed_ = false;
        return true;
    }

private:
    void write(u64 offset, u32 value);
    u32 read_register(u32 index) const;
    void write_register(u32 index, u32 value);
    void write_redirection(u32 pin, u64 entry);
    void service(u32 pin, bool is_edge);
    void collect_eoi_vectors();
    void service_held_back();

    Host& host_;
    lib::Delegate<void()> changed_;
    State state_{};
    VectorSet eoi_vectors_;
    bool eoi_vectors_changed_ = false;
    // A level-triggered input that is still asserted after its EOI interrupts again. A real one gives the processor
    // time for some instructions in between, messages on a bus being slow; ours would leave it none. After `patience`
    // such returns in a row each waits a little.
    static constexpr u8 patience = 64;
    static constexpr u64 pause_ns = 50'000;
    std::array<u8, pin_count> returns_{};
    Timer held_back_;
};

} // namespace platform
