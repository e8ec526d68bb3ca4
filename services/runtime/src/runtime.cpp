// SPDX-License-Identifier: MIT
#include <lib/assert.hpp>
#include <lib/x86/instructions.hpp>
#include <runtime/service.hpp>

extern "C" [[noreturn]] void runtime_start();

namespace runtime {
namespace {

using lib::service::Call;

// Mullion looks at it before it loads anything. [linker script: first in the file]
[[gnu::section(".program_header"), gnu::used]] constinit lib::service::ProgramHeader const program_header{
    lib::service::program_magic, lib::service::abi_version, 0};

u64 call(Call number, u64 first, u64 second) { return system_call(static_cast<u64>(number), first, second); }

} // namespace

u64 system_call(u64 number, u64 first, u64 second) {
    u64 result = number;
    asm volatile("int %1" : "+a"(result) : "i"(lib::service::system_call_vector), "D"(first), "S"(second) : "memory");
    return result;
}

lib::service::Manifest const& manifest() {
    return *reinterpret_cast<lib::service::Manifest const*>(lib::service::manifest_at);
}

u64 wait(u64 mask, u64 deadline) { return call(Call::Wait, mask, deadline); }

void log(std::string_view line) {
    line = line.substr(0, lib::service::longest_line);
    (void)call(Call::Log, reinterpret_cast<u64>(line.data()), line.size());
}

void stop(std::string_view why) {
    call(Call::Stop, reinterpret_cast<u64>(why.data()), why.size());
    __builtin_unreachable();
}

u64 ticks() { return lib::x86::rdtsc(); }

} // namespace runtime

void runtime_start() {
    runtime::service_main();
    runtime::stop("its program has ended");
}

namespace lib {
void assertion_failed(char const* what, char const* file, int line) {
    char text[160];
    runtime::stop(format_to(text, "assertion failed: {} at {}:{}", what, file, line));
}
} // namespace lib
