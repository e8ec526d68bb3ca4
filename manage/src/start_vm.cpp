// SPDX-License-Identifier: MIT
// The birth of a VM: modules, memory, platform, kernel, scheduler; and its move to other CPUs.
#include <algorithm>
#include <config/cpu_placement.hpp>
#include <kernel/cpus.hpp>
#include <kernel/log.hpp>
#include <kernel/topology.hpp>
#include <lib/fixed_vector.hpp>
#include <lib/x86/instructions.hpp>
#include <loader/bios.hpp>
#include <loader/e820.hpp>
#include <loader/guest_acpi_tables.hpp>
#include <loader/guest_mp_tables.hpp>
#include <loader/image.hpp>
#include <manage/virtual_machine.hpp>

namespace manage {
namespace {

// Zeroed at once: some milliseconds on a slow machine, far more work than what is around it.
constexpr u64 sector_size = 512;

// One for each vCPU, so that none waits for another.
u32 queue_count(config::VmDescription const& vm) { return std::min(vm.vcpus, lib::service::max_device_queues); }

constexpr u64 scrub_slice = 4 * lib::MiB, copy_slice = 2 * lib::MiB;

void enter(vm::Vcpu& vcpu, loader::EntryState const& entry) {
    using vm::SegmentName;
    namespace attributes = vm::segment;
    bool const is_long = entry.mode == loader::EntryMode::Long64;
    u64 const cr0 = vm::cr0::PE | vm::cr0::ET | (is_long ? vm::cr0::PG | vm::cr0::WP : 0);
    vcpu.set_cr4(is_long ? vm::cr4::PAE : 0);
    vcpu.set_cr3(entry.cr3);
    vcpu.set_efer(is_long ? vm::efer::LME : 0);
    vcpu.set_cr0(cr0);
    vcpu.set_gdt({entry.gdt_base, entry.gdt_limit});
    vcpu.set_segment(SegmentName::Cs,
                     {entry.code_selector, is_long ? attributes::long_code : attributes::code_32, ~u32{0}, 0});
    for (auto const name : {SegmentName::Ds, SegmentName::Es, SegmentName::Ss, SegmentName::Fs, SegmentName::Gs})
        vcpu.set_segment(name, {entry.data_selector, attributes::data_32, ~u32{0}, 0});
    vcpu.set_segment(SegmentName::Tr, {0, attributes::busy_tss, 0x67, 0});
    vcpu.gprs() = {};
    vcpu.gpr(vm::Gpr::Rax) = entry.rax;
    vcpu.gpr(vm::Gpr::Rbx) = entry.rbx;
    vcpu.gpr(vm::Gpr::Rsi) = entry.rsi;
    vcpu.gpr(vm::Gpr::Rsp) = entry.rsp;
    vcpu.store_gprs();
    vcpu.set_rip(entry.rip);
    vcpu.set_rflags(2);
    // Firmware leaves the first CPU's APIC in virtual-wire mode: interrupts of the 8259 pair get through LINT0, NMIs
    // through LINT1. Kernels that know no APIC depend on it. [intel/vol3] 12.5.1, [mp] 3.6.2.2
    vcpu.apic().mmio_write(vm::apic_reg::SVR, 4, 0x1ff);
    vcpu.apic().mmio_write(vm::apic_reg::LVT_LINT0, 4, 0x700);
    vcpu.apic().mmio_write(vm::apic_reg::LVT_LINT1, 4, 0x400);
}

} // namespace

bool VirtualMachine::find_modules() {
    auto const is_there = [&](std::string_view key, u32 line, std::string_view wanted) {
        if (wanted.empty() || modules_.find(wanted) != nullptr) return true;
        std::array<char, 400> text{};
        lib::BufferSink sink(text);
        lib::format(sink, "{}{}\": expected the name of a boot module, found only: ", key, wanted);
        modules_.list(sink);
        lib::format(sink, "; add \"module2 FILE {}\" in grub.cfg or correct the name", wanted);
        return fail_at(line, sink.view());
    };
    for (auto const key : {config::Key::Kernel, config::Key::Initrd})
        if (!is_there(key == config::Key::Kernel ? "kernel = \"" : "initrd = \"", description_.line_of(key),
                      key == config::Key::Kernel ? description_.kernel : description_.initrd))
            return false;
    for (config::ModuleDescription const& module : description_.all_modules())
        if (!is_there("modules = \"", module.line, module.name)) return false;
    return std::ranges::all_of(description_.all_disks(), [&](config::DiskDescription const& disk) {
        return disk.kind != config::DiskKind::Module || is_there("source = \"module:", disk.source_line, disk.name);
    });
}

bool VirtualMachine::is_ready() {
    return std::ranges::none_of(description_.all_disks(),
                                [](auto const& disk) { return config::is_of_machine(disk.kind); }) ||
           storage_.knows_disks();
}

bool VirtualMachine::begin() {
    u64 const begin = lib::x86::rdtsc();
    ticks_zeroing_ = 0;
    copies_.clear();
    is_loaded_ = false;
    u64 const free_before = kernel::memory_use().free;
    if (!find_modules() || !build()) return false;
    taken_ = free_before - std::min(kernel::memory_use().free, free_before);
    ticks_building_ = lib::x86::rdtsc() - begin;
    return true;
}

// Memory is zeroed, and kernel and initrd are copied, in slices with interrupts let in between; the rest is short.
ManagedVm::Progress VirtualMachine::go_on() {
    if (is_restoring_) return go_on_restoring();
    u64 const begin = lib::x86::rdtsc();
    bool const is_clean = vm_->ram().scrub(scrub_slice);
    u64 const scrubbed = lib::x86::rdtsc();
    ticks_zeroing_ += scrubbed - begin;
    lib::x86::take_interrupts();
    if (!is_clean) return Progress::More;
    bool const are_disks_ready = prepare_media(copy_slice);
    lib::x86::take_interrupts();
    if (!are_disks_ready) return Progress::More;
    if (!is_loaded_ && !load()) return Progress::Failed;
    is_loaded_ = true;
    bool const is_copied = copies_.go_on(lib::GuestMemory({pieces_, piece_count_}), copy_slice);
    ticks_building_ += lib::x86::rdtsc() - scrubbed;
    lib::x86::take_interrupts();
    if (!is_copied) return Progress::More;
    u64 const copied = lib::x86::rdtsc();
    u64 const free_before = kernel::memory_use().free; // other VMs may have been started since begin()
    if (!schedule() || !attach_disks() || !attach_nics()) return Progress::Failed;
    started_at_ = kernel::now();
    vm_->start();
    vm_->wake(vm_->vcpu(0)); // the others wait for INIT and SIPI
    ticks_building_ += lib::x86::rdtsc() - copied;
    auto const micros = [](u64 ticks) { return kernel::tsc_scale().to_nanos(ticks) / 1'000; };
    taken_ += free_before - std::min(kernel::memory_use().free, free_before);
    u64 given = description_.memory;
    for (DiskMedium const& medium : media_)
        given += medium.memory();
    kernel::log_info("vm {}: started, {} MiB, {} vCPU{} ({} us beside {} us of zeroing; {} KiB of Mullion's)", name(),
                     description_.memory / lib::MiB, description_.vcpus, description_.vcpus == 1 ? "" : "s",
                     micros(ticks_building_), micros(ticks_zeroing_), (taken_ - std::min(given, taken_)) / lib::KiB);
    return Progress::Started;
}

// The node of the CPUs it may run on, if they are all of one.
u32 VirtualMachine::node_of_cpus() const {
    auto const cpus = config::processors_for(all_, index_, description_, kernel::cpu_count());
    return kernel::machine_topology().domain_of(cpus).value_or(kernel::FrameAllocator::any_node);
}

// What the description wishes, in Hz; 0: the machine's own rate, which a description can name in whole MHz only.
std::optional<u64> VirtualMachine::tsc_rate() {
    u64 const host_hz = kernel::tsc_scale().hz();
    u64 const host_mhz = (host_hz + 500'000) / 1'000'000;
    u64 const mhz = description_.tsc_mhz;
    if (mhz == 0 || (mhz == host_mhz && !backend_.has_tsc_scaling())) return 0;
    u64 const hz = mhz * 1'000'000;
    bool const is_near = vm::TscRatio::of(hz, host_hz).has_value();
    if (is_near && backend_.has_tsc_scaling()) return hz;
    std::array<char, 240> text{};
    fail_at(config::Key::TscMhz,
            lib::format_to(text, "tsc_mhz: expected {}{} MHz, found {}: {}",
                           is_near ? "this machine's own rate, because its CPUs cannot scale the TSC, "
                                   : "a rate nearer to this machine's ",
                           host_mhz, mhz, "correct the line or remove it"));
    return std::nullopt;
}

bool VirtualMachine::build() {
    auto const use = kernel::memory_use();
    u64 const free = use.free - use.promised;
    if (description_.memory > free) {
        std::array<char, 200> text{};
        return fail_at(
            config::Key::Memory,
            lib::format_to(text,
                           "memory: expected at most {} MiB, which is what is free, found {} MiB; lower it or add RAM",
                           free / lib::MiB, description_.memory / lib::MiB));
    }
    auto const tsc_hz = tsc_rate();
    if (!tsc_hz) return false;
    auto created = vm::Vm::create({.name = name(),
                                   .memory = description_.memory,
                                   .vcpu_count = description_.vcpus,
                                   .tsc_hz = *tsc_hz,
                                   .node = node_of_cpus(),
                                   .wall_clock = is_restoring_ ? snapshot_->wall_clock : wall_clock_seconds()},
                                  backend_, *this);
    if (!created) {
        std::array<char, 160> text{};
        return fail(lib::format_to(text, "cannot be created with {} MiB ({} MiB free): {}",
                                   description_.memory / lib::MiB, free / lib::MiB, name_of(created.error())));
    }
    vm_ = std::move(*created);
    auto const blocks = vm_->ram().blocks();
    pieces_ = static_cast<lib::RamPiece*>(::operator new(blocks.size() * sizeof(lib::RamPiece), std::nothrow));
    if (pieces_ == nullptr) return fail("too little memory for its memory map");
    piece_count_ = static_cast<u32>(blocks.size());
    for (u32 i = 0; i < piece_count_; i++)
        pieces_[i] = {blocks[i].base, blocks[i].size, kernel::phys_to_virt<u8>(blocks[i].host)};
    if (!make_media()) return false;
    platform_.emplace(*this, lib::GuestMemory({pieces_, piece_count_}), facts());
    return true;
}

platform::MachineFacts VirtualMachine::facts() const {
    platform::MachineFacts facts{wall_clock_seconds(),
                                 description_.vcpus,
                                 vm_->ram().size_below_hole(),
                                 vm_->ram().size_above_hole(),
                                 vm_->cpuid().rules().physical_bits,
                                 kernel::has_random()};
    for (u32 i = 0; i < description_.disk_count; i++)
        facts.disks[i] = {.sectors = (media_[i].size() + parts_[i].size) / sector_size,
                          .queue_count = queue_count(description_),
                          .is_there = true,
                          .is_read_only = description_.disks[i].is_read_only,
                          .can_discard = parts_[i].size == 0};
    for (u32 i = 0; i < description_.nic_count; i++)
        facts.nics[i] = {.mac = description_.nics[i].mac, .is_there = true};
    return facts;
}

bool VirtualMachine::find_part(u32 disk) {
    std::array<char, 400> text{};
    auto const found = storage_.with_catalogue(
        [&](DiskCatalogue const& catalogue) { return catalogue.find(description_.disks[disk], text); });
    if (!found) return fail_at(description_.disks[disk].source_line, found.error());
    parts_[disk] = *found;
    return true;
}

bool VirtualMachine::make_media() {
    for (u32 i = 0; i < description_.disk_count; i++) {
        auto const& disk = description_.disks[i];
        parts_[i] = {};
        if (config::is_of_machine(disk.kind)) {
            if (!find_part(i)) return false;
            continue;
        }
        std::span<u8 const> contents;
        if (disk.kind == config::DiskKind::Module) contents = *modules_.find(disk.name);
        u64 const size =
            disk.kind == config::DiskKind::Module ? lib::align_up(contents.size(), sector_size) : disk.size;
        if (auto const made = media_[i].create(size, contents, node_of_cpus()); !made) {
            std::array<char, 200> text{};
            auto const use = kernel::memory_use();
            return fail_at(
                disk.source_line,
                lib::format_to(
                    text, "source: expected a disk of 1 byte to {} MiB, of which {} MiB are free, found {} KiB; {}",
                    DiskMedium::largest / lib::MiB, (use.free - use.promised) / lib::MiB, size / lib::KiB,
                    "make it smaller or add RAM"));
        }
    }
    return true;
}

bool VirtualMachine::prepare_media(u64 bytes) {
    for (u32 i = 0; i < description_.disk_count; i++)
        if (parts_[i].size == 0 && !media_[i].go_on(bytes)) return false;
    return true;
}

bool VirtualMachine::attach_disks() {
    for (u32 i = 0; i < description_.disk_count; i++) {
        auto const& disk = description_.disks[i];
        auto const attached = storage_.attach({.owner = this,
                                               .number = i,
                                               .queue_count = queue_count(description_),
                                               .is_read_only = disk.is_read_only,
                                               .ram = vm_->ram().blocks(),
                                               .medium = media_[i].blocks(),
                                               .medium_size = media_[i].size() + parts_[i].size,
                                               .part = parts_[i],
                                               .serial = disk.serial,
                                               .iops = disk.iops,
                                               .bandwidth = disk.bandwidth});
        if (attached) {
            served_[i] = {&storage_, *attached};
            continue;
        }
        cancel_devices();
        std::array<char, 160> text{};
        return fail_at(disk.line, lib::format_to(text, "disk: {}", attached.error()));
    }
    return true;
}

bool VirtualMachine::attach_nics() {
    for (u32 i = 0; i < description_.nic_count; i++) {
        auto const& nic = description_.nics[i];
        u32 const number = lib::max_disks + i;
        auto const attached = network_.attach({.owner = this,
                                               .number = number,
                                               .ram = vm_->ram().blocks(),
                                               .networks = all_.all_networks(),
                                               .network = nic.network,
                                               .mac = nic.mac,
                                               .address = nic.address});
        if (attached) {
            served_[number] = {&network_, *attached};
            continue;
        }
        cancel_devices();
        std::array<char, 160> text{};
        return fail_at(nic.line, lib::format_to(text, "nic: {}", attached.error()));
    }
    return true;
}

// Those that were attached in this very turn of the run loop.
void VirtualMachine::cancel_devices() {
    for (Served& served : served_)
        if (served.by != nullptr) served.by->cancel(served.device);
    served_ = {};
}

bool VirtualMachine::load() {
    lib::GuestMemory const memory({pieces_, piece_count_});
    auto const map = loader::make_e820_map(vm_->ram().size_below_hole(), vm_->ram().size_above_hole());
    if (!map) return fail("memory: no memory map can be made of this size");
    auto const cpuid = vm_->cpuid().features(0, true);
    auto const rsdp = loader::write_acpi_tables(
        memory, {description_.vcpus, vm_->ram().size_above_hole(), vm_->cpuid().rules().physical_bits});
    if (!rsdp || !loader::write_bios(memory, *map) ||
        !loader::write_mp_tables(memory, {description_.vcpus, cpuid.eax, cpuid.edx}))
        return fail("the firmware tables do not fit");
    with_platform([](platform::Platform& p) { p.set_up_as_firmware(); });
    std::span<u8 const> initrd;
    if (!description_.initrd.empty()) initrd = *modules_.find(description_.initrd);
    lib::FixedVector<loader::BootModule, config::max_modules> modules;
    for (auto const& module : description_.all_modules())
        (void)modules.push_back({*modules_.find(module.name), module.text});
    loader::BootInput const input{*modules_.find(description_.kernel),
                                  initrd,
                                  description_.cmdline,
                                  map->entries(),
                                  *rsdp,
                                  &copies_,
                                  modules.span(),
                                  true}; // scrubbed; below 1 MiB lie the tables
    auto const entry = loader::load_guest(description_.boot, input, memory);
    if (!entry) {
        std::array<char, 300> text{};
        lib::BufferSink sink(text);
        lib::format(sink, "kernel = \"{}\": ", description_.kernel);
        loader::format_load_error(sink, entry.error());
        return fail_at(config::Key::Kernel, sink.view());
    }
    enter(vm_->vcpu(0), *entry);
    return true;
}

kernel::ScheduleSettings VirtualMachine::settings_for(config::CpuPlacement const& wanted) const {
    kernel::ScheduleSettings settings{
        .weight = wanted.share.weight, .cap = wanted.share.cap, .is_exclusive = wanted.exclusive};
    settings.allowed = config::processors_for(all_, index_, wanted, kernel::cpu_count());
    return settings;
}

// Hands the vCPUs to the scheduler, asleep.
bool VirtualMachine::schedule() {
    static constinit std::atomic<u32> groups{0};
    u32 const group = groups.fetch_add(1, std::memory_order_relaxed);
    kernel::ScheduleSettings const settings = settings_for(description_);
    live_vcpus_.store(description_.vcpus, std::memory_order_release);
    for (u32 i = 0; i < description_.vcpus; i++) {
        vm::Vcpu& vcpu = vm_->vcpu(i);
        vcpu.unload(); // it was built here; where it runs is not ours to say
        vcpu.set_group(group);
        vcpu.set_timer_payer(&vcpu);
        auto const added = kernel::scheduler().add(vcpu, settings);
        if (added) {
            scheduled_++;
            continue;
        }
        vcpu.set_timer_payer(nullptr);
        std::array<char, 200> text{};
        return fail_at(config::Key::Cpus,
                       lib::format_to(text,
                                      "vCPU {} has no place on the {} CPUs of this machine beside the VMs that run: {}",
                                      i, kernel::cpu_count(), name_of(added.error())));
    }
    vm_->set_scheduled();
    return true;
}

// One setting at a time, in an order in which none contradicts the one before.
lib::Result<void> VirtualMachine::place_one(vm::Vcpu& vcpu, kernel::ScheduleSettings const& wanted) {
    auto& scheduler = kernel::scheduler();
    u64 const now = kernel::now().value;
    if (!wanted.is_exclusive) TRY(scheduler.set_exclusive(vcpu, false, now));
    if (wanted.is_exclusive) TRY(scheduler.set_cap(vcpu, 0, now));
    TRY(scheduler.set_affinity(vcpu, wanted.allowed, now));
    TRY(scheduler.set_weight(vcpu, wanted.weight));
    if (!wanted.is_exclusive) return scheduler.set_cap(vcpu, wanted.cap, now);
    return scheduler.set_exclusive(vcpu, true, now);
}

lib::Result<void> VirtualMachine::place(config::CpuPlacement const& wanted) {
    kernel::ScheduleSettings const before = settings_for(description_);
    kernel::ScheduleSettings const after = settings_for(wanted);
    for (u32 i = 0; i < vm_->vcpu_count(); i++) {
        auto const placed = place_one(vm_->vcpu(i), after);
        if (placed) continue;
        // It was like this a moment ago, and nobody else has taken anything since.
        for (u32 back = 0; back <= i; back++)
            (void)place_one(vm_->vcpu(back), before);
        return placed;
    }
    return {};
}

} // namespace manage
