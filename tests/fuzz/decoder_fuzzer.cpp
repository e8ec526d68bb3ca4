// SPDX-License-Identifier: MIT
// Random code bytes: nothing is read behind them, and what is decoded is well formed, repeatable and independent of
// what follows it.
#include "require.hpp"

#include <array>
#include <vector>
#include <vm/decoder.hpp>
#include <vm/instruction_length.hpp>

namespace {

using fuzz::require;

bool is_size(unsigned size) { return size == 1 || size == 2 || size == 4 || size == 8 || size == 16; }

void check_memory(vm::MemoryOperand const& memory) {
    require(memory.base < 16 || memory.base == vm::no_register);
    require(memory.index < 16 || memory.index == vm::no_register);
    require(memory.shift < 4 && memory.address_size >= 2 && memory.address_size <= 8 && is_size(memory.address_size));
    require(memory.segment <= vm::SegmentRegister::None);
}

void check_decoded(std::vector<lib::u8> const& bytes, vm::CpuMode mode) {
    vm::Instruction instruction;
    if (!vm::decode(bytes, mode, instruction)) {
        require(instruction.kind == vm::Kind::Unsupported ||
                (instruction.kind == vm::Kind::Truncated && bytes.size() < 15));
        return;
    }
    require(instruction.length >= 1 && instruction.length <= 15 && instruction.length <= bytes.size());
    require(instruction.kind > vm::Kind::Truncated && instruction.kind <= vm::Kind::MoveVectorLow);
    require(is_size(instruction.operand_size) && is_size(instruction.memory_size));
    require(instruction.memory_size <= instruction.operand_size && instruction.reg < 16);
    check_memory(instruction.memory);
    // The short way and the long way round agree.
    std::vector<lib::u8> const alone(bytes.begin(), bytes.begin() + instruction.length);
    vm::Instruction again;
    require(vm::decode(alone, mode, again));
    require(again.length == instruction.length && again.kind == instruction.kind && again.form == instruction.form);
    require(again.operand_size == instruction.operand_size && again.memory_size == instruction.memory_size);
    require(again.reg == instruction.reg && again.high_byte == instruction.high_byte);
    require(again.immediate == instruction.immediate && again.memory.base == instruction.memory.base);
    require(again.memory.index == instruction.memory.index && again.memory.shift == instruction.memory.shift);
    require(again.memory.displacement == instruction.memory.displacement &&
            again.memory.rip_relative == instruction.memory.rip_relative &&
            again.memory.address_size == instruction.memory.address_size);
}

void check_intercepted(std::vector<lib::u8> const& bytes, vm::CpuMode mode) {
    vm::InterceptedInstruction instruction;
    if (!vm::decode_intercepted(bytes, mode, instruction)) return;
    require(instruction.length >= 1 && instruction.length <= 15 && instruction.length <= bytes.size());
    require(instruction.reg < 16 && instruction.control < 16);
    if (instruction.has_memory) check_memory(instruction.memory);
    vm::Instruction memory;
    require(!vm::decode(bytes, mode, memory)); // nothing is both
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    if (size < 1) return 0;
    std::vector<lib::u8> const bytes(data + 1, data + size); // exactly as long as it is
    auto const mode = static_cast<vm::CpuMode>(data[0] % 3);
    check_decoded(bytes, mode);
    check_intercepted(bytes, mode);
    return 0;
}
