// SPDX-License-Identifier: MIT
#pragma once
// A 16550A on the bus, between an interrupt line and the host's console.
//
// Bytes are never lost: what the console does not take stays in the transmitter, whose "empty" bits stay clear; what
// the receiver has no room for stays with the host until the guest reads. The host tells of new input with ConsoleInput
// whenever bytes arrive after a console_read that returned less than it was asked for, and after a restore.
//
// Not supported: see Uart16550.
#include <platform/uart16550.hpp>

namespace platform {

class SerialPort final : public Device {
public:
    static constexpr u16 state_version = 1;
    static constexpr u64 port_count = 8;
    static constexpr u32 irq = 4; // it is COM1
    static constexpr Region regions[] = {{0, Space::Pio, 1, 0x3f8, port_count}};
    struct State {
        Uart16550::State uart;
        u8 has_host_input, line, reserved[2];
    };

    explicit SerialPort(Plug const& plug) : host_(plug.host), wires_(plug.wires) {}

    IoReply io(IoRequest const& request) override {
        // The path of a guest that writes text: straight to the console, while nothing waits before this byte.
        bool const is_data = request.op == Op::Write && request.offset == Uart16550::RBR_THR;
        if (is_data && uart_.is_transmitter_open()) [[likely]] {
            u8 const value = static_cast<u8>(request.data);
            if (host_.console_write({&value, 1}) != 0) [[likely]] {
                if (uart_.has_thr_interrupt_enabled()) pulse_for_empty_transmitter();
                uart_.passed_through();
                return {};
            }
        }
        // Neither reading the scratch register nor writing it, nor polling LSR while no error waits, changes anything
        // else.
        u32 const reg = static_cast<u32>(request.offset);
        bool const is_quiet = reg == Uart16550::SCR || (reg == Uart16550::LSR && uart_.state.lsr_errors == 0);
        if (!is_quiet) return io_slowly(request);
        if (request.op == Op::Read) return {reg == Uart16550::SCR ? uart_.state.scr : uart_.line_status()};
        if (reg == Uart16550::SCR) uart_.state.scr = static_cast<u8>(request.data);
        return {};
    }
    void io_string(IoRequest const& request, std::span<u8> bytes) override;
    void on(Event const& event) override;
    void reset() override;
    State save() const { return {uart_.state, has_host_input_, line_, {}}; }
    lib::Result<void> restore(State const& state);

private:
    IoReply io_slowly(IoRequest const& request);
    u8 read(u32 reg);
    void write(u32 reg, u8 value);
    void pulse_for_empty_transmitter();
    void send();
    void fill();
    void update_line() {
        if (bool const level = uart_.has_interrupt(); level != line_) {
            line_ = level;
            wires_.set_irq_line(irq, level);
        }
    }

    Host& host_;
    Wires& wires_;
    Uart16550 uart_;
    bool has_host_input_ = true; // the host may hold bytes for us
    bool line_ = false;
};

} // namespace platform
