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
inline constexpr u64 board_at = 0x2800'0000; // read-only
inline constexpr u64 records_at = 0x2c00'0000;
inline constexpr u64 max_guest_phys = u64{1} << 40;
inline constexpr u64 max_medium = u64{1} << 40;
// Where the windows of device `i` are: guest-physical address 0 of its VM, and byte 0 of its medium in memory.
constexpr u64 ram_window(u32 device) { return (u64{2} + 2 * device) << 40; }
constexpr u64 medium_window(u32 device) { return (u64{3} + 2 * device) << 40; }

// Events of wait(). A doorbell of any queue of device `i` is bit i + 1.
inline constexpr u64 event_board = 1;
constexpr u64 event_doorbell(u32 device) { return u64{2} << device; }

struct RamArea {
    u64 base, size; // guest-physical
};
// A split virtqueue, as the guest's driver has set it up; nothing of it is checked.
struct QueueEntry {
    u64 descriptors, available, used; // guest-physical
    u16 size;                         // 0: the queue is off
    u8 has_event_index, has_indirect; // features that the driver accepted
    u32 epoch;                        // another number each time that the driver starts the queue; never 0
};
enum class DeviceKind : u32 { None = 0, Block = 1 };
struct DeviceEntry {
    DeviceKind kind;
    u32 queue_count;
    u32 ram_area_count;
    u32 is_read_only;
    u64 medium_size; // bytes, a multiple of 512
    RamArea ram[max_ram_areas];
    QueueEntry queues[max_device_queues];
    char serial[24]; // of the disk; the rest is NUL
};
struct Board {
    DeviceEntry devices[max_devices];
};

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
