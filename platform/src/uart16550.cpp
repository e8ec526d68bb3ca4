// SPDX-License-Identifier: MIT
#include <algorithm>
#include <platform/uart16550.hpp>

namespace platform {
namespace {

// Bits as named in [ns/pc16550d].
constexpr u8 ERBFI = 0x01, ETBEI = 0x02, ELSI = 0x04, EDSSI = 0x08, ier_mask = 0x0f;
constexpr u8 iir_none = 0x01, iir_modem = 0x00, iir_thr = 0x02, iir_data = 0x04, iir_line = 0x06, iir_timeout = 0x0c,
             iir_fifos = 0xc0;
constexpr u8 fcr_enable = 0x01, fcr_reset_receiver = 0x02, fcr_reset_transmitter = 0x04, fcr_kept = 0xc9;
constexpr u8 DLAB = 0x80;
constexpr u8 DTR = 0x01, RTS = 0x02, OUT1 = 0x04, OUT2 = 0x08, LOOP = 0x10, mcr_mask = 0x1f;
constexpr u8 OE = 0x02;
constexpr u8 DCTS = 0x01, DDSR = 0x02, TERI = 0x04, DDCD = 0x08, CTS = 0x10, DSR = 0x20, RI = 0x40, DCD = 0x80;

} // namespace

void Uart16550::reset() {
    state = {};
    state.dll = 1; // 115200 baud
}

u8 Uart16550::trigger_level() const {
    constexpr std::array<u8, 4> levels{1, 4, 8, 14};
    return has_fifos() ? levels[state.fcr >> 6] : u8{1};
}

// The most urgent cause as IIR shows it.
u8 Uart16550::interrupt_cause() const {
    if ((state.ier & ELSI) != 0 && state.lsr_errors != 0) return iir_line;
    if ((state.ier & ERBFI) != 0 && state.received_count != 0)
        return state.received_count >= trigger_level() ? iir_data : iir_timeout;
    if ((state.ier & ETBEI) != 0 && state.has_thr_interrupt != 0) return iir_thr;
    if ((state.ier & EDSSI) != 0 && state.msr_deltas != 0) return iir_modem;
    return iir_none;
}

bool Uart16550::has_interrupt() const { return (state.mcr & (OUT2 | LOOP)) == OUT2 && interrupt_cause() != iir_none; }

u8 Uart16550::modem_status() const {
    if ((state.mcr & LOOP) == 0) return CTS | DSR | DCD; // a peer that is always there
    return static_cast<u8>(((state.mcr & RTS) != 0 ? CTS : 0) | ((state.mcr & DTR) != 0 ? DSR : 0) |
                           ((state.mcr & OUT1) != 0 ? RI : 0) | ((state.mcr & OUT2) != 0 ? DCD : 0));
}

u8 Uart16550::read(u32 reg) {
    switch (reg) {
    case RBR_THR: return (state.lcr & DLAB) != 0 ? state.dll : read_rbr();
    case IER: return (state.lcr & DLAB) != 0 ? state.dlm : state.ier;
    case IIR_FCR: {
        u8 const cause = interrupt_cause();
        if (cause == iir_thr) state.has_thr_interrupt = 0;
        return cause | (has_fifos() ? iir_fifos : u8{0});
    }
    case LCR: return state.lcr;
    case MCR: return state.mcr;
    case LSR: {
        u8 const status = line_status();
        state.lsr_errors = 0;
        return status;
    }
    case MSR: {
        u8 const status = modem_status() | state.msr_deltas;
        state.msr_deltas = 0;
        return status;
    }
    default: return state.scr;
    }
}

void Uart16550::write(u32 reg, u8 value) {
    switch (reg) {
    case RBR_THR:
        if ((state.lcr & DLAB) != 0)
            state.dll = value;
        else
            write_thr(value);
        break;
    case IER:
        if ((state.lcr & DLAB) != 0)
            state.dlm = value;
        else
            write_ier(value);
        break;
    case IIR_FCR: write_fcr(value); break;
    case LCR: state.lcr = value; break;
    case MCR: write_mcr(value); break;
    case LSR:
    case MSR: break;
    default: state.scr = value; break;
    }
}

u8 Uart16550::read_rbr() {
    if (state.received_count == 0) return 0;
    u8 const value = state.received[state.received_head % receive_depth];
    state.received_head = (state.received_head + 1) % receive_depth;
    state.received_count--;
    return value;
}

void Uart16550::push_received(u8 value) {
    state.received[(state.received_head + u32{state.received_count}) % receive_depth] = value;
    state.received_count++;
}

void Uart16550::write_thr(u8 value) {
    state.has_thr_interrupt = 0;
    if ((state.mcr & LOOP) != 0) {
        state.has_thr_interrupt = 1; // it left the transmitter at once
        if (state.received_count < depth())
            push_received(value);
        else
            state.lsr_errors |= OE;
    } else if (state.to_send_count < transmit_depth) {
        state.to_send[state.to_send_count++] = value;
    }
}

void Uart16550::sent(u32 count) {
    if (count == 0 || count > state.to_send_count) return;
    std::copy(state.to_send.begin() + count, state.to_send.begin() + state.to_send_count, state.to_send.begin());
    state.to_send_count -= static_cast<u8>(count);
    if (state.to_send_count == 0) state.has_thr_interrupt = 1;
}

void Uart16550::write_ier(u8 value) {
    // Drivers rely on this: enabling the interrupt while THR is empty raises it.
    bool const enables_thr = (value & ETBEI) != 0 && (state.ier & ETBEI) == 0;
    if (enables_thr && state.to_send_count == 0) state.has_thr_interrupt = 1;
    state.ier = value & ier_mask;
}

void Uart16550::write_fcr(u8 value) {
    bool const switches = ((value ^ state.fcr) & fcr_enable) != 0;
    if (switches || (value & (fcr_enable | fcr_reset_receiver)) == (fcr_enable | fcr_reset_receiver))
        state.received_head = state.received_count = 0;
    if (switches || (value & (fcr_enable | fcr_reset_transmitter)) == (fcr_enable | fcr_reset_transmitter)) {
        if (state.to_send_count != 0) state.has_thr_interrupt = 1;
        state.to_send_count = 0;
    }
    state.fcr = (value & fcr_enable) != 0 ? value & fcr_kept : u8{0}; // the rest is written only while bit 0 is
}

void Uart16550::write_mcr(u8 value) {
    u8 const before = modem_status();
    state.mcr = value & mcr_mask;
    u8 const after = modem_status();
    u8 const changed = before ^ after;
    if ((changed & CTS) != 0) state.msr_deltas |= DCTS;
    if ((changed & DSR) != 0) state.msr_deltas |= DDSR;
    if ((changed & DCD) != 0) state.msr_deltas |= DDCD;
    if ((before & RI) != 0 && (after & RI) == 0) state.msr_deltas |= TERI;
}

u32 Uart16550::receive_room() const {
    if ((state.mcr & LOOP) != 0 || state.received_count >= depth()) return 0;
    return depth() - state.received_count;
}

void Uart16550::receive(std::span<u8 const> bytes) {
    for (u8 const byte : bytes.first(std::min<std::size_t>(bytes.size(), receive_room())))
        push_received(byte);
}

bool Uart16550::is_valid(State const& state) {
    return state.received_head < receive_depth && state.received_count <= receive_depth &&
           state.to_send_count <= transmit_depth && state.ier <= ier_mask && state.mcr <= mcr_mask;
}

} // namespace platform
