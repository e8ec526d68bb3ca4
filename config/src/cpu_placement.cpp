// SPDX-License-Identifier: MIT
#include "description_values.hpp"
#include <charconv>
#include <config/cpu_placement.hpp>
#include <utility>

namespace config {
namespace {

constexpr u32 own_cpu = 0; // Mullion's

CpuSet own() {
    CpuSet set;
    set.add(own_cpu);
    return set;
}

template <typename... Args>
bool refuse(PlacementProblem& problem, Key key, std::string_view format, Args const&... args) {
    problem.key = key;
    problem.length = static_cast<u16>(lib::format_to(problem.text, format, args...).size());
    return false;
}

// A list of processors within a message.
struct ListText {
    explicit ListText(CpuSet const& cpus) {
        lib::BufferSink sink(text);
        format_cpus(sink, cpus);
        length = sink.view().size();
    }
    std::string_view view() const { return {text.data(), length}; }
    std::array<char, 48> text{};
    std::size_t length = 0;
};

// One VM's wish against all others.
class Check {
public:
    Check(Description const& description, u32 index, CpuPlacement const& wanted, HostCpus const& host,
          PlacementProblem& problem)
        : description_(description), vm_(description.vms[index]), wanted_(wanted), host_(host), problem_(problem) {}

    bool run() const { return exist() && (wanted_.exclusive ? exclusive() : shared()); }

private:
    template <typename Body> bool others(Body body) const {
        for (u32 i = 0; i < description_.count; i++) {
            VmDescription const& other = description_.vms[i];
            if (&other != &vm_ && !other.is_refused && !body(other)) return false;
        }
        return true;
    }

    // Where nobody else can run while somebody has these to himself.
    CpuSet taken_by(CpuSet const& cpus) const { return description_.share_cores ? cpus : host_.cores_of(cpus); }

    bool exist() const {
        CpuSet const missing = wanted_.cpus.without(CpuSet::first(host_.count));
        if (missing.is_empty()) return true;
        return refuse(
            problem_, Key::Cpus,
            "cpus: expected processors of this machine, which has 0 to {}, found {}: leave out what it has not",
            host_.count - 1, ListText(missing).view());
    }

    bool exclusive() const {
        if (wanted_.cpus.has(own_cpu))
            return refuse(problem_, Key::Cpus,
                          "cpus: expected processors other than {}, where Mullion does its own work, for exclusive = "
                          "true, found {}: leave it out",
                          own_cpu, ListText(wanted_.cpus).view());
        if (!wanted_.cpus.is_empty() && wanted_.cpus.count() < vm_.vcpus)
            return refuse(problem_, Key::Cpus,
                          "cpus: expected at least {} processors for {} exclusive vcpus, found {}: add processors",
                          vm_.vcpus, vm_.vcpus, wanted_.cpus.count());
        return others([&](VmDescription const& other) { return leaves_alone(other); }) && is_enough();
    }

    bool leaves_alone(VmDescription const& other) const {
        CpuSet const taken = taken_by(wanted_.cpus);
        if ((taken & other.cpus).next(0) == max_cpus) return true;
        u32 const common = (wanted_.cpus & other.cpus).next(0);
        if (other.exclusive && common == max_cpus)
            return refuse(
                problem_, Key::Cpus,
                "cpus: expected processors of cores that no other VM has to itself, found a thread of the core "
                "of {}, which [vm.{}] of line {} has: choose another",
                (taken & other.cpus).next(0), other.name, other.line);
        if (other.exclusive)
            return refuse(
                problem_, Key::Cpus,
                "cpus: expected processors that no other VM has to itself, found {}, which [vm.{}] of line {} "
                "has: choose another",
                common, other.name, other.line);
        if (!other.cpus.without(taken).is_empty()) return true;
        return refuse(
            problem_, Key::Cpus,
            "cpus: expected to leave [vm.{}] of line {} a processor, found all that it may use: choose others",
            other.name, other.line);
    }

    // Whoever names no processors takes what is left.
    bool is_enough() const {
        CpuSet named = taken_by(wanted_.cpus);
        u32 unnamed = wanted_.cpus.is_empty() ? vm_.vcpus : 0;
        others([&](VmDescription const& other) {
            if (other.exclusive && other.cpus.is_empty()) unnamed += other.vcpus;
            if (other.exclusive) named |= taken_by(other.cpus);
            return true;
        });
        u32 const free = CpuSet::first(host_.count).without(own()).without(named).count();
        if (unnamed <= free) return true;
        return refuse(problem_, Key::Exclusive,
                      "exclusive: expected at most {} vcpus with a processor to themselves, beside those with cpus and "
                      "Mullion's own processor {}, found {}: lower vcpus or share processors",
                      free, own_cpu, unnamed);
    }

    bool shared() const {
        if (wanted_.cpus.is_empty()) return true;
        CpuSet rest = wanted_.cpus;
        others([&](VmDescription const& other) {
            if (other.exclusive) rest = rest.without(taken_by(other.cpus));
            return true;
        });
        if (!rest.is_empty()) return true;
        return refuse(
            problem_, Key::Cpus,
            "cpus: expected a processor of a core that no other VM has to itself, found only such, {}: choose "
            "another",
            ListText(wanted_.cpus).view());
    }

    Description const& description_;
    VmDescription const& vm_;
    CpuPlacement const& wanted_;
    HostCpus const& host_;
    PlacementProblem& problem_;
};

bool take_value(std::string_view text, u32 least, u32 most, u32& out) {
    u32 value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) return false;
    out = value;
    return true;
}

} // namespace

CpuSet HostCpus::cores_of(CpuSet const& cpus) const {
    CpuSet result;
    for (u32 cpu = 0; cpu < count; cpu++)
        for (u32 other = 0; cpus.has(cpu) && other < count; other++)
            if (core[other] == core[cpu]) result.add(other);
    return result;
}

bool check_placement(Description const& description, u32 index, CpuPlacement const& wanted, HostCpus const& host,
                     PlacementProblem& problem) {
    return Check(description, index, wanted, host, problem).run();
}

void check_placements(Description& description, HostCpus const& host, Diagnostics& diagnostics) {
    // Those behind count only once they have been found good themselves.
    std::array<bool, max_vms> was_refused{};
    for (u32 i = 0; i < description.count; i++)
        was_refused[i] = std::exchange(description.vms[i].is_refused, true);
    for (u32 i = 0; i < description.count; i++) {
        VmDescription& vm = description.vms[i];
        if (was_refused[i]) continue;
        PlacementProblem problem;
        vm.is_refused = !check_placement(description, i, vm, host, problem);
        if (vm.is_refused) diagnostics.add(vm.line_of(problem.key), 1, "{}", problem.message());
    }
}

CpuSet processors_for(Description const& description, u32 index, CpuPlacement const& wanted, u32 cpu_count) {
    CpuSet const all = CpuSet::first(cpu_count);
    if (!wanted.cpus.is_empty()) return wanted.cpus.without(wanted.cpus.without(all));
    if (!wanted.exclusive) return all;
    CpuSet rest = all.without(own());
    for (u32 i = 0; i < description.count; i++)
        if (i != index && !description.vms[i].is_refused && description.vms[i].exclusive)
            rest = rest.without(description.vms[i].cpus);
    return rest;
}

bool change_placement(std::string_view word, CpuPlacement& placement, lib::TextSink& error) {
    auto const equals = word.find('=');
    auto const key = word.substr(0, equals);
    auto const value = equals == std::string_view::npos ? std::string_view{} : word.substr(equals + 1);
    if (key == "cpus") {
        CpuSet cpus;
        if (value != "any" && !parse_cpu_list(value, cpus)) {
            lib::format(error, "cpus: expected processors such as 1-2,4 or any, found {}", value);
            return false;
        }
        placement.cpus = cpus;
        return true;
    }
    if (key == "exclusive") {
        if (value != "true" && value != "false") {
            lib::format(error, "exclusive: expected true or false, found {}", value);
            return false;
        }
        placement.exclusive = value == "true";
        return true;
    }
    if (key == "weight") {
        if (take_value(value, 1, 10'000, placement.share.weight)) return true;
        lib::format(error, "weight: expected 1 to 10000, found {}", value);
        return false;
    }
    if (key == "cap") {
        if (take_value(value, 0, 100, placement.share.cap)) return true;
        lib::format(error, "cap: expected percent of a CPU, 1 to 100, or 0 for none, found {}", value);
        return false;
    }
    lib::format(error, "expected cpus=, exclusive=, weight= or cap=, found {}", word);
    return false;
}

void format_cpus(lib::TextSink& sink, CpuSet const& cpus) {
    if (cpus.is_empty()) return sink.write("any");
    std::string_view separator;
    for (u32 cpu = 0; cpu < max_cpus; cpu++) {
        if (!cpus.has(cpu)) continue;
        u32 last = cpu;
        while (cpus.has(last + 1))
            last++;
        lib::format(sink, "{}{}", separator, cpu);
        if (last > cpu) lib::format(sink, "-{}", last);
        separator = ",";
        cpu = last;
    }
}

} // namespace config
