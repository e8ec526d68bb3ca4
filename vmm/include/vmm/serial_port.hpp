#pragma once
// A 16550A on the bus, between an interrupt line and the host's console.
//
// Bytes are never lost: what the console does not take stays in the transmitter, whose "empty" bits stay clear; what
// the receiver has no room for stays with the host until the guest reads. The host tells of new input with ConsoleInput
// whenever bytes arrive after a console_read that returned less than it was asked for, and after a restore.
//
// Not supported: see Uart16550.
#include <vmm/uart16550.hpp>

namespace vmm {

class SerialPort final : public Device {
public:
    static constexpr u16 state_version = 1;
    static constexpr u64 port_count = 8;
    struct State {
        Uart16550::State uart;
        u8 has_host_input, line, reserved[2];
    };

    SerialPort(Host& host, u32 gsi) : host_(host), gsi_(gsi) {}

    IoReply io(IoRequest const& request) override {
        u32 const reg = static_cast<u32>(request.offset & 7);
        if (request.op == Op::Write) {
            u8 const value = static_cast<u8>(request.data);
            if (uart_.can_pass_through(reg) && pass_through(value)) [[likely]]
                return {};
            write(reg, value);
            return {};
        }
        return {read(reg)};
    }
    void on(Event const& event) override;
    void reset() override;
    State save() const { return {uart_.state, has_host_input_, line_, {}}; }
    lib::Result<void> restore(State const& state);

private:
    // The fast path of a guest that writes text.
    bool pass_through(u8 value) {
        if (host_.console_write({&value, 1}) == 0) return false;
        if (uart_.has_thr_interrupt_enabled()) pulse_for_empty_transmitter();
        uart_.passed_through();
        if (uart_.has_thr_interrupt_enabled()) update_line();
        return true;
    }
    u8 read(u32 reg);
    void write(u32 reg, u8 value);
    void pulse_for_empty_transmitter();
    void send();
    void fill();
    void update_line() {
        if (bool const level = uart_.has_interrupt(); level != line_) {
            line_ = level;
            host_.set_irq_line(gsi_, level);
        }
    }

    Host& host_;
    u32 gsi_;
    Uart16550 uart_;
    bool has_host_input_ = true; // the host may hold bytes for us
    bool line_ = false;
};

} // namespace vmm
