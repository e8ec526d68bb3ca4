// SPDX-License-Identifier: MIT
#pragma once
// The operator's command line on the shared serial line: Ctrl-A c enters and leaves it. Interrupts only note that there
// is something to do; everything is done by run_pending() in the run loop of CPU 0. Guests run
// on meanwhile, and what they print still appears.
// Not supported: more than one operator, commands in scripts.
#include <atomic>
#include <kernel/console.hpp>
#include <kernel/line_editor.hpp>
#include <kernel/log.hpp>
#include <kernel/pci.hpp>
#include <kernel/time.hpp>
#include <lib/fixed_vector.hpp>
#include <manage/network.hpp>
#include <manage/storage.hpp>
#include <manage/vm_control.hpp>

namespace manage {

using lib::u8;

class Monitor final : public kernel::ConsoleUser {
public:
    static constexpr u32 max_cpus_listed = 64;
    static constexpr u32 max_words = 8;
    static constexpr u64 refresh_seconds = 1;

    // `wake`, called from anywhere, sees to it that run_pending() is called soon.
    Monitor(VmControl& vms, kernel::Console& console, lib::Delegate<void()> wake);
    void run_pending();
    // What knows of the machine's disks; lives as long. Without it there are none.
    void show_disks_of(Storage& storage) { storage_ = &storage; }
    // The same for what is counted at the ports of networks.
    void show_networks_of(Network const& network) { network_ = &network; }
    bool is_open() const { return is_open_; }

    // kernel::ConsoleUser
    void on_console_input() override { wake(); }
    void on_console_space() override { wake(); }
    std::string_view console_name() const override { return "monitor"; }

private:
    using Words = lib::FixedVector<std::string_view, max_words>;
    using Run = void (Monitor::*)(Words const& arguments);
    using Change = ControlResult (VmControl::*)(u32 vm);
    struct Command {
        std::string_view name; // one word or two
        std::string_view arguments;
        std::string_view help;
        u8 least, most; // arguments
        Run run;

        std::string_view verb() const { return name.substr(0, name.find(' ')); }
        std::string_view object() const { return name.substr(std::min(verb().size() + 1, name.size())); }
    };
    static std::span<Command const> commands(); // monitor_commands.cpp, with all handlers
    // Whether what was typed is this word; with Caps Lock on, too.
    static bool is_word(std::string_view typed, std::string_view word);

    // By lines, so that no line of the log cuts one of a table.
    class Terminal final : public lib::LineSink<256> {
    public:
        explicit Terminal(kernel::Console& console) : console_(console) {}

    private:
        void pass_on(std::string_view line) override { console_.print(line); }

        kernel::Console& console_;
    };
    enum class Mode : u8 { Line, Log, Dump, Pci, Disks, DiskFigures, Ports, Top };
    // Counters at the last look, for what has happened since.
    struct Sample {
        Nanos at{};
        u64 exits = 0;
        Nanos cpu_time{};
    };

    void wake();
    void open();
    void close();
    void prompt();
    void work();
    void redraw_if_cut();
    void take(u8 byte);
    void execute(std::string_view line);
    void unknown(Words const& words);
    void complete(std::string_view before, kernel::Completions& completions);
    static void offer_settings(kernel::Completions& completions);
    void offer_vms(kernel::Completions& completions);
    static void offer_services(kernel::Completions& completions);
    void refresh() { is_refresh_due_.store(true, std::memory_order_relaxed), wake(); }
    // A text that may be longer than the line takes at once: true while it comes out.
    bool is_printing() const { return mode_ != Mode::Line && mode_ != Mode::Top; }
    void continue_printing();
    std::size_t print_some(std::size_t most);
    void start_top();
    void draw_top();

    // Prints why not and returns false when there is no such VM.
    bool find_vm(std::string_view name, u32& vm);
    void change(Words const& arguments, Change what, std::string_view done);
    void print_vms();
    void print_cpus();
    void print_placement(config::CpuPlacement const& placement);
    void print_exit_times(vm::ExitTimes const& times);
    void print_usage(Command const& command);

    void help(Words const& arguments);
    void vm_list(Words const&) { print_vms(); }
    void vm_start(Words const& arguments);
    void vm_stop(Words const& arguments);
    void vm_reset(Words const& arguments);
    void vm_pause(Words const& arguments);
    void vm_resume(Words const& arguments);
    void vm_kill(Words const& arguments);
    void vm_save(Words const& arguments);
    void vm_restore(Words const& arguments);
    void vm_discard(Words const& arguments);
    void vm_set(Words const& arguments);
    void vm_show(Words const& arguments);
    void vm_console(Words const& arguments);
    void top(Words const&) { start_top(); }
    void exits(Words const& arguments);
    void memory(Words const&);
    void log(Words const& arguments);
    void cpu(Words const&) { print_cpus(); }
    void irq_list(Words const&); // monitor_devices.cpp, with what else is about the machine's devices
    void irq_move(Words const& arguments);
    void pci_list(Words const&);
    void disk_list(Words const&); // monitor_disks.cpp
    bool print_disk(u32 index);
    void disk_show(Words const& arguments);
    void print_figures(u32 index);
    void net_list(Words const&); // monitor_networks.cpp
    void net_show(Words const& arguments);
    void print_port_line(u32 index);
    PortFigures uplink_of(u32 network) const;
    RouterFigures router_of(u32 network) const;
    void print_mac(config::MacAddress const& mac);
    void print_pci(kernel::PciFunction const& function);
    void service_list(Words const&); // monitor_services.cpp
    void service_kill(Words const& arguments);
    void service_restart(Words const& arguments);
    bool find_service(std::string_view name, u32& service);
    void show_version(Words const&);
    void power_off(Words const& arguments) { end_machine(MachineEnd::PowerOff, arguments); }
    void reboot(Words const& arguments) { end_machine(MachineEnd::Restart, arguments); }
    void crash(Words const& arguments);
    void end_machine(MachineEnd end, Words const& arguments);

    VmControl& vms_;
    Storage* storage_ = nullptr;
    Network const* network_ = nullptr;
    kernel::Console& console_;
    lib::Delegate<void()> wake_;
    Terminal terminal_{console_};
    kernel::LineEditor editor_{"mullion> ", terminal_};
    std::atomic<bool> has_work_{false};
    std::atomic<bool> is_refresh_due_{false};
    kernel::Timer refresh_timer_;
    bool is_open_ = false;
    u32 seen_log_writes_ = 0; // when the line was drawn last
    Mode mode_ = Mode::Line;
    // What of the log, of the dump of dump_vm_, or of the list of PCI functions, disks or ports is yet to be printed.
    std::size_t position_ = 0, end_ = 0;
    u32 dump_vm_ = 0;
    std::array<Sample, lib::max_vms> vm_samples_{};
    std::array<Sample, max_cpus_listed> cpu_samples_{};
};

} // namespace manage
