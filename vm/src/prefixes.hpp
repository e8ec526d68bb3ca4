// SPDX-License-Identifier: MIT
#pragma once
// The prefixes of an instruction, for both decoders. [intel/vol2] 2.1.1, 2.2.1
#include <vm/decoder.hpp>

namespace vm {

struct Prefixes {
    u8 rex = 0;
    bool operand_size = false;
    bool address_size = false;
    bool lock = false;
    SegmentRegister segment = SegmentRegister::None;
    Repeat repeat = Repeat::None;

    // False: `byte` is no prefix in this mode. A legacy prefix after REX makes REX void.
    bool take(u8 byte, CpuMode mode) {
        u8 new_rex = 0;
        switch (byte) {
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
            // 64-bit mode ignores all but FS and GS. [intel/vol1] 3.3.7.1
            if (mode != CpuMode::Bits64) segment = static_cast<SegmentRegister>((byte >> 3) & 3U);
            break;
        case 0x64: segment = SegmentRegister::FS; break;
        case 0x65: segment = SegmentRegister::GS; break;
        case 0x66: operand_size = true; break;
        case 0x67: address_size = true; break;
        case 0xf0: lock = true; break;
        case 0xf2: repeat = Repeat::Repne; break;
        case 0xf3: repeat = Repeat::Rep; break;
        default:
            if (mode != CpuMode::Bits64 || (byte & 0xf0U) != 0x40) return false;
            new_rex = byte;
        }
        rex = new_rex;
        return true;
    }
    u8 size_of_operand(CpuMode mode) const {
        if ((rex & 8U) != 0) return 8;
        return (mode == CpuMode::Bits16) != operand_size ? 2 : 4;
    }
    // Of PUSH and POP, which have no 32-bit form in 64-bit mode.
    u8 size_of_stack_operand(CpuMode mode) const {
        if (mode == CpuMode::Bits64) return operand_size ? 2 : 8;
        return size_of_operand(mode);
    }
    u8 size_of_address(CpuMode mode) const {
        if (mode == CpuMode::Bits64) return address_size ? 4 : 8;
        return (mode == CpuMode::Bits16) != address_size ? 2 : 4;
    }
};

} // namespace vm
