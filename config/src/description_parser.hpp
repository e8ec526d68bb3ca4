// SPDX-License-Identifier: MIT
#pragma once
// Reads a description: tables and keys of VMs in description.cpp, devices of VMs in description_devices.cpp, networks
// in description_networks.cpp, and what their routers need in description_nat.cpp.
#include "toml_reader.hpp"
#include <config/description.hpp>
#include <lib/fixed_vector.hpp>

namespace config {

inline constexpr std::array<std::string_view, 2> vm_table_names = {"disk", "nic"};
enum class DiskKey : u8 { Source, Readonly, Serial, Iops, Bandwidth };
inline constexpr std::array<std::string_view, 5> disk_key_names = {"source", "readonly", "serial", "iops", "bandwidth"};
enum class NicKey : u8 { Network, Mac };
inline constexpr std::array<std::string_view, 2> nic_key_names = {"network", "mac"};
inline constexpr std::array<std::string_view, network_key_count> network_key_names = {
    "uplink", "mode", "subnet", "address", "gateway", "dns", "forward"};

inline std::string_view short_of(std::string_view text) { return text.substr(0, 40); }

class DescriptionParser {
public:
    DescriptionParser(std::string_view text, Description& out, Diagnostics& diagnostics)
        : reader_(text), out_(out), diagnostics_(diagnostics) {}

    void run();

private:
    enum class Section : u8 { None, Vm, Disk, Nic, Network, Mullion, Skipped };

    bool is_about_vm() const {
        return section_ == Section::Vm || section_ == Section::Disk || section_ == Section::Nic;
    }

    // A mistake found by `body` refuses the VM or network that the text is about by then.
    template <typename Body> void counting(Body body) {
        u32 const before = diagnostics_.count + diagnostics_.dropped;
        body();
        if (diagnostics_.count + diagnostics_.dropped == before) return;
        if (is_about_vm()) vm_->is_refused = true;
        if (section_ == Section::Network) network_->is_refused = true;
    }
    void header();
    void vm_header(std::string_view name, u32 line, u32 column);
    void array_header(u32 line, u32 column);
    void device_header(std::string_view name, std::string_view kind, u32 line, u32 column);
    void disk_header(VmDescription& vm, u32 line, u32 column);
    void nic_header(VmDescription& vm, u32 line, u32 column);
    void network_header(std::string_view name, u32 line, u32 column);
    void key_and_value();
    void end_of_line();
    void unknown(std::string_view what, std::string_view word, std::span<std::string_view const> names, u32 line,
                 u32 column);
    void set_of_mullion(std::string_view word, Value const& value, u32 line, u32 column);
    void set_of_disk(std::string_view word, Value const& value, u32 line, u32 column);
    void set_of_nic(std::string_view word, Value const& value, u32 line, u32 column);
    void set_of_network(std::string_view word, Value const& value, u32 line, u32 column);
    void set_uplink(Value const& value);
    void set_of_nat(NetworkKey key, Value const& value);
    void set_mode(Value const& value);
    void set_subnet(std::string_view key, Value const& value, SubnetDescription& target);
    void set_address(std::string_view key, Value const& value, u32& target);
    void set_forwards(Value const& value);
    void add_forward(Value const& item);
    void find_networks_of_nics();
    void check_network();
    void check_nat();
    void check_addresses();
    void check_forwards();
    void give_addresses();
    u32 address_of(std::string_view vm) const;
    void not_yet(std::string_view word, u32 line, u32 column);
    void set_mac(Value const& value);
    void check_nics(VmDescription& vm);
    void check_mac(VmDescription const& vm, NicDescription const& nic);
    void set_source(Value const& value);
    void set_serial(Value const& value);
    void set_bandwidth(Value const& value);
    void set(Key key, Value const& value);
    void set_memory(Value const& value);
    void set_cpus(Value const& value);
    void set_modules(Value const& value);
    // Of an array.
    void for_each_item(Value const& list, void (DescriptionParser::*add)(Value const&));
    void add_module(Value const& item);
    bool take_text(std::string_view key, Value const& value, std::string_view& target);
    void set_share(Value const& value);
    void set_string(Key key, Value const& value, std::string_view& target);
    void set_boolean(std::string_view key, Value const& value, bool& target);
    void set_number(std::string_view key, Value const& value, u32 least, u32 most, u32& target);
    template <typename Enum>
    void set_choice(Key key, Value const& value, std::span<std::string_view const> names, Enum& target);
    void check(VmDescription& vm);

    template <typename... Args> void here(std::string_view format, Args const&... args) {
        diagnostics_.add(reader_.line(), reader_.column(), format, args...);
    }
    template <typename... Args> void at(Value const& value, std::string_view format, Args const&... args) {
        diagnostics_.add(value.line, value.column, format, args...);
    }

    TomlReader reader_;
    Description& out_;
    Diagnostics& diagnostics_;
    Section section_ = Section::None;
    VmDescription* vm_ = nullptr;
    DiskDescription* disk_ = nullptr;
    std::array<u32, disk_key_names.size()> disk_lines_{}; // of its keys
    NicDescription* nic_ = nullptr;
    NetworkDescription* network_ = nullptr;
    // VMs whose devices come before their [vm.NAME]: they must not be started without. Of some the name did not fit.
    lib::FixedVector<std::string_view, max_vms> without_devices_;
    bool has_dropped_names_ = false;
    bool has_mullion_ = false;
    u32 share_cores_line_ = 0;
};

} // namespace config
