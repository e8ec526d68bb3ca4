// SPDX-License-Identifier: MIT
#include <check/description_check.hpp>

#include "../loader/fake_guest.hpp"
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>

namespace {

// A folder with a description and a small ELF kernel, "kernel.elf", that is loaded at 1 MiB.
class DescriptionCheck : public testing::Test {
protected:
    void SetUp() override {
        std::string name = (std::filesystem::temp_directory_path() / "check-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder_ = name;
        write("kernel.elf", elf());
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    void write(std::string const& name, std::string const& text) const { std::ofstream(folder_ + "/" + name) << text; }

    static std::string elf() {
        std::vector<lib::u8> file;
        fakes::store(file, 0, 0x464c457f, 4);
        fakes::store(file, 4, 0x010101, 3); // ELF32, little-endian, version 1
        fakes::store(file, 0x10, 2 | 3 << 16, 4);
        fakes::store(file, 0x14, 1, 4);
        fakes::store(file, 0x18, 0x10'0000, 4); // entry
        fakes::store(file, 0x1c, 0x34, 4);      // program headers
        fakes::store(file, 0x28, 0x34 | 0x20 << 16, 4);
        fakes::store(file, 0x2c, 1, 4);
        lib::u64 const segment[] = {1, 0x80, 0x10'0000, 0x10'0000, 4, 4, 5, 4};
        for (std::size_t i = 0; i < 8; i++)
            fakes::store(file, 0x34 + 4 * i, segment[i], 4);
        fakes::store(file, 0x80, 0xf4, 4);
        return {file.begin(), file.end()};
    }

    // The messages with the folder's name cut out.
    std::string check(std::string const& text, check::Request request = {}) {
        write("vms.toml", text);
        std::string const path = folder_ + "/vms.toml";
        request.description = path.c_str();
        request.shown_as = "vms.toml";
        static std::array<char, 8000> said{}, listed{};
        lib::BufferSink messages(said), list(listed);
        outcome_ = check::check_description(request, messages, list);
        listed_ = list.view();
        std::string result(messages.view());
        for (auto at = result.find(folder_); at != std::string::npos; at = result.find(folder_))
            result.replace(at, folder_.size(), "DIR");
        return result;
    }

    std::string folder_, listed_;
    check::Outcome outcome_;
};

constexpr char good[] = "[vm.a]\nmemory = \"16M\"\nkernel = \"kernel.elf\"\n";

TEST_F(DescriptionCheck, AGoodOneHasNoComplaint) {
    EXPECT_EQ(check(good, {.cpus = 2, .memory = 64 * lib::MiB, .wants_files = true}), "");
    EXPECT_EQ(outcome_.complaints, 0U);
    EXPECT_EQ(outcome_.vms, 1U);
    EXPECT_EQ(listed_, "kernel.elf\t" + folder_ + "/kernel.elf\n");
}

TEST_F(DescriptionCheck, MistakesOfTheTextAreThoseOfTheHypervisor) {
    EXPECT_NE(check("[vm.a]\nmemory = \"16M\"\nkernel = \"kernel.elf\"\nvcpus = 99\n")
                  .find("vms.toml:4: vcpus: expected a number"),
              std::string::npos);
    EXPECT_NE(check("[vm.a\n").find("vms.toml:1: "), std::string::npos);
    EXPECT_NE(check("").find("vms.toml:1: no virtual machine"), std::string::npos);
}

TEST_F(DescriptionCheck, FilesAreFoundBesideItInFoldersAndByName) {
    std::string const text = std::string(good) + "initrd = \"other\"\n";
    EXPECT_EQ(check(text), "vms.toml:4: initrd = \"other\": there is no such file in DIR/\n");
    std::filesystem::create_directory(folder_ + "/more");
    write("more/other", "x");
    std::string const more = folder_ + "/more", file = more + "/other";
    std::string_view const folders[] = {more};
    EXPECT_EQ(check(text, {.folders = folders}), "");
    check::NamedFile const files[] = {{"other", file}};
    EXPECT_EQ(check(text, {.files = files}), "");
    EXPECT_NE(check("[vm.a]\nmemory = \"16M\"\nkernel = \"a b\"\n").find("expected a file's name"), std::string::npos);
    EXPECT_EQ(check("[vm.a]\nmemory = \"16M\"\nkernel = \"" + folder_ + "/kernel.elf\"\n"), "");
    std::filesystem::copy(folder_ + "/kernel.elf", more + "/kernel.elf");
    EXPECT_EQ(check("[vm.a]\nmemory = \"16M\"\nkernel = \"more/kernel.elf\"\n"), "");
    EXPECT_NE(check("[vm.a]\nmemory = \"16M\"\nkernel = \"more\"\n").find("no such file"), std::string::npos);
}

TEST_F(DescriptionCheck, ModulesAreFilesToo) {
    std::string const text = std::string(good) + "modules = [\"dom0 quiet\",\n \"lost x\"]\n";
    write("dom0", "x");
    EXPECT_EQ(check(text), "vms.toml:5: modules = \"lost\": there is no such file in DIR/\n");
    write("lost", "y");
    EXPECT_EQ(
        check(text, {.wants_files = true}),
        "vms.toml:3: kernel = \"kernel.elf\": modules: expected a Multiboot kernel, found another: remove modules = or "
        "choose another boot =\n");
    EXPECT_NE(listed_.find("dom0\t" + folder_ + "/dom0\nlost\t"), std::string::npos) << listed_;
}

TEST_F(DescriptionCheck, AFileOfADiskIsAFileToo) {
    std::string const text = std::string(good) + "[[vm.a.disk]]\nsource = \"module:root.img\"\n";
    EXPECT_EQ(check(text), "vms.toml:5: source = \"module:root.img\": there is no such file in DIR/\n");
    write("root.img", "");
    EXPECT_EQ(check(text), "vms.toml:5: source = \"module:root.img\": the file is empty, and a disk is not\n");
    write("root.img", "x");
    EXPECT_EQ(check(text, {.wants_files = true}), "");
    EXPECT_NE(listed_.find("root.img\t" + folder_ + "/root.img\n"), std::string::npos) << listed_;
    EXPECT_EQ(check(std::string(good) + "[[vm.a.disk]]\nsource = \"module:a b\"\n"),
              "vms.toml:5: source = \"module:a b\": expected a file's name, of letters, digits and . _ + - /\n");
}

TEST_F(DescriptionCheck, DisksTakeMemory) {
    std::string const text = std::string(good) + "[[vm.a.disk]]\nsource = \"ram:32M\"\n";
    EXPECT_NE(check(text, {.memory = 72 * lib::MiB}).find("want 48 MiB and Mullion 32 MiB, and the machine has 72 MiB"),
              std::string::npos);
    EXPECT_EQ(check(text, {.memory = 80 * lib::MiB}), "");
    write("root.img", std::string(lib::MiB, 'x'));
    EXPECT_NE(
        check(text + "[[vm.a.disk]]\nsource = \"module:root.img\"\n", {.memory = 80 * lib::MiB}).find("want 49 MiB"),
        std::string::npos);
}

TEST_F(DescriptionCheck, AKernelThatIsNoneIsRefused) {
    write("kernel.elf", "this is a text");
    EXPECT_NE(check(good).find("vms.toml:3: kernel = \"kernel.elf\": "), std::string::npos);
    write("kernel.elf", elf().substr(0, 0x40));
    EXPECT_NE(check(good).find("vms.toml:3: kernel = \"kernel.elf\": "), std::string::npos);
    write("kernel.elf", "");
    EXPECT_NE(check(good).find("vms.toml:3: kernel = \"kernel.elf\": "), std::string::npos);
}

TEST_F(DescriptionCheck, WhatTheMachineLacksIsTold) {
    EXPECT_NE(check(good, {.memory = 40 * lib::MiB}).find("want 16 MiB and Mullion 32 MiB, and the machine has 40 MiB"),
              std::string::npos);
    EXPECT_NE(check(std::string(good) + "cpus = \"5\"\n", {.cpus = 2}).find("vms.toml:4: "), std::string::npos);
    EXPECT_EQ(check(std::string(good) + "cpus = \"5\"\n"), "");
    EXPECT_EQ(check(std::string(good) + "autostart = false\n", {.memory = 40 * lib::MiB}), "");
}

TEST_F(DescriptionCheck, MoreThanTheHoleBelowFourGigabytesLeaves) {
    EXPECT_EQ(check("[vm.a]\nmemory = \"8G\"\nkernel = \"kernel.elf\"\n"), "");
}

} // namespace
