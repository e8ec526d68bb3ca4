// SPDX-License-Identifier: MIT
#pragma once
// The PCI functions of the machine: found once at boot, as firmware has set them up. [pci/3.0] 6
// Whatever a device or broken firmware answers, the search ends. Not supported: giving bus numbers, addresses or
// interrupts to what firmware left without; hot-plug; CardBus; functions above 7 (ARI) and virtual functions (SR-IOV).
#include <array>
#include <kernel/heap.hpp>
#include <kernel/pci_config.hpp>
#include <lib/bits.hpp>
#include <lib/format.hpp>
#include <lib/intrusive_list.hpp>
#include <string_view>

namespace kernel {

// [pci/3.0] 6.2.2
struct PciCommand : lib::Reg<PciCommand, u16> {
    using Io = lib::Bits<u16, 0>;
    using Memory = lib::Bits<u16, 1>;
    using BusMaster = lib::Bits<u16, 2>;
    using InterruptDisable = lib::Bits<u16, 10>;
};

struct PciClass {
    u8 base = 0;
    u8 sub = 0;
    u8 interface = 0;
    friend bool operator==(PciClass const&, PciClass const&) = default;
};
// What it is, in a few words; of a class that is not known, what its base class is. [pci/codes] 1
std::string_view name_of(PciClass const& kind);
// "00:1f.2", with the segment in front of it if that is not 0.
void print(lib::TextSink& sink, PciAddress const& address);

// A range of addresses that a function answers.
struct PciBar {
    enum class Kind : u8 { None, Io, Memory, Memory64, Rom };
    Kind kind = Kind::None;
    bool is_prefetchable = false;
    u64 base = 0; // 0: firmware gave it none
    u64 size = 0; // a power of two
};

// What may use a function, and so let it write to memory.
enum class PciOwner : u8 { Nobody, Kernel, Service };

class PciFunction : public lib::ListLink<PciFunction> {
public:
    static constexpr unsigned bar_count = 6, rom = bar_count; // the index of the ROM's among `bars`
    PciAddress address;
    u16 vendor = 0, device = 0;
    PciClass kind;
    u8 header = 0; // type of its header: 0 a device, 1 a bridge
    PciOwner owner = PciOwner::Nobody;
    bool was_stopped = false;          // its bus mastering was on when Mullion started, and nobody had it
    bool has_function_reset = false;   // by PCI Express or by the capability Advanced Features
    u8 messages = 0;                   // MSI: how many it can have; 0: none
    u16 message_table = 0;             // MSI-X: entries of its table; 0: none
    u8 msi_at = 0, msix_at = 0;        // where these capabilities are in its configuration space; 0: none
    u8 secondary = 0, subordinate = 0; // of a bridge: the first and last bus that it leads to
    std::array<PciBar, bar_count + 1> bars{};
};

class Pci {
public:
    static constexpr u32 most_functions = 1024;

    explicit Pci(PciConfig& config) : config_(config) {}
    ~Pci();
    Pci(Pci const&) = delete;
    Pci& operator=(Pci const&) = delete;

    // Finds every function, once, while one CPU runs and no device is in use. Some are missing after NoMemory and
    // OutOfRange: there are more than most_functions.
    lib::Result<void> find_functions();
    // Turns bus mastering off for the functions that nobody owns; returns how many had it on.
    u32 stop_unowned();

    // Gives a function that nobody owns to `owner`: it decodes its addresses from then on, its interrupt pin is off,
    // and so is bus mastering. Busy: it has an owner.
    lib::Result<void> claim(PciFunction& function, PciOwner owner);
    void set_bus_master(PciFunction const& function, bool on);
    PciConfig& config() { return config_; }

    u32 count() const { return count_; }
    u32 bus_count() const { return bus_count_; }
    // nullptr: there are fewer.
    PciFunction* function(u32 index);

private:
    class Buses;
    lib::Result<void> scan_segment(u16 segment);
    lib::Result<void> scan_bus(u16 segment, u8 bus, Buses& buses);
    lib::Result<bool> add_function(PciAddress const& at, Buses& buses);
    bool has_one_device(PciAddress const& bridge);
    void read_bars(PciFunction& function);
    void read_capabilities(PciFunction& function);

    PciConfig& config_;
    lib::IntrusiveList<PciFunction> functions_;
    u32 count_ = 0, bus_count_ = 0;
};

// The machine's, once they have been found; nullptr: nobody has looked.
Pci* machine_pci();
void set_machine_pci(Pci* pci);

} // namespace kernel
