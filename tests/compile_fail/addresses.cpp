// SPDX-License-Identifier: MIT
// Addresses of different spaces never mix.
#include <kernel/direct_map.hpp>
#include <lib/types.hpp>

using namespace lib;

void takes(HostPhys);
void takes(HostPhys) {}

void use();
void use() {
    HostPhys const host{0x1000};
    [[maybe_unused]] GuestPhys const guest{0x1000};
#if WRONG == 1 // expect: no matching function for call to 'takes'
    takes(guest);
#elif WRONG == 2 // expect: no matching function for call to 'takes'
    takes(u64{0x1000});
#elif WRONG == 3 // expect: no viable conversion
    u64 const number = host;
    (void)number;
#elif WRONG == 4 // expect: invalid operands to binary expression
    (void)(host - guest);
#elif WRONG == 5 // expect: invalid operands to binary expression
    (void)(host < guest);
#elif WRONG == 6 // expect: no matching function for call to 'phys_to_virt'
    (void)kernel::phys_to_virt<u8>(guest);
#elif WRONG == 7 // expect: invalid operands to binary expression
    (void)(host + host);
#elif WRONG == 8 // expect: no viable conversion
    Nanos const time = u64{5};
    (void)time;
#else
    takes(host + 5);
#endif
}
