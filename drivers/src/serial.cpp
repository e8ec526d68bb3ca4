// SPDX-License-Identifier: MIT
#include <drivers/serial.hpp>

#include <algorithm>
#include <lib/x86/instructions.hpp>

namespace drivers {

// By offset; RBR, THR and IER give way to the divisor latch while LCR.DLAB is set. [ns/pc16550d] 8.0
enum class SerialPort::Register : u8 {
    RBR = 0,
    THR = 0,
    DLL = 0,
    IER = 1,
    DLM = 1,
    IIR = 2,
    FCR = 2,
    LCR = 3,
    MCR = 4,
    LSR = 5,
    MSR = 6,
    SCR = 7
};

namespace {

namespace x86 = lib::x86;

constexpr u8 IER_received = 1 << 0;
constexpr u8 IER_can_send = 1 << 1;
constexpr u8 IIR_none = 1 << 0;
constexpr u8 IIR_source = 0x0e;
constexpr u8 IIR_fifos = 0xc0; // both set on a 16550A with its FIFOs on
constexpr u8 FCR_on_and_clear = 0x07;
constexpr u8 FCR_trigger_8 = 0x80;
constexpr u8 LCR_8n1 = 0x03;
constexpr u8 LCR_DLAB = 0x80;
constexpr u8 MCR_DTR = 1 << 0;
constexpr u8 MCR_RTS = 1 << 1;
constexpr u8 MCR_OUT2 = 1 << 3;
constexpr u8 MCR_loop = 1 << 4;
constexpr u8 MSR_CTS_and_DCD = 0x90;
constexpr u8 LSR_DR = 1 << 0;
constexpr u8 LSR_THRE = 1 << 5;
constexpr u8 LSR_TEMT = 1 << 6;

// Longest wait, in reads of LSR. A port read costs about 1 us on real hardware, so this is half a second there; an
// emulator that reads ports in a few of its cycles still gets past a full FIFO at 9600 baud.
constexpr u32 wait_limit = 500'000;
constexpr u32 base_baud = 115'200;

} // namespace

// Registers that are 4 bytes apart are read and written as 4 bytes: some chips know no other access.
u8 SerialPort::read(Register at) const {
    u64 const address = base_ + u64{stride_ == 0 ? u8{1} : stride_} * static_cast<u8>(at);
    if (stride_ == 0) return x86::in8(static_cast<u16>(address));
    return stride_ == 4 ? static_cast<u8>(x86::load32(address)) : x86::load8(address);
}

void SerialPort::write(Register at, u8 value) const {
    u64 const address = base_ + u64{stride_ == 0 ? u8{1} : stride_} * static_cast<u8>(at);
    if (stride_ == 0)
        x86::out8(static_cast<u16>(address), value);
    else if (stride_ == 4)
        x86::store32(address, value);
    else
        x86::store8(address, value);
}

bool SerialPort::keeps_scratch() const {
    for (u8 const pattern : {u8{0x5a}, u8{0xa5}}) {
        write(Register::SCR, pattern);
        if (read(Register::SCR) != pattern) return false;
    }
    return true;
}

// In loop-back the four modem outputs come back as inputs: RTS as CTS, OUT2 as DCD.
bool SerialPort::loops_back() const {
    write(Register::MCR, MCR_loop | MCR_RTS | MCR_OUT2);
    bool const good = (read(Register::MSR) & 0xf0) == MSR_CTS_and_DCD;
    write(Register::MCR, 0);
    return good;
}

lib::Result<void> SerialPort::start(u32 baud) {
    if (baud == 0 || (baud != keep_baud && base_baud % baud != 0)) return lib::fail(lib::Errc::OutOfRange);
    fifo_depth_ = 0;
    if (!keeps_scratch()) return lib::fail(lib::Errc::NotFound);
    has_stalled_ = false;
    wait_for_line_status(LSR_TEMT); // firmware may still be sending; a new divisor would garble it
    write(Register::LCR, LCR_8n1);
    write(Register::IER, 0);
    if (!loops_back()) return lib::fail(lib::Errc::NotFound);
    if (baud != keep_baud) {
        u32 const divisor = base_baud / baud;
        write(Register::LCR, LCR_8n1 | LCR_DLAB);
        write(Register::DLL, static_cast<u8>(divisor));
        write(Register::DLM, static_cast<u8>(divisor >> 8));
        write(Register::LCR, LCR_8n1);
    }
    write(Register::FCR, FCR_on_and_clear | FCR_trigger_8);
    fifo_depth_ = (read(Register::IIR) & IIR_fifos) == IIR_fifos ? 16 : 1;
    has_stalled_ = false;
    events_ = 0;
    rts_ = true;
    write_modem_control();
    return {};
}

bool SerialPort::wait_for_line_status(u8 bits) {
    for (u32 i = 0; i < wait_limit; i++) {
        if ((read(Register::LSR) & bits) == bits) {
            has_stalled_ = false;
            return true;
        }
        if (has_stalled_) break; // timed out before: look once, do not wait again
    }
    has_stalled_ = true;
    return false;
}

void SerialPort::write(std::string_view text) {
    auto const* bytes = reinterpret_cast<u8 const*>(text.data());
    std::size_t left = text.size();
    while (left != 0 && is_started() && wait_for_line_status(LSR_THRE)) {
        auto const count = std::min<std::size_t>(left, fifo_depth_);
        for (std::size_t i = 0; i < count; i++)
            write(Register::THR, bytes[i]);
        bytes += count;
        left -= count;
    }
}

bool SerialPort::drain() { return !is_started() || wait_for_line_status(LSR_THRE | LSR_TEMT); }

u32 SerialPort::write_some(std::span<u8 const> bytes) {
    // THRE says that the whole FIFO is empty, so it takes its depth at once.
    if (bytes.empty() || !is_started() || (read(Register::LSR) & LSR_THRE) == 0) return 0;
    auto const now = bytes.first(std::min<std::size_t>(bytes.size(), fifo_depth_));
    if (stride_ == 0) { // nearly always: a choice for all bytes, not for each
        for (u8 const byte : now)
            x86::out8(static_cast<u16>(base_), byte);
    } else {
        for (u8 const byte : now)
            write(Register::THR, byte);
    }
    return static_cast<u32>(now.size());
}

u32 SerialPort::read_some(std::span<u8> bytes) {
    if (!is_started()) return 0;
    u32 count = 0;
    while (count < bytes.size() && (read(Register::LSR) & LSR_DR) != 0)
        bytes[count++] = read(Register::RBR);
    return count;
}

void SerialPort::enable_interrupts(bool received, bool can_send) {
    if (!is_started()) return;
    events_ = static_cast<u8>((received ? IER_received : u8{0}) | (can_send ? IER_can_send : u8{0}));
    write_modem_control();
    write_interrupt_enable();
}

void SerialPort::make_edge() const {
    write(Register::IER, 0);
    write_interrupt_enable();
}

SerialPort::Events SerialPort::handle_interrupt() {
    Events events;
    // Four sources at most can be pending; a UART that keeps asking is broken and is asked again by its next interrupt.
    for (unsigned i = 0; is_started() && i < 4; i++) {
        u8 const cause = read(Register::IIR);
        if ((cause & IIR_none) != 0) break;
        switch (cause & IIR_source) {
        case 0x0: read(Register::MSR); break;
        case 0x2: events.can_send = true; break; // reading IIR acknowledged it
        case 0x6: read(Register::LSR); break;
        case 0x4:
        case 0xc: // received, or received and waiting for long: stays until the data is read
            events.has_received = true;
            return events;
        default: return events;
        }
    }
    return events;
}

void SerialPort::set_rts(bool on) {
    if (!is_started() || rts_ == on) return;
    rts_ = on;
    write_modem_control();
    if ((events_ & IER_received) != 0) write_interrupt_enable();
}

void SerialPort::write_interrupt_enable() const {
    write(Register::IER, rts_ ? events_ : static_cast<u8>(events_ & ~IER_received));
}

void SerialPort::write_modem_control() const {
    write(Register::MCR, static_cast<u8>(MCR_DTR | (rts_ ? MCR_RTS : u8{0}) | (events_ != 0 ? MCR_OUT2 : u8{0})));
}

void SerialSink::write(std::string_view text) {
    while (!text.empty()) {
        auto const newline = text.find('\n');
        port_.write(text.substr(0, newline));
        if (newline == std::string_view::npos) return;
        port_.write("\r\n");
        text.remove_prefix(newline + 1);
    }
}

} // namespace drivers
