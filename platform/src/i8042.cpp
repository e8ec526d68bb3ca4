// SPDX-License-Identifier: MIT
#include <platform/i8042.hpp>

namespace platform {
namespace {

// Status register.
constexpr u8 OBF = 0x01, SYS = 0x04, A2 = 0x08, INH = 0x10, AUX_OBF = 0x20;
// Commands.
constexpr u8 read_control = 0x20, write_control = 0x60, disable_aux = 0xa7, enable_aux = 0xa8, test_aux = 0xa9,
             self_test = 0xaa, test_keyboard = 0xab, disable_keyboard = 0xad, enable_keyboard = 0xae,
             read_output_port = 0xd0, write_output_port = 0xd1, write_keyboard_buffer = 0xd2, write_aux_buffer = 0xd3,
             write_to_aux = 0xd4, pulse = 0xf0, pulse_end = 0xff, not_reset = 0x01;
constexpr u8 control_keyboard_off = 0x10, control_aux_off = 0x20, control_translate = 0x40;
constexpr u8 self_test_passed = 0x55, interface_good = 0x00;
constexpr u8 output_port_a20 = 0x02;

} // namespace

void I8042::reset() {
    state_ = {};
    // Translation is on, as firmware leaves it. Without it the byte would be the code of a key, and a driver that reads
    // once too often would take it for one.
    state_.control = SYS | control_keyboard_off | control_aux_off | control_translate;
    state_.output_port = not_reset | output_port_a20;
}

IoReply I8042::io(IoRequest const& request) {
    u8 const value = static_cast<u8>(request.data);
    if (request.op == Op::Write) {
        if (request.region == Command)
            command(value);
        else
            data(value);
        return {};
    }
    if (request.region == Command) {
        u8 const full = state_.is_output_full != 0 ? OBF : u8{0};
        u8 const aux = full != 0 && state_.from_aux != 0 ? AUX_OBF : u8{0};
        return {static_cast<u8>(full | aux | SYS | A2 | INH)};
    }
    state_.is_output_full = 0;
    return {state_.output};
}

void I8042::answer(u8 value, bool from_aux) {
    state_.output = value;
    state_.is_output_full = 1;
    state_.from_aux = from_aux;
}

void I8042::command(u8 value) {
    state_.pending_command = 0;
    if (value >= pulse) {
        // Each zero among the low bits pulses that line; the reset line is bit 0.
        if (value != pulse_end && (value & not_reset) == 0) host_.request(VmRequest::Reset);
        return;
    }
    switch (value) {
    case read_control: return answer(state_.control);
    case self_test: return answer(self_test_passed);
    case test_keyboard:
    case test_aux: return answer(interface_good);
    case disable_aux: state_.control |= control_aux_off; return;
    case enable_aux: state_.control &= static_cast<u8>(~control_aux_off); return;
    case disable_keyboard: state_.control |= control_keyboard_off; return;
    case enable_keyboard: state_.control &= static_cast<u8>(~control_keyboard_off); return;
    case read_output_port: return answer(state_.output_port);
    case write_control:
    case write_output_port:
    case write_keyboard_buffer:
    case write_aux_buffer:
    case write_to_aux: state_.pending_command = value; return;
    default: return;
    }
}

void I8042::data(u8 value) {
    u8 const command = state_.pending_command;
    state_.pending_command = 0;
    switch (command) {
    case write_control: state_.control = value; return;
    case write_output_port:
        state_.output_port = value | not_reset | output_port_a20;
        if ((value & not_reset) == 0) host_.request(VmRequest::Reset);
        return;
    case write_keyboard_buffer: return answer(value);
    case write_aux_buffer: return answer(value, true);
    default: return; // nobody is plugged in to hear it
    }
}

lib::Result<void> I8042::restore(State const& state) {
    if (state.is_output_full > 1 || state.from_aux > 1) return lib::fail(lib::Errc::BadFormat);
    state_ = state;
    return {};
}

} // namespace platform
