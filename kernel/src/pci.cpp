// SPDX-License-Identifier: MIT
#include <kernel/pci.hpp>
#include <new>

namespace kernel {
namespace {

using lib::Errc;

// [pci/3.0] 6.1, 6.2; bridges: [pci/bridge-1.2] 3.2
constexpr u32 VENDOR = 0x00, COMMAND = 0x04, STATUS = 0x06, CLASS = 0x08, HEADER = 0x0e, BARS = 0x10, SECONDARY = 0x19,
              SUBORDINATE = 0x1a, ROM_OF_DEVICE = 0x30, CAPABILITIES = 0x34, ROM_OF_BRIDGE = 0x38;
constexpr u16 status_has_capabilities = 1 << 4;
constexpr u8 header_type = 0x7f, header_is_multifunction = 0x80;
constexpr u8 type_device = 0, type_bridge = 1;
constexpr u32 bar_is_io = 1, bar_type = 3U << 1, bar_type_64 = 2U << 1, bar_is_prefetchable = 1U << 3;
constexpr u32 rom_is_on = 1;
// [pci/3.0] appendix H; Advanced Features: [pci/af]
constexpr u8 capability_msi = 0x05, capability_express = 0x10, capability_msix = 0x11, capability_af = 0x13;
constexpr unsigned most_capabilities = (256 - 64) / 4; // of 4 bytes at least, after the header
// [pcie/4.0] 7.5.3.2, 7.5.3.3
constexpr u8 port_root = 4, port_downstream = 6;
constexpr u32 express_has_reset = 1U << 28;

constexpr u8 base_display = 0x03, base_bridge = 0x06, sub_host_bridge = 0x00;

constexpr bool is_there(u32 id) { return (id & 0xffff) != 0xffff && (id & 0xffff) != 0; }

// Bridges carry what others write; a display may read its picture from memory.
constexpr PciOwner owner_at_start(PciClass const& kind) {
    return kind.base == base_bridge || kind.base == base_display ? PciOwner::Kernel : PciOwner::Nobody;
}

// Each capability once, however they are chained. `body` gets its offset and its id, and says whether to go on.
template <typename Body> void for_each_capability(PciConfig& config, PciAddress const& at, Body body) {
    if ((config.read16(at, STATUS) & status_has_capabilities) == 0) return;
    u32 offset = config.read8(at, CAPABILITIES) & ~3U;
    for (unsigned i = 0; i < most_capabilities && offset >= 0x40; i++) {
        u16 const head = config.read16(at, offset);
        if (head == 0xffff) return;
        if (!body(offset, static_cast<u8>(head))) return;
        offset = head >> 8 & ~3U;
    }
}

u32 find_capability(PciConfig& config, PciAddress const& at, u8 id) {
    u32 found = 0;
    for_each_capability(config, at, [&](u32 offset, u8 here) {
        if (here == id) found = offset;
        return found == 0;
    });
    return found;
}

// The lowest bit that can be changed says the size, whatever the others say.
constexpr u64 size_of(u64 mask) { return mask & (~mask + 1); }

// No decoding while its BARs do not say where: it would answer in the place of others.
class DecodingOff {
public:
    DecodingOff(PciConfig& config, PciAddress const& at)
        : config_(config), at_(at), before_{{config.read16(at, COMMAND)}} {
        PciCommand command = before_;
        command.set<PciCommand::Io>(false);
        command.set<PciCommand::Memory>(false);
        if (command != before_) config_.write16(at_, COMMAND, command.raw);
    }
    ~DecodingOff() {
        if (before_.get<PciCommand::Io>() || before_.get<PciCommand::Memory>())
            config_.write16(at_, COMMAND, before_.raw);
    }
    DecodingOff(DecodingOff const&) = delete;
    DecodingOff& operator=(DecodingOff const&) = delete;

private:
    PciConfig& config_;
    PciAddress const& at_;
    PciCommand before_;
};

constinit Pci* the_pci = nullptr;

} // namespace

Pci* machine_pci() { return the_pci; }
void set_machine_pci(Pci* pci) { the_pci = pci; }

Pci::~Pci() {
    while (PciFunction* const function = functions_.pop_front())
        delete function;
}

// The buses of one segment: each is scanned once, so loops among bridges end.
class Pci::Buses {
public:
    void want(u8 bus) {
        if (is_seen_[bus]) return;
        is_seen_[bus] = true;
        waiting_[waiting_count_++] = bus;
    }
    bool is_seen(u8 bus) const { return is_seen_[bus]; }
    bool next(u8& bus) {
        if (waiting_count_ == 0) return false;
        bus = waiting_[--waiting_count_];
        return true;
    }
    // Of the bus behind a PCI Express port: nothing else can be there than device 0, though it may answer for others.
    void note_single(u8 bus) { is_single_[bus] = true; }
    bool is_single(u8 bus) const { return is_single_[bus]; }

private:
    std::array<bool, 256> is_seen_{}, is_single_{};
    std::array<u8, 256> waiting_{};
    u32 waiting_count_ = 0;
};

lib::Result<void> Pci::find_functions() {
    u16 segment = 0;
    for (u32 i = 0; config_.segment(i, segment); i++)
        TRY(scan_segment(segment));
    return {};
}

lib::Result<void> Pci::scan_segment(u16 segment) {
    Buses buses;
    u8 bus = 0;
    auto const scan_waiting = [&]() -> lib::Result<void> {
        while (buses.next(bus))
            TRY(scan_bus(segment, bus, buses));
        return {};
    };
    buses.want(0);
    TRY(scan_waiting());
    // Other host bridges have root buses that no bridge names. A machine whose chipset ignores the number of the bus
    // shows the first one again.
    std::array<u32, 32> first{};
    for (u8 device = 0; device < 32; device++)
        first[device] = config_.probe({segment, 0, device, 0});
    for (u32 other = 1; other < 256; other++) {
        auto const number = static_cast<u8>(other);
        if (buses.is_seen(number)) continue;
        bool has_any = false, differs = false;
        for (u8 device = 0; device < 32; device++) {
            u32 const id = config_.probe({segment, number, device, 0});
            has_any = has_any || is_there(id);
            differs = differs || id != first[device];
        }
        if (!has_any || !differs) continue;
        buses.want(number);
        TRY(scan_waiting());
    }
    return {};
}

lib::Result<void> Pci::scan_bus(u16 segment, u8 bus, Buses& buses) {
    if (!config_.open_bus(segment, bus)) return {};
    u32 const before = count_;
    u8 const devices = buses.is_single(bus) ? 1 : 32;
    for (u8 device = 0; device < devices; device++) {
        if (!TRY(add_function({segment, bus, device, 0}, buses))) continue;
        if ((config_.read8({segment, bus, device, 0}, HEADER) & header_is_multifunction) == 0) continue;
        for (u8 function = 1; function < 8; function++)
            static_cast<void>(TRY(add_function({segment, bus, device, function}, buses)));
    }
    if (count_ != before) bus_count_++;
    return {};
}

lib::Result<bool> Pci::add_function(PciAddress const& at, Buses& buses) {
    u32 const id = config_.read32(at, VENDOR);
    if (!is_there(id)) return false;
    if (count_ == most_functions) return lib::fail(Errc::OutOfRange);
    auto* const made = new (std::nothrow) PciFunction;
    if (made == nullptr) return lib::fail(Errc::NoMemory);
    PciFunction& function = *made;
    function.address = at;
    function.vendor = static_cast<u16>(id);
    function.device = static_cast<u16>(id >> 16);
    u32 const kind = config_.read32(at, CLASS);
    function.kind = {static_cast<u8>(kind >> 24), static_cast<u8>(kind >> 16), static_cast<u8>(kind >> 8)};
    function.header = config_.read8(at, HEADER) & header_type;
    function.owner = owner_at_start(function.kind);
    read_capabilities(function);
    if (function.header == type_bridge) {
        function.secondary = config_.read8(at, SECONDARY);
        function.subordinate = config_.read8(at, SUBORDINATE);
        // 0: firmware has not set it up. Nothing lies behind a bus that the bridge does not pass on.
        if (function.secondary != 0 && function.secondary <= function.subordinate) {
            if (has_one_device(at)) buses.note_single(function.secondary);
            buses.want(function.secondary);
        }
    }
    read_bars(function);
    functions_.push_back(function);
    count_++;
    return true;
}

bool Pci::has_one_device(PciAddress const& bridge) {
    u32 const express = find_capability(config_, bridge, capability_express);
    if (express == 0) return false;
    u8 const type = config_.read16(bridge, express + 2) >> 4 & 0xf;
    return type == port_root || type == port_downstream;
}

void Pci::read_capabilities(PciFunction& function) {
    PciAddress const& at = function.address;
    for_each_capability(config_, at, [&](u32 offset, u8 id) {
        if (id == capability_msi) {
            // Multiple Message Capable: a power of two up to 32. [pci/3.0] 6.8.1.3
            u32 const order = config_.read16(at, offset + 2) >> 1 & 7;
            function.messages = order <= 5 ? static_cast<u8>(1U << order) : u8{0};
            function.msi_at = static_cast<u8>(offset);
        } else if (id == capability_msix) {
            function.message_table = static_cast<u16>((config_.read16(at, offset + 2) & 0x7ff) + 1);
            function.msix_at = static_cast<u8>(offset);
        } else if (id == capability_express) {
            function.has_function_reset |= (config_.read32(at, offset + 4) & express_has_reset) != 0;
        } else if (id == capability_af) {
            function.has_function_reset |= (config_.read8(at, offset + 3) & 2) != 0;
        }
        return true;
    });
}

void Pci::read_bars(PciFunction& function) {
    // Some host bridges decode memory by theirs, whatever the command says: their BARs are left alone.
    if (function.kind.base == base_bridge && function.kind.sub == sub_host_bridge) return;
    PciAddress const& at = function.address;
    unsigned const count = function.header == type_device ? 6 : function.header == type_bridge ? 2 : 0;
    if (count == 0) return;
    DecodingOff const off(config_, at);
    // Writes ones, reads what sticks, and puts back what was there.
    auto const mask_of = [&](u32 offset, u32 value, u32 test) {
        config_.write32(at, offset, test);
        u32 const mask = config_.read32(at, offset);
        config_.write32(at, offset, value);
        return mask;
    };
    for (unsigned i = 0; i < count; i++) {
        u32 const offset = BARS + i * 4;
        u32 const value = config_.read32(at, offset);
        u32 const mask = mask_of(offset, value, ~0U);
        if (mask == 0 || mask == ~0U) continue; // nothing is there
        PciBar& bar = function.bars[i];
        if ((mask & bar_is_io) != 0) {
            u64 const size = size_of(mask & ~3U);
            if (size != 0) bar = {PciBar::Kind::Io, false, value & ~3U, size};
            continue;
        }
        u64 base = value & ~0xfU;
        u64 wide_mask = mask & ~0xfU;
        PciBar::Kind kind = PciBar::Kind::Memory;
        if ((mask & bar_type) == bar_type_64 && i + 1 < count) {
            kind = PciBar::Kind::Memory64;
            u32 const high = config_.read32(at, offset + 4);
            wide_mask |= u64{mask_of(offset + 4, high, ~0U)} << 32;
            base |= u64{high} << 32;
            i++;
        }
        u64 const size = size_of(wide_mask);
        if (size != 0) bar = {kind, (mask & bar_is_prefetchable) != 0, base, size};
    }
    u32 const rom = function.header == type_device ? ROM_OF_DEVICE : ROM_OF_BRIDGE;
    u32 const value = config_.read32(at, rom);
    // The lowest bit turns the ROM on: it stays off. [pci/3.0] 6.2.5.2
    u32 const mask = mask_of(rom, value, ~0x7ffU & ~rom_is_on);
    u64 const size = mask == ~0U ? 0 : size_of(mask & ~0x7ffU);
    if (size != 0) function.bars[PciFunction::rom] = {PciBar::Kind::Rom, false, value & ~0x7ffU, size};
}

u32 Pci::stop_unowned() {
    u32 stopped = 0;
    for (PciFunction& function : functions_) {
        if (function.owner != PciOwner::Nobody) continue;
        PciCommand command{{config_.read16(function.address, COMMAND)}};
        if (!command.get<PciCommand::BusMaster>()) continue;
        command.set<PciCommand::BusMaster>(false);
        config_.write16(function.address, COMMAND, command.raw);
        function.was_stopped = true;
        stopped++;
    }
    return stopped;
}

lib::Result<void> Pci::claim(PciFunction& function, PciOwner owner) {
    if (function.owner != PciOwner::Nobody) return lib::fail(Errc::Busy);
    function.owner = owner;
    PciCommand command{{config_.read16(function.address, COMMAND)}};
    for (PciBar const& bar : function.bars) {
        if (bar.base == 0 || bar.kind == PciBar::Kind::Rom) continue;
        if (bar.kind == PciBar::Kind::Io) command.set<PciCommand::Io>(true);
        if (bar.kind == PciBar::Kind::Memory || bar.kind == PciBar::Kind::Memory64)
            command.set<PciCommand::Memory>(true);
    }
    command.set<PciCommand::BusMaster>(false);
    command.set<PciCommand::InterruptDisable>(true);
    config_.write16(function.address, COMMAND, command.raw);
    return {};
}

void Pci::set_bus_master(PciFunction const& function, bool on) {
    PciCommand command{{config_.read16(function.address, COMMAND)}};
    command.set<PciCommand::BusMaster>(on);
    config_.write16(function.address, COMMAND, command.raw);
    // Read back, so that the device has heard of it.
    static_cast<void>(config_.read16(function.address, COMMAND));
}

PciFunction* Pci::function(u32 index) {
    for (PciFunction& each : functions_)
        if (index-- == 0) return &each;
    return nullptr;
}

} // namespace kernel
