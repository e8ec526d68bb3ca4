#include <algorithm>
#include <boot/virtual_machine.hpp>
#include <kernel/cpus.hpp>
#include <kernel/log.hpp>
#include <kernel/topology.hpp>
#include <lib/x86/instructions.hpp>
#include <vmm/acpi_tables.hpp>
#include <vmm/cpu_placement.hpp>
#include <vmm/e820.hpp>
#include <vmm/image.hpp>

namespace boot {
namespace {

constinit u64 wall_clock_at_zero = 0;
// Zeroed at once: some milliseconds on a slow machine, far more work than what is around it.
constexpr u64 scrub_slice = 4 * lib::MiB;

void enter(vm::Vcpu& vcpu, vmm::EntryState const& entry) {
    using vm::SegmentName;
    namespace attributes = vm::segment;
    bool const is_long = entry.mode == vmm::EntryMode::Long64;
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
}

} // namespace

u64 wall_clock_seconds() { return wall_clock_at_zero + kernel::now().value / lib::nanos_per_second; }
void set_wall_clock(u64 seconds_at_time_zero) { wall_clock_at_zero = seconds_at_time_zero; }

VirtualMachine::~VirtualMachine() { destroy(); }

bool VirtualMachine::fail(std::string_view what) {
    kernel::log_error("vm {}: {}", name(), what);
    destroy();
    return false;
}

bool VirtualMachine::fail_at(vmm::Key key, std::string_view what) {
    kernel::log_error("vm {}: {}:{}: {}", name(), all_.file, description_.line_of(key), what);
    destroy();
    return false;
}

bool VirtualMachine::find_modules() {
    for (auto const key : {vmm::Key::Kernel, vmm::Key::Initrd}) {
        auto const& wanted = key == vmm::Key::Kernel ? description_.kernel : description_.initrd;
        if (wanted.empty() || modules_.find(wanted) != nullptr) continue;
        std::array<char, 400> text{};
        lib::BufferSink sink(text);
        lib::format(sink, "{} = \"{}\": expected the name of a boot module, found only: ", vmm::name_of(key), wanted);
        modules_.list(sink);
        lib::format(sink, "; add \"module2 FILE {}\" in grub.cfg or correct the name", wanted);
        return fail_at(key, sink.view());
    }
    return true;
}

bool VirtualMachine::begin() {
    u64 const begin = lib::x86::rdtsc();
    ticks_zeroing_ = 0;
    free_before_ = kernel::memory_use().free;
    if (!find_modules() || !build()) return false;
    ticks_building_ = lib::x86::rdtsc() - begin;
    return true;
}

// Memory is zeroed in slices, with interrupts let in between; the rest is short.
ManagedVm::Progress VirtualMachine::go_on() {
    u64 const begin = lib::x86::rdtsc();
    bool const is_clean = vm_->ram().scrub(scrub_slice);
    u64 const scrubbed = lib::x86::rdtsc();
    ticks_zeroing_ += scrubbed - begin;
    lib::x86::take_interrupts();
    if (!is_clean) return Progress::More;
    if (!load() || !schedule()) return Progress::Failed;
    started_at_ = kernel::now();
    vm_->start();
    kernel::wake(*runners_[0]); // the others wait for INIT and SIPI
    ticks_building_ += lib::x86::rdtsc() - scrubbed;
    auto const micros = [](u64 ticks) { return kernel::tsc_scale().to_nanos(ticks) / 1'000; };
    u64 const taken = free_before_ - std::min(kernel::memory_use().free, free_before_);
    kernel::log_info("vm {}: started, {} MiB, {} vCPU{} ({} us beside {} us of zeroing; {} KiB of Mullion's)", name(),
                     description_.memory / lib::MiB, description_.vcpus, description_.vcpus == 1 ? "" : "s",
                     micros(ticks_building_), micros(ticks_zeroing_),
                     (taken - std::min(description_.memory, taken)) / lib::KiB);
    return Progress::Started;
}

// The node of the CPUs it may run on, if they are all of one.
u32 VirtualMachine::node_of_cpus() const {
    auto const named = vmm::processors_for(all_, index_, description_, kernel::cpu_count());
    kernel::CpuSet cpus;
    for (u32 cpu = 0; cpu < kernel::cpu_count(); cpu++)
        if (named.has(cpu)) cpus.add(cpu);
    return kernel::machine_topology().domain_of(cpus).value_or(kernel::FrameAllocator::any_node);
}

bool VirtualMachine::can_have_tsc(u64 hz) {
    u64 const host_hz = kernel::tsc_scale().hz();
    if (hz == 0 || hz == host_hz) return true;
    bool const is_near = vm::TscRatio::of(hz, host_hz).has_value();
    if (is_near && backend_.has_tsc_scaling()) return true;
    std::array<char, 240> text{};
    return fail_at(vmm::Key::TscMhz,
                   lib::format_to(text, "tsc_mhz: expected {}{} MHz, found {}: {}",
                                  is_near ? "this machine's own rate, because its CPUs cannot scale the TSC, "
                                          : "a rate nearer to this machine's ",
                                  host_hz / 1'000'000, hz / 1'000'000, "correct the line or remove it"));
}

bool VirtualMachine::build() {
    u64 const free = kernel::memory_use().free;
    if (description_.memory > free) {
        std::array<char, 200> text{};
        return fail_at(
            vmm::Key::Memory,
            lib::format_to(text,
                           "memory: expected at most {} MiB, which is what is free, found {} MiB; lower it or add RAM",
                           free / lib::MiB, description_.memory / lib::MiB));
    }
    u64 const tsc_hz = u64{description_.tsc_mhz} * 1'000'000;
    if (!can_have_tsc(tsc_hz)) return false;
    auto created = vm::Vm::create({.name = name(),
                                   .memory = description_.memory,
                                   .vcpu_count = description_.vcpus,
                                   .tsc_hz = tsc_hz,
                                   .node = node_of_cpus()},
                                  backend_, *this);
    if (!created) {
        std::array<char, 160> text{};
        return fail(lib::format_to(text, "cannot be created with {} MiB ({} MiB free): {}",
                                   description_.memory / lib::MiB, free / lib::MiB, name_of(created.error())));
    }
    vm_ = std::move(*created);
    auto const blocks = vm_->ram().blocks();
    pieces_ = static_cast<vmm::RamPiece*>(::operator new(blocks.size() * sizeof(vmm::RamPiece), std::nothrow));
    if (pieces_ == nullptr) return fail("too little memory for its memory map");
    piece_count_ = static_cast<u32>(blocks.size());
    for (u32 i = 0; i < piece_count_; i++)
        pieces_[i] = {blocks[i].base, blocks[i].size, kernel::phys_to_virt<u8>(blocks[i].host)};
    platform_.emplace(vmm::PlatformConfig{*this, wall_clock_seconds(), description_.vcpus, vm_->ram().size_below_hole(),
                                          vm_->ram().size_above_hole()});
    return true;
}

bool VirtualMachine::load() {
    vmm::GuestMemory const memory({pieces_, piece_count_});
    auto const map = vmm::make_e820_map(vm_->ram().size_below_hole(), vm_->ram().size_above_hole());
    if (!map) return fail("memory: no memory map can be made of this size");
    auto const rsdp = vmm::write_acpi_tables(memory, {description_.vcpus});
    if (!rsdp || !vmm::write_bios_data_area(memory)) return fail("the firmware tables do not fit");
    std::span<u8 const> initrd;
    if (!description_.initrd.empty()) initrd = *modules_.find(description_.initrd);
    vmm::BootInput const input{*modules_.find(description_.kernel), initrd, description_.cmdline, map->entries(),
                               *rsdp};
    auto const entry = vmm::load_guest(description_.boot, input, memory);
    if (!entry) {
        std::array<char, 300> text{};
        lib::BufferSink sink(text);
        lib::format(sink, "kernel = \"{}\": ", description_.kernel);
        vmm::format_load_error(sink, entry.error());
        return fail_at(vmm::Key::Kernel, sink.view());
    }
    enter(vm_->vcpu(0), *entry);
    return true;
}

kernel::ScheduleSettings VirtualMachine::settings_for(vmm::CpuPlacement const& wanted) const {
    kernel::ScheduleSettings settings{
        .weight = wanted.share.weight, .cap = wanted.share.cap, .is_exclusive = wanted.exclusive};
    auto const cpus = vmm::processors_for(all_, index_, wanted, kernel::cpu_count());
    for (u32 cpu = 0; cpu < kernel::cpu_count(); cpu++)
        if (cpus.has(cpu)) settings.allowed.add(cpu);
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
        runners_[i] = kernel::Own(new (std::nothrow) VcpuRunner(
            vcpu, group, is_held_, lib::Delegate<void()>::to<&VirtualMachine::vcpu_stopped>(*this)));
        if (!runners_[i]) return fail("too little memory for its vCPUs");
        auto const added = kernel::scheduler().add(*runners_[i], settings);
        if (added) continue;
        runners_[i] = {};
        std::array<char, 200> text{};
        return fail_at(vmm::Key::Cpus,
                       lib::format_to(text,
                                      "vCPU {} has no place on the {} CPUs of this machine beside the VMs that run: {}",
                                      i, kernel::cpu_count(), name_of(added.error())));
    }
    vm_->set_waker(vm::Vm::Waker::to<&VirtualMachine::wake>(*this));
    return true;
}

// One setting at a time, in an order in which none contradicts the one before.
lib::Result<void> VirtualMachine::place_one(VcpuRunner& runner, kernel::ScheduleSettings const& wanted) {
    auto& scheduler = kernel::scheduler();
    u64 const now = kernel::now().value;
    if (!wanted.is_exclusive) TRY(scheduler.set_exclusive(runner, false, now));
    if (wanted.is_exclusive) TRY(scheduler.set_cap(runner, 0, now));
    TRY(scheduler.set_affinity(runner, wanted.allowed, now));
    TRY(scheduler.set_weight(runner, wanted.weight));
    if (!wanted.is_exclusive) return scheduler.set_cap(runner, wanted.cap, now);
    return scheduler.set_exclusive(runner, true, now);
}

lib::Result<void> VirtualMachine::place(vmm::CpuPlacement const& wanted) {
    kernel::ScheduleSettings const before = settings_for(description_);
    kernel::ScheduleSettings const after = settings_for(wanted);
    for (u32 i = 0; i < vm_->vcpu_count(); i++) {
        auto const placed = place_one(*runners_[i], after);
        if (placed) continue;
        // It was like this a moment ago, and nobody else has taken anything since.
        for (u32 back = 0; back <= i; back++)
            (void)place_one(*runners_[back], before);
        return placed;
    }
    return {};
}

void VirtualMachine::vcpu_stopped() {
    if (live_vcpus_.fetch_sub(1, std::memory_order_acq_rel) == 1) kernel::defer(0, on_end_);
}

void VirtualMachine::destroy() {
    if (!vm_) return; // a start that came to nothing
    kernel::console().detach(*this);
    for (u32 i = 0; i < timer_count_; i++)
        kernel::cancel_timer(timers_[i].timer);
    timer_count_ = 0;
    is_held_.store(false, std::memory_order_relaxed);
    is_paused_ = false;
    for (auto& runner : runners_) {
        if (!runner) continue;
        auto const removed = kernel::remove_runnable(*runner);
        ASSERT(removed.has_value()); // it has stopped, or never ran
        runner = {};
    }
    measure_exits(false);
    // A timer's callback that runs elsewhere at this moment comes to its end before that CPU answers.
    kernel::wait_for_other_cpus();
    vm_ = {};
    platform_.reset();
    ::operator delete(pieces_, piece_count_ * sizeof(vmm::RamPiece));
    pieces_ = nullptr;
    piece_count_ = 0;
}

void VirtualMachine::report_end(lib::TextSink& summary, lib::TextSink& dump) {
    vm_->set_stopped();
    u64 const millis = (kernel::now() - started_at_).value / 1'000'000;
    if (vm_->end_reason() == vm::EndReason::Crash) {
        std::array<char, 2048> text{};
        lib::BufferSink sink(text);
        for (u32 i = 0; i < vm_->vcpu_count(); i++)
            vm_->vcpu(i).print_state(sink);
        kernel::log_error("vm {}: state at the crash:\n{}", name(), sink.view());
        dump.write(sink.view());
    }
    std::array<char, 512> exits{};
    lib::BufferSink list(exits);
    u64 total = 0;
    auto const counts = figures().exits;
    for (unsigned reason = 0; reason < vm::exit_reason_count; reason++) {
        total += counts[reason];
        if (counts[reason] > 0)
            lib::format(list, " {} {}", vm::name_of(static_cast<vm::ExitReason>(reason)), counts[reason]);
    }
    kernel::log_info("vm {}: {} exits:{}", name(), total, list.view());
    lib::format(summary, "{}{}{}, ran {}.{:03} s", vm::name_of(vm_->end_reason()), vm_->end_text().empty() ? "" : ": ",
                vm_->end_text(), millis / 1000, millis % 1000);
    kernel::log_info("mullion: vm {} ended: {}{}{}, ran {}.{:03} s", name(), vm::name_of(vm_->end_reason()),
                     vm_->end_text().empty() ? "" : ": ", vm_->end_text(), millis / 1000, millis % 1000);
}

VmFigures VirtualMachine::figures() {
    VmFigures figures;
    figures.run_time = kernel::now() - started_at_;
    u64 nanos = 0;
    for (auto const& runner : runners_)
        if (runner) nanos += kernel::scheduler().used(*runner, kernel::now().value);
    figures.cpu_time = {nanos};
    for (u32 i = 0; i < vm_->vcpu_count(); i++)
        for (unsigned reason = 0; reason < vm::exit_reason_count; reason++)
            figures.exits[reason] += vm_->vcpu(i).exit_counts()[reason];
    return figures;
}

void VirtualMachine::measure_exits(bool on) {
    if (!vm_) return;
    for (u32 i = 0; i < vm_->vcpu_count(); i++) {
        if (on && !exit_times_[i]) exit_times_[i] = kernel::Own(new (std::nothrow) vm::ExitTimes);
        vm_->vcpu(i).measure_exits(on ? exit_times_[i].get() : nullptr);
    }
    if (on) return;
    kernel::wait_for_other_cpus(); // whoever is in the middle of an exit may still write there
    for (auto& times : exit_times_)
        times = {};
}

void VirtualMachine::add_exit_times(vm::ExitTimes& sum) {
    for (auto const& times : exit_times_)
        if (times) sum.add(*times);
}

// --- vm::VirtualPlatform

u64 VirtualMachine::port_in(u16 port, u8 size) {
    return with_platform_in_exit(
        [&](vmm::Platform& p) { return p.io(vmm::Space::Pio, port, size, vmm::Op::Read, 0).data; });
}

void VirtualMachine::port_out(u16 port, u8 size, u64 value) {
    with_platform_in_exit([&](vmm::Platform& p) { p.io(vmm::Space::Pio, port, size, vmm::Op::Write, value); });
}

bool VirtualMachine::has_pic_interrupt() {
    return with_platform_in_exit([](vmm::Platform& p) { return p.has_pic_interrupt(); });
}

u8 VirtualMachine::acknowledge_pic() {
    return with_platform_in_exit([](vmm::Platform& p) { return p.acknowledge_interrupt(); });
}

void VirtualMachine::end_of_interrupt(u8 vector) {
    with_platform_in_exit([&](vmm::Platform& p) { p.end_of_interrupt(vector); });
}

std::array<u64, 4> VirtualMachine::eoi_vectors() {
    return with_platform_in_exit([](vmm::Platform& p) {
        std::array<u64, 4> words{};
        for (unsigned vector = 0; vector < 256; vector++)
            if (p.eoi_wanted(static_cast<u8>(vector))) words[vector / 64] |= u64{1} << vector % 64;
        return words;
    });
}

void VirtualMachine::vm_stopped() {} // vcpu_stopped() is what counts

// --- vmm::Host

VirtualMachine::DeviceTimer* VirtualMachine::timer_of(u16 device, u32 id) {
    for (u32 i = 0; i < timer_count_; i++)
        if (timers_[i].device == device && timers_[i].id == id) return &timers_[i];
    return nullptr;
}

void VirtualMachine::arm_timer(u16 device, u32 id, u64 generation, Nanos deadline) {
    DeviceTimer* timer = timer_of(device, id);
    if (timer == nullptr) {
        ASSERT(timer_count_ < max_timers); // devices have a fixed number of timers
        timer = &timers_[timer_count_++];
        timer->owner = this;
        timer->device = device;
        timer->id = id;
        timer->timer.set_callback(kernel::Timer::Callback::to<&DeviceTimer::expired>(*timer));
    }
    timer->generation = generation;
    timer->deadline = deadline;
    timer->is_armed = true;
    if (!is_paused_) [[likely]]
        start_timer(*timer);
}

void VirtualMachine::cancel_timer(u16 device, u32 id) {
    DeviceTimer* const timer = timer_of(device, id);
    if (timer == nullptr) return;
    timer->is_armed = false;
    kernel::cancel_timer(timer->timer);
}

void VirtualMachine::timer_expired(DeviceTimer& timer) {
    with_platform([&](vmm::Platform& p) {
        // Paused: resume() starts it again. Not due: it was armed anew while this was on its way, and comes again.
        if (is_paused_ || !timer.is_armed || now() < timer.deadline) return;
        timer.is_armed = false;
        p.on({timer.generation, timer.id, timer.device, vmm::EventKind::Timer, 0});
    });
}

void VirtualMachine::send_msi(vmm::Msi message) {
    tell_changed_eoi_vectors();
    vm_->deliver_message(message.address, message.data);
}

void VirtualMachine::post_eoi_vectors() {
    for (u32 i = 0; i < vm_->vcpu_count(); i++)
        vm_->vcpu(i).post(vm::request::eoi_bitmap);
}

void VirtualMachine::set_intr_line(bool level) {
    if (level) vm_->vcpu(0).post(vm::request::interrupt);
}

u32 VirtualMachine::console_write(std::span<u8 const> bytes) {
    if (description_.console == vmm::ConsoleKind::None) return static_cast<u32>(bytes.size());
    return kernel::console().write(*this, bytes);
}

u32 VirtualMachine::console_read(std::span<u8> bytes) { return kernel::console().read(*this, bytes); }

void VirtualMachine::request(vmm::VmRequest what) {
    if (what == vmm::VmRequest::PowerOff)
        vm_->stop(vm::EndReason::PowerOff, "");
    else
        vm_->stop(vm::EndReason::Reset, "");
}

void VirtualMachine::power_button() {
    with_platform([](vmm::Platform& p) { p.power_button(); });
}

void VirtualMachine::end(vm::EndReason reason, std::string_view why) {
    vm_->stop(reason, why);
    let_go();
}

void VirtualMachine::let_go() {
    is_held_.store(false, std::memory_order_seq_cst);
    for (u32 i = 0; i < vm_->vcpu_count(); i++)
        kernel::wake(*runners_[i]);
}

void VirtualMachine::pause() {
    if (is_paused_) return;
    // Whoever is in the guest comes out and finds that it may not run again; the others do not begin.
    is_held_.store(true, std::memory_order_seq_cst);
    for (u32 i = 0; i < vm_->vcpu_count(); i++)
        vm_->vcpu(i).post(vm::request::leave);
    kernel::wait_for_other_cpus();
    with_platform([&](vmm::Platform&) {
        paused_at_ = kernel::now();
        is_paused_ = true;
        for (u32 i = 0; i < timer_count_; i++)
            kernel::cancel_timer(timers_[i].timer);
    });
}

void VirtualMachine::resume() {
    if (!is_paused_) return;
    with_platform([&](vmm::Platform&) {
        is_paused_ = false;
        for (u32 i = 0; i < timer_count_; i++)
            if (timers_[i].is_armed) start_timer(timers_[i]);
    });
    let_go();
}

// --- kernel::ConsoleUser

void VirtualMachine::on_console_input() {
    if (!is_running()) return;
    with_platform(
        [](vmm::Platform& p) { p.on({0, 0, static_cast<u16>(vmm::DeviceId::Com1), vmm::EventKind::ConsoleInput, 0}); });
}

void VirtualMachine::on_console_space() {
    if (!is_running()) return;
    with_platform(
        [](vmm::Platform& p) { p.on({0, 0, static_cast<u16>(vmm::DeviceId::Com1), vmm::EventKind::ConsoleSpace, 0}); });
}

} // namespace boot
