// SPDX-License-Identifier: MIT
#include <platform/system_ports.hpp>

namespace platform {
namespace {

constexpr u8 RST_CPU = 0x04, reset_control_kept = 0x0a; // [intel/ich] 13.7.5 RST_CNT
constexpr u8 INIT_NOW = 0x01, ALT_A20_GATE = 0x02;      // [intel/ich] 13.7.3 PORT92

} // namespace

void SystemPorts::reset() {
    u8 const last = state_.post_code;
    state_ = {};
    state_.port92 = ALT_A20_GATE;
    state_.post_code = last;
}

u8 SystemPorts::read(u16 region) const {
    switch (region) {
    case ResetControl: return state_.reset_control;
    case Port92: return state_.port92;
    case PostCode: return state_.post_code;
    default: return 0xff;
    }
}

IoReply SystemPorts::io(IoRequest const& request) {
    if (request.op == Op::Read) return {read(request.region)};
    u8 const value = static_cast<u8>(request.data);
    switch (request.region) {
    case ResetControl: {
        bool const was_set = (state_.reset_control & RST_CPU) != 0;
        state_.reset_control = value & (reset_control_kept | RST_CPU);
        if (!was_set && (value & RST_CPU) != 0) host_.request(VmRequest::Reset);
        break;
    }
    case Port92: {
        bool const was_set = (state_.port92 & INIT_NOW) != 0;
        state_.port92 = static_cast<u8>((value & INIT_NOW) | ALT_A20_GATE);
        if (!was_set && (value & INIT_NOW) != 0) host_.request(VmRequest::Reset);
        break;
    }
    case PostCode: state_.post_code = value; break;
    default: break;
    }
    return {};
}

} // namespace platform
