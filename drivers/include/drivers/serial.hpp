// SPDX-License-Identifier: MIT
#pragma once
// A 16550A UART of the machine, at ports or in memory, polled or by interrupts. No wait is without bound: a dead UART
// costs one time-out, after which writes are dropped until it shows life again. [ns/pc16550d] Not supported: other
// chips than the 16550A (a 16450 works with its one-byte FIFO), CTS flow control, DMA mode.
#include <lib/bits.hpp>
#include <lib/format.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <span>
#include <string_view>

namespace drivers {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

class SerialPort {
public:
    static constexpr u16 COM1 = 0x3f8;
    static constexpr u16 COM2 = 0x2f8;
    static constexpr u8 COM1_gsi = 4; // ISA interrupts, before overrides
    static constexpr u8 COM2_gsi = 3;

    static constexpr u32 keep_baud = 0xffff'ffff; // as firmware has set it

    explicit constexpr SerialPort(u16 base) : base_(base) {}
    // Registers in memory, `stride` bytes from one to the next. `base` is the virtual address of an uncached mapping.
    static constexpr SerialPort at_memory(u64 base, u8 stride) {
        SerialPort port(0);
        port.base_ = base;
        port.stride_ = stride;
        return port;
    }

    // Looks for the UART and sets it to 8N1 with FIFOs, interrupts off, DTR and RTS on. NotFound if nothing answers.
    lib::Result<void> start(u32 baud = 115200);
    bool is_started() const { return fifo_depth_ != 0; }

    // Waits for room; drops the rest when the UART has stopped sending.
    void write(std::string_view text);
    // Waits until the last bit is on the wire; false on time-out. Before power-off, or the tail is lost.
    bool drain();
    // Sends as much as goes without waiting, and says how much. With fifo room left unknown, that is 0 or up to 16.
    u32 write_some(std::span<u8 const> bytes);
    u32 read_some(std::span<u8> bytes);

    // The line reaches the interrupt controller only with OUT2, which is set here with the first enabled event.
    void enable_interrupts(bool received, bool can_send);
    struct Events {
        bool has_received = false;
        bool can_send = false;
    };
    // Acknowledges what the UART asks for. The caller then reads until read_some() gives 0.
    Events handle_interrupt();
    // The interrupt: calls `body`, which sends and reads what it can, until the UART has asked for nothing for a
    // moment. Else its line stays up, and the interrupt controller, which waits for an edge, hears of nothing any more:
    // when the transmitter runs empty while a received byte waits, one request hides behind the other.
    template <typename Body> void serve_interrupt(Body&& body) {
        constexpr unsigned most_rounds = 16;
        for (unsigned round = 0; round < most_rounds; round++) {
            Events const events = handle_interrupt();
            body();
            if (!events.has_received) return;
        }
        make_edge(); // the other side sends faster than we read: others have their turn first
    }
    // Asks the other side to send (true) or to pause; what it still sends then waits without an interrupt.
    void set_rts(bool on);

private:
    enum class Register : u8;
    u8 read(Register at) const;
    void write(Register at, u8 value) const;
    bool keeps_scratch() const;
    bool loops_back() const;
    bool wait_for_line_status(u8 bits);
    void write_modem_control() const;
    void write_interrupt_enable() const;
    void make_edge() const;

    u64 base_;
    u8 stride_ = 0;     // 0: base_ is a port
    u8 fifo_depth_ = 0; // 0 before start()
    bool has_stalled_ = false;
    u8 events_ = 0; // IER, but that nothing is received while the other side shall pause
    bool rts_ = true;
};

// Text to a serial terminal: a carriage return goes before each line feed.
class SerialSink final : public lib::TextSink {
public:
    explicit SerialSink(SerialPort& port) : port_(port) {}
    void write(std::string_view text) override;

private:
    SerialPort& port_;
};

} // namespace drivers
