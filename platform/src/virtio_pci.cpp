// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <lib/assert.hpp>
#include <platform/doorbells.hpp>
#include <platform/virtio_pci.hpp>

namespace platform {
namespace {

constexpr u16 RED_HAT = 0x1af4, first_modern_device = 0x1040; // [virtio/1.2] 4.1.2
constexpr u8 VENDOR_SPECIFIC = 0x09;
enum Capability : u8 { COMMON_CFG = 1, NOTIFY_CFG = 2, ISR_CFG = 3, DEVICE_CFG = 4, PCI_CFG = 5 }; // [virtio/1.2] 4.1.4

constexpr u32 msix_bar = 2;
constexpr u64 registers_size = 0x4000, msix_size = 0x1000;
constexpr u32 page = 0x1000, common_at = 0, interrupts_at = page, configuration_at = 3 * page;
constexpr u32 table_at = 0, pending_at = 0x800;
constexpr u32 common_size = 64, doorbell_stride = Doorbells::stride;
static_assert(VirtioPci::doorbells_at == u64{2} * page);
static_assert(MsixTable::max_vectors * MsixTable::entry_size <= pending_at);

// Common configuration. [virtio/1.2] 4.1.4.3
enum Common : u32 {
    device_feature_select = 0,
    device_feature = 4,
    driver_feature_select = 8,
    driver_feature = 12,
    config_msix_vector = 16, // and num_queues
    device_status = 20,      // and config_generation
    queue_select = 22,
    queue_size = 24,
    queue_msix_vector = 26,
    queue_enable = 28, // and queue_notify_off
    queue_desc = 32,
    queue_driver = 40,
    queue_device = 48,
    queue_end = 56,
};

constexpr u32 half_of(u64 value, u32 select) { return select < 2 ? static_cast<u32>(value >> (select * 32)) : 0; }
constexpr u64 with_half(u64 value, u32 select, u32 half) {
    if (select >= 2) return value;
    u32 const shift = select * 32;
    return (value & ~(u64{0xffff'ffff} << shift)) | u64{half} << shift;
}

} // namespace

VirtioPci::VirtioPci(Plug const& plug, Shape const& shape)
    : wires_(plug.wires), features_(shape.features | VERSION_1 | INDIRECT_DESC | EVENT_IDX),
      doorbells_size_(std::bit_ceil(shape.queue_count * doorbell_stride)), queue_size_(shape.queue_size),
      msix_(plug.host, shape.queue_count + 1U),
      function_({RED_HAT, static_cast<u16>(first_modern_device + shape.device_type), shape.class_code, 1, RED_HAT,
                 shape.device_type}) {
    function_.add_bar(registers_bar, PciFunction::BarKind::Memory64, registers_size);
    function_.add_bar(msix_bar, PciFunction::BarKind::Memory32, msix_size);
    function_.add_bar(doorbell_bar, PciFunction::BarKind::Io, doorbells_size_);
    function_.add_interrupt_pin();
    describe(COMMON_CFG, registers_bar, common_at, common_size);
    describe(ISR_CFG, registers_bar, interrupts_at, 1);
    ASSERT(shape.configuration_size <= page);
    if (shape.configuration_size != 0) describe(DEVICE_CFG, registers_bar, configuration_at, shape.configuration_size);
    describe(NOTIFY_CFG, doorbell_bar, 0, shape.queue_count * doorbell_stride); // a driver takes the first that it can
    describe(NOTIFY_CFG, registers_bar, doorbells_at, shape.queue_count * doorbell_stride);
    portal_ = describe(PCI_CFG, 0, 0, 0);
    function_.add_msix(msix_, msix_bar, table_at, pending_at);
    function_.listen_to_bus_master(lib::Delegate<void()>::to<&VirtioPci::bus_master_changed>(*this));
}

void VirtioPci::begin(std::span<Queue> queues, std::span<u8 const> configuration) {
    queues_ = queues;
    configuration_ = configuration;
    start_again();
}

// Adds a capability that says where a part of the registers is. Returns the capability's offset. [virtio/1.2] 4.1.4
u32 VirtioPci::describe(u8 type, u32 bar, u32 offset, u32 size) {
    bool const has_more = type == NOTIFY_CFG || type == PCI_CFG; // a dword: the multiplier, or the window
    std::array<u8, 18> body{static_cast<u8>(has_more ? 20 : 16), type, static_cast<u8>(bar)};
    lib::store_sized(&body[6], 4, offset);
    lib::store_sized(&body[10], 4, size);
    lib::store_sized(&body[14], 4, type == NOTIFY_CFG ? doorbell_stride : 0);
    u32 const at = function_.add_capability(VENDOR_SPECIFIC, std::span<u8 const>(body).first(has_more ? 18 : 14));
    if (type == PCI_CFG) {
        function_.make_writable(at + 4, 0xff); // BAR
        function_.make_writable(at + 8, ~0U);  // offset in it
        function_.make_writable(at + 12, ~0U); // length
        function_.open_portal(at + 16, PciFunction::Portal::to<&VirtioPci::portal>(*this));
    }
    return at;
}

// The window in configuration space through which a driver without MMIO reaches the registers. [virtio/1.2] 4.1.4.9
u32 VirtioPci::portal(Op op, u32 data) {
    u32 const bar = function_.read(portal_ / 4 + 1) & 0xff, offset = function_.read(portal_ / 4 + 2),
              length = function_.read(portal_ / 4 + 3);
    bool const is_access = length == 1 || length == 2 || length == 4;
    u64 const size = bar == registers_bar ? registers_size : bar == doorbell_bar ? doorbells_size_ : 0;
    if (!is_access || offset % length != 0 || offset >= size) return ~0U;
    return static_cast<u32>(io({offset, data, static_cast<u16>(bar), static_cast<u8>(length), op, 0}).data);
}

IoReply VirtioPci::io(IoRequest const& request) {
    if (request.region == msix_bar) {
        IoRequest inner = request;
        if (request.offset < pending_at) return msix_.table_io(request);
        inner.offset -= pending_at;
        return msix_.pending_io(inner);
    }
    if (request.region == doorbell_bar) {
        if (request.op == Op::Write) ring(request.offset);
        return {0};
    }
    u64 const part = request.offset / page * page, offset = request.offset % page;
    if (part == common_at) return common_io(request);
    if (part == interrupts_at && offset == 0 && request.op == Op::Read) {
        u8 const causes = state_.interrupts;
        state_.interrupts = 0;
        function_.set_interrupt(false);
        return {causes};
    }
    if (part == doorbells_at && request.op == Op::Write) ring(offset);
    if (part == configuration_at && request.op == Op::Read) return configuration_io(request);
    return {0};
}

IoReply VirtioPci::configuration_io(IoRequest const& request) const {
    u64 value = 0;
    for (u64 i = 0; i < request.size; i++) {
        u64 const at = request.offset - configuration_at + i;
        if (at < configuration_.size()) value |= u64{configuration_[at]} << (i * 8);
    }
    return {value};
}

void VirtioPci::ring(u64 offset) {
    u64 const queue = offset / doorbell_stride;
    if (queue < queues_.size() && is_running() && queues_[queue].is_enabled != 0) doorbell(static_cast<u32>(queue));
}

u32 VirtioPci::queues_with_doorbells() const {
    u32 result = 0;
    if (is_running())
        for (u32 queue = 0; queue < queues_.size(); queue++)
            result |= u32{queues_[queue].is_enabled} << queue;
    return result;
}

IoReply VirtioPci::common_io(IoRequest const& request) {
    u32 const offset = static_cast<u32>(request.offset);
    if (request.op == Op::Write) {
        write_common(offset, request.size, request.data);
        wires_.doorbells_changed();
        return {};
    }
    u64 value = 0;
    for (u32 i = 0; i < request.size; i++)
        value |= u64{common_register((offset + i) & ~3U) >> ((offset + i) % 4 * 8) & 0xff} << (i * 8);
    return {value};
}

// The four bytes at `offset`.
u32 VirtioPci::common_register(u32 offset) const {
    switch (offset) {
    case device_feature_select: return state_.device_feature_select;
    case device_feature: return half_of(features_, state_.device_feature_select);
    case driver_feature_select: return state_.driver_feature_select;
    case driver_feature: return half_of(state_.driver_features, state_.driver_feature_select);
    case config_msix_vector: return state_.config_vector | static_cast<u32>(queues_.size()) << 16;
    case device_status:
        return (waiting_status_ != 0 ? waiting_status_ : state_.status) | u32{state_.queue_select} << 16;
    default: break;
    }
    Queue const* const queue = state_.queue_select < queues_.size() ? &queues_[state_.queue_select] : nullptr;
    if (queue == nullptr || offset >= queue_end) return offset == queue_size ? u32{no_vector} << 16 : 0;
    switch (offset) {
    case queue_size: return queue->size | u32{queue->vector} << 16;
    case queue_enable: return queue->is_enabled | u32{state_.queue_select} << 16;
    default: break;
    }
    u64 const address = queue->addresses[(offset - queue_desc) / 8];
    return static_cast<u32>(address >> (offset % 8 * 8));
}

void VirtioPci::write_common(u32 offset, u8 size, u64 value) {
    u32 const word = static_cast<u32>(value);
    if (size == 4 && offset == device_feature_select) {
        state_.device_feature_select = word;
    } else if (size == 4 && offset == driver_feature_select) {
        state_.driver_feature_select = word;
    } else if (size == 4 && offset == driver_feature) {
        if ((state_.status & FEATURES_OK) != 0) return misused();
        state_.driver_features = with_half(state_.driver_features, state_.driver_feature_select, word);
    } else if (size == 2 && offset == config_msix_vector) {
        state_.config_vector = checked_vector(word);
    } else if (size == 1 && offset == device_status) {
        write_status(static_cast<u8>(word));
    } else if (size == 2 && offset == queue_select) {
        state_.queue_select = static_cast<u16>(word);
    } else if (state_.queue_select < queues_.size()) {
        write_queue(state_.queue_select, offset, size, value);
    }
}

void VirtioPci::write_queue(u32 number, u32 offset, u8 size, u64 value) {
    Queue& queue = queues_[number];
    if (size == 2 && offset == queue_msix_vector) {
        queue.vector = checked_vector(value);
        return;
    }
    if (queue.is_enabled != 0) return; // what it works with stays until the device is reset
    if (size == 2 && offset == queue_size) {
        queue.size = static_cast<u16>(value);
    } else if (size == 2 && offset == queue_enable) {
        if (value == 1 && !start(number)) misused();
    } else if (offset >= queue_desc && offset < queue_end && (size == 4 || size == 8) && offset % size == 0) {
        u64& address = queue.addresses[(offset - queue_desc) / 8];
        address = size == 8 ? value : with_half(address, offset % 8 / 4, static_cast<u32>(value));
    }
}

bool VirtioPci::start(u32 number) {
    Queue& queue = queues_[number];
    if ((state_.status & FEATURES_OK) == 0 || queue.size > queue_size_) return false;
    auto const& [descriptors, available, used] = queue.addresses;
    lib::QueueSetup const setup{descriptors,
                                available,
                                used,
                                queue.size,
                                (state_.driver_features & EVENT_IDX) != 0,
                                (state_.driver_features & INDIRECT_DESC) != 0,
                                static_cast<u32>(state_.driver_features & 0xff'ffff)};
    if (!start_queue(number, setup)) return false;
    queue.is_enabled = 1;
    return true;
}

// [virtio/1.2] 2.1, 3.1.1
void VirtioPci::write_status(u8 value) {
    if (value == 0) return start_again();
    u8 const before = state_.status;
    value =
        static_cast<u8>((value & (ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED)) | (before & NEEDS_RESET));
    if (value != 0) waiting_status_ = 0;          // the driver goes on, and reads what becomes of that
    if ((before & ~value) != 0) return misused(); // a bit is cleared by a reset only
    u8 const added = static_cast<u8>(value & ~before);
    bool const is_acceptable = (state_.driver_features & ~features_) == 0 && (state_.driver_features & VERSION_1) != 0;
    if ((added & FEATURES_OK) != 0 && !is_acceptable) value &= static_cast<u8>(~FEATURES_OK);
    if ((added & DRIVER_OK) != 0 && (value & FEATURES_OK) == 0) return misused();
    state_.status = value;
    if ((added & DRIVER_OK) == 0 || !is_running()) return;
    for (u32 queue = 0; queue < queues_.size(); queue++) // what the driver put there before
        if (queues_[queue].is_enabled != 0 && is_running()) doorbell(queue);
}

void VirtioPci::start_again() {
    u8 const before = state_.status != 0 ? state_.status : waiting_status_;
    state_ = {};
    state_.config_vector = no_vector;
    for (Queue& queue : queues_)
        queue = {{}, queue_size_, no_vector, 0, {}};
    // Not 0 while queues have yet to stop, whatever it was.
    waiting_status_ = stop_queues() ? 0 : std::max<u8>(before, ACKNOWLEDGE);
    function_.set_interrupt(false);
}

void VirtioPci::reset() {
    function_.reset();
    start_again();
    wires_.doorbells_changed();
}

void VirtioPci::misused() {
    if ((state_.status & NEEDS_RESET) != 0) return;
    state_.status |= NEEDS_RESET;
    wires_.doorbells_changed();
    if ((state_.status & DRIVER_OK) != 0) interrupt(CONFIG_INTERRUPT, state_.config_vector);
}

void VirtioPci::interrupt(u8 cause, u16 vector) {
    if (msix_.is_enabled()) return msix_.raise(vector);
    state_.interrupts |= cause;
    function_.set_interrupt(true);
}

lib::Result<void> VirtioPci::restore_transport(State const& state, std::span<Queue const> queues) {
    constexpr u8 known = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | NEEDS_RESET | FAILED;
    bool const is_valid = (state.registers.status & ~known) == 0 && queues.size() == queues_.size() &&
                          state.registers.interrupts <= (QUEUE_INTERRUPT | CONFIG_INTERRUPT);
    if (!is_valid) return lib::fail(lib::Errc::BadFormat);
    TRY(msix_.restore(state.msix));
    TRY(function_.restore(state.function));
    start_again();
    state_ = state.registers;
    if (state_.status != 0) waiting_status_ = 0;
    state_.config_vector = checked_vector(state_.config_vector);
    for (u32 i = 0; i < queues.size(); i++) {
        queues_[i] = {queues[i].addresses, queues[i].size, checked_vector(queues[i].vector), 0, {}};
        if (queues[i].is_enabled > 1 || (queues[i].is_enabled == 1 && !start(i)))
            return lib::fail(lib::Errc::BadFormat);
    }
    function_.set_interrupt(state_.interrupts != 0);
    wires_.doorbells_changed();
    return {};
}

} // namespace platform
