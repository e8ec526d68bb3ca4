// SPDX-License-Identifier: MIT
#pragma once
// A controller of the machine, as Mullion gives it to this service.
#include <bit>
#include <lib/device_function.hpp>
#include <lib/service_board.hpp>
#include <runtime/service.hpp>

namespace runtime {

class MachineFunction final : public lib::DeviceFunction {
public:
    constexpr MachineFunction() = default;
    void set(lib::u32 number, lib::service::ControllerEntry const& entry) {
        number_ = number;
        entry_ = &entry;
    }

    lib::u32 read(lib::u32 bar, lib::u32 offset, lib::u32 width) override {
        if (entry_->bars[bar].is_ports != 0) return static_cast<lib::u32>(port(Call::ReadPort, bar, offset, width, 0));
        lib::u64 const at = lib::service::bar_window(number_, bar) + offset;
        if (width == 1) return *reinterpret_cast<lib::u8 volatile*>(at);
        if (width == 2) return *reinterpret_cast<lib::u16 volatile*>(at);
        return *reinterpret_cast<lib::u32 volatile*>(at);
    }
    void write(lib::u32 bar, lib::u32 offset, lib::u32 width, lib::u32 value) override {
        if (entry_->bars[bar].is_ports != 0) return static_cast<void>(port(Call::WritePort, bar, offset, width, value));
        lib::u64 const at = lib::service::bar_window(number_, bar) + offset;
        if (width == 1)
            *reinterpret_cast<lib::u8 volatile*>(at) = static_cast<lib::u8>(value);
        else if (width == 2)
            *reinterpret_cast<lib::u16 volatile*>(at) = static_cast<lib::u16>(value);
        else
            *reinterpret_cast<lib::u32 volatile*>(at) = value;
    }
    lib::u64 bar_size(lib::u32 bar) const override { return bar < lib::service::max_bars ? entry_->bars[bar].size : 0; }
    lib::u32 configuration(lib::u32 offset) override {
        return static_cast<lib::u32>(call(Call::ReadConfiguration, offset));
    }
    void set_bus_master(bool on) override { (void)call(Call::BusMaster, on ? 1 : 0); }
    void log(std::string_view line) override { runtime::log("{}: {}", entry_->name, line); }
    Shared shared() override {
        return {{reinterpret_cast<lib::u8*>(lib::service::dma_window(number_)), lib::service::dma_size},
                entry_->dma_address};
    }
    lib::u64 ticks_per_millisecond() const override { return runtime::ticks_of_milliseconds(1); }

private:
    using Call = lib::service::Call;
    lib::u64 call(Call number, lib::u64 argument) const {
        return runtime::system_call(static_cast<lib::u64>(number), number_, argument);
    }
    lib::u64 port(Call number, lib::u32 bar, lib::u32 offset, lib::u32 width, lib::u32 value) const {
        return call(number,
                    std::bit_cast<lib::u64>(lib::service::PortAccess{
                        value, static_cast<lib::u16>(offset), static_cast<lib::u8>(bar), static_cast<lib::u8>(width)}));
    }

    lib::u32 number_ = 0;
    lib::service::ControllerEntry const* entry_ = nullptr;
};

} // namespace runtime
