// SPDX-License-Identifier: MIT
// Control words are types of their own, and so are their bits.
#include <lib/x86/registers.hpp>
#include <vmx/controls.hpp>

using namespace vmx;

void use(PinControls pin, CpuControls cpu);
void use(PinControls pin, CpuControls cpu) {
#if WRONG == 1 // expect: no viable overloaded '='
    pin = cpu;
#elif WRONG == 2 // expect: no viable overloaded '='
    pin = 5U;
#elif WRONG == 3 // expect: no matching function for call to 'adjust'
    (void)adjust(pin, cpu, 0);
#elif WRONG == 4 // expect: no viable conversion
    lib::u32 const raw = pin;
    (void)raw;
#elif WRONG == 5 // expect: static assertion failed
    using Outside = Bits<u32, 32>;
    (void)Outside::mask;
#elif WRONG == 6 // expect: invalid operands to binary expression
    (void)(pin == cpu);
#else
    pin.set<PinControls::NmiExiting>(true);
    (void)adjust(pin, pin, 0);
    (void)cpu;
#endif
}
