// SPDX-License-Identifier: MIT
#include <check/description_check.hpp>

#include <cerrno>
#include <config/cpu_placement.hpp>
#include <config/description.hpp>
#include <lib/fixed_vector.hpp>
#include <loader/bios.hpp>
#include <loader/e820.hpp>
#include <loader/guest_acpi_tables.hpp>
#include <loader/image.hpp>
#include <string.h>
#include <sys/mman.h>

namespace check {
namespace {

// What Mullion itself takes, beside 4 % of the guests' memory at most.
constexpr u64 own_memory = 32 * lib::MiB;
// GRUB's command line must be able to name it, as a path and as a word. A folder may be part of it.
bool is_module_name(std::string_view name) {
    for (char const c : name) {
        bool const is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_plain && std::string_view("._+-/").find(c) == std::string_view::npos) return false;
    }
    return !name.empty();
}

// Guest RAM that is there as soon as it is touched. The loaders see the same holes as in the hypervisor.
class ScratchMemory {
public:
    explicit ScratchMemory(u64 size) : size_(size) {
        void* const at =
            mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        base_ = at == MAP_FAILED ? nullptr : static_cast<u8*>(at);
        u64 const low = below_hole();
        pieces_[0] = {lib::GuestPhys{0}, low, base_};
        pieces_[1] = {lib::GuestPhys{4 * lib::GiB}, size - low, base_ + low};
    }
    ScratchMemory(ScratchMemory const&) = delete;
    ScratchMemory& operator=(ScratchMemory const&) = delete;
    ~ScratchMemory() {
        if (base_ != nullptr) munmap(base_, size_);
    }
    bool is_there() const { return base_ != nullptr; }
    u64 below_hole() const { return size_ < loader::mmio_hole_start ? size_ : loader::mmio_hole_start; }
    u64 above_hole() const { return size_ - below_hole(); }
    lib::GuestMemory memory() const { return lib::GuestMemory(std::span(pieces_).first(above_hole() == 0 ? 1 : 2)); }

private:
    u64 size_;
    u8* base_;
    std::array<lib::RamPiece, 2> pieces_{};
};

class Checker {
public:
    Checker(Request const& request, lib::TextSink& messages, lib::TextSink& list)
        : request_(request), messages_(messages), list_(list),
          shown_(request.shown_as.empty() ? std::string_view(request.description) : request.shown_as) {}

    Outcome run() {
        if (!text_.read(request_.description)) {
            complain(0, "{}", std::string_view(strerror(errno)));
            return outcome_;
        }
        config::Diagnostics diagnostics;
        (void)config::parse_description(text_.text(), description_, diagnostics);
        if (request_.cpus != 0) config::check_placements(description_, config::HostCpus(request_.cpus), diagnostics);
        for (u32 i = 0; i < diagnostics.count; i++) {
            auto const& found = diagnostics.entries[i];
            complain(found.line, "{}", found.message());
        }
        if (diagnostics.dropped != 0) complain(0, "and {} more mistakes", diagnostics.dropped);
        outcome_.vms = description_.count;
        u64 sum = 0;
        for (u32 i = 0; i < description_.count; i++) {
            auto const& vm = description_.vms[i];
            u64 disks = 0;
            check_vm(vm, disks);
            if (vm.autostart) sum += vm.memory + disks;
        }
        if (request_.memory != 0 && sum + own_memory > request_.memory)
            complain(0,
                     "the VMs that start by themselves want {} MiB and Mullion {} MiB, and the machine has {} MiB; "
                     "lower memory =, make disks smaller or set autostart = false",
                     sum / lib::MiB, own_memory / lib::MiB, request_.memory / lib::MiB);
        return outcome_;
    }

private:
    template <typename... Args> void complain(u32 line, std::string_view format, Args const&... args) {
        ++outcome_.complaints;
        messages_.write(shown_);
        if (line != 0) lib::format(messages_, ":{}", line);
        messages_.write(": ");
        lib::format(messages_, format, args...);
        messages_.write("\n");
    }

    // What names a file in the description.
    struct Named {
        u32 line;
        std::string_view key, prefix, name;
    };
    template <typename... Args> void complain(Named const& named, std::string_view format, Args const&... args) {
        std::array<char, 600> text{};
        complain(named.line, "{} = \"{}{}\": {}", named.key, named.prefix, named.name,
                 lib::format_to(text, format, args...));
    }

    // Adds to `disks` the memory that the VM's disks take.
    void check_vm(config::VmDescription const& vm, u64& disks) {
        File kernel, initrd;
        std::array<File, config::max_modules> files;
        lib::FixedVector<loader::BootModule, config::max_modules> modules;
        bool const has_kernel =
            !vm.kernel.empty() && open({vm.line_of(config::Key::Kernel), "kernel", "", vm.kernel}, kernel);
        bool const has_initrd =
            vm.initrd.empty() || open({vm.line_of(config::Key::Initrd), "initrd", "", vm.initrd}, initrd);
        for (auto const& disk : vm.all_disks()) {
            File file;
            disks += disk.size;
            if (disk.kind != config::DiskKind::Module) continue;
            Named const named{disk.source_line, "source", "module:", disk.name};
            if (!open(named, file)) continue;
            if (file.bytes().empty()) complain(named, "the file is empty, and a disk is not");
            disks += file.bytes().size();
        }
        for (auto const& module : vm.all_modules()) {
            File& file = files[modules.size()];
            if (!open({module.line, "modules", "", module.name}, file)) return;
            (void)modules.push_back({file.bytes(), module.text});
        }
        if (has_kernel && has_initrd && !vm.is_refused) load(vm, kernel, initrd, modules.span());
    }

    bool open(Named const& named, File& file) {
        std::string_view const name = named.name;
        if (!is_module_name(name)) {
            complain(named, "expected a file's name, of letters, digits and . _ + - /");
            return false;
        }
        for (NamedFile const& given : request_.files)
            if (given.name == name) return open_at(named, given.path, file);
        if (name.starts_with('/')) return open_at(named, name, file);
        std::string_view const own(request_.description);
        auto const slash = own.rfind('/');
        std::string_view const beside =
            slash == std::string_view::npos ? std::string_view(".") : own.substr(0, slash + 1);
        if (try_folder(name, beside, file)) return true;
        for (std::string_view const folder : request_.folders)
            if (try_folder(name, folder, file)) return true;
        std::array<char, 500> places{};
        lib::BufferSink sink(places);
        for (std::string_view const folder : request_.folders)
            lib::format(sink, ", {}", folder);
        complain(named, "there is no such file in {}{}", beside, sink.view());
        return false;
    }

    bool try_folder(std::string_view name, std::string_view folder, File& file) {
        Path path;
        path.append(folder);
        if (!folder.ends_with('/')) path.append("/");
        path.append(name);
        if (!path.is_valid() || !file.read(path.c_str())) return false;
        list(name, path.view());
        return true;
    }

    bool open_at(Named const& named, std::string_view place, File& file) {
        Path path;
        path.append(place);
        if (path.is_valid() && file.read(path.c_str())) {
            list(named.name, place);
            return true;
        }
        complain(named, "{}: {}", place, std::string_view(strerror(errno)));
        return false;
    }

    void list(std::string_view name, std::string_view path) {
        if (request_.wants_files) lib::format(list_, "{}\t{}\n", name, path);
    }

    // As VirtualMachine::load() does it.
    void load(config::VmDescription const& vm, File const& kernel, File const& initrd,
              std::span<loader::BootModule const> modules) {
        ScratchMemory const scratch(vm.memory);
        if (!scratch.is_there()) {
            complain(vm.line_of(config::Key::Memory), "this computer has no address space to try {} MiB",
                     vm.memory / lib::MiB);
            return;
        }
        auto const memory = scratch.memory();
        auto const map = loader::make_e820_map(scratch.below_hole(), scratch.above_hole());
        auto const rsdp = loader::write_acpi_tables(memory, {vm.vcpus, scratch.above_hole(), 40});
        if (!map || !rsdp || !loader::write_bios(memory, *map)) {
            complain(vm.line_of(config::Key::Memory), "memory: no memory map can be made of this size");
            return;
        }
        loader::BootInput const input{kernel.bytes(), initrd.bytes(), vm.cmdline, map->entries(),
                                      *rsdp,          nullptr,        modules};
        auto const entry = loader::load_guest(vm.boot, input, memory);
        if (entry) return;
        std::array<char, 300> reason{};
        lib::BufferSink sink(reason);
        loader::format_load_error(sink, entry.error());
        complain(vm.line_of(config::Key::Kernel), "kernel = \"{}\": {}", vm.kernel, sink.view());
    }

    Request const& request_;
    lib::TextSink& messages_;
    lib::TextSink& list_;
    std::string_view shown_;
    File text_;
    config::Description description_;
    Outcome outcome_;
};

} // namespace

Outcome check_description(Request const& request, lib::TextSink& messages, lib::TextSink& list) {
    return Checker(request, messages, list).run();
}

} // namespace check
