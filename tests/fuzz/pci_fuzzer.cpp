// SPDX-License-Identifier: MIT
// A machine whose PCI functions answer whatever the input says: the search ends, and what it believes is sound.
// Input: pieces of 4 bytes (bus, device and function, offset / 4, length) and `length` bytes for the configuration
// space from that offset on. Bytes that no piece sets read as 0 where a function is, and BARs keep what is written.
#include "require.hpp"

#include <algorithm>
#include <fakes/cpu.hpp>
#include <kernel/pci.hpp>
#include <map>
#include <memory>

namespace {

using fuzz::require;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

class Machine {
public:
    Machine(u8 const* data, std::size_t size) {
        keeps_bars_ = size > 0 && (data[0] & 1) != 0;
        while (size >= 4) {
            auto& bytes = functions_[static_cast<u16>(data[0] << 8 | data[1])];
            std::size_t const length = std::min<std::size_t>(data[3], size - 4);
            for (std::size_t i = 0; i < length; i++)
                bytes[(data[2] * 4U + i) % 256] = data[4 + i];
            data += 4 + length;
            size -= 4 + length;
        }
        cpu_.add_ports(
            0xcf8, 8,
            {.in = [this](u16 offset, unsigned width) { return offset < 4 ? address_ : read(offset & 3, width); },
             .out =
                 [this](u16 offset, unsigned width, u32 value) {
                     if (offset < 4)
                         address_ = value;
                     else
                         write(offset & 3, width, value);
                 }});
    }
    u64 accesses = 0;

private:
    u32 read(unsigned low, unsigned width) {
        accesses++;
        auto const found = functions_.find(static_cast<u16>(address_ >> 8));
        if (found == functions_.end()) return ~0U;
        u32 value = 0;
        for (unsigned i = 0; i < width; i++)
            value |= u32{found->second[(address_ + low + i) & 0xff]} << i * 8;
        return value;
    }
    void write(unsigned low, unsigned width, u32 value) {
        accesses++;
        auto const found = functions_.find(static_cast<u16>(address_ >> 8));
        require(found != functions_.end());
        for (unsigned i = 0; i < width && keeps_bars_; i++)
            found->second[(address_ + low + i) & 0xff] = static_cast<u8>(value >> i * 8);
    }
    fakes::Cpu cpu_;
    u32 address_ = 0;
    bool keeps_bars_ = false;
    std::map<u16, std::array<u8, 256>> functions_;
};

lib::Result<kernel::HostVirt> map_bus(kernel::HostPhys, u64) { return lib::fail(lib::Errc::NoMemory); }

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    Machine machine(data, size);
    auto const config = std::make_unique<kernel::PciConfig>(kernel::PciConfig::Map::to_function<map_bus>());
    require(config->find_ports());
    kernel::Pci pci(*config);
    static_cast<void>(pci.find_functions());
    static_cast<void>(pci.stop_unowned());
    require(pci.count() <= kernel::Pci::most_functions);
    // Each bus once, each function of it once, and of each function no more than its header and its list.
    require(machine.accesses <= 32 * 256 + 256 * 32 * 10 + u64{pci.count()} * 160);
    for (u32 i = 0; auto const* const function = pci.function(i); i++) {
        require(function->address.device < 32 && function->address.function < 8);
        for (auto const& bar : function->bars)
            require((bar.kind == kernel::PciBar::Kind::None) == (bar.size == 0) && (bar.size & (bar.size - 1)) == 0);
        require(function->messages <= 32 && function->message_table <= 2048);
        require(!name_of(function->kind).empty());
        if (i > 0) require(pci.function(i - 1)->address != function->address);
    }
    return 0;
}
