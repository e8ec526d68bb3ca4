#include <boot/modules.hpp>
#include <kernel/direct_map.hpp>

namespace boot {

void Modules::add_all(Multiboot2 const& information) {
    for (u32 i = 0; i < information.module_count(); i++) {
        auto const module = information.module(i);
        if (!module) continue;
        auto const name = module->string.substr(0, module->string.find(' '));
        if (!modules_.push_back({name, {kernel::phys_to_virt<u8>(module->start), module->size()}})) return;
    }
}

std::span<u8 const> const* Modules::find(std::string_view name) const {
    for (Module const& module : modules_)
        if (module.name == name) return &module.bytes;
    return nullptr;
}

Modules::Module const* Modules::description() const {
    for (Module const& module : modules_)
        if (module.name == "config" || module.name.ends_with(".toml")) return &module;
    return nullptr;
}

void Modules::list(lib::TextSink& sink) const {
    if (modules_.size() == 0) sink.write("none");
    std::string_view separator = "";
    for (Module const& module : modules_) {
        lib::format(sink, "{}{}", separator, module.name);
        separator = ", ";
    }
}

} // namespace boot
