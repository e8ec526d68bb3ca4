// SPDX-License-Identifier: MIT
#include <manage/monitor.hpp>

#include "kernel/kernel_cpu.hpp"
#include <algorithm>
#include <fakes/pci.hpp>
#include <functional>
#include <gtest/gtest.h>
#include <kernel/cpus.hpp>
#include <string>
#include <vector>

namespace {

using lib::u32;
using lib::u64;
using lib::u8;
using manage::VmPhase;

// A line that takes everything at once.
class Line final : public kernel::ConsolePort {
public:
    u32 write_some(std::span<u8 const> bytes) override {
        auto const count = static_cast<u32>(std::min<std::size_t>(bytes.size(), room));
        out.append(bytes.begin(), bytes.begin() + count);
        room -= count;
        return count;
    }
    u32 read_some(std::span<u8> bytes) override {
        u32 count = 0;
        while (count < bytes.size() && !in.empty()) {
            bytes[count++] = static_cast<u8>(in.front());
            in.erase(0, 1);
        }
        return count;
    }
    void write_all(std::span<u8 const> bytes) override { write_some(bytes); }
    void set_input_wanted(bool) override {}
    std::string in, out;
    std::size_t room = ~std::size_t{0}; // bytes that it takes, until it is given more
};

class Guest final : public kernel::ConsoleUser {
public:
    void on_console_input() override { inputs++; }
    void on_console_space() override {}
    std::string_view console_name() const override { return "guest"; }
    bool is_console_dead() const override { return is_paused; }
    bool is_paused = false;
    unsigned inputs = 0;
};

class Vms final : public manage::VmControl {
public:
    std::vector<manage::VmStatus> vms;
    std::vector<config::NetworkDescription> described_networks;
    std::vector<std::string> calls;
    manage::ControlResult answer{};
    config::CpuPlacement placed{};
    vm::ExitTimes const* times = nullptr;
    std::function<void()> meanwhile; // what another CPU does while the monitor is at work

    u32 vm_count() const override { return static_cast<u32>(vms.size()); }
    manage::VmStatus vm_status(u32 vm) override {
        if (meanwhile) meanwhile();
        return vms[vm];
    }
    std::span<config::NetworkDescription const> networks() const override { return described_networks; }
    u32 cpu_count() const override { return 1; }
    manage::CpuStatus cpu_status(u32) override { return {}; }
    void describe(lib::TextSink& sink) const override {
        sink.write("VT-x: ");
        if (meanwhile) meanwhile();
        sink.write("nothing");
    }
    manage::ControlResult start(u32 vm) override { return note("start", vm); }
    manage::ControlResult stop(u32 vm) override { return note("stop", vm); }
    manage::ControlResult reset(u32 vm) override { return note("reset", vm); }
    manage::ControlResult pause(u32 vm) override { return note("pause", vm); }
    manage::ControlResult resume(u32 vm) override { return note("resume", vm); }
    manage::ControlResult kill(u32 vm) override { return note("kill", vm); }
    manage::ControlResult save(u32 vm) override { return note("save", vm); }
    manage::ControlResult restore(u32 vm) override { return note("restore", vm); }
    manage::ControlResult discard(u32 vm) override { return note("discard", vm); }
    manage::ControlResult attach_console(u32 vm) override { return note("console", vm); }
    manage::ControlResult place(u32 vm, config::CpuPlacement const& wanted) override {
        placed = wanted;
        return note("place", vm);
    }
    manage::ControlResult measure_exits(u32 vm, bool on) override { return note(on ? "measure" : "ignore", vm); }
    vm::ExitTimes const* exit_times(u32) override { return times; }
    void end_machine(manage::MachineEnd end, bool at_once) override {
        calls.push_back(std::string(end == manage::MachineEnd::PowerOff ? "poweroff" : "reboot") +
                        (at_once ? " now" : ""));
    }
    void crash() override { calls.push_back("crash"); }

private:
    manage::ControlResult note(std::string const& what, u32 vm) {
        calls.push_back(what + " " + std::string(vms[vm].name));
        return answer;
    }
};

class MonitorTest : public KernelCpu {
protected:
    MonitorTest() {
        kernel::start_clock(1'000'000'000, 0);
        console.set_port(&line);
        console.set_monitor(monitor);
        console.attach(guest);
        vms.vms.resize(2);
        vms.vms[0].name = "web";
        vms.vms[0].phase = VmPhase::Running;
        vms.vms[0].vcpus = 2;
        vms.vms[0].memory = 256 * lib::MiB;
        vms.vms[0].has_console = true;
        vms.vms[1].name = "db";
    }
    std::string type(std::string const& keys) {
        line.out.clear();
        line.in += keys;
        console.pump();
        monitor.run_pending();
        std::string plain;
        for (std::size_t i = 0; i < line.out.size(); i++) // without carriage returns and ESC [ K
            if (line.out[i] == '\x1b')
                i += 2;
            else if (line.out[i] != '\r')
                plain += line.out[i];
        return plain;
    }
    // What a command prints, without its echo and the prompt behind.
    std::string ask(std::string const& command) {
        if (!monitor.is_open())
            type("\x01"
                 "c");
        std::string const all = type(command + "\r");
        auto const begin = all.find('\n') + 1;
        auto const end = all.rfind("mullion> ");
        return end == std::string::npos || end < begin ? all.substr(begin) : all.substr(begin, end - begin);
    }
    Line line;
    Guest guest;
    Vms vms;
    void wake() { wakes++; }
    unsigned wakes = 0;
    kernel::Console console;
    manage::Monitor monitor{vms, console, lib::Delegate<void()>::to<&MonitorTest::wake>(*this)};
};

TEST_F(MonitorTest, OpensAndClosesByTheEscape) {
    EXPECT_EQ(type("x"), "") << "that was for the guest";
    EXPECT_EQ(guest.inputs, 1U);
    EXPECT_TRUE(type("\x01"
                     "c")
                    .ends_with("mullion> "));
    EXPECT_TRUE(monitor.is_open());
    EXPECT_EQ(type("\x01"
                   "c"),
              "\nconsole of guest\n");
    EXPECT_FALSE(monitor.is_open());
    u8 byte = 0;
    EXPECT_EQ(console.read(guest, {&byte, 1}), 0U) << "what was typed before or in the monitor does not reach it";
}

TEST_F(MonitorTest, OnlyNotesItInTheInterrupt) {
    line.in = "\x01"
              "c";
    console.pump();
    EXPECT_EQ(line.out, "");
    EXPECT_GT(wakes, 0U);
}

TEST_F(MonitorTest, CallsWhatTheCommandNames) {
    for (auto const* const what : {"start", "stop", "reset", "pause", "resume", "kill", "save", "restore", "discard"})
        ask(std::string("vm ") + what + " db");
    ask("poweroff");
    ask("reboot now");
    ask("crash now");
    EXPECT_EQ(vms.calls,
              (std::vector<std::string>{"start db", "stop db", "reset db", "pause db", "resume db", "kill db",
                                        "save db", "restore db", "discard db", "poweroff", "reboot now", "crash"}));
}

TEST_F(MonitorTest, ShowsSnapshots) {
    EXPECT_EQ(ask("mem").find("snapshots"), std::string::npos);
    vms.vms[1].snapshot = 260 * lib::MiB;
    EXPECT_NE(ask("vm show db").find("snapshot: 266240 KiB\n"), std::string::npos);
    EXPECT_NE(ask("mem").find("  snapshots                         260 MiB\n"), std::string::npos);
    std::string const list = ask("vm list");
    EXPECT_NE(list.find("-  snapshot\n"), std::string::npos) << list;
}

TEST_F(MonitorTest, CrashesOnlyWhenItIsMeant) {
    ask("crash");
    ask("crash test");
    EXPECT_TRUE(vms.calls.empty());
}

TEST_F(MonitorTest, SaysWhyNot) {
    vms.answer = std::unexpected("is off: start it first");
    EXPECT_EQ(ask("vm kill db"), "db is off: start it first\n");
    EXPECT_EQ(ask("vm console db"), "db is off: start it first\n");
    EXPECT_TRUE(monitor.is_open());
}

TEST_F(MonitorTest, LeavesForAConsole) {
    ask("vm console web");
    monitor.run_pending();
    EXPECT_FALSE(monitor.is_open());
    EXPECT_EQ(vms.calls, std::vector<std::string>{"console web"});
}

TEST_F(MonitorTest, RefusesWhatItDoesNotUnderstand) {
    EXPECT_EQ(ask("frobnicate"), "unknown command frobnicate; try help\n");
    EXPECT_EQ(ask("vresion"), "unknown command vresion; try help (did you mean version?)\n");
    EXPECT_EQ(ask("list"), "unknown command list; try help (did you mean vm list?)\n");
    EXPECT_EQ(ask("START"), "unknown command START; try help (did you mean vm start?)\n");
    EXPECT_EQ(ask("vm lost"), "unknown command vm lost; try help (did you mean vm list?)\n");
    EXPECT_EQ(ask("vm"), "vm: expected one of list show start stop reset pause resume kill save restore discard set "
                         "console; try help vm\n");
    EXPECT_EQ(ask("vm start"), "vm start: expected: vm start NAME\n");
    EXPECT_EQ(ask("vm start web db"), "vm start: expected: vm start NAME\n");
    EXPECT_EQ(ask("mem all"), "mem: expected: mem and nothing behind it\n");
    EXPECT_EQ(ask("vm kill x"), "there is no VM x; there are: web db\n");
    EXPECT_EQ(ask("poweroff later"), "expected nothing or now, found later\n");
    EXPECT_EQ(ask("log -1"), "log: expected a number of lines or all, found -1\n");
    EXPECT_EQ(ask("a b c d e f g h i"), "too many words: no command has more than 8\n");
    EXPECT_EQ(ask(std::string(190, 'x')), "unknown command " + std::string(190, 'x') + "; try help\n");
    EXPECT_EQ(ask("  "), "");
    EXPECT_TRUE(vms.calls.empty());
}

TEST_F(MonitorTest, HelpsWithEveryCommandOrOne) {
    std::string const all = ask("help");
    for (auto const* const what : {"vm console NAME", "exits NAME", "poweroff [now]", "log [LINES|all]", "version"})
        EXPECT_NE(all.find(what), std::string::npos) << what;
    std::string const one = ask("help vm kill");
    EXPECT_EQ(std::ranges::count(one, '\n'), 1);
    EXPECT_TRUE(one.starts_with("  vm kill NAME")) << one;
    EXPECT_EQ(ask("help nothing"), "unknown command nothing; try help\n");
}

TEST_F(MonitorTest, AQuestionMarkIsHelp) {
    EXPECT_EQ(ask("?"), ask("help"));
    EXPECT_EQ(ask("? vm kill"), ask("help vm kill"));
}

TEST_F(MonitorTest, UnderstandsCapitals) {
    EXPECT_EQ(ask("HELP VM KILL"), ask("help vm kill"));
    EXPECT_EQ(ask("VM LIST"), ask("vm list"));
    ask("Vm Kill DB");
    ask("EXITS WEB ON");
    ask("POWEROFF NOW");
    EXPECT_EQ(vms.calls, (std::vector<std::string>{"kill db", "measure web", "poweroff now"}));
    vms.vms[0].name = "Db"; // two VMs are meant by DB, one by db
    EXPECT_EQ(ask("vm kill DB"), "there is no VM DB; there are: Db db\n");
    ask("vm kill db");
    EXPECT_EQ(vms.calls.back(), "kill db");
}

TEST_F(MonitorTest, SaysThatAConsoleIsPaused) {
    type("\x01"
         "c");
    guest.is_paused = true;
    EXPECT_EQ(type("\x01"
                   "c"),
              "\nconsole of guest, which is paused: Ctrl-A c, then vm resume\n");
}

TEST_F(MonitorTest, ListsVms) {
    vms.vms[0].run_time = {3'723ULL * lib::nanos_per_second};
    vms.vms[0].placement.cpus.add(1);
    vms.vms[0].placement.cpus.add(2);
    vms.vms[0].placement.exclusive = true;
    vms.vms[1].placement.share = {200, 50};
    std::string const text = ask("vm list");
    EXPECT_NE(text.find("web              running           2 1-2 own                 256"), std::string::npos) << text;
    EXPECT_NE(text.find("1:02:03  console\n"), std::string::npos) << text;
    EXPECT_NE(
        text.find("db               off               0 any w200 c50              0      -        -          -\n"),
        std::string::npos)
        << text;
}

TEST_F(MonitorTest, ListsExitsByFrequency) {
    vms.vms[0].exits[static_cast<unsigned>(vm::ExitReason::Hlt)] = 1;
    vms.vms[0].exits[static_cast<unsigned>(vm::ExitReason::Cpuid)] = 3;
    EXPECT_EQ(ask("exits web"), "reason                        exits  share %\n"
                                "cpuid                             3     75.0\n"
                                "hlt                               1     25.0\n"
                                "all                               4\n");
    EXPECT_EQ(ask("exits db"), "db is off\n");
}

TEST_F(MonitorTest, SetsCpus) {
    EXPECT_EQ(ask("vm set web cpus=3-4 exclusive=true"), "web: 3-4 own         \n");
    EXPECT_EQ(vms.calls, std::vector<std::string>{"place web"});
    EXPECT_TRUE(vms.placed.exclusive && vms.placed.cpus.has(3) && vms.placed.cpus.count() == 2);
    vms.vms[1].placement.share.weight = 300;
    ask("vm set db cap=20");
    EXPECT_EQ(vms.placed.share.weight, 300U) << "what is not named stays";
    EXPECT_EQ(vms.placed.share.cap, 20U);
    vms.calls.clear();
    EXPECT_EQ(ask("vm set web cpus=1 cap=x"),
              "cap: expected percent of a CPU, 1 to 100, or 0 for none, found x; nothing was changed\n");
    EXPECT_EQ(ask("vm set web"), "vm set: expected: vm set NAME WORDS\n");
    EXPECT_TRUE(vms.calls.empty());
    vms.answer = std::unexpected("is ending: wait a moment");
    EXPECT_EQ(ask("vm set web weight=5"), "web: is ending: wait a moment\n");
}

TEST_F(MonitorTest, ShowsNetworksAndTheirNics) {
    EXPECT_EQ(ask("net list"), "no network is described\n");
    vms.described_networks = {{"lan", 1}, {"empty", 2}};
    std::array const nics{config::NicDescription{.network_name = "lan", .mac = {0x52, 0x54, 0, 1, 2, 0xfe}},
                          config::NicDescription{.network_name = "lan", .network = 0, .mac = {2}}};
    vms.vms[1].nics = nics;
    EXPECT_EQ(ask("net list"), "lan: internal\n  52:54:00:01:02:fe  vm db, nic 0, off\n"
                               "  02:00:00:00:00:00  vm db, nic 1, off\nempty: internal\n");
    EXPECT_NE(ask("vm show db").find("nic 0: network lan, mac 52:54:00:01:02:fe\nnic 1: network lan, mac 02:"),
              std::string::npos);
}

TEST_F(MonitorTest, ShowsThePortsOfANetwork) {
    EXPECT_EQ(ask("net show"), "no network is described\n");
    vms.described_networks = {{"lan", 1}, {"wan", 2}};
    vms.described_networks[1].uplink.kind = config::UplinkDescription::Kind::First;
    vms.described_networks[1].uplink_text = "first";
    std::array const nics{config::NicDescription{.network_name = "wan"}, config::NicDescription{.network_name = "lan"}};
    vms.vms[1].nics = nics;
    std::string const columns = "  frames                     sent        KiB   received        KiB    dropped\n";
    std::string const lan = "lan: internal\n" + columns + "  db nic 1             not in use\n";
    std::string const wan = "wan: uplink first, not in use\n" + columns + "  outside              not in use\n" +
                            "  db nic 0             not in use\n";
    EXPECT_EQ(ask("net show"), lan + wan);
    EXPECT_EQ(ask("net show wan"), wan);
    EXPECT_EQ(ask("net show la"), "there is no network la\n");
}

TEST_F(MonitorTest, ShowsHowAVmEnded) {
    EXPECT_EQ(ask("vm show db"), "db: off, 0 MiB, 0 vCPUs, started 0 times\ncpus any, shared, weight 100, no cap\n"
                                 "it has not ended yet\n");
    vms.vms[1].last_end = "crash: triple fault";
    vms.vms[1].crash_dump = "rip 0x1234\n";
    vms.vms[1].starts = 1;
    EXPECT_EQ(ask("vm show db"), "db: off, 0 MiB, 0 vCPUs, started 1 time\ncpus any, shared, weight 100, no cap\n"
                                 "ended last: crash: triple fault\nthe last crash:\nrip 0x1234\n");
    vms.vms[1].last_end = {};
    vms.vms[1].wake_ups = {4, 10'000, 7'000};
    EXPECT_NE(ask("vm show db").find("waited for a CPU after 4 wake-ups: 2 us on average, 7 us at most\n"),
              std::string::npos);
}

TEST_F(MonitorTest, ALongDumpComesOutAsTheLineTakesIt) {
    std::string const dump = std::string(80'000, 'x') + "end of the dump\n";
    vms.vms[1].last_end = "crash";
    vms.vms[1].crash_dump = dump;
    ask("mem");
    line.room = 1'000;
    type("vm show db\r");
    std::string all = line.out;
    EXPECT_EQ(all.find("end of the dump"), std::string::npos);
    for (int i = 0; i < 100 && !all.ends_with("mullion> \x1b[K"); i++) {
        line.room = 10'000;
        type("");
        all += line.out;
    }
    EXPECT_EQ(std::ranges::count(all, 'x'), 80'000);
    EXPECT_NE(all.find("end of the dump\r\n"), std::string::npos);
}

TEST_F(MonitorTest, ADumpThatIsReplacedMeanwhileEndsThere) {
    std::string const dump(80'000, 'x');
    vms.vms[1].last_end = "crash";
    vms.vms[1].crash_dump = dump;
    ask("mem");
    line.room = 1'000;
    type("vm show db\r");
    vms.vms[1].crash_dump = "gone";
    line.room = ~std::size_t{0};
    type("");
    EXPECT_TRUE(line.out.ends_with("mullion> \x1b[K")) << line.out.substr(line.out.size() - 20);
    EXPECT_EQ(ask("vm list").substr(0, 4), "name");
}

TEST_F(MonitorTest, ShowsHowLongExitsTake) {
    EXPECT_EQ(ask("exits web on"), "how long exits of web take is measured from now on\n");
    EXPECT_EQ(ask("exits web off"), "how long exits of web take is not measured any more\n");
    EXPECT_EQ(ask("exits web maybe"), "exits: expected on, off or nothing behind the name, found maybe\n");
    EXPECT_EQ(vms.calls, (std::vector<std::string>{"measure web", "ignore web"}));
    vms.vms[0].exits[static_cast<unsigned>(vm::ExitReason::Cpuid)] = 9;
    vm::ExitTimes times;
    vms.times = &times;
    EXPECT_TRUE(ask("exits web").ends_with("no exit since the measuring began\n"));
    for (u64 const ticks : {64U, 65U, 128U, 129U, 500'000'000U})
        times.add(vm::ExitReason::Cpuid, ticks);
    std::string const text = ask("exits web");
    EXPECT_NE(text.find("cpuid                        5 100000077 500000000        1        2        1"),
              std::string::npos)
        << text;
    vms.answer = std::unexpected("is off: start it first");
    EXPECT_EQ(ask("exits db on"), "db is off: start it first\n");
}

TEST_F(MonitorTest, ShowsTheEndOfTheLog) {
    for (int i = 0; i < 30; i++)
        kernel::log_info("line {} of the test", i);
    std::string const text = ask("log 2");
    EXPECT_EQ(std::ranges::count(text, '\n'), 2);
    EXPECT_NE(text.find("line 28 of the test\n"), std::string::npos) << text;
    EXPECT_TRUE(text.ends_with("line 29 of the test\n")) << text;
    EXPECT_EQ(std::ranges::count(ask("log"), '\n'), 20);
    EXPECT_EQ(ask("mem").substr(0, 18), "managed by Mullion") << "the prompt came back";
}

TEST_F(MonitorTest, MovesInterruptsThatExist) {
    EXPECT_EQ(ask("irq list"), "interrupt         CPU  vector      handled\n");
    std::string const last = std::to_string(kernel::cpu_count() - 1);
    EXPECT_EQ(ask("irq move serial 99"), "irq move: expected a CPU from 0 to " + last + ", found 99\n");
    EXPECT_EQ(ask("irq move serial 0x"), "irq move: expected a CPU from 0 to " + last + ", found 0x\n");
    EXPECT_EQ(ask("irq move serial 0"), "there is no interrupt serial; try irq list\n");
    EXPECT_EQ(ask("irq move serial"), "irq move: expected: irq move INTERRUPT CPU\n");
}

TEST_F(MonitorTest, ShowsTheDisksOfOneVmOrOfAll) {
    EXPECT_EQ(ask("disk show"), "no VM has a disk\n");
    EXPECT_EQ(ask("disk show db"), "this VM does not have a disk\n");
    config::DiskDescription const web[] = {{.size = lib::MiB}, {.size = 2 * lib::MiB, .iops = 50}};
    config::DiskDescription const db[] = {{.is_read_only = true, .size = lib::MiB}};
    vms.vms[0].disks = web;
    vms.vms[1].disks = db;
    std::string const rest = "  not in use: its VM does not run\n";
    std::string const first = "web disk 0: memory, 1024 KiB\n  no limit of rate\n" + rest;
    std::string const second = "web disk 1: memory, 2048 KiB\n  at most 50 requests a second\n" + rest;
    std::string const third = "db disk 0: memory, 1024 KiB, read-only\n  no limit of rate\n" + rest;
    EXPECT_EQ(ask("disk show"), first + second + third);
    EXPECT_EQ(ask("disk show web"), first + second);
    EXPECT_EQ(ask("disk show WEB 1"), second);
    EXPECT_EQ(ask("disk show db 0"), third);
    for (std::string const number : {"1", "-1", "x", "99999999999", "0x"})
        EXPECT_EQ(ask("disk show db " + number),
                  "disk show: expected a number below 1, as db has 1 disks, found " + number + "\n");
    EXPECT_EQ(ask("disk show nobody"), "there is no VM nobody; there are: web db\n");
    EXPECT_NE(type("disk show w\t\r").find("disk show web "), std::string::npos);
}

TEST_F(MonitorTest, ListsPciFunctions) {
    kernel::set_machine_pci(nullptr);
    EXPECT_EQ(ask("pci list"), "nobody has looked: Mullion was started with pci=off\n");
    fakes::PciMachine machine(cpu);
    machine.add_ports();
    fakes::PciFunction disk(0x0010'1b36, 0x01'0802);
    disk.set16(0x04, 0x0007);
    disk.add_bar(0x10, 0xfebf'0004, 0xffff'c000);
    disk.add_bar(0x14, 0x38, 0xffff'ffff);
    disk.add_bar(0x18, 0xc001, 0xffe0);
    disk.add_bar(0x30, 0, 0xfffc'0001);
    disk.add_capability(0x40, 0x11);
    disk.set16(0x42, 64);
    machine.add({0, 3, 0}, disk);
    fakes::PciFunction bridge(0x0001'1b36, 0x06'0400, 1);
    bridge.set8(0x19, 1);
    bridge.set8(0x1a, 3);
    machine.add({0, 1, 0}, bridge);
    auto const config = std::make_unique<kernel::PciConfig>(kernel::PciConfig::Map{});
    config->find_ports();
    kernel::Pci pci(*config);
    kernel::set_machine_pci(&pci);
    EXPECT_EQ(ask("pci list"), "this machine has no PCI functions\n");
    ASSERT_TRUE(pci.find_functions());
    pci.stop_unowned();
    EXPECT_EQ(ask("pci list"), "00:01.0  1b36:0001  PCI bridge to buses 01-03; Mullion's\n"
                               "00:03.0  1b36:0010  NVMe controller; nobody's, stopped, 65 MSI-X\n"
                               "         BAR 0  0x38febf0000, 16 KiB, 64-bit\n"
                               "         BAR 2  0xc000, 32 ports\n"
                               "         ROM    no address, 256 KiB\n");
    kernel::set_machine_pci(nullptr);
}

TEST_F(MonitorTest, ALongListOfPciFunctionsComesOutAsTheLineTakesIt) {
    fakes::PciMachine machine(cpu);
    machine.add_ports();
    fakes::PciFunction const nic(0x100e'8086, 0x02'0000);
    for (u8 bus = 0; bus < 20; bus++)
        for (u8 device = 0; device < 32; device++)
            machine.add({bus, device, 0}, nic).set16(2, bus);
    auto const config = std::make_unique<kernel::PciConfig>(kernel::PciConfig::Map{});
    config->find_ports();
    kernel::Pci pci(*config);
    ASSERT_TRUE(pci.find_functions());
    kernel::set_machine_pci(&pci);
    ask("mem"); // the monitor is open
    line.room = 1'000;
    type("pci list\r");
    std::string all = line.out;
    EXPECT_EQ(all.find("13:1f.0"), std::string::npos);
    for (int i = 0; i < 100 && !all.ends_with("mullion> \x1b[K"); i++) {
        line.room = 10'000;
        type("");
        all += line.out;
    }
    EXPECT_NE(all.find("13:1f.0  8086:0013  Ethernet controller; nobody's\r\n"), std::string::npos)
        << all.substr(all.size() - std::min<std::size_t>(all.size(), 400));
    EXPECT_EQ(std::ranges::count(all, ';'), 640);
    kernel::set_machine_pci(nullptr);
}

TEST_F(MonitorTest, CompletesCommandsAndNames) {
    ask("");
    EXPECT_EQ(type("vm k\td\t"), "vm kill db ");
    EXPECT_EQ(type("\x15"
                   "ex\tw\t"),
              "mullion> exits web ");
    EXPECT_EQ(type("\x15help vm sto\t"), "mullion> help vm stop ");
    EXPECT_EQ(type("\x15vm set d\tex\tt\t"), "mullion> vm set db exclusive=true ");
}

TEST_F(MonitorTest, DrawsItsLineAgainBelowALogLine) {
    ask("");
    type("vm li");
    console.write_log("[   1.000000] something\n");
    EXPECT_EQ(type(""), "mullion> vm li");
    EXPECT_EQ(type(""), "");
}

TEST_F(MonitorTest, NoLogLineCutsALineOfAnAnswer) {
    vms.meanwhile = [this] { console.write_log("[   1.000000] something\n"); };
    EXPECT_NE(ask("version").find("VT-x: nothing"), std::string::npos);
}

TEST_F(MonitorTest, DrawsItsLineAgainBetweenTwoKeys) {
    ask("");
    vms.meanwhile = [this] { console.write_log("[   1.000000] something\n"); };
    std::string const shown = type("vm kill w\tnow");
    EXPECT_TRUE(shown.ends_with("\n[   1.000000] something\neb mullion> vm kill web now")) << shown;
}

} // namespace
