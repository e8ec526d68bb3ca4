// SPDX-License-Identifier: MIT
#include <algorithm>
#include <charconv>
#include <config/cpu_placement.hpp>
#include <kernel/heap.hpp>
#include <manage/disk_figures.hpp>
#include <manage/monitor.hpp>
#include <manage/version.hpp>

namespace manage {
namespace {

constexpr u32 usual_log_lines = 20;

// Tenths of a percent.
struct Share {
    Share(u64 part, u64 whole) : tenths(whole == 0 ? 0 : part * 1000 / whole) {}
    u64 tenths;
};

void print_right(lib::TextSink& sink, u32 width, Share share) {
    std::array<char, 24> text{};
    auto const number = lib::format_to(text, "{}.{}", share.tenths / 10, share.tenths % 10);
    for (std::size_t i = number.size(); i < width; i++)
        sink.write(" ");
    sink.write(number);
}

u64 total(std::array<u64, vm::exit_reason_count> const& exits) {
    u64 sum = 0;
    for (u64 const count : exits)
        sum += count;
    return sum;
}

u64 mebibytes(u64 bytes) { return bytes / lib::MiB; }

} // namespace

std::span<Monitor::Command const> Monitor::commands() {
    static constexpr Command table[] = {
        {"help", "[COMMAND]", "this list, or how one command is used", 0, 2, &Monitor::help},
        {"?", "[COMMAND]", "the same", 0, 2, &Monitor::help},
        {"vm list", "", "every VM: state, size, and what it did since the last list", 0, 0, &Monitor::vm_list},
        {"vm show", "NAME", "one VM: settings, and how it ended last", 1, 1, &Monitor::vm_show},
        {"vm start", "NAME", "start a VM that is off", 1, 1, &Monitor::vm_start},
        {"vm stop", "NAME", "press its power button; after 30 s it is killed", 1, 1, &Monitor::vm_stop},
        {"vm reset", "NAME", "start it anew, without asking the guest", 1, 1, &Monitor::vm_reset},
        {"vm pause", "NAME", "let it stand still; its clocks are right when it goes on", 1, 1, &Monitor::vm_pause},
        {"vm resume", "NAME", "let it go on", 1, 1, &Monitor::vm_resume},
        {"vm kill", "NAME", "end it at once", 1, 1, &Monitor::vm_kill},
        {"vm save", "NAME", "copy a paused VM, memory and all, into a snapshot", 1, 1, &Monitor::vm_save},
        {"vm restore", "NAME", "make a VM that is off from its snapshot; it is paused then", 1, 1,
         &Monitor::vm_restore},
        {"vm discard", "NAME", "give the memory of its snapshot back", 1, 1, &Monitor::vm_discard},
        {"vm set", "NAME WORDS", "other CPUs: cpus=1-2 exclusive=true|false weight=N cap=N", 2, 6, &Monitor::vm_set},
        {"vm console", "NAME", "leave the monitor for the console of this VM", 1, 1, &Monitor::vm_console},
        {"top", "", "VMs and CPUs every second, until a key is pressed", 0, 0, &Monitor::top},
        {"exits", "NAME [on|off]", "why it came out of guest mode; on: from now on also for how long", 1, 2,
         &Monitor::exits},
        {"mem", "", "where the machine's memory is", 0, 0, &Monitor::memory},
        {"log", "[LINES|all]", "the last lines of the log (20)", 0, 1, &Monitor::log},
        {"cpu", "", "the machine's CPUs and what they run", 0, 0, &Monitor::cpu},
        {"irq list", "", "the machine's device interrupts: where they go and how many there were", 0, 0,
         &Monitor::irq_list},
        {"irq move", "INTERRUPT CPU", "handle one on another CPU, which no VM has for itself", 2, 2,
         &Monitor::irq_move},
        {"pci list", "", "the machine's PCI functions: what they are, who owns them, their addresses", 0, 0,
         &Monitor::pci_list},
        {"disk list", "", "the machine's disks and their partitions, and which VM uses them", 0, 0,
         &Monitor::disk_list},
        {"disk show", "[NAME [NUMBER]]", "the VMs' disks: limits, requests, errors, latency", 0, 2,
         &Monitor::disk_show},
        {"net list", "", "the networks, their uplinks, and the NICs of VMs on each", 0, 0, &Monitor::net_list},
        {"net show", "[NETWORK]", "what their ports have sent, received and dropped", 0, 1, &Monitor::net_show},
        {"service list", "", "every service: state, instance, and how the one before ended", 0, 0,
         &Monitor::service_list},
        {"service kill", "NAME", "end its instance; the next one starts at once", 1, 1, &Monitor::service_kill},
        {"service restart", "NAME", "the same, and start one that stays down", 1, 1, &Monitor::service_restart},
        {"version", "", "what this is and what it uses", 0, 0, &Monitor::show_version},
        {"poweroff", "[now]", "stop every VM, then the machine", 0, 1, &Monitor::power_off},
        {"reboot", "[now]", "stop every VM, then start the machine again", 0, 1, &Monitor::reboot},
        {"crash", "now", "fail as a bug would, to see report and onfailure=; every VM is lost", 1, 1, &Monitor::crash},
    };
    return table;
}

void Monitor::print_usage(Command const& command) {
    lib::format(terminal_, "{}: expected: {}{}{}\n", command.name, command.name, command.arguments.empty() ? "" : " ",
                command.arguments.empty() ? " and nothing behind it" : command.arguments);
}

void Monitor::help(Words const& arguments) {
    bool has_match = false;
    for (Command const& command : commands()) {
        if (arguments.size() > 0 && !is_word(arguments[0], command.verb())) continue;
        if (arguments.size() > 1 && !is_word(arguments[1], command.object())) continue;
        std::array<char, 40> usage{};
        auto const text = lib::format_to(usage, "{} {}", command.name, command.arguments);
        lib::format(terminal_, "  {:<18} {}\n", text, command.help);
        has_match = true;
    }
    if (!has_match) return unknown(arguments);
    if (arguments.is_empty()) terminal_.write("Tab completes, the arrow keys recall lines; Ctrl-A c leaves\n");
}

bool Monitor::find_vm(std::string_view name, u32& vm) {
    for (vm = 0; vm < vms_.vm_count(); vm++)
        if (vms_.vm_status(vm).name == name) return true;
    // With Caps Lock on, unless two VMs have that name.
    u32 alike = 0;
    for (u32 i = 0; i < vms_.vm_count(); i++)
        if (is_word(name, vms_.vm_status(i).name)) alike++, vm = i;
    if (alike == 1) return true;
    lib::format(terminal_, "there is no VM {}; there {}", name, vms_.vm_count() == 0 ? "is none" : "are:");
    for (u32 i = 0; i < vms_.vm_count(); i++)
        lib::format(terminal_, " {}", vms_.vm_status(i).name);
    terminal_.write("\n");
    return false;
}

void Monitor::change(Words const& arguments, Change what, std::string_view done) {
    u32 vm = 0;
    if (!find_vm(arguments[0], vm)) return;
    auto const result = (vms_.*what)(vm);
    if (!result)
        lib::format(terminal_, "{} {}\n", arguments[0], result.error());
    else if (!done.empty())
        lib::format(terminal_, "{} {}\n", arguments[0], done);
}

void Monitor::vm_start(Words const& arguments) { change(arguments, &VmControl::start, ""); }
void Monitor::vm_stop(Words const& arguments) { change(arguments, &VmControl::stop, "is asked to switch itself off"); }
void Monitor::vm_reset(Words const& arguments) { change(arguments, &VmControl::reset, ""); }
void Monitor::vm_pause(Words const& arguments) { change(arguments, &VmControl::pause, "stands still"); }
void Monitor::vm_resume(Words const& arguments) { change(arguments, &VmControl::resume, "goes on"); }
void Monitor::vm_kill(Words const& arguments) { change(arguments, &VmControl::kill, ""); }

void Monitor::vm_save(Words const& arguments) { change(arguments, &VmControl::save, "is being saved"); }
void Monitor::vm_restore(Words const& arguments) { change(arguments, &VmControl::restore, "is being restored"); }
void Monitor::vm_discard(Words const& arguments) { change(arguments, &VmControl::discard, "has no snapshot any more"); }

void Monitor::vm_console(Words const& arguments) {
    u32 vm = 0;
    if (!find_vm(arguments[0], vm)) return;
    if (auto const result = vms_.attach_console(vm); !result)
        return lib::format(terminal_, "{} {}\n", arguments[0], result.error());
    console_.leave_monitor();
}

void Monitor::print_vms() {
    lib::format(terminal_, "{:<16} {:<13} {:>5} {:<16} {:>10} {:>6} {:>8} {:>10}\n", "name", "state", "vCPUs", "cores",
                "memory MiB", "CPU %", "exits/s", "run time");
    Nanos const now = kernel::now();
    for (u32 i = 0; i < std::min(vms_.vm_count(), lib::max_vms); i++) {
        VmStatus const vm = vms_.vm_status(i);
        u64 const exits = total(vm.exits);
        Sample& last = vm_samples_[i];
        // It was started since, so its counters began again.
        if (last.exits > exits || last.cpu_time > vm.cpu_time || vm.run_time < now - last.at)
            last = {now - std::min(vm.run_time, now), 0, {}};
        std::string_view const snapshot = vm.snapshot != 0 ? "  snapshot" : "";
        u64 const nanos = (now - last.at).value;
        u64 const millis = nanos / 1'000'000;
        lib::format(terminal_, "{:<16} {:<13} {:>5} ", vm.name, name_of(vm.phase), vm.vcpus);
        print_placement(vm.placement);
        lib::format(terminal_, " {:>10} ", mebibytes(vm.memory));
        if (vm.run_time == Nanos{}) {
            lib::format(terminal_, "{:>6} {:>8} {:>10}{}\n", "-", "-", "-", snapshot);
        } else {
            print_right(terminal_, 6, {(vm.cpu_time - last.cpu_time).value, nanos});
            u64 const seconds = vm.run_time.value / lib::nanos_per_second;
            lib::format(terminal_, " {:>8} {:>4}:{:02}:{:02}{}{}\n",
                        millis == 0 ? 0 : (exits - last.exits) * 1000 / millis, seconds / 3600, seconds / 60 % 60,
                        seconds % 60, snapshot, vm.has_console ? "  console" : "");
        }
        last = {now, exits, vm.cpu_time};
    }
}

// "1-2 own", "3 w200 c50".
void Monitor::print_placement(config::CpuPlacement const& placement) {
    std::array<char, 40> text{};
    lib::BufferSink sink(text);
    config::format_cpus(sink, placement.cpus);
    if (placement.exclusive) sink.write(" own");
    if (placement.share.weight != config::CpuShare{}.weight) lib::format(sink, " w{}", placement.share.weight);
    if (placement.share.cap != 0) lib::format(sink, " c{}", placement.share.cap);
    lib::format(terminal_, "{:<16}", sink.view());
}

void Monitor::vm_set(Words const& arguments) {
    u32 vm = 0;
    if (!find_vm(arguments[0], vm)) return;
    config::CpuPlacement wanted = vms_.vm_status(vm).placement;
    for (u32 i = 1; i < arguments.size(); i++) {
        std::array<char, 160> text{};
        lib::BufferSink error(text);
        if (!config::change_placement(arguments[i], wanted, error))
            return lib::format(terminal_, "{}; nothing was changed\n", error.view());
    }
    if (auto const result = vms_.place(vm, wanted); !result)
        return lib::format(terminal_, "{}: {}\n", arguments[0], result.error());
    lib::format(terminal_, "{}: ", arguments[0]);
    print_placement(wanted);
    terminal_.write("\n");
}

void Monitor::vm_show(Words const& arguments) {
    u32 index = 0;
    if (!find_vm(arguments[0], index)) return;
    VmStatus const vm = vms_.vm_status(index);
    lib::format(terminal_, "{}: {}, {} MiB, {} vCPU{}, started {} time{}\n", vm.name, name_of(vm.phase),
                mebibytes(vm.memory), vm.vcpus, vm.vcpus == 1 ? "" : "s", vm.starts, vm.starts == 1 ? "" : "s");
    std::array<char, 48> text{};
    lib::BufferSink cpus(text);
    config::format_cpus(cpus, vm.placement.cpus);
    lib::format(terminal_, "cpus {}, {}, weight {}, ", cpus.view(), vm.placement.exclusive ? "exclusive" : "shared",
                vm.placement.share.weight);
    if (vm.placement.share.cap == 0)
        terminal_.write("no cap\n");
    else
        lib::format(terminal_, "cap {} %\n", vm.placement.share.cap);
    for (config::DiskDescription const& disk : vm.disks) {
        lib::format(terminal_, "disk {}: ", &disk - vm.disks.data());
        print_disk_source(terminal_, disk);
        lib::format(terminal_, "{}, serial {}\n", disk.is_read_only ? ", read-only" : "", disk.serial);
    }
    for (config::NicDescription const& nic : vm.nics) {
        lib::format(terminal_, "nic {}: network {}, mac ", &nic - vm.nics.data(), nic.network_name);
        print_mac(nic.mac);
        terminal_.write("\n");
    }
    if (vm.snapshot != 0) lib::format(terminal_, "snapshot: {} KiB\n", vm.snapshot / lib::KiB);
    if (vm.wake_ups.count != 0)
        lib::format(terminal_, "waited for a CPU after {} wake-ups: {} us on average, {} us at most\n",
                    vm.wake_ups.count, vm.wake_ups.total / vm.wake_ups.count / 1'000, vm.wake_ups.longest / 1'000);
    if (vm.last_end.empty()) return terminal_.write("it has not ended yet\n");
    lib::format(terminal_, "ended last: {}\n", vm.last_end);
    if (vm.crash_dump.empty()) return;
    terminal_.write("the last crash:\n");
    dump_vm_ = index;
    position_ = 0;
    end_ = vm.crash_dump.size();
    mode_ = Mode::Dump;
    continue_printing();
}

void Monitor::print_cpus() {
    lib::format(terminal_, "{:<4} {:>8} {:>7}  {}\n", "CPU", "APIC id", "busy %", "runs, or ran last");
    Nanos const now = kernel::now();
    for (u32 i = 0; i < std::min(vms_.cpu_count(), max_cpus_listed); i++) {
        CpuStatus const cpu = vms_.cpu_status(i);
        Sample& last = cpu_samples_[i];
        lib::format(terminal_, "{:<4} {:>8} ", cpu.index, cpu.apic_id);
        print_right(terminal_, 7, {(cpu.busy - last.cpu_time).value, (now - last.at).value});
        if (cpu.runs.name.empty())
            terminal_.write("  no VM\n");
        else if (cpu.runs.vcpu == kernel::RunnableIdentity::no_vcpu)
            lib::format(terminal_, "  service {}\n", cpu.runs.name);
        else
            lib::format(terminal_, "  {} vCPU {}\n", cpu.runs.name, cpu.runs.vcpu);
        last = {now, 0, cpu.busy};
    }
}

void Monitor::exits(Words const& arguments) {
    u32 vm = 0;
    if (!find_vm(arguments[0], vm)) return;
    if (arguments.size() > 1) {
        bool const on = is_word(arguments[1], "on");
        if (!on && !is_word(arguments[1], "off"))
            return lib::format(terminal_, "exits: expected on, off or nothing behind the name, found {}\n",
                               arguments[1]);
        if (auto const result = vms_.measure_exits(vm, on); !result)
            return lib::format(terminal_, "{} {}\n", arguments[0], result.error());
        return lib::format(terminal_, "how long exits of {} take is {}\n", arguments[0],
                           on ? "measured from now on" : "not measured any more");
    }
    VmStatus status = vms_.vm_status(vm);
    if (total(status.exits) == 0) return lib::format(terminal_, "{} is {}\n", status.name, name_of(status.phase));
    u64 const sum = total(status.exits);
    lib::format(terminal_, "{:<20} {:>14} {:>8}\n", "reason", "exits", "share %");
    for (;;) { // the most frequent first
        auto const most = std::ranges::max_element(status.exits);
        if (*most == 0) break;
        lib::format(terminal_, "{:<20} {:>14} ", vm::name_of(static_cast<vm::ExitReason>(most - status.exits.begin())),
                    *most);
        print_right(terminal_, 8, {*most, sum});
        terminal_.write("\n");
        *most = 0;
    }
    lib::format(terminal_, "{:<20} {:>14}\n", "all", sum);
    if (auto const* const times = vms_.exit_times(vm)) print_exit_times(*times);
}

// In TSC ticks, since "exits NAME on"; of the histogram, the columns that anybody is in.
void Monitor::print_exit_times(vm::ExitTimes const& times) {
    unsigned first = vm::ExitTimes::buckets, last = 0;
    for (auto const& reason : times.reasons)
        for (unsigned i = 0; i < vm::ExitTimes::buckets; i++)
            if (reason.histogram[i] != 0) {
                first = std::min(first, i);
                last = std::max(last, i);
            }
    if (first > last) return terminal_.write("no exit since the measuring began\n");
    lib::format(terminal_, "\n{:<20} {:>9} {:>9} {:>9}  exits of up to so many ticks\n{:<20} {:>9} {:>9} {:>9}",
                "measured", "exits", "mean", "longest", "", "", "ticks", "ticks");
    for (unsigned i = first; i <= last; i++)
        lib::format(terminal_, " {:>8}", u64{1} << (i + vm::ExitTimes::smallest));
    terminal_.write("\n");
    for (unsigned r = 0; r < vm::exit_reason_count; r++) {
        auto const& reason = times.reasons[r];
        if (reason.count == 0) continue;
        lib::format(terminal_, "{:<20} {:>9} {:>9} {:>9}", vm::name_of(static_cast<vm::ExitReason>(r)), reason.count,
                    reason.ticks / reason.count, reason.longest);
        for (unsigned i = first; i <= last; i++)
            lib::format(terminal_, " {:>8}", reason.histogram[i]);
        terminal_.write("\n");
    }
}

void Monitor::memory(Words const&) {
    auto const use = kernel::memory_use();
    u64 guests = 0, snapshots = 0;
    for (u32 i = 0; i < vms_.vm_count(); i++) {
        auto const status = vms_.vm_status(i);
        snapshots += status.snapshot;
        // Whoever exists has its memory.
        if (status.phase != VmPhase::Off && status.phase != VmPhase::Waiting && status.phase != VmPhase::Refused)
            guests += status.memory;
    }
    u64 const used = use.managed - use.free;
    lib::format(terminal_, "{:<28} {:>10} MiB\n", "managed by Mullion", mebibytes(use.managed));
    lib::format(terminal_, "{:<28} {:>10} MiB\n", "  memory of running VMs", mebibytes(guests));
    lib::format(terminal_, "{:<28} {:>10} KiB, {} bytes of it in use\n", "  small objects (heap)", use.heap / lib::KiB,
                use.heap_objects);
    lib::format(terminal_, "{:<28} {:>10} KiB\n", "  the allocator's own", use.metadata / lib::KiB);
    if (snapshots != 0) lib::format(terminal_, "{:<28} {:>10} MiB\n", "  snapshots", mebibytes(snapshots));
    u64 const known = guests + snapshots + use.heap + use.metadata;
    lib::format(terminal_, "{:<28} {:>10} KiB\n", "  tables, stacks, the rest",
                (used > known ? used - known : 0) / lib::KiB);
    lib::format(terminal_, "{:<28} {:>10} MiB\n", "  free", mebibytes(use.free - use.promised));
    if (use.promised != 0)
        lib::format(terminal_, "{:<28} {:>10} KiB\n", "  promised to page tables", use.promised / lib::KiB);
    std::array<kernel::NodeMemory, 16> nodes{};
    u32 const count = kernel::memory_of_nodes(nodes);
    for (u32 i = 0; count > 1 && i < count; i++)
        lib::format(terminal_, "    of NUMA node {:<13} {:>10} MiB of {} MiB\n", nodes[i].node,
                    mebibytes(nodes[i].free), mebibytes(nodes[i].managed));
}

void Monitor::log(Words const& arguments) {
    auto const range = kernel::log_range();
    u32 lines = usual_log_lines;
    if (arguments.size() > 0 && is_word(arguments[0], "all")) {
        lines = ~0U;
    } else if (arguments.size() > 0) {
        auto const text = arguments[0];
        auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), lines);
        if (error != std::errc() || end != text.data() + text.size() || lines == 0)
            return lib::format(terminal_, "log: expected a number of lines or all, found {}\n", text);
    }
    // Two passes: how many lines there are, and where the last of them begin.
    std::array<char, 256> buffer{};
    u32 total_lines = 0;
    for (std::size_t at = range.begin; at < range.end;)
        total_lines += static_cast<u32>(std::ranges::count(kernel::read_log(at, buffer), '\n'));
    u32 skip = total_lines > lines ? total_lines - lines : 0;
    position_ = range.begin;
    end_ = range.end;
    while (skip > 0 && position_ < end_) {
        std::size_t next = position_;
        auto const piece = kernel::read_log(next, buffer);
        std::size_t used = 0;
        while (used < piece.size() && skip > 0)
            if (piece[used++] == '\n') skip--;
        position_ = next - piece.size() + used;
    }
    mode_ = Mode::Log;
    continue_printing();
}

void Monitor::show_version(Words const&) {
    lib::format(terminal_, "Mullion {} ({})\n", version, commit);
    vms_.describe(terminal_);
    lib::format(terminal_, "\nTSC {}.{:03} MHz\n", kernel::tsc_scale().hz() / 1'000'000,
                kernel::tsc_scale().hz() / 1000 % 1000);
}

void Monitor::crash(Words const& arguments) {
    if (!is_word(arguments[0], "now")) return lib::format(terminal_, "expected crash now, found {}\n", arguments[0]);
    vms_.crash();
}

void Monitor::end_machine(MachineEnd end, Words const& arguments) {
    bool const at_once = arguments.size() > 0;
    if (at_once && !is_word(arguments[0], "now"))
        return lib::format(terminal_, "expected nothing or now, found {}\n", arguments[0]);
    if (!at_once) terminal_.write("waiting for every VM to switch itself off, for 30 s at most\n");
    vms_.end_machine(end, at_once);
}

} // namespace manage
