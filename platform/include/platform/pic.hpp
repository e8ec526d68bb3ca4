// SPDX-License-Identifier: MIT
#pragma once
// The pair of 8259A interrupt controllers of a PC with the edge/level control registers of PIIX. [intel/8259a]
// [intel/piix]
//
// Not supported: MCS-80/85 mode (ICW4.uPM is taken as 1), buffered mode, cascading other than slave on IR2, ICW1.LTIM
// (as on PIIX, the ELCR decides). After reset the pair is as firmware leaves it: vectors 0x08 and 0x70, everything
// masked.
#include <array>
#include <lib/delegate.hpp>
#include <platform/abi.hpp>
#include <platform/state.hpp>

namespace platform {

class Pic8259A {
public:
    struct State {
        u8 irr, isr, imr, lines, elcr;
        u8 vector_base;
        u8 lowest;    // the input of lowest priority: 7 unless rotated
        u8 init_step; // the ICW expected next, 0: none
        u8 needs_icw4, auto_eoi, rotate_on_auto_eoi, special_mask, fully_nested, poll, read_isr, is_master;
    };
    static constexpr int none = -1;

    void reset(bool is_master, u8 vector_base);
    void set_line(u32 input, bool level);
    // The input that the chip wants served, or none.
    int pending() const;
    bool has_output() const { return pending() != none; }
    // Takes `input` into service.
    void acknowledge(u32 input);
    void write(u32 a0, u8 value);
    u8 read(u32 a0);
    u8 poll();

    State state{};

private:
    void write_icw1(u8 value);
    void write_ocw2(u8 value);
    void write_ocw3(u8 value);
    u32 rank(u8 set) const;
    void end(u8 inputs, bool rotate);
};

class PicPair final : public Device {
public:
    static constexpr u16 state_version = 1;
    struct State {
        Pic8259A::State master, slave;
        u8 intr, reserved[3];
    };
    enum RegionNumber : u16 { Master, Slave, Elcr };
    static constexpr Region regions[] = {
        {Master, Space::Pio, 1, 0x20, 2}, {Slave, Space::Pio, 1, 0xa0, 2}, {Elcr, Space::Pio, 1, 0x4d0, 2}};

    explicit PicPair(Plug const& plug) : wires_(plug.wires) { reset(); }
    // `masks_changed`: somebody wrote a mask. `irr_read`: the requests are about to be shown to the guest, also those
    // of masked inputs.
    void listen(lib::Delegate<void()> masks_changed, lib::Delegate<void()> irr_read) {
        masks_changed_ = masks_changed;
        irr_read_ = irr_read;
    }

    IoReply io(IoRequest const& request) override;
    void on(Event const&) override {}
    void reset() override;
    State save() const;
    lib::Result<void> restore(State const& state);

    void set_line(u32 irq, bool level);
    // The INTA cycle: the vector of what is served now; IR7's when the request went away.
    u8 acknowledge();
    bool is_masked(u32 irq) const;
    void set_level_triggered(u32 irq, bool level);
    bool output() const { return intr_; }

private:
    void update();
    u8 read(Pic8259A& chip, u32 a0);

    Wires& wires_;
    lib::Delegate<void()> masks_changed_;
    lib::Delegate<void()> irr_read_;
    Pic8259A master_;
    Pic8259A slave_;
    bool intr_ = false;
};

} // namespace platform
