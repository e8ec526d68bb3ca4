// SPDX-License-Identifier: MIT
#pragma once
// The register machine of a 16550A: no bus, no line, no console. [ns/pc16550d]
//
// Not supported: baud rates (characters take no time, so a character time-out is due as soon as bytes wait below the
// trigger level), breaks, parity and framing errors, DMA modes. The transmitter holds more than the chip's 16 bytes, so
// that a guest which does not look at LSR loses later than on real hardware.
#include <array>
#include <platform/abi.hpp>
#include <platform/state.hpp>
#include <span>

namespace platform {

class Uart16550 {
public:
    static constexpr u32 receive_depth = 16;
    static constexpr u32 transmit_depth = 64;
    struct State {
        std::array<u8, receive_depth> received;
        std::array<u8, transmit_depth> to_send;
        u8 ier, fcr, lcr, mcr, lsr_errors, msr_deltas, scr, dll, dlm;
        u8 has_thr_interrupt;
        u8 received_head, received_count, to_send_count;
        u8 reserved[3];
    };
    enum Register : u32 { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

    Uart16550() { reset(); }
    void reset();
    u8 read(u32 reg);
    void write(u32 reg, u8 value);
    // What the chip's INTR pin and OUT2, which gates it on a PC, make of the state.
    bool has_interrupt() const;

    // LSR as the next read will show it.
    u8 line_status() const {
        constexpr u8 DR = 0x01, THRE = 0x20, TEMT = 0x40;
        return static_cast<u8>((state.received_count != 0 ? DR : 0) | state.lsr_errors |
                               (state.to_send_count == 0 ? THRE | TEMT : 0));
    }

    // True when a byte written to THR now goes straight out, in the order of writing.
    bool is_transmitter_open() const {
        return ((state.lcr & 0x80) | (state.mcr & 0x10) | state.to_send_count) == 0; // DLAB, LOOP
    }
    // A byte went straight out: the transmitter was busy and is empty again.
    void passed_through() { state.has_thr_interrupt = 1; }
    bool has_thr_interrupt_enabled() const { return (state.ier & 0x02) != 0; }
    std::span<u8 const> to_send() const { return {state.to_send.data(), state.to_send_count}; }
    void sent(u32 count);

    bool is_receive_empty() const { return state.received_count == 0; }
    // How many bytes receive() may be given; none in loopback, where the line is disconnected.
    u32 receive_room() const;
    void receive(std::span<u8 const> bytes);
    static bool is_valid(State const& state);

    State state{};

private:
    bool has_fifos() const { return (state.fcr & 1) != 0; }
    u32 depth() const { return has_fifos() ? receive_depth : 1; }
    u8 trigger_level() const;
    u8 interrupt_cause() const;
    u8 modem_status() const;
    u8 read_rbr();
    void push_received(u8 value);
    void write_thr(u8 value);
    void write_ier(u8 value);
    void write_fcr(u8 value);
    void write_mcr(u8 value);
};

} // namespace platform
