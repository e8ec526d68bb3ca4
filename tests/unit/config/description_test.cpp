// SPDX-License-Identifier: MIT
#include "parsed.hpp"

#include <fstream>
#include <iterator>

namespace {

using namespace config;

TEST(Description, TheExampleIsSound) {
    std::ifstream file(EXAMPLES "/linux.toml");
    std::string const text((std::istreambuf_iterator<char>(file)), {});
    ASSERT_FALSE(text.empty());
    Parsed const parsed(text);
    EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
    ASSERT_EQ(parsed.description.count, 1U);
    EXPECT_EQ(parsed.vm().name, "linux");
    EXPECT_EQ(parsed.vm().memory, 256 * lib::MiB);
    EXPECT_EQ(parsed.vm().kernel, "vmlinuz");
    EXPECT_EQ(parsed.vm().initrd, "initrd");
    EXPECT_EQ(parsed.vm().cmdline, "console=ttyS0");
}

TEST(Description, TheExampleOfANetworkIsSound) {
    std::ifstream file(EXAMPLES "/network.toml");
    std::string const text((std::istreambuf_iterator<char>(file)), {});
    Parsed const parsed(text);
    EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
    ASSERT_EQ(parsed.description.count, 2U);
    EXPECT_EQ(parsed.vm(0).nic_count + parsed.vm(1).nic_count, 2U);
}

TEST(Description, TheExampleOfSeveralIsSound) {
    std::ifstream file(EXAMPLES "/two-linux.toml");
    std::string const text((std::istreambuf_iterator<char>(file)), {});
    Parsed const parsed(text);
    EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
    EXPECT_EQ(parsed.description.count, 3U);
}

TEST(Description, EveryKey) {
    Parsed const parsed(
        "[mullion]\n[vm.web-1]\nmemory = '1 GiB'\nvcpus = 0x2\ncpus = [1,\n  2, # two\n 4,]\nexclusive = true\n"
        "kernel = \"a\\\\b\\u00e9\"\ninitrd = 'i\\n'\ncmdline = \"\"\nboot = \"multiboot2\"\n"
        "console = \"none\"\nrestart = \"on-failure\"\nautostart = false\r\n"
        "[vm.b]\nmemory=\"16M\"\nkernel=\"k\"\nshare = {weight = 1_000, cap=20}\ncpus = \"0,8 - 9\"");
    EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
    ASSERT_EQ(parsed.description.count, 2U);
    VmDescription const& vm = parsed.vm();
    EXPECT_EQ(vm.memory, lib::GiB);
    EXPECT_EQ(vm.vcpus, 2U);
    EXPECT_EQ(vm.cpus.count(), 3U);
    EXPECT_TRUE(vm.cpus.has(1) && vm.cpus.has(2) && vm.cpus.has(4));
    EXPECT_TRUE(vm.exclusive);
    EXPECT_EQ(vm.kernel, "a\\b\xc3\xa9");
    EXPECT_EQ(vm.initrd, "i\\n") << "no escapes between '";
    EXPECT_EQ(vm.boot, BootKind::Multiboot2);
    EXPECT_EQ(vm.console, ConsoleKind::None);
    EXPECT_EQ(vm.restart, RestartPolicy::OnFailure);
    EXPECT_EQ(parsed.vm(1).restart, RestartPolicy::OnReboot);
    EXPECT_FALSE(vm.autostart);
    EXPECT_EQ(vm.line_of(Key::Vcpus), 4U);
    EXPECT_EQ(vm.line_of(Key::Exclusive), 8U);
    EXPECT_EQ(vm.line_of(Key::Share), 2U) << "not given: the table's line";
    EXPECT_FALSE(vm.has(Key::Share));
    EXPECT_EQ(parsed.vm(1).share.weight, 1000U);
    EXPECT_EQ(parsed.vm(1).share.cap, 20U);
    EXPECT_EQ(parsed.vm(1).cpus.count(), 3U);
}

TEST(DescriptionTest, KeysOfMullion) {
    std::string const vm = "[vm.a]\nmemory = \"64M\"\nkernel = \"k\"\n[mullion]\n";
    Parsed const good(vm + "share_cores = true\n");
    EXPECT_TRUE(good.description.share_cores);
    EXPECT_EQ(good.messages(), std::vector<std::string>{});
    EXPECT_EQ(Parsed(vm + "share_core = true\n").message(),
              "f:5: share_core: expected a known key of [mullion], found an unknown one: did you mean share_cores?");
    EXPECT_EQ(Parsed(vm + "share_cores = 1\n").message(),
              "f:5: share_cores: expected true or false, found 1: write it without quotes");
    EXPECT_EQ(Parsed(vm + "share_cores = true\nshare_cores = false\n").message(),
              "f:6: share_cores: expected once, found also in line 5: remove one");
}

TEST(Description, Modules) {
    Parsed const parsed = with("modules = [\"dom0.gz console=hvc0\", # first\n 'ext2fs',\n \"c \\u0041  b\",]\n");
    EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
    auto const modules = parsed.vm().all_modules();
    ASSERT_EQ(modules.size(), 3U);
    EXPECT_EQ(modules[0].name, "dom0.gz");
    EXPECT_EQ(modules[0].text, "dom0.gz console=hvc0");
    EXPECT_EQ(modules[0].line, 4U);
    EXPECT_EQ(modules[1].name, "ext2fs");
    EXPECT_EQ(modules[1].text, "ext2fs");
    EXPECT_EQ(modules[1].line, 5U);
    EXPECT_EQ(modules[2].name, "c");
    EXPECT_EQ(modules[2].text, "c A  b");
    EXPECT_TRUE(with("modules = []").good);
    EXPECT_EQ(
        with("modules = \"dom0.gz\"").message(),
        "f:4: modules: expected a list such as [\"dom0.gz console=hvc0\"], found \"dom0.gz\": write it in brackets");
    for (std::string const item : {"\"\"", "\" x\"", "5", "[\"a\"]"})
        EXPECT_EQ(with("modules = [\"a\",\n " + item + "]").message(),
                  "f:5: modules: expected \"NAME\" or \"NAME COMMAND LINE\", found " + item +
                      ": write the module's name first");
    EXPECT_TRUE(with("modules = ['1', '2', '3', '4', '5', '6', '7', '8']").good);
    Parsed const many = with("modules = ['1', '2', '3', '4', '5', '6', '7', '8', '9']");
    EXPECT_EQ(many.message(), "f:4: modules: expected at most 8, found more: remove some");
    EXPECT_TRUE(many.vm().is_refused);
}

// One sound VM with one disk.
Parsed with_disk(std::string const& lines) { return with("[[vm.a.disk]]\n" + lines); }

TEST(Description, Disks) {
    Parsed const parsed =
        with("[vm.b]\nkernel = \"k\"\nmemory = \"64M\"\n[[ vm . a . disk ]] # first\nsource = \"ram:64M\"\n"
             "[[vm.b.disk]]\nsource = 'module:root.img'\nreadonly = true\nserial = \"a \\u0041~\"\n"
             "[mullion]\n[[vm.a.disk]]\nserial = '12345678901234567890'\nsource = \"ram: 1 GiB\"\r\n");
    EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
    ASSERT_EQ(parsed.description.count, 2U);
    auto const disks = parsed.vm().all_disks();
    ASSERT_EQ(disks.size(), 2U);
    EXPECT_EQ(disks[0].kind, DiskKind::Ram);
    EXPECT_EQ(disks[0].size, 64 * lib::MiB);
    EXPECT_EQ(disks[0].serial, "mullion-0");
    EXPECT_FALSE(disks[0].is_read_only);
    EXPECT_EQ(disks[0].line, 7U);
    EXPECT_EQ(disks[0].source_line, 8U);
    EXPECT_EQ(disks[1].size, lib::GiB);
    EXPECT_EQ(disks[1].serial, "12345678901234567890");
    ASSERT_EQ(parsed.vm(1).disk_count, 1U);
    DiskDescription const& disk = parsed.vm(1).disks[0];
    EXPECT_EQ(disk.kind, DiskKind::Module);
    EXPECT_EQ(disk.name, "root.img");
    EXPECT_EQ(disk.size, 0U);
    EXPECT_EQ(disk.serial, "a A~");
    EXPECT_TRUE(disk.is_read_only);
    EXPECT_EQ(with_disk("source = \"module:\\u0041\"").vm().disks[0].name, "A");
    EXPECT_EQ(with_disk("source = \"gpt:web root\"").vm().disks[0].kind, DiskKind::Partition);
    EXPECT_EQ(with_disk("source = \"gpt:web root\"").vm().disks[0].name, "web root");
    EXPECT_EQ(with_disk("source = 'disk:S1'").vm().disks[0].kind, DiskKind::Disk);
    EXPECT_EQ(with_disk("source = \"ram:1M\"\n[[vm.a.disk]]\nsource = \"ram:1T\"").vm().disks[1].serial, "mullion-1");
}

TEST(Description, LimitsOfRateOfDisks) {
    Parsed const parsed = with_disk("source = \"ram:1M\"\niops = 1\nbandwidth = \"64K\"\n"
                                    "[[vm.a.disk]]\nbandwidth = \"1 TiB\"\niops = 10_000_000\nsource = \"ram:1M\"\n"
                                    "[[vm.a.disk]]\nsource = \"ram:1M\"\n");
    ASSERT_TRUE(parsed.good) << parsed.message();
    auto const disks = parsed.vm().all_disks();
    EXPECT_EQ(disks[0].iops, 1U);
    EXPECT_EQ(disks[0].bandwidth, 64 * lib::KiB);
    EXPECT_EQ(disks[1].iops, 10'000'000U);
    EXPECT_EQ(disks[1].bandwidth, 1024 * lib::GiB);
    EXPECT_EQ(disks[2].iops, 0U);
    EXPECT_EQ(disks[2].bandwidth, 0U);
    constexpr char const* wrong_number = "f:6: iops: expected a number from 1 to 10000000, found ";
    constexpr char const* wrong_size = "f:6: bandwidth: expected bytes a second such as \"10M\" or \"1 GiB\", found ";
    constexpr char const* beyond = "f:6: bandwidth: expected 64 KiB to 1 TiB a second, found ";
    for (auto const& [line, message] : {
             std::pair{"iops = 0", std::string(wrong_number) + "0: correct it"},
             {"iops = -1", std::string(wrong_number) + "-1: correct it"},
             {"iops = 10000001", std::string(wrong_number) + "10000001: correct it"},
             {"iops = \"50\"", std::string(wrong_number) + "\"50\": correct it"},
             {"bandwidth = 1000000", std::string(wrong_size) + "1000000: write number and unit in quotes"},
             {"bandwidth = \"1000000\"", std::string(wrong_size) + "\"1000000\": write number and unit in quotes"},
             {"bandwidth = \"10M/s\"", std::string(wrong_size) + "\"10M/s\": write number and unit in quotes"},
             {"bandwidth = \"63K\"", std::string(beyond) + "\"63K\": choose a number between"},
             {"bandwidth = \"1025G\"", std::string(beyond) + "\"1025G\": choose a number between"},
             {"iop = 1",
              std::string("f:6: iop: expected a known key of a disk, found an unknown one: did you mean iops?")},
         }) {
        Parsed const bad = with_disk(std::string("source = \"ram:1M\"\n") + line);
        EXPECT_EQ(bad.message(), message);
        EXPECT_TRUE(bad.vm().is_refused) << line;
    }
    EXPECT_EQ(with_disk("source = \"ram:1M\"\niops = 1\niops = 1").message(),
              "f:7: iops: expected once, found also in line 6: remove one");
}

TEST(Description, MistakesInDisks) {
    struct Mistake {
        char const* lines;
        char const* message;
    };
    for (Mistake const& mistake : {
             Mistake{"", "f:4: [[vm.a.disk]]: expected source = ..., found none: add it"},
             {"readonly = true", "f:4: [[vm.a.disk]]: expected source = ..., found none: add it"},
             {"source = \"gpt:\"", "f:5: source: expected \"gpt:LABEL\", \"disk:SERIAL\", \"module:NAME\" or "
                                   "\"ram:SIZE\", found \"gpt:\": choose one"},
             {"source = \"module:\"", "f:5: source: expected \"gpt:LABEL\", \"disk:SERIAL\", \"module:NAME\" or "
                                      "\"ram:SIZE\", found \"module:\": choose one"},
             {"source = 5", "f:5: source: expected \"gpt:LABEL\", \"disk:SERIAL\", \"module:NAME\" or \"ram:SIZE\", "
                            "found 5: choose one"},
             {"source = \"ram:\"",
              "f:5: source: expected a size such as \"ram:256M\" or \"ram:1 GiB\", found \"ram:\": "
              "write number and unit"},
             {"source = \"ram:64\"", "f:5: source: expected a size such as \"ram:256M\" or \"ram:1 GiB\", found "
                                     "\"ram:64\": write number and unit"},
             {"source = \"ram:1023K\"",
              "f:5: source: expected 1 MiB to 1 TiB, found \"ram:1023K\": choose a size between"},
             {"source = \"ram:2T\"", "f:5: source: expected 1 MiB to 1 TiB, found \"ram:2T\": choose a size between"},
             {"source = \"ram:1025K\"", "f:5: source: expected a multiple of 4 KiB, found \"ram:1025K\": write "
                                        "\"ram:1028K\""},
             {"source = \"ram:64M",
              "f:5: source: expected a closing \" in the same line, found \"\": correct the value"},
             {"source = \"ram:1M\"\nsource = \"ram:2M\"",
              "f:6: source: expected once, found also in line 5: remove one"},
             {"source = \"ram:1M\"\nserial = ''", "f:6: serial: expected a text of 1 to 20 printable characters, found "
                                                  "'': write \"...\""},
             {"source = \"ram:1M\"\nserial = 'a23456789 123456789 1'",
              "f:6: serial: expected a text of 1 to 20 printable characters, found 'a23456789 123456789 1': write "
              "\"...\""},
             {"source = \"ram:1M\"\nserial = \"\\n\"", "f:6: serial: expected a text of 1 to 20 printable characters, "
                                                       "found \"\\n\": write \"...\""},
             {"source = \"ram:1M\"\nserial = 7",
              "f:6: serial: expected a text of 1 to 20 printable characters, found 7: "
              "write \"...\""},
             {"source = \"ram:1M\"\nreadonly = 1", "f:6: readonly: expected true or false, found 1: write it without "
                                                   "quotes"},
             {"source = \"ram:1M\"\nread_only = true",
              "f:6: read_only: expected a known key of a disk, found an unknown "
              "one: did you mean readonly?"},
             {"source = \"ram:1M\"\nmemory = \"64M\"", "f:6: memory: expected a known key of a disk, found an unknown "
                                                       "one: remove it"},
         }) {
        Parsed const parsed = with_disk(mistake.lines);
        EXPECT_EQ(parsed.message(), mistake.message);
        EXPECT_TRUE(parsed.vm().is_refused) << mistake.lines;
    }
    std::string four;
    for (int i = 0; i < 4; ++i)
        four += "[[vm.a.disk]]\nsource = \"ram:1M\"\n";
    Parsed const good = with(four);
    EXPECT_TRUE(good.good);
    EXPECT_EQ(good.vm().disks[3].serial, "mullion-3");
    Parsed const five = with(four + "[[vm.a.disk]]\nsource = \"what\"\n");
    EXPECT_EQ(five.message(), "f:12: [[vm.a.disk]]: expected at most 4 disks, found more: remove some");
    EXPECT_TRUE(five.vm().is_refused);
}

TEST(Description, TablesInTwoBrackets) {
    std::string const other =
        "f:4: expected [[vm.NAME.disk]] or [[vm.NAME.nic]], found another table in two brackets: correct it, or "
        "write one bracket for [vm.NAME]";
    for (char const* const header : {"[[vm.a.disk]", "[[vm.a.disk", "[[vm.a]]", "[[vm.a.disk.b]]", "[[]]", "[[",
                                     "[[vm..disk]]", "[[vn.a.disk]]", "[[vm.a.disk] ]", "[[vm.\"a\".disk]]"})
        EXPECT_EQ(with(header).message(), other) << header;
    EXPECT_EQ(with("[[vm.a.dsk]]").message(),
              "f:4: dsk: expected a known table of a VM, found an unknown one: did you mean disk?");
    EXPECT_EQ(with("[[vm.a.port]]\nx = 1").message(),
              "f:4: port: expected a known table of a VM, found an unknown one: remove it");
    EXPECT_EQ(with("[vm.a.disk]").message(),
              "f:4: expected ] or [[vm.NAME.disk]], found \".disk]\": write two brackets for a disk or a NIC");
    EXPECT_EQ(with("[[vm.a.disk]] x\nsource = \"ram:1M\"").message(),
              "f:4: expected the end of the line, found x: start a new line");
}

TEST(Description, ADiskComesAfterItsVm) {
    Parsed const parsed("[[vm.b.disk]]\nsource = \"ram:1M\"\n[vm.a]\nmemory = \"64M\"\nkernel = \"k\"\n"
                        "[vm.b]\nmemory = \"64M\"\nkernel = \"k\"\n");
    EXPECT_EQ(parsed.message(), "f:1: [[vm.b.disk]]: expected after [vm.b], found none above it: move or add that");
    ASSERT_EQ(parsed.description.count, 2U);
    EXPECT_FALSE(parsed.vm(0).is_refused);
    EXPECT_TRUE(parsed.vm(1).is_refused) << "it must not start without its disk";
    Parsed const never = with("[[vm.z.disk]]\nsource = \"ram:1M\"");
    EXPECT_EQ(never.message(), "f:4: [[vm.z.disk]]: expected after [vm.z], found none above it: move or add that");
    EXPECT_FALSE(never.vm().is_refused);
    std::string many;
    for (int i = 0; i < 17; ++i)
        many += "[[vm.v" + std::to_string(i) + ".disk]]\n";
    Parsed const dropped(many + "[vm.a]\nmemory = \"64M\"\nkernel = \"k\"\n");
    EXPECT_TRUE(dropped.vm().is_refused) << "one of them may be its own";
}

TEST(Description, Sizes) {
    for (auto const& [text, size] : {std::pair{"256M", 256 * lib::MiB},
                                     {"1G", lib::GiB},
                                     {"512 MiB", 512 * lib::MiB},
                                     {"2gb", 0 * lib::GiB},
                                     {"16384K", 16 * lib::MiB},
                                     {"1TiB", 1024 * lib::GiB},
                                     {"256", u64{0}},
                                     {"99999999999999999999M", u64{0}},
                                     {"", u64{0}},
                                     {"M", u64{0}},
                                     {"-1G", u64{0}}}) {
        Parsed const parsed("[vm.a]\nkernel = \"k\"\nmemory = \"" + std::string(text) + "\"");
        EXPECT_EQ(parsed.vm().memory, size) << text;
        EXPECT_EQ(parsed.good, size != 0) << text;
    }
}

TEST(Description, MessagesSayWhatToDo) {
    EXPECT_EQ(with("memroy = 1").message(),
              "f:4: memroy: expected a known key, found an unknown one: did you mean memory?");
    EXPECT_EQ(with("colour = 1").message(), "f:4: colour: expected a known key, found an unknown one: remove it");
    EXPECT_EQ(with("vcpus = 0").message(), "f:4: vcpus: expected a number from 1 to 32, found 0: correct it");
    EXPECT_EQ(with("vcpus = \"2\"").message(), "f:4: vcpus: expected a number from 1 to 32, found \"2\": correct it");
    EXPECT_EQ(with("memory = \"64M\"").message(), "f:4: memory: expected once, found also in line 2: remove one");
    EXPECT_EQ(with("boot = \"uefi\"").message(),
              "f:4: boot: expected one of \"auto\", \"linux\", \"pvh\", \"elf\", \"multiboot1\", \"multiboot2\", "
              "found \"uefi\": choose one");
    EXPECT_EQ(
        with("autostart = yes").message(),
        "f:4: autostart: expected a string in quotes, a number, true, false or [ ], found \"yes\": correct the value");
    EXPECT_EQ(with("name = \"x\"").message(),
              "f:4: name: expected in [vm.a], found as a key: the name stands in the brackets");
    EXPECT_EQ(with("initrd = \"\"").message(),
              "f:4: initrd: expected the name of a boot module, found nothing: write it or remove the line");
    EXPECT_EQ(with("vcpus = 1 2").message(), "f:4: expected the end of the line, found 2: start a new line");
    EXPECT_EQ(with("vcpus").message(), "f:4: vcpus: expected = behind the key, found \"\": write KEY = VALUE");
    EXPECT_EQ(with("[vm.a]").message(),
              "f:4: [vm.a]: expected a new name, found the one of line 1: choose another name");
    EXPECT_EQ(with("[vn.b]").message(), "f:4: vn: expected a known table, found an unknown one: did you mean vm?");
    EXPECT_EQ(with("[[vm]]").message(),
              "f:4: expected [[vm.NAME.disk]] or [[vm.NAME.nic]], found another table in two brackets: correct it, or "
              "write one bracket for [vm.NAME]");
    EXPECT_EQ(with("exclusive = true\nshare = { weight = 5 }").message(),
              "f:5: share: expected only without exclusive = true, found both: remove one of them");
    EXPECT_EQ(with("exclusive = true\nvcpus = 3\ncpus = \"1-2\"").message(),
              "f:6: cpus: expected at least 3 processors for exclusive vcpus, found 2: add processors");
    EXPECT_EQ(with("share = { wieght = 5 }").message(),
              "f:4: wieght: expected a known key of share, found an unknown one: did you mean weight?");
    EXPECT_EQ(with("share = { weight = 5, weight = 6 }").message(),
              "f:4: share: expected weight once, found it again: remove one");
    EXPECT_EQ(with("cpus = [1, 256]").message(), "f:4: cpus: expected processors such as \"1-2,4\" or [1, 2, 4], each "
                                                 "below 256, found [1, 256]: correct the list");
}

TEST(Description, UnquotedSizeIsOneMessage) {
    EXPECT_EQ(
        Parsed("[vm.a]\nkernel = \"k\"\nmemory = 256M").message(),
        "f:3: memory: expected a string in quotes, a number, true, false or [ ], found \"256M\": correct the value");
    EXPECT_EQ(Parsed("[vm.a]\nkernel = \"k\"\nmemory = \"17M\"").message(),
              "f:3: memory: expected a multiple of 2 MiB, found \"17M\": write \"18M\"");
    EXPECT_EQ(Parsed("[vm.a]\nkernel = \"k\"\nmemory = \"8M\"").message(),
              "f:3: memory: expected 16 MiB to 16 TiB, found \"8M\": choose a size between");
}

TEST(Description, CpuLists) {
    for (char const* const bad :
         {"\"\"", "\"1-\"", "\"3-1\"", "\"1,,2\"", "\"1;2\"", "[]", "[\"1\"]", "[-1]", "\"0-256\"", "4"})
        EXPECT_EQ(with(std::string("cpus = ") + bad).diagnostics.count, 1U) << bad;
    EXPECT_EQ(with("cpus = \"0-255\"").vm().cpus.count(), 256U);
}

TEST(Description, MissingKeys) {
    std::vector<std::string> const expected = {"f:1: [vm.a]: expected memory = ..., found none: add it",
                                               "f:1: [vm.a]: expected kernel = ..., found none: add it"};
    EXPECT_EQ(Parsed("[vm.a]").messages(), expected);
    EXPECT_EQ(Parsed("# nothing\n").message(),
              "f:2: no virtual machine: expected at least one [vm.NAME], found none: add one");
}

TEST(Description, GoesOnAfterAnError) {
    std::vector<std::string> const messages =
        Parsed("x = 1\n[vm.a]\nmemory = \"64\nkernel = 'k'\n[vm]\n?\n[vm.b\n[vm.c]\nmemory = \"64M\"\nkernel = 3")
            .messages();
    ASSERT_EQ(messages.size(), 6U);
    std::vector<std::string> lines;
    for (std::string const& message : messages)
        lines.push_back(message.substr(0, 4));
    EXPECT_EQ(lines, (std::vector<std::string>{"f:1:", "f:3:", "f:5:", "f:6:", "f:7:", "f:10"}));
}

TEST(Description, KeepsSixteenMessagesAndCountsTheRest) {
    std::string text = "[vm.a]\nmemory = \"64M\"\nkernel = \"k\"\n";
    for (int i = 0; i < 20; ++i)
        text += "zzzzzzz = 1\n";
    Parsed const parsed(text);
    EXPECT_EQ(parsed.diagnostics.count, 16U);
    EXPECT_EQ(parsed.diagnostics.dropped, 4U);
    EXPECT_FALSE(parsed.good);
}

TEST(Description, AtMostSixteenMachines) {
    std::string text;
    for (int i = 0; i < 17; ++i)
        text += "[vm.v" + std::to_string(i) + "]\nmemory = \"64M\"\nkernel = \"k\"\n";
    EXPECT_EQ(Parsed(text).message(), "f:49: [vm.v16]: expected at most 16 virtual machines, found more: remove some");
}

TEST(Description, WhatIsNotTextIsShownAsQuestionMarks) {
    EXPECT_EQ(with("\x01\x80").message(), "f:4: expected a key or [vm.NAME], found \"??\": write KEY = VALUE");
}

TEST(Description, Strings) {
    EXPECT_EQ(with("cmdline = \"a # b\" # c").vm().cmdline, "a # b");
    EXPECT_EQ(with("cmdline = \"\\U0001F600\\t\"").vm().cmdline, "\xf0\x9f\x98\x80\t");
    for (char const* const bad : {"\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\u0000\"", "\"\"\"a\"\"\"", "'''a'''",
                                  "\"a", "'a", "\"a\tb\x01\""})
        EXPECT_EQ(with(std::string("cmdline = ") + bad).diagnostics.count, 1U) << bad;
}

TEST(Description, Numbers) {
    EXPECT_EQ(with("vcpus = 1_6").vm().vcpus, 16U);
    EXPECT_EQ(with("vcpus = 0b11").vm().vcpus, 3U);
    for (char const* const bad : {"1_", "_1", "1__2", "01", "0x", "1.0", "-1", "9223372036854775808", "1e2"})
        EXPECT_EQ(with(std::string("vcpus = ") + bad).diagnostics.count, 1U) << bad;
}

TEST(Description, DeepNestingEnds) { EXPECT_EQ(with("cpus = " + std::string(1000, '[')).diagnostics.count, 1U); }

TEST(Description, AMistakeRefusesOnlyTheVmThatItIsIn) {
    Parsed const parsed(
        "[vm.a]\nmemory = \"64M\"\nkernel = \"k\"\n[vm.b]\nmemory = 5\nkernel = \"k\"\n"
        "[vm.c]\nmemory = \"64M\"\n[vm.a]\nmemory = \"1T\"\n[vm.d]\nmemory = \"64M\"\nkernel = \"k\"\n");
    ASSERT_EQ(parsed.description.count, 4U);
    EXPECT_FALSE(parsed.good);
    EXPECT_FALSE(parsed.vm(0).is_refused) << "the second of the name is, and is not there at all";
    EXPECT_TRUE(parsed.vm(1).is_refused);
    EXPECT_TRUE(parsed.vm(2).is_refused);
    EXPECT_FALSE(parsed.vm(3).is_refused);
    EXPECT_EQ(parsed.vm(0).memory, 64 * lib::MiB);
}

TEST(Description, AMistakeOutsideOfTheTablesRefusesNobody) {
    Parsed const parsed("x = 1\n[vm.a]\nmemory = \"64M\"\nkernel = \"k\"\n[other]\ny = 2\n");
    EXPECT_EQ(parsed.messages().size(), 2U);
    ASSERT_EQ(parsed.description.count, 1U);
    EXPECT_FALSE(parsed.vm().is_refused);
}

} // namespace
