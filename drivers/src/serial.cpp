#include <drivers/serial.hpp>

#include <algorithm>
#include <lib/x86/instructions.hpp>

namespace drivers {
namespace {

namespace x86 = lib::x86;

// Register offsets; RBR, THR and IER give way to the divisor latch while LCR.DLAB is set. [ns/pc16550d] 8.0
enum Register : u16 {
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

u8 read(u16 base, Register offset) { return x86::in8(static_cast<u16>(base + offset)); }
void write(u16 base, Register offset, u8 value) { x86::out8(static_cast<u16>(base + offset), value); }

bool keeps_scratch(u16 base) {
    for (u8 const pattern : {u8{0x5a}, u8{0xa5}}) {
        write(base, SCR, pattern);
        if (read(base, SCR) != pattern) return false;
    }
    return true;
}

// In loop-back the four modem outputs come back as inputs: RTS as CTS, OUT2 as DCD.
bool loops_back(u16 base) {
    write(base, MCR, MCR_loop | MCR_RTS | MCR_OUT2);
    bool const good = (read(base, MSR) & 0xf0) == MSR_CTS_and_DCD;
    write(base, MCR, 0);
    return good;
}

} // namespace

lib::Result<void> SerialPort::start(u32 baud) {
    if (baud == 0 || base_baud % baud != 0) return lib::fail(lib::Errc::OutOfRange);
    fifo_depth_ = 0;
    if (!keeps_scratch(base_)) return lib::fail(lib::Errc::NotFound);
    has_stalled_ = false;
    wait_for_line_status(LSR_TEMT); // firmware may still be sending; a new divisor would garble it
    drivers::write(base_, LCR, LCR_8n1);
    drivers::write(base_, IER, 0);
    if (!loops_back(base_)) return lib::fail(lib::Errc::NotFound);
    u32 const divisor = base_baud / baud;
    drivers::write(base_, LCR, LCR_8n1 | LCR_DLAB);
    drivers::write(base_, DLL, static_cast<u8>(divisor));
    drivers::write(base_, DLM, static_cast<u8>(divisor >> 8));
    drivers::write(base_, LCR, LCR_8n1);
    drivers::write(base_, FCR, FCR_on_and_clear | FCR_trigger_8);
    fifo_depth_ = (read(base_, IIR) & IIR_fifos) == IIR_fifos ? 16 : 1;
    has_stalled_ = false;
    events_ = 0;
    rts_ = true;
    write_modem_control();
    return {};
}

bool SerialPort::wait_for_line_status(u8 bits) {
    for (u32 i = 0; i < wait_limit; i++) {
        if ((read(base_, LSR) & bits) == bits) {
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
            drivers::write(base_, THR, bytes[i]);
        bytes += count;
        left -= count;
    }
}

bool SerialPort::drain() { return !is_started() || wait_for_line_status(LSR_THRE | LSR_TEMT); }

u32 SerialPort::write_some(std::span<u8 const> bytes) {
    // THRE says that the whole FIFO is empty, so it takes its depth at once.
    if (bytes.empty() || !is_started() || (read(base_, LSR) & LSR_THRE) == 0) return 0;
    auto const count = static_cast<u32>(std::min<std::size_t>(bytes.size(), fifo_depth_));
    for (u32 i = 0; i < count; i++)
        drivers::write(base_, THR, bytes[i]);
    return count;
}

u32 SerialPort::read_some(std::span<u8> bytes) {
    if (!is_started()) return 0;
    u32 count = 0;
    while (count < bytes.size() && (read(base_, LSR) & LSR_DR) != 0)
        bytes[count++] = read(base_, RBR);
    return count;
}

void SerialPort::enable_interrupts(bool received, bool can_send) {
    if (!is_started()) return;
    events_ = static_cast<u8>((received ? IER_received : u8{0}) | (can_send ? IER_can_send : u8{0}));
    write_modem_control();
    write_interrupt_enable();
}

void SerialPort::make_edge() const {
    drivers::write(base_, IER, 0);
    write_interrupt_enable();
}

SerialPort::Events SerialPort::handle_interrupt() {
    Events events;
    // Four sources at most can be pending; a UART that keeps asking is broken and is asked again by its next interrupt.
    for (unsigned i = 0; is_started() && i < 4; i++) {
        u8 const cause = read(base_, IIR);
        if ((cause & IIR_none) != 0) break;
        switch (cause & IIR_source) {
        case 0x0: read(base_, MSR); break;
        case 0x2: events.can_send = true; break; // reading IIR acknowledged it
        case 0x6: read(base_, LSR); break;
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
    drivers::write(base_, IER, rts_ ? events_ : static_cast<u8>(events_ & ~IER_received));
}

void SerialPort::write_modem_control() const {
    drivers::write(base_, MCR, static_cast<u8>(MCR_DTR | (rts_ ? MCR_RTS : u8{0}) | (events_ != 0 ? MCR_OUT2 : u8{0})));
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
