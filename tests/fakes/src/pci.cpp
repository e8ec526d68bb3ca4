// SPDX-License-Identifier: MIT
#include <fakes/pci.hpp>

namespace fakes {
namespace {

constexpr u32 COMMAND = 0x04, STATUS = 0x06, HEADER = 0x0e, CAPABILITIES = 0x34;

void require(bool condition, char const* what) {
    if (!condition) throw Unexpected(std::string("PCI: ") + what);
}

} // namespace

PciFunction::PciFunction(u32 id, u32 class_code, u8 header) {
    set32(0, id);
    set32(8, class_code << 8 | 1);
    set8(HEADER, header);
}

void PciFunction::set16(u32 offset, u16 value) {
    set8(offset, static_cast<u8>(value));
    set8(offset + 1, static_cast<u8>(value >> 8));
}
void PciFunction::set32(u32 offset, u32 value) {
    set16(offset, static_cast<u16>(value));
    set16(offset + 2, static_cast<u16>(value >> 16));
}

void PciFunction::add_bar(u32 offset, u32 value, u32 writable) {
    set32(offset, value);
    writable_[offset] = writable;
}

void PciFunction::add_capability(u8 offset, u8 id) {
    set8(offset, id);
    set8(offset + 1U, bytes_[CAPABILITIES]);
    set8(CAPABILITIES, offset);
    bytes_[STATUS] |= 1 << 4;
}

void PciFunction::write(u32 offset, unsigned width, u32 value) {
    writes++;
    u8 const type = bytes_[HEADER] & 0x7f;
    u32 const last_bar = type == 0 ? 0x24 : type == 1 ? 0x14 : 0;
    u32 const rom = type == 0 ? 0x30 : 0x38;
    if ((offset >= 0x10 && offset <= last_bar) || (offset == rom && type <= 1)) {
        require(width == 4, "a BAR is written whole");
        return write_bar(offset, value);
    }
    if (offset < is_writable_.size() && is_writable_[offset]) {
        for (u32 i = offset; i < offset + width; i++) {
            require(is_writable_[i], "a write across the end of what may be written");
            set8(i, static_cast<u8>(value >> (i - offset) * 8));
        }
        return;
    }
    // 32 bits at once would clear status bits.
    require(offset == COMMAND && width == 2, "a write to what nobody should change");
    require((value & ~0x7ffU) == 0, "reserved bits of the command");
    set16(COMMAND, static_cast<u16>(value));
}

void PciFunction::write_bar(u32 offset, u32 value) {
    u32 const now = get32(offset);
    auto const found = writable_.find(offset);
    u32 const writable = found == writable_.end() ? 0 : found->second;
    u32 const next = (now & ~writable) | (value & writable);
    u32 const command = get16(COMMAND);
    bool const is_io = (now & 1) != 0 && offset < 0x30;
    if (next != now) require((command & (is_io ? 1 : 2)) == 0, "a BAR changes while the function decodes it");
    set32(offset, next);
    if (offset >= 0x30) require((next & 1) == 0, "a ROM is turned on");
}

PciFunction* PciMachine::find(u16 segment, PciId id) {
    auto const functions = functions_.find(segment);
    if (functions == functions_.end()) return nullptr;
    auto const found = functions->second.find(id);
    return found == functions->second.end() ? nullptr : &found->second;
}

u32 PciMachine::read(u16 segment, PciId id, u32 offset, unsigned width) {
    accesses++;
    require(offset % width == 0, "an access is not aligned");
    PciFunction const* const function = find(segment, id);
    if (function == nullptr) return ~0U;
    u32 value = 0;
    for (unsigned i = 0; i < width; i++)
        value |= u32{function->bytes_[offset + i]} << i * 8;
    return value;
}

void PciMachine::write(u16 segment, PciId id, u32 offset, unsigned width, u32 value) {
    accesses++;
    require(offset % width == 0, "an access is not aligned");
    PciFunction* const function = find(segment, id);
    require(function != nullptr, "a write to a function that is not there");
    function->write(offset, width, value);
}

PciId PciMachine::selected() const {
    require((address_ & 0x80ff'fffcU) == address_, "a bad address in 0xcf8");
    require((address_ >> 31) != 0, "0xcfc is used without an address in 0xcf8");
    return {ignores_bus ? u8{0} : static_cast<u8>(address_ >> 16), static_cast<u8>(address_ >> 11 & 31),
            static_cast<u8>(address_ >> 8 & 7)};
}

void PciMachine::add_ports() {
    cpu_.add_ports(0xcf8, 4,
                   {.in =
                        [this](u16 offset, unsigned width) {
                            require(offset == 0 && width == 4, "0xcf8 is a doubleword");
                            return address_;
                        },
                    .out =
                        [this](u16 offset, unsigned width, u32 value) {
                            require(offset == 0 && width == 4, "0xcf8 is a doubleword");
                            address_ = value;
                        }});
    cpu_.add_ports(
        0xcfc, 4,
        {.in = [this](u16 offset, unsigned width) { return read(0, selected(), (address_ & 0xfc) + offset, width); },
         .out = [this](u16 offset, unsigned width,
                       u32 value) { write(0, selected(), (address_ & 0xfc) + offset, width, value); }});
}

void PciMachine::add_ecam(u64 base, u16 segment, u8 first_bus, u8 last_bus) {
    auto const id_of = [first_bus](u64 offset) {
        return PciId{static_cast<u8>(first_bus + (offset >> 20)), static_cast<u8>(offset >> 15 & 31),
                     static_cast<u8>(offset >> 12 & 7)};
    };
    cpu_.add_mmio(
        base, (u64{last_bus} - first_bus + 1) << 20,
        {.load = [=, this](u64 offset, unsigned width) { return read(segment, id_of(offset), offset & 0xfff, width); },
         .store = [=,
                   this](u64 offset, unsigned width,
                         u64 value) { write(segment, id_of(offset), offset & 0xfff, width, static_cast<u32>(value)); },
         .widths = 1 | 2 | 4});
}

} // namespace fakes
