// SPDX-License-Identifier: MIT
#pragma once
// The transport of a modern virtio device on PCI: its registers, the rules of its life (reset, features, queues,
// running, NEEDS_RESET after misuse), its MSI-X table and where the driver put its queues. It never reads a queue. The
// data path, which does, derives from this: it hears of queues that start, stop and have work (doorbell), and raises
// their interrupts by number. [virtio/1.2] 2.1, 3.1, 4.1
//
// BAR 0, 16 KiB of memory: common configuration, interrupt status, doorbells, the device's own configuration if it has
// one; a page each. BAR 2, one page: the MSI-X table and its pending bits. BAR 4, ports: the doorbells once more. That
// is the capability that a driver finds first, because an exit for a port needs no decoding of the instruction. There
// is a doorbell for each queue, 4 bytes apart; what is written does not matter.
//
// A driver that resets the device writes 0 to the status and reads it until it is 0. [virtio/1.2] 4.1.4.3.2 Where the
// queues cannot stop at once, the status stays as it was until they have. A driver that does not wait and writes the
// next status reads what becomes of that one.
//
// Not supported: the legacy interface, packed rings, reset of one queue, notification data, and configuration of the
// device that a driver writes or that changes; so the configuration's generation is 0 always.
#include <lib/split_queue.hpp>
#include <platform/pci_function.hpp>
#include <span>

namespace platform {

class VirtioPci : public Device {
public:
    static constexpr u64 VERSION_1 = u64{1} << 32, INDIRECT_DESC = 1 << 28, EVENT_IDX = 1 << 29;
    static constexpr u16 no_vector = 0xffff;
    // What the driver has written of one queue, and reads back.
    struct Queue {
        std::array<u64, 3> addresses; // of descriptors, available ring, used ring
        u16 size, vector;
        u8 is_enabled, reserved[3];
    };
    struct Registers {
        u64 driver_features;
        u32 device_feature_select, driver_feature_select;
        u16 config_vector, queue_select;
        u8 status, interrupts, reserved[2];
    };
    struct State {
        PciFunction::State function;
        MsixTable::State msix;
        Registers registers;
    };
    struct Shape {
        u16 device_type; // [virtio/1.2] 5
        u32 class_code;
        u64 features; // beside those of the rings and the transport
        u16 queue_count, queue_size;
        u32 configuration_size = 0; // of the device's own, in bytes
    };

    static constexpr std::span<Region const> regions{}; // its BARs are the PCI host's
    PciFunction& function() { return function_; }
    IoReply io(IoRequest const& request) final;
    void reset() final;
    // Queue 0's doorbell is at the begin of the BAR of ports, and at this offset in BAR 0.
    static constexpr u16 doorbell_bar = 4, registers_bar = 0;
    static constexpr u64 doorbells_at = 0x2000;
    // Bit n: a doorbell of queue n has an effect.
    u32 queues_with_doorbells() const;

protected:
    VirtioPci(Plug const& plug, Shape const& shape);
    ~VirtioPci() = default;

    // Gives the transport room for its queues, and the bytes of the configuration, both as the shape says, at the end
    // of the device's construction.
    void begin(std::span<Queue> queues, std::span<u8 const> configuration = {});

    // The driver has enabled a queue. Returns false if the device cannot work with what the driver said; that is
    // misuse.
    virtual bool start_queue(u32 queue, lib::QueueSetup const& setup) = 0;
    // The device is reset: it forgets its queues, and touches the guest's memory no more. Returns false if it still
    // may; then stopped() follows.
    virtual bool stop_queues() = 0;
    // The driver has taken the right to write to memory away.
    virtual void bus_master_lost() {}
    // The driver says that there is work in a queue, which was started. The device is running.
    virtual void doorbell(u32 queue) = 0;

    // True while the driver has set the device up and lets it write to memory.
    bool is_running() const {
        return (state_.status & (DRIVER_OK | NEEDS_RESET | FAILED)) == DRIVER_OK && function_.is_bus_master();
    }
    // Interrupts the driver for a queue. Whether the driver wants that now is for the data path to know.
    void raise_interrupt(u32 queue) { interrupt(QUEUE_INTERRUPT, queues_[queue].vector); }
    // The driver broke a rule: nothing goes on before it resets the device.
    void misused();
    // The queues do not touch the guest's memory any more, after stop_queues() returned false.
    void stopped() { waiting_status_ = 0; }
    State save_transport() const { return {function_.save(), msix_.save(), state_}; }
    // Starts the queues that are enabled.
    lib::Result<void> restore_transport(State const& state, std::span<Queue const> queues);

private:
    enum Status : u8 { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64, FAILED = 128 };
    static constexpr u8 QUEUE_INTERRUPT = 1, CONFIG_INTERRUPT = 2;
    u32 describe(u8 type, u32 bar, u32 offset, u32 size);
    void ring(u64 offset);
    u32 portal(Op op, u32 data);
    IoReply common_io(IoRequest const& request);
    u32 common_register(u32 offset) const;
    void write_common(u32 offset, u8 size, u64 value);
    void write_queue(u32 number, u32 offset, u8 size, u64 value);
    void write_status(u8 value);
    bool start(u32 number);
    void start_again();
    void bus_master_changed() {
        if (!function_.is_bus_master()) bus_master_lost();
        wires_.doorbells_changed();
    }
    IoReply configuration_io(IoRequest const& request) const;
    void interrupt(u8 cause, u16 vector);
    u16 checked_vector(u64 vector) const { return vector < msix_.count() ? static_cast<u16>(vector) : no_vector; }

    Wires& wires_;
    std::span<Queue> queues_;
    std::span<u8 const> configuration_;
    u64 features_;
    u32 doorbells_size_; // of BAR 4
    u16 queue_size_;
    MsixTable msix_;
    PciFunction function_;
    Registers state_{};
    u8 waiting_status_ = 0; // what the status reads as while queues stop; 0: they have. Of the world, so not saved
    u32 portal_ = 0;        // where the capability of the window in configuration space is
};

} // namespace platform
