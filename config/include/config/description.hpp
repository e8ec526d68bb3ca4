// SPDX-License-Identifier: MIT
#pragma once
// The text file in which a person describes the virtual machines: a subset of TOML.
// Not supported: quoted and dotted keys, arrays of tables except [[vm.NAME.disk]] and [[vm.NAME.nic]] (which must come
// after [vm.NAME]), multi-line strings, floating point numbers, dates. What needs the machine (do these processors
// exist, is there so much memory, is this module there) is checked elsewhere, with line_of.
#include <array>
#include <lib/boot_kind.hpp>
#include <lib/cpu_set.hpp>
#include <lib/format.hpp>
#include <lib/ipv4.hpp>
#include <lib/types.hpp>
#include <span>
#include <string_view>

namespace config {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

inline constexpr u32 max_vm_name = 31; // of a network too
inline constexpr u32 max_modules = 8;  // of one VM, beside kernel and initrd

using lib::BootKind;
using lib::CpuSet;
using lib::max_cpus;
using lib::max_disks;
using lib::max_networks;
using lib::max_nics;
using lib::max_vcpus;
using lib::max_vms;
enum class ConsoleKind : u8 { Com1, None };
enum class RestartPolicy : u8 { Never, OnReboot, OnFailure, Always }; // which ends a start follows on

struct CpuShare {
    u32 weight = 100; // relative to the other VMs on the same processors: 1..10000
    u32 cap = 0;      // percent of one processor that each vCPU gets at most: 1..100; 0: no cap
};

enum class Key : u8 {
    Memory,
    Vcpus,
    Cpus,
    Exclusive,
    Share,
    Kernel,
    Initrd,
    Cmdline,
    Boot,
    Console,
    Restart,
    Autostart,
    TscMhz,
    Modules,
};
inline constexpr std::size_t key_count = 14;

// Where a VM's vCPUs run; the operator can change it while they do.
struct CpuPlacement {
    CpuSet cpus; // empty: any
    bool exclusive = false;
    CpuShare share;
};

// One of `modules`: what a Multiboot kernel gets beside itself.
struct ModuleDescription {
    std::string_view name; // of a boot module: the first word of `text`
    std::string_view text; // what the kernel gets as the module's command line
    u32 line = 0;
};

enum class DiskKind : u8 {
    Ram,
    Module,    // a copy of a boot module
    Partition, // of a disk of the machine, by its label or GUID in the GPT
    Disk,      // of the machine, by its serial number
};
constexpr bool is_of_machine(DiskKind kind) { return kind == DiskKind::Partition || kind == DiskKind::Disk; }
inline constexpr u32 max_disk_serial = 20; // [virtio/1.2] 5.2.6

// One table [[vm.NAME.disk]].
struct DiskDescription {
    DiskKind kind = DiskKind::Ram;
    bool is_read_only = false;
    u32 line = 0, source_line = 0; // of the table, and of its key `source`
    u64 size = 0;                  // bytes, of a Ram disk
    std::string_view name{};       // of the module, partition or disk
    std::string_view serial{};     // 1 to max_disk_serial printable characters
    u32 iops = 0;                  // requests a second at most; 0: no limit
    u64 bandwidth = 0;             // bytes a second at most; 0: no limit
};

// Which NIC of the machine is a network's way out.
struct UplinkDescription {
    enum class Kind : u8 {
        None,  // an internal network
        First, // the first one that there is a driver for and that no other network has
        Pci,   // the function at this place
    };
    Kind kind = Kind::None;
    u16 segment = 0;
    u8 bus = 0, device = 0, function = 0;

    bool operator==(UplinkDescription const&) const = default;
};

inline constexpr u32 max_forwards = 16; // of one network
enum class ForwardProtocol : u8 { Tcp, Udp };

// One of `forward`: what comes to a port of the router outside goes on to a VM.
struct ForwardDescription {
    ForwardProtocol protocol = ForwardProtocol::Tcp;
    u16 outside_port = 0, inside_port = 0;
    u32 line = 0;
    std::string_view vm;
    u32 address = 0; // of the VM's first NIC on the network
};

// An address and the length of its network's prefix.
struct SubnetDescription {
    u32 address = 0, prefix_length = 0; // 0, 0: not given

    u32 mask() const { return lib::ipv4_mask(prefix_length); }
    bool contains(u32 other) const { return ((address ^ other) & mask()) == 0; }
};

// What is peculiar to a network whose `mode` is "nat".
struct NatDescription {
    SubnetDescription subnet{}; // its first address is the router's, NICs get those after it
    // Of the router outside; those that are not given come by DHCP.
    SubnetDescription outside{};
    u32 gateway = 0, name_server = 0;
    std::array<ForwardDescription, max_forwards> forwards{};
    u32 forward_count = 0;

    u32 router() const { return (subnet.address & subnet.mask()) + 1; }
    std::span<ForwardDescription const> all_forwards() const { return {forwards.data(), forward_count}; }
};
enum class NetworkMode : u8 { Bridge, Nat };
enum class NetworkKey : u8 { Uplink, Mode, Subnet, Address, Gateway, Dns, Forward };
inline constexpr std::size_t network_key_count = 7;

// One table [network.NAME], which joins NICs of VMs.
struct NetworkDescription {
    std::string_view name;
    u32 line = 0;
    bool is_refused = false;        // a diagnostic is about it: no VM on it may start
    std::string_view uplink_text{}; // as it was written
    UplinkDescription uplink{};
    NetworkMode mode = NetworkMode::Bridge;
    NatDescription nat{};
    std::array<u32, network_key_count> lines{}; // 0: not given

    u32& line_of(NetworkKey key) { return lines[static_cast<std::size_t>(key)]; }
    u32 line_of(NetworkKey key) const { return lines[static_cast<std::size_t>(key)]; }
};

using MacAddress = std::array<u8, 6>;
// Of the router of a network, inside: administered locally.
constexpr MacAddress router_mac(u32 network) { return {0x02, 'r', 'o', 'u', 't', static_cast<u8>(network)}; }

// One table [[vm.NAME.nic]].
struct NicDescription {
    u32 line = 0, network_line = 0, mac_line = 0; // of the table and its keys; 0: not given
    std::string_view network_name;
    u32 network = 0; // its number in the description
    MacAddress mac{};
    u32 address = 0; // that a network with `mode = "nat"` gives it; 0: none
};

struct VmDescription : CpuPlacement {
    std::string_view name;
    u64 memory = 0; // bytes
    u32 vcpus = 1;
    u32 tsc_mhz = 0;         // 0: the machine's
    std::string_view kernel; // names of boot modules
    std::string_view initrd;
    std::string_view cmdline;
    std::array<ModuleDescription, max_modules> modules{};
    u32 module_count = 0;
    std::array<DiskDescription, max_disks> disks{};
    u32 disk_count = 0;
    std::array<NicDescription, max_nics> nics{};
    u32 nic_count = 0;
    BootKind boot = BootKind::Auto;
    ConsoleKind console = ConsoleKind::Com1;
    RestartPolicy restart = RestartPolicy::OnReboot;
    bool autostart = true;
    bool is_refused = false;            // a diagnostic is about it: it must not be started
    u32 line = 0;                       // of [vm.NAME]
    std::array<u32, key_count> lines{}; // 0: not given

    std::span<ModuleDescription const> all_modules() const { return {modules.data(), module_count}; }
    std::span<DiskDescription const> all_disks() const { return {disks.data(), disk_count}; }
    std::span<NicDescription const> all_nics() const { return {nics.data(), nic_count}; }
    bool has(Key key) const { return lines[static_cast<std::size_t>(key)] != 0; }
    // Where to point a message about this key: its line, or the table's.
    u32 line_of(Key key) const { return has(key) ? lines[static_cast<std::size_t>(key)] : line; }
};

// Views point into the parsed text, which must outlive it, or into the pool: it cannot be copied. Some 20 KiB: not for
// the stack.
class Description {
public:
    Description() = default;
    Description(Description const&) = delete;
    Description& operator=(Description const&) = delete;

    std::array<VmDescription, max_vms> vms{};
    u32 count = 0;
    std::array<NetworkDescription, max_networks> networks{};
    u32 network_count = 0;
    std::string_view file = "vms.toml"; // for messages
    bool share_cores = false;           // [mullion]: different VMs may run on SMT siblings of one core at once

    void clear() {
        count = 0;
        network_count = 0;
        share_cores = false;
        pool_used_ = 0;
    }
    std::span<NetworkDescription const> all_networks() const { return {networks.data(), network_count}; }
    // Room for a string whose escapes had to be resolved. Empty when full.
    std::span<char> take_pool(std::size_t size) {
        if (size > pool_.size() - pool_used_) return {};
        std::span<char> const room(pool_.data() + pool_used_, size);
        pool_used_ += size;
        return room;
    }

private:
    std::array<char, 4096> pool_{};
    std::size_t pool_used_ = 0;
};

struct Diagnostic {
    u32 line = 0;
    u32 column = 0;
    u16 length = 0;
    std::array<char, 230> text{};

    std::string_view message() const { return {text.data(), length}; }
};

// The first 16, in the order of the file as far as it can be told; `dropped` counts the rest.
struct Diagnostics {
    std::array<Diagnostic, 16> entries{};
    u32 count = 0;
    u32 dropped = 0;

    bool is_empty() const { return count == 0; }
    template <typename... Args> void add(u32 line, u32 column, std::string_view format, Args const&... args) {
        if (count == entries.size()) {
            ++dropped;
            return;
        }
        Diagnostic& entry = entries[count++];
        entry.line = line;
        entry.column = column;
        std::string_view const message = lib::format_to(entry.text, format, args...);
        entry.length = static_cast<u16>(message.size());
        for (char& c : entry.text) // the file's own text is quoted: it may be anything
            if (c < ' ' || c > '~') c = '?';
    }
};

// True when there are no diagnostics. Otherwise a mistake within a VM's table has made that VM refused, and one outside
// of them none.
bool parse_description(std::string_view text, Description& out, Diagnostics& diagnostics);

// FILE:LINE: message
void format_diagnostic(lib::TextSink& sink, std::string_view file, Diagnostic const& diagnostic);

std::string_view name_of(Key key);

} // namespace config
