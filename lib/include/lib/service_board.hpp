// SPDX-License-Identifier: MIT
#pragma once
// What a service that serves guests' devices sees of them. Mullion writes the board, which is read-only to the service,
// and changes it, and the windows that it tells of, only while the service is inside wait(): a service that waits
// touches no memory of a guest. A change is event_board.
#include <lib/limits.hpp>
#include <lib/service_abi.hpp>

namespace lib::service {

inline constexpr u32 max_devices = 16; // of one service
inline constexpr u32 max_device_queues = max_disk_queues;
inline constexpr u32 max_ram_areas = 8;      // of one VM
inline constexpr u32 max_ram_pieces = 32;    // of one VM
inline constexpr u64 board_at = 0x2800'0000; // read-only
inline constexpr u64 records_at = 0x2c00'0000;
inline constexpr u64 max_guest_phys = u64{1} << 40;
inline constexpr u64 max_medium = u64{1} << 40; // in memory
inline constexpr u64 max_disk = u64{1} << 56;   // of the machine
// Where the windows of device `i` are: guest-physical address 0 of its VM, and byte 0 of its medium in memory.
constexpr u64 ram_window(u32 device) { return (u64{2} + 2 * device) << 40; }
constexpr u64 medium_window(u32 device) { return (u64{3} + 2 * device) << 40; }

// Events of wait(). A doorbell of any queue of device `i` is bit i + 1.
inline constexpr u64 event_board = 1;
constexpr u64 event_doorbell(u32 device) { return u64{2} << device; }

struct RamArea {
    u64 base, size; // guest-physical
};
// Where memory of the guest is for the machine's devices.
struct RamPiece {
    u64 base, size; // guest-physical
    u64 address;    // for devices
};
// A split virtqueue, as the guest's driver has set it up; nothing of it is checked.
struct QueueEntry {
    u64 descriptors, available, used; // guest-physical
    u16 size;                         // 0: the queue is off
    u8 has_event_index, has_indirect; // features that the driver accepted
    u32 epoch;                        // another number each time that the driver starts the queue; never 0
    u32 features;                     // bits 0 to 23 of those that the driver accepted: they are the kind's own
    u32 reserved;
};
enum class DeviceKind : u32 { None = 0, Block = 1, Net = 2 };
enum class MediumKind : u32 {
    Memory = 0, // mapped at medium_window()
    Disk = 1,   // a part of a disk of the machine
};
struct DeviceEntry {
    DeviceKind kind;
    u32 queue_count;
    u32 ram_area_count;
    u32 is_read_only;
    u64 medium_size; // bytes, a multiple of 512
    MediumKind medium_kind;
    // Of a Disk: which controller, which of its disks (by DiskEntry::unit), and the first byte there; a multiple of
    // 512.
    u32 controller, unit;
    u32 ram_piece_count; // of a Disk: the pieces cover the areas, in order of `base`
    u64 medium_begin;
    // How often all queues were told to stop. The service answers with Call::Stopped when nothing that it began for the
    // device before is under way any more. 0: never.
    u32 stops;
    u32 reserved;
    RamArea ram[max_ram_areas];
    RamPiece pieces[max_ram_pieces];
    QueueEntry queues[max_device_queues];
    char serial[24]; // of the disk; the rest is NUL
    // Limits of rate of a Block. 0: there is none.
    u64 bandwidth; // bytes a second
    u32 iops;      // requests a second
    u32 reserved_limit;
    // Of a Net: which of the networks it is plugged into, and the address that its driver is told.
    u32 network;
    u8 mac[6], reserved_net[2];
    u32 address, reserved_address; // IPv4, behind a router; 0: there is none
};

// --- The machine's controllers, which the service drives. They are on the board before the first instruction of an
// instance, and stay. None of them writes to memory until Call::BusMaster.
inline constexpr u32 max_controllers = 8;
inline constexpr u32 max_bars = 6;
inline constexpr u64 controllers_at = 0x3800'0000; // registers in memory, 16 MiB for each controller, uncached
inline constexpr u64 largest_bar = 2 * MiB;        // the part of one that is mapped
constexpr u64 bar_window(u32 controller, u32 bar) { return controllers_at + controller * 16 * MiB + bar * largest_bar; }
// Memory for a controller's queues and for copies: contiguous, zeroed for each instance, below 4 GiB for devices.
inline constexpr u64 dma_size = 512 * KiB;
constexpr u64 dma_window(u32 controller) { return 0x3000'0000 + MiB + controller * MiB; }

// Interrupt of controller `i`.
constexpr u64 event_controller(u32 controller) { return event_doorbell(max_devices) << controller; }

enum class ControllerKind : u32 { None = 0, Nvme = 1, Ide = 2, Ahci = 3, VirtioBlk = 4, E1000 = 5 };
struct BarEntry {
    u64 size;     // that can be reached; 0: there is none
    u64 is_ports; // by Call::ReadPort and WritePort; else at bar_window()
};
struct ControllerEntry {
    ControllerKind kind;
    u32 vendor_and_device; // as in configuration space
    // Ide: bars 0 and 2 are the command blocks of both channels, 1 and 3 their control blocks with the device control
    // register at offset 2, as of native mode, whatever the mode is; 4 is the bus master's.
    BarEntry bars[max_bars];
    u64 dma_address;   // of dma_window(), for the controller
    char name[16];     // "00:04.0"; ends with a NUL
    u32 has_interrupt; // it sends messages, or has its own lines; else nobody hears of its interrupts
    u32 network;       // of a NIC: whose uplink it is
};
// --- Routers between a network and its uplink. IPv4 addresses are numbers, their first byte the highest. What is 0 of
// the outside is asked from a DHCP server there.
inline constexpr u32 max_forwards = 16;                     // of one network
enum class Transport : u32 { Icmp = 1, Tcp = 6, Udp = 17 }; // by their protocol numbers
struct ForwardEntry {
    Transport protocol;
    u32 address; // of the NIC that it leads to
    u16 outside_port, inside_port;
};
struct RouterEntry {
    u32 is_present;
    u32 address, prefix_length; // inside
    u32 outside_address, outside_prefix_length, gateway, name_server;
    u32 forward_count;
    ForwardEntry forwards[max_forwards];
    u8 mac[6], reserved[2]; // inside
};
struct Board {
    DeviceEntry devices[max_devices];
    ControllerEntry controllers[max_controllers];
    RouterEntry routers[max_networks];
    u64 seed[2]; // random numbers, others for each instance, if the machine has a source of them
};

// --- What the service says of the machine's disks: in memory that it writes, which the next instance finds zeroed.
// Mullion reads it after Call::Catalogue and believes no number of it.
inline constexpr u64 catalogue_at = 0x2a00'0000;
inline constexpr u32 max_machine_disks = 16;
inline constexpr u32 max_partitions = 128; // of all disks
enum class DiskState : u32 { Starting = 0, Ready = 1, Failed = 2 };
struct DiskEntry { // or a controller that has failed, with one disk of no size
    u32 controller;
    u32 unit; // by the controller's own numbers: the same for each instance
    DiskState state;
    u32 sector_size;
    u64 sectors; // of sector_size
    u32 is_read_only;
    u32 first_partition, partition_count; // among all
    char serial[24], model[44];           // printable; the rest is NUL
    char note[100];                       // what is wrong with it, or what it belongs to; empty: nothing
};
struct PartitionEntry {
    u64 first, size; // bytes
    char label[40];  // printable ASCII, other characters are '?'; the rest is NUL
    char guid[40];   // "01234567-89ab-cdef-0123-456789abcdef"
    char note[60];   // why nobody may write to it: "member of LVM2"; empty: anybody may
};
struct Catalogue {
    u32 is_complete; // every controller has answered or failed, and every table has been read
    u32 disk_count, partition_count;
    DiskEntry disks[max_machine_disks];
    PartitionEntry partitions[max_partitions];
};

// --- What a virtio-net device of the network service can do. Queue 2n receives, queue 2n + 1 transmits.
// [virtio/1.2] 5.1.3
namespace net_feature {
inline constexpr u32 CSUM = 1U << 0, GUEST_CSUM = 1U << 1, MAC = 1U << 5, GUEST_TSO4 = 1U << 7, GUEST_TSO6 = 1U << 8,
                     HOST_TSO4 = 1U << 11, HOST_TSO6 = 1U << 12, MRG_RXBUF = 1U << 15, STATUS = 1U << 16;
} // namespace net_feature
// What is offered to the driver, besides what the transport offers by itself.
inline constexpr u64 net_features = net_feature::CSUM | net_feature::GUEST_CSUM | net_feature::MAC |
                                    net_feature::GUEST_TSO4 | net_feature::GUEST_TSO6 | net_feature::HOST_TSO4 |
                                    net_feature::HOST_TSO6 | net_feature::MRG_RXBUF | net_feature::STATUS;
// --- What the service counts of each guest's disk: in memory that it writes with plain stores and that outlives the
// instance. Mullion zeroes a device's part when it attaches another disk, reads it at any time without a call, believes
// no number of it, and only prints them.
inline constexpr u64 statistics_at = 0x2b00'0000;
enum class DiskRequest : u32 { Read = 0, Write = 1, Flush = 2, Clear = 3, Other = 4 }; // Clear: discard, write zeroes
inline constexpr u32 disk_request_kinds = 5;
inline constexpr u32 latency_kinds = 3;  // Read, Write, Flush
inline constexpr u32 latency_steps = 24; // step N: below 2^N microseconds; the last one: all the rest
struct DiskStatistics {
    u64 requests[disk_request_kinds];            // that were given back
    u64 bytes[disk_request_kinds];               // that were moved or cleared, those of requests that failed later too
    u64 errors;                                  // requests that were given back with another status than OK
    u32 under_way, most_under_way;               // taken from a queue and not given back
    u64 latencies[latency_kinds][latency_steps]; // from taking to giving back
};
struct Statistics {
    DiskStatistics devices[max_devices];
};

// --- What the network service counts at each port of its switch, in memory like that of Statistics. Lengths are
// without the virtio header. Of an uplink, what came from outside counts as sent, and what goes out as received.
enum class FrameDrop : u32 {
    // Of what its driver sent:
    BadHeader, // the virtio header asks for something that the driver did not accept, or that is not inside of the
               // frame
    BadSize,   // shorter than an Ethernet header, or longer than a frame may be
    Spoofed,   // the source address is not the NIC's; from outside: it is that of a NIC here, or of a group
    // Of what was sent to it:
    NotReady, // its driver has not started the queue; of an uplink: it has no link
    NoBuffer, // its driver offers no buffer, or too few for the frame; of an uplink: it sends more slowly than that
    TooLarge, // the one buffer that the frame may use is too small
};
inline constexpr u32 frame_drops = 6;
enum class LinkState : u32 { Unknown = 0, Down = 1, Up = 2, Failed = 3 }; // Unknown: no driver has looked at it yet
struct PortStatistics {
    u64 sent_frames, sent_bytes; // by its driver, without those that were dropped
    u64 received_frames, received_bytes;
    u64 dropped[frame_drops];
    LinkState link; // of an uplink
    u32 reserved;

    u64& operator[](FrameDrop reason) { return dropped[static_cast<u32>(reason)]; }
    u64 operator[](FrameDrop reason) const { return dropped[static_cast<u32>(reason)]; }
};
inline constexpr u32 max_ports = max_devices + max_controllers; // NICs by their numbers, then uplinks by theirs

// What the router of a network says of itself.
enum class RouterDrop : u32 {
    Malformed,    // a header that makes no sense
    Spoofed,      // the source is another address than the NIC's; from outside: one of this side
    Fragment,     // a part of a packet: its ports are not known
    Unknown,      // it belongs to no connection, and no rule forwards it
    TooMany,      // the NIC has as many connections as it may have, and all are in use
    NoRoute,      // nobody can be reached there, or the router has no address outside yet
    Unresolved,   // the next station outside did not tell its MAC address
    Expired,      // its time to live is over
    NotSupported, // not TCP, UDP or ICMP
};
inline constexpr u32 router_drops = 9;
struct RouterStatistics {
    u32 address, prefix_length, gateway, name_server; // outside; 0: none yet
    u32 leases;                                       // bit N: device N has got its address by DHCP
    u32 connections;                                  // that are known
    u64 sent, received;                               // packets that went out and came in
    u64 dropped[router_drops];
};
struct PortTable {
    PortStatistics ports[max_ports];
    RouterStatistics routers[max_networks];
};

// --- What routers must know to go on after a death: the service's own, in memory that outlives the instance, zeroed
// before the first one. The next instance checks what it finds. Mullion does not read it.
inline constexpr u64 routing_at = 0x2d00'0000;
inline constexpr u64 routing_size = 512 * KiB;
inline constexpr u32 device_connections = 1000;
enum class ConnectionState : u8 { Free = 0, Opening = 1, Open = 2, Closing = 3 };
struct ConnectionRecord {
    u64 seen;            // when the last packet came, in ticks
    u32 inside, outside; // the address of the NIC, and that of the other side
    u16 inside_port, router_port,
        outside_port; // those of ICMP are its identifier; router_port is what the outside sees
    u8 protocol;
    u8 network;
    ConnectionState state; // it is the last to be written
    u8 flags;
    u8 reserved[6];
};
static_assert(sizeof(ConnectionRecord) == 32);
struct RouterLease { // from the DHCP server outside
    u32 address, prefix_length, gateway, name_server, server;
    u32 is_bound;
    u64 renew_at, rebind_at, ends_at; // in ticks
};
struct Routing {
    ConnectionRecord connections[max_devices][device_connections];
    RouterLease leases[max_networks];
};
static_assert(sizeof(Routing) <= routing_size);

// How far a queue has come. The service's own, in memory that outlives the instance: the next one goes on from there.
// Mullion does not read it.
struct alignas(8) QueueRecord { // so that one store writes it
    u32 epoch;                  // of the QueueEntry that it is about; another: nothing has been done yet
    u16 next, used_index;
};
struct Records {
    QueueRecord queues[max_devices][max_device_queues];
};

} // namespace lib::service
