// SPDX-License-Identifier: MIT
#pragma once
// The PCI functions of a machine, reached by ports 0xcf8 and 0xcfc and by ECAM, as fakes::Cpu's devices. Strict: an
// access of a wrong width or alignment, a write to what cannot be written, a status bit that is cleared by the way, and
// BARs that are sized while the function decodes them throw Unexpected.
#include <array>
#include <fakes/cpu.hpp>
#include <map>

namespace fakes {

struct PciId {
    u8 bus, device, function;
    friend auto operator<=>(PciId const&, PciId const&) = default;
};

class PciFunction {
public:
    PciFunction(u32 id, u32 class_code, u8 header = 0);
    void set8(u32 offset, u8 value) { bytes_[offset] = value; }
    void set16(u32 offset, u16 value);
    void set32(u32 offset, u32 value);
    u16 get16(u32 offset) const { return static_cast<u16>(bytes_[offset] | bytes_[offset + 1] << 8); }
    u32 get32(u32 offset) const { return get16(offset) | u32{get16(offset + 2)} << 16; }
    // What of a BAR, or of the ROM's at `offset`, can be written; the rest reads as `value` has it.
    void add_bar(u32 offset, u32 value, u32 writable);
    // Puts a capability in front of those that are there.
    void add_capability(u8 offset, u8 id);
    // Of a capability: bytes that software may write.
    void allow_writes(u32 offset, u32 size) {
        for (u32 i = offset; i < offset + size; i++)
            is_writable_[i] = true;
    }
    void set_multifunction() { bytes_[0x0e] |= 0x80; }

    unsigned writes = 0;

private:
    friend class PciMachine;
    void write(u32 offset, unsigned width, u32 value);
    void write_bar(u32 offset, u32 value);
    std::array<u8, 4096> bytes_{};
    std::map<u32, u32> writable_;
    std::array<bool, 256> is_writable_{};
};

class PciMachine {
public:
    explicit PciMachine(Cpu& cpu) : cpu_(cpu) {}
    void add_ports();
    // ECAM of these buses at `base` (of the first of them), showing the functions of `segment`.
    void add_ecam(u64 base, u16 segment, u8 first_bus, u8 last_bus);
    PciFunction& add(PciId id, PciFunction const& function, u16 segment = 0) {
        return functions_[segment].insert_or_assign(id, function).first->second;
    }
    PciFunction& at(PciId id, u16 segment = 0) { return functions_.at(segment).at(id); }

    bool ignores_bus = false; // the ports show bus 0 on every bus
    unsigned accesses = 0;

private:
    u32 read(u16 segment, PciId id, u32 offset, unsigned width);
    void write(u16 segment, PciId id, u32 offset, unsigned width, u32 value);
    PciFunction* find(u16 segment, PciId id);
    PciId selected() const;
    Cpu& cpu_;
    u32 address_ = 0;
    std::map<u16, std::map<PciId, PciFunction>> functions_;
};

} // namespace fakes
