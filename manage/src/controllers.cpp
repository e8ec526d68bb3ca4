// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <cstring>
#include <kernel/heap.hpp>
#include <kernel/log.hpp>
#include <kernel/page_table.hpp>
#include <lib/x86/instructions.hpp>
#include <manage/controllers.hpp>
#include <new>

namespace manage {
namespace {

namespace service = lib::service;
using kernel::PciBar;
using kernel::PciFunction;
using lib::HostPhys;
using lib::HostVirt;
using service::Answer;
using service::ControllerKind;

constexpr unsigned dma_order = std::bit_width((service::dma_size - 1) / lib::page_size);
// Classes of [pci/codes] 1.2
constexpr u8 base_storage = 1, sub_nvm = 8, interface_nvme = 2, sub_sata = 6, interface_ahci = 1;
// In its interface: either channel may be in native mode, which has other ports and a pin of PCI. [pci/ide] 2
constexpr u8 sub_ide = 1, ide_is_native = 0b0101, ide_is_bus_master = 0x80;
constexpr std::array<u8, 2> legacy_irqs{14, 15};
constexpr std::array<lib::u16, 2> legacy_command_ports{0x1f0, 0x170}, legacy_control_ports{0x3f4, 0x374};
// [virtio/1.2] 4.1.2: devices of the standard, and those that speak the older interface as well.
constexpr lib::u16 virtio_vendor = 0x1af4, virtio_blk = 0x1042, virtio_blk_transitional = 0x1001;

// 82540EM, and 82574L. [intel/8254x] 5.2 [intel/82574] 9
constexpr lib::u16 intel_vendor = 0x8086, intel_82540em = 0x100e, intel_82574l = 0x10d3;

constexpr std::array<std::string_view, Controllers::most> names{"disks-0", "disks-1", "disks-2", "disks-3",
                                                                "disks-4", "disks-5", "disks-6", "disks-7"};
constexpr std::array<std::string_view, Controllers::most> nic_names{"uplink-0", "uplink-1", "uplink-2", "uplink-3",
                                                                    "uplink-4", "uplink-5", "uplink-6", "uplink-7"};

ControllerKind kind_of(PciFunction const& function) {
    if (function.header != 0) return ControllerKind::None;
    if (function.vendor == virtio_vendor &&
        (function.device == virtio_blk || function.device == virtio_blk_transitional))
        return ControllerKind::VirtioBlk;
    if (function.kind.base != base_storage) return ControllerKind::None;
    if (function.kind.sub == sub_ide &&
        (function.kind.interface & (ide_is_bus_master | ide_is_native)) == ide_is_bus_master)
        return ControllerKind::Ide;
    if (function.kind.sub == sub_sata && function.kind.interface == interface_ahci) return ControllerKind::Ahci;
    if (function.kind.sub == sub_nvm && function.kind.interface == interface_nvme) return ControllerKind::Nvme;
    return ControllerKind::None;
}

} // namespace

void Controllers::find(kernel::Pci& pci, std::span<service::ControllerEntry> board) {
    pci_ = &pci;
    for (u32 i = 0; PciFunction* const function = pci.function(i); i++) {
        ControllerKind const kind = kind_of(*function);
        if (kind == ControllerKind::None || function->owner != kernel::PciOwner::Nobody) continue;
        std::array<char, 16> text{};
        lib::BufferSink address(text);
        print(address, function->address);
        if (count_ == most) {
            kernel::log_warning("pci: {}: its disks are left out: there are {} controllers already", address.view(),
                                most);
            continue;
        }
        if (auto const added = add(*function, kind, board[count_]); !added)
            kernel::log_warning("pci: {}: its disks are left out: {}", address.view(), name_of(added.error()));
    }
}

bool Controllers::is_nic(PciFunction const& function) {
    return function.header == 0 && function.vendor == intel_vendor &&
           (function.device == intel_82540em || function.device == intel_82574l);
}

lib::Result<void> Controllers::take_nic(kernel::Pci& pci, PciFunction& function, u32 network,
                                        std::span<service::ControllerEntry> board) {
    if (count_ == most) return lib::fail(lib::Errc::OutOfRange);
    pci_ = &pci;
    service::ControllerEntry& entry = board[count_];
    TRY(add(function, ControllerKind::E1000, entry));
    entry.network = network;
    return {};
}

lib::Result<void> Controllers::add(PciFunction& function, ControllerKind kind, service::ControllerEntry& entry) {
    One& one = all_[count_];
    one.function = &function;
    one.owner = this;
    one.number = count_;
    TRY(pci_->claim(function, kernel::PciOwner::Service));
    one.memory = TRY(kernel::allocate_low_frames(dma_order));
    bool const is_ide = kind == ControllerKind::Ide;
    // The driver of a NIC does without: to which input its pin leads is not known (docs/decisions/drivers.md).
    bool const does_without = kind == ControllerKind::E1000 && function.messages == 0 && function.message_table == 0;
    if (!does_without) {
        if (auto const connected = is_ide ? connect_lines(one) : connect(one, kind); !connected) {
            kernel::free_frames(one.memory, dma_order);
            return connected;
        }
    }
    read_bars(one);
    if (is_ide) add_legacy_ports(one);
    entry.kind = kind;
    entry.vendor_and_device = function.vendor | u32{function.device} << 16;
    std::ranges::copy(one.bars, entry.bars);
    entry.dma_address = one.memory.value;
    entry.has_interrupt = does_without ? 0 : 1;
    lib::BufferSink name(std::span(entry.name).first(sizeof(entry.name) - 1));
    print(name, function.address);
    count_++;
    return {};
}

lib::Result<void> Controllers::connect(One& one, ControllerKind kind) {
    TRY(one.source.open(*pci_, *one.function));
    return connect(one, one.source, (kind == ControllerKind::E1000 ? nic_names : names)[one.number]);
}

lib::Result<void> Controllers::connect_lines(One& one) {
    for (u32 i = 0; i < legacy_irqs.size(); i++) {
        kernel::InterruptSource* const source = line_(legacy_irqs[i]);
        if (source == nullptr) return lib::fail(lib::Errc::NotFound);
        TRY(connect(one, *source, i == 0 ? "ide-0" : "ide-1"));
    }
    return {};
}

// The interrupt stays for as long as the machine runs.
lib::Result<void> Controllers::connect(One& one, kernel::InterruptSource& source, std::string_view name) {
    auto* const made = new (std::nothrow) kernel::Interrupt(name, kernel::InterruptHandler::to<&One::interrupted>(one));
    if (made == nullptr) return lib::fail(lib::Errc::NoMemory);
    auto const connected = made->connect(source, 0);
    if (!connected) delete made;
    return connected;
}

// The ports that the channels have in compatibility mode, where BARs 0 to 3 say nothing. [pci/ide] 2.1
void Controllers::add_legacy_ports(One& one) {
    constexpr u64 command_size = 8, control_size = 3;
    constexpr u8 control_offset = 2;
    for (u32 i = 0; i < legacy_irqs.size(); i++) {
        one.bars[2 * i] = {.size = command_size, .is_ports = 1};
        one.ports[2 * i] = legacy_command_ports[i];
        one.bars[2 * i + 1] = {.size = control_size, .is_ports = 1};
        one.ports[2 * i + 1] = legacy_control_ports[i];
        one.first_offset[2 * i + 1] = control_offset; // the floppy controller has the others
    }
}

void Controllers::read_bars(One& one) {
    for (u32 i = 0; i < service::max_bars; i++) {
        PciBar const& bar = one.function->bars[i];
        if (bar.base == 0) continue;
        if (bar.kind == PciBar::Kind::Io && bar.base + bar.size <= 0x1'0000) {
            one.bars[i] = {.size = bar.size, .is_ports = 1};
            one.ports[i] = static_cast<lib::u16>(bar.base);
        } else if (bar.kind == PciBar::Kind::Memory || bar.kind == PciBar::Kind::Memory64) {
            // What is less than a page shares it with something else.
            u64 const size = std::min(bar.size, service::largest_bar);
            if (size >= lib::page_size) one.bars[i] = {.size = size, .is_ports = 0};
        }
    }
}

// All but the table of messages: by that, ring 3 could send any interrupt to any CPU.
lib::Result<void> Controllers::map_registers(kernel::Service& instance, One const& one, u32 bar) {
    auto const hidden = one.source.table_in(bar);
    u64 const size = one.bars[bar].size;
    auto const map = [&](u64 begin, u64 end) -> lib::Result<void> {
        if (begin >= end) return {};
        return instance.map({HostVirt{service::bar_window(one.number, bar) + begin},
                             HostPhys{one.function->bars[bar].base + begin}, end - begin, kernel::Rights::ReadWrite,
                             kernel::MemoryType::Uncached});
    };
    TRY(map(0, std::min(hidden.begin, size)));
    return map(hidden.end, size);
}

lib::Result<void> Controllers::furnish(kernel::Service& instance) {
    for (One const& one : std::span(all_).first(count_)) {
        std::memset(kernel::phys_to_virt(one.memory), 0, service::dma_size);
        TRY(instance.map(
            {HostVirt{service::dma_window(one.number)}, one.memory, service::dma_size, kernel::Rights::ReadWrite}));
        for (u32 bar = 0; bar < service::max_bars; bar++)
            if (one.bars[bar].size != 0 && one.bars[bar].is_ports == 0) TRY(map_registers(instance, one, bar));
    }
    return {};
}

void Controllers::stop() {
    for (One const& one : std::span(all_).first(count_))
        pci_->set_bus_master(*one.function, false);
}

u64 Controllers::call(service::Call number, u64 controller, u64 argument) {
    auto const none = static_cast<u64>(Answer::NoSuchDevice);
    if (controller >= count_) return none;
    One const& one = all_[controller];
    using service::Call;
    if (number == Call::BusMaster) {
        pci_->set_bus_master(*one.function, argument != 0);
        return static_cast<u64>(Answer::Done);
    }
    if (number == Call::ReadConfiguration) {
        constexpr u64 size_of_space = 256;
        if (argument >= size_of_space || argument % 4 != 0) return none;
        return pci_->config().read32(one.function->address, static_cast<u32>(argument));
    }
    if (number == Call::ReadPort || number == Call::WritePort)
        return access_port(one, argument, number == Call::WritePort);
    return none;
}

u64 Controllers::access_port(One const& one, u64 argument, bool is_write) {
    auto const access = std::bit_cast<service::PortAccess>(argument);
    auto const none = static_cast<u64>(Answer::NoSuchDevice);
    if (access.bar >= service::max_bars || one.bars[access.bar].is_ports == 0) return none;
    if (access.width != 1 && access.width != 2 && access.width != 4) return none;
    u64 const size = one.bars[access.bar].size;
    if (access.offset < one.first_offset[access.bar] || access.offset % access.width != 0 || access.width > size ||
        access.offset > size - access.width)
        return none;
    auto const port = static_cast<lib::u16>(one.ports[access.bar] + access.offset);
    namespace x86 = lib::x86;
    if (!is_write) return access.width == 1 ? x86::in8(port) : access.width == 2 ? x86::in16(port) : x86::in32(port);
    if (access.width == 1)
        x86::out8(port, static_cast<u8>(access.value));
    else if (access.width == 2)
        x86::out16(port, static_cast<lib::u16>(access.value));
    else
        x86::out32(port, access.value);
    return static_cast<u64>(Answer::Done);
}

} // namespace manage
