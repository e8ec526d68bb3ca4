// Random code bytes: nothing is read behind them, and what is decoded is well formed, repeatable and independent of
// what follows it.
#include <array>
#include <cstdlib>
#include <vector>
#include <vmm/decoder.hpp>
#include <vmm/instruction_length.hpp>

namespace {

void require(bool condition) {
    if (!condition) std::abort();
}

bool is_size(unsigned size) { return size == 1 || size == 2 || size == 4 || size == 8; }

void check_memory(vmm::MemoryOperand const& memory) {
    require(memory.base < 16 || memory.base == vmm::no_register);
    require(memory.index < 16 || memory.index == vmm::no_register);
    require(memory.shift < 4 && memory.address_size >= 2 && is_size(memory.address_size));
    require(memory.segment <= vmm::Segment::None);
}

void check_decoded(std::vector<vmm::u8> const& bytes, vmm::CpuMode mode) {
    vmm::Instruction instruction;
    if (!vmm::decode(bytes, mode, instruction)) {
        require(instruction.kind == vmm::Kind::Unsupported ||
                (instruction.kind == vmm::Kind::Truncated && bytes.size() < 15));
        return;
    }
    require(instruction.length >= 1 && instruction.length <= 15 && instruction.length <= bytes.size());
    require(instruction.kind > vmm::Kind::Truncated && instruction.kind <= vmm::Kind::Movs);
    require(is_size(instruction.operand_size) && is_size(instruction.memory_size));
    require(instruction.memory_size <= instruction.operand_size && instruction.reg < 16);
    check_memory(instruction.memory);
    // The short way and the long way round agree.
    std::vector<vmm::u8> const alone(bytes.begin(), bytes.begin() + instruction.length);
    vmm::Instruction again;
    require(vmm::decode(alone, mode, again));
    require(again.length == instruction.length && again.kind == instruction.kind && again.form == instruction.form);
    require(again.operand_size == instruction.operand_size && again.memory_size == instruction.memory_size);
    require(again.reg == instruction.reg && again.high_byte == instruction.high_byte);
    require(again.immediate == instruction.immediate && again.memory.base == instruction.memory.base);
    require(again.memory.index == instruction.memory.index && again.memory.shift == instruction.memory.shift);
    require(again.memory.displacement == instruction.memory.displacement &&
            again.memory.rip_relative == instruction.memory.rip_relative &&
            again.memory.address_size == instruction.memory.address_size);
}

void check_intercepted(std::vector<vmm::u8> const& bytes, vmm::CpuMode mode) {
    vmm::InterceptedInstruction instruction;
    if (!vmm::decode_intercepted(bytes, mode, instruction)) return;
    require(instruction.length >= 1 && instruction.length <= 15 && instruction.length <= bytes.size());
    require(instruction.reg < 16 && instruction.control < 16);
    if (instruction.has_memory) check_memory(instruction.memory);
    vmm::Instruction memory;
    require(!vmm::decode(bytes, mode, memory)); // nothing is both
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    if (size < 1) return 0;
    std::vector<vmm::u8> const bytes(data + 1, data + size); // exactly as long as it is
    auto const mode = static_cast<vmm::CpuMode>(data[0] % 3);
    check_decoded(bytes, mode);
    check_intercepted(bytes, mode);
    return 0;
}
