// SPDX-License-Identifier: MIT
// The composition root: from GRUB's hand-off to the guests, and what the boot CPU does from then on.
#include <boot/bring_up.hpp>
#include <boot/cpu_setup.hpp>
#include <boot/machine.hpp>
#include <boot/memory_setup.hpp>
#include <boot/multiboot2.hpp>
#include <boot/pci.hpp>
#include <boot/run_vms.hpp>
#include <boot/screen.hpp>
#include <config/command_line.hpp>
#include <kernel/cpus.hpp>
#include <kernel/direct_map.hpp>
#include <kernel/entry_pages.hpp>
#include <kernel/heap.hpp>
#include <kernel/log.hpp>
#include <kernel/panic.hpp>
#include <kernel/run_loop.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
#include <manage/modules.hpp>
#include <manage/version.hpp>
#include <svm/backend.hpp>
#include <vmx/backend.hpp>

namespace boot {
namespace {

constinit kernel::Cpu boot_cpu;
constinit manage::Modules modules;
constinit CpuSetup cpu_setup;

// Options are parsed before there is a log; their complaints wait here.
constinit std::array<char, 1024> complaints{};

void report_memory(MemorySummary const& summary) {
    auto const use = kernel::memory_use();
    u64 const own = summary.ram - summary.modules - use.free;
    kernel::log_info("memory: {} MiB RAM; Mullion has {} KiB of it (image {} KiB), boot modules {} KiB; {} MiB free",
                     summary.ram / lib::MiB, own / lib::KiB, summary.own_image / lib::KiB, summary.modules / lib::KiB,
                     use.free / lib::MiB);
    if (use.lost != 0)
        kernel::log_warning("memory: {} KiB are not used: the firmware's map has them in too many pieces",
                            use.lost / lib::KiB);
}

template <typename Vendor, typename Disabled>
kernel::Own<vm::Backend> create_backend(std::string_view option, std::string_view words) {
    Disabled disabled;
    if (!disabled.parse(words))
        kernel::log_warning("{}={}: expected some of {}", option, words, Disabled::known_words());
    auto backend = Vendor::create(disabled);
    if (!backend) kernel::refuse_to_start(backend.error().what, backend.error().remedy);
    return kernel::Own<vm::Backend>(backend->release());
}

kernel::Own<vm::Backend> choose_backend(config::Options const& options) {
    if (kernel::cpu_features().is_amd)
        return create_backend<svm::Backend, svm::Disabled>("svm-disable", options.svm_disable);
    if (kernel::cpu_features().is_intel)
        return create_backend<vmx::Backend, vmx::Disabled>("vmx-disable", options.vmx_disable);
    auto const vendor = lib::x86::cpuid(0);
    std::array<lib::u32, 3> const name{vendor.ebx, vendor.edx, vendor.ecx};
    std::array<char, 160> text{};
    kernel::refuse_to_start(
        lib::format_to(text, "this CPU is made by \"{}\": neither Intel with VT-x nor AMD (or Hygon) with AMD-V",
                       std::string_view(reinterpret_cast<char const*>(name.data()), sizeof(name))),
        "use a machine whose CPU has Intel VT-x or AMD-V; in a virtual machine choose such a CPU model");
}

void add_modules(Multiboot2 const& information) {
    for (u32 i = 0; i < information.module_count(); i++) {
        auto const module = information.module(i);
        if (module && !modules.add(module->string, {kernel::phys_to_virt<u8>(module->start), module->size()})) return;
    }
}

} // namespace

extern "C" void boot_main(lib::u32 information_at);
extern "C" void boot_main(lib::u32 information_at) {
    boot_cpu.self = &boot_cpu;
    lib::x86::wrmsr(lib::x86::IA32_GS_BASE, reinterpret_cast<u64>(&boot_cpu));

    auto const* const bytes = kernel::phys_to_virt<u8>(HostPhys{information_at});
    auto const size = Multiboot2::total_size({bytes, 8});
    auto const information = Multiboot2::parse({bytes, size.value_or(0)});
    config::Options options;
    lib::BufferSink complaint_sink(complaints);
    if (information) config::parse_command_line(information->command_line(), options, complaint_sink);
    start_early_console(information ? &*information : nullptr, options);
    kernel::log_info("Mullion starts: version {} ({})", manage::version, manage::commit);
    if (!complaint_sink.view().empty()) kernel::log_warning("options: {}", complaint_sink.view());
    if (!information)
        kernel::refuse_to_start("the loader's boot information is damaged", "boot with GRUB 2's command multiboot2");

    kernel::detect_cpu_features();
    auto const summary = set_up_memory(*information, HostPhys{information_at}, *size);
    if (!summary)
        kernel::refuse_to_start("there is too little usable memory",
                                "a machine needs at least 32 MiB; check the loader's memory map");
    kernel::build_idt();
    kernel::initialise_cpu(boot_cpu, 0);
    kernel::register_cpu(boot_cpu);
    cpu_setup.find_microcode(*information);
    cpu_setup.prepare_boot_cpu();
    kernel::choose_service_page_tables(options.service_page_tables);
    kernel::enable_cpu_protections();
    if (options.screen) start_framebuffer(*information);
    start_machine(*information, options);
    if (!add_high_memory(*information, HostPhys{information_at}, *size, acpi_info()))
        kernel::refuse_to_start("there is too little memory below 4 GiB for page tables",
                                "check the loader's memory map");
    report_memory(*summary);
    start_pci(*information, options);

    auto backend = choose_backend(options);
    if (auto const enabled = backend->enable_on_this_cpu(); !enabled)
        kernel::refuse_to_start(enabled.error().what, enabled.error().remedy);
    std::array<char, 400> features{};
    lib::BufferSink feature_sink(features);
    backend->describe(feature_sink);
    kernel::log_info("{}: {}", backend->name(), feature_sink.view());

    cpu_setup.set_backend(*backend);
    bring_up_cpus({acpi_info(), options.cpus, summary->startup_page,
                   lib::Delegate<std::expected<void, vm::Refusal>()>::to<&CpuSetup::prepare_other_cpu>(cpu_setup)});
    if (!kernel::start_scheduler({})) kernel::refuse_to_start("too little memory for the scheduler", "add memory");
    add_modules(*information);
    run_virtual_machines(modules, *backend, options.on_failure);
}

} // namespace boot
