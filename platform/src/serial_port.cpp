// SPDX-License-Identifier: MIT
#include <algorithm>
#include <platform/serial_port.hpp>

namespace platform {

// THR was full for a moment: where only "THR empty" held the line up, edge-triggered inputs see a new edge.
void SerialPort::pulse_for_empty_transmitter() {
    uart_.state.has_thr_interrupt = 0;
    update_line();
    uart_.passed_through();
    update_line();
}

// Text at once, as far as the console takes it. Of the pulses on the line only the first would be seen: nobody runs in
// between.
void SerialPort::io_string(IoRequest const& request, std::span<u8> bytes) {
    bool const is_text = request.op == Op::Write && request.offset == Uart16550::RBR_THR;
    if (is_text && uart_.is_transmitter_open()) {
        u32 const taken = std::min(host_.console_write(bytes), static_cast<u32>(bytes.size()));
        if (taken != 0) {
            if (uart_.has_thr_interrupt_enabled()) pulse_for_empty_transmitter();
            uart_.passed_through();
        }
        bytes = bytes.subspan(taken);
    }
    Device::io_string(request, bytes);
}

IoReply SerialPort::io_slowly(IoRequest const& request) {
    u32 const reg = static_cast<u32>(request.offset & 7);
    if (request.op == Op::Read) return {read(reg)};
    write(reg, static_cast<u8>(request.data));
    return {};
}

u8 SerialPort::read(u32 reg) {
    u8 const value = uart_.read(reg);
    if (reg == Uart16550::RBR_THR && has_host_input_ && uart_.is_receive_empty()) fill();
    update_line();
    return value;
}

void SerialPort::write(u32 reg, u8 value) {
    uart_.write(reg, value);
    update_line();
    send();
    if (has_host_input_) fill(); // FCR and MCR make room
    update_line();
}

void SerialPort::send() {
    std::span<u8 const> const waiting = uart_.to_send();
    if (waiting.empty()) return;
    u32 const taken = host_.console_write(waiting);
    uart_.sent(std::min(taken, static_cast<u32>(waiting.size())));
}

void SerialPort::fill() {
    std::array<u8, Uart16550::receive_depth> bytes{};
    u32 const room = uart_.receive_room();
    if (room == 0) return;
    u32 const count = std::min(host_.console_read({bytes.data(), room}), room);
    uart_.receive({bytes.data(), count});
    has_host_input_ = count == room;
}

void SerialPort::on(Event const& event) {
    switch (event.kind) {
    case EventKind::ConsoleInput:
        has_host_input_ = true;
        fill();
        break;
    case EventKind::ConsoleSpace: send(); break;
    case EventKind::Timer: return;
    }
    update_line();
}

void SerialPort::reset() {
    // What the guest has written is out of its hands: a reboot must not eat its last words.
    auto const to_send = uart_.state.to_send;
    u8 const count = uart_.state.to_send_count;
    uart_.reset();
    uart_.state.to_send = to_send;
    uart_.state.to_send_count = count;
    has_host_input_ = true;
    update_line();
}

lib::Result<void> SerialPort::restore(State const& state) {
    if (!Uart16550::is_valid(state.uart) || state.has_host_input > 1 || state.line > 1)
        return lib::fail(lib::Errc::BadFormat);
    uart_.state = state.uart;
    has_host_input_ = state.has_host_input != 0;
    line_ = state.line != 0;
    return {};
}

} // namespace platform
